"""Pieces several pages show."""

from __future__ import annotations

from functools import partial

import streamlit as st

import segclip

from .. import answers, files
from ..state import Studio, Work

KINDS = {
    "overlay": "picture with the masks drawn on it",
    "png": "a black and white mask each",
    "cutout": "each object cut out, transparent around it",
    "labelmap": "one 16-bit picture of numbers, with a legend",
    "json": "record with boxes, scores, run-length masks",
    "coco": "COCO",
    "labelme": "LabelMe",
    "svg": "outlines",
    "geojson": "GeoJSON",
    "npz": "NumPy",
}


def download(shared: Studio, work: Work, *, key: str) -> None:
    """Offer the masks of the work as files; they are made when asked for, of what is there then."""
    formats = st.pills("Formats", list(KINDS), default=["png"], selection_mode="multi", key=f"formats-{key}", wrap=True)
    st.caption("; ".join(f"{name}: {KINDS[name]}" for name in formats) or "Choose at least one.")
    if formats:
        single = len(formats) == 1 and formats[0] not in ("png", "cutout", "labelmap")
        stem = work.image.source.rpartition("/")[2].rpartition(".")[0] or "picture"
        name = f"{stem}.{segclip.PER_IMAGE[formats[0]]}" if single else f"{stem}.masks.zip"
        make = partial(_data, shared, work, tuple(formats), zipped=not single)
        st.download_button(
            "Download masks", make, name, icon=":material/download:", on_click="ignore", key=f"get-{key}"
        )


def _data(shared: Studio, work: Work, formats: tuple[str, ...], *, zipped: bool) -> bytes:
    return files.pack(answers.answer(shared.models, work).chosen, formats, zipped=zipped)
