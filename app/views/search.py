"""The Search page: find images of the server's folder by text, or by the current image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st

import segclip

from .. import session
from ..plain import as_markdown
from ..state import CachedImage, Studio, Work
from . import parts

_COLUMNS = 3


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    wide, narrow = st.columns([4, 1], vertical_alignment="bottom")
    text = wide.text_input(
        "Find images of", key="search-text", placeholder="a red apple, then Enter"
    )
    like = narrow.toggle(
        "Similar to my image", key="search-like", help="Similar to the image on the Segment page"
    )
    _index(shared)
    if not (text.strip() or like):
        return
    try:
        found = segclip.find_matches(shared.index(), text, image=work.image if like else None)
    except segclip.SegclipError as problem:
        st.error(parts.problem(shared, str(problem)))
        return
    if not found:
        st.info("No matches.")
    columns = st.columns(_COLUMNS)
    for number, match in enumerate(found):
        with columns[number % _COLUMNS]:
            _card(shared, work, match, text)


@st.fragment(run_every=2.0)
def _index(shared: Studio) -> None:
    indexing = shared.indexing
    exists = shared.index_place().is_dir()
    if indexing.state == "done":
        shared.reopen_index()
        indexing.state = "ready"
    status, act = st.columns([4, 1], vertical_alignment="center")
    if indexing.busy:
        left = indexing.seconds_left(indexing.total)
        share = indexing.done / indexing.total if indexing.total else 0.0
        status.progress(
            min(1.0, share), f"Indexing: {indexing.done} of {indexing.total}, {left:.0f} s left"
        )
    elif indexing.state == "failed":
        status.error(parts.problem(shared, indexing.message))
    else:
        state = indexing.message or (
            "has an index" if exists else "has no index yet: make one to search it"
        )
        status.caption(as_markdown(f"Folder {shared.settings.photos.name}: {state}"))
    label = "Cancel" if indexing.busy else "Update index" if exists else "Make index"
    may = shared.settings.alone
    # checked again, for a browser may send anything
    if act.button(label, disabled=not may, width="stretch") and may:
        if label == "Cancel":
            indexing.cancel()
        else:
            indexing.start(shared.settings.photos, shared.index_place(), shared.settings.words)
        st.rerun(scope="fragment")


def _card(shared: Studio, work: Work, match: segclip.Match, text: str) -> None:
    """Show a match with its segment outlined; an image deleted since is reported."""
    try:
        image = segclip.load_image(match.path, max_pixels=shared.settings.max_pixels)
    except segclip.BadImage as problem:
        st.caption(parts.problem(shared, str(problem)))
        return
    image = replace(image, source=match.name)
    known = match.region is not None and image.size == match.size
    masks = shared.index().masks(match) if known else segclip.Masks.empty(image.size)
    small, masks = segclip.shrink(image, masks, 640)
    if len(masks):
        small = _outlined(small, masks, match.probability)
    st.image(small.pixels, as_markdown(f"{match.name}: {match.probability:.2f}"))
    open_ = partial(_open, work, match, text, shared.settings.max_pixels)
    st.button("Open in Segment", key=f"open-{match.name}", on_click=open_, width="stretch")


def _outlined(image: segclip.Image, masks: segclip.Masks, probability: float) -> segclip.Image:
    regions = segclip.Regions.bare(image, segclip.Proposals(masks, np.ones(len(masks))))
    result = segclip.Result.unranked(regions, probability)
    return segclip.Image(
        np.asarray(segclip.overlay(result, opacity=0.25, labels=False)), image.source
    )


def _open(work: Work, match: segclip.Match, text: str, most: int) -> None:
    with parts.storing_error():
        image = segclip.load_image(match.path, label=match.name, max_pixels=most)
        work.open(CachedImage(image), (text.strip(),) if text.strip() else ())
    st.session_state["goto"] = "segment"
