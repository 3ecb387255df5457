"""Elements that several pages share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import streamlit as st

import segclip

from .. import answers, files
from ..plain import as_markdown, file_name, without_paths
from ..state import Studio, Work

T = TypeVar("T")
KINDS = {
    "overlay": "image with the masks drawn on it",
    "png": "one black and white mask per object",
    "cutout": "each object on a transparent background",
    "labelmap": "one 16-bit image of mask numbers, with a legend",
    "json": "record with boxes, scores, run-length masks",
    "coco": "COCO",
    "labelme": "LabelMe",
    "svg": "outlines",
    "geojson": "GeoJSON",
    "npz": "NumPy",
}


def problem(shared: Studio, message: str) -> str:
    """Escape an error for the page; remote users do not see the server's folders."""
    hidden = message if shared.settings.alone else without_paths(message, shared.folders)
    return as_markdown(hidden)


@contextmanager
def storing_error(key: str = "error") -> Iterator[None]:
    """Store an error of the library in the session, for the next run of the page to display."""
    try:
        yield
    except segclip.SegclipError as problem:
        st.session_state[key] = str(problem)


def allowed(given: Iterable[T] | None, options: Iterable[T]) -> list[T]:
    """Return those of a widget's values that are options: a browser may send anything."""
    offered = list(options)
    return [value for value in given or () if value in offered]


def download(shared: Studio, work: Work, *, key: str) -> None:
    """Offer the work's masks for download; files are made from the state at the click."""
    chosen = st.pills(
        "Formats",
        list(KINDS),
        default=["png"],
        selection_mode="multi",
        key=f"formats-{key}",
        wrap=True,
    )
    formats = allowed(chosen, KINDS)
    st.caption("; ".join(f"{name}: {KINDS[name]}" for name in formats) or "Choose at least one.")
    if formats:
        single = len(formats) == 1 and formats[0] not in ("png", "cutout", "labelmap")
        stem = file_name(work.image.source).rpartition(".")[0] or "image"
        name = f"{stem}.{segclip.PER_IMAGE[formats[0]]}" if single else f"{stem}.masks.zip"
        make = partial(_data, shared, work, tuple(formats), zipped=not single)
        st.download_button(
            "Download masks",
            make,
            name,
            icon=":material/download:",
            on_click="ignore",
            key=f"get-{key}",
        )


def _data(shared: Studio, work: Work, formats: tuple[str, ...], *, zipped: bool) -> bytes:
    return files.pack(answers.answer(shared.models, work).chosen, formats, zipped=zipped)
