"""The Export page: the current masks in any format, and a batch of images from a zip."""

from __future__ import annotations

import streamlit as st

import segclip

from .. import answers, session
from ..plain import as_markdown
from ..state import MOST_TEXTS, Studio, Work
from . import parts

_EVERY = tuple(dict.fromkeys((*segclip.PER_IMAGE, *segclip.PER_RUN)))
_ZIP_MB = 200


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("These masks")
        _these(shared, work)
    with right:
        st.subheader("Many images")
        _batch(shared, work)


def _these(shared: Studio, work: Work) -> None:
    try:
        chosen = answers.answer(shared.models, work).chosen
    except segclip.SegclipError as problem:
        st.error(parts.problem(shared, str(problem)))
        return
    masks = f"{len(chosen)} mask" + "s" * (len(chosen) != 1)
    st.image(
        segclip.overlay(chosen),
        as_markdown(f"{work.image.source}: {masks}, as on the Segment page"),
    )
    if len(chosen):
        parts.download(shared, work, key="export")
    else:
        st.info("There is nothing to export: segment something on the Segment page first.")


def _batch(shared: Studio, work: Work) -> None:
    st.caption(
        f"A zip of images, up to {_ZIP_MB} MB. All are segmented with the same texts; the results "
        "come as one zip."
    )
    st.file_uploader("Zip", ["zip"], key="zip", on_change=_on_zip, max_upload_size=_ZIP_MB)
    if error := st.session_state.pop("zip-error", ""):
        st.error(parts.problem(shared, error))
    if work.batch is None:
        return
    texts = st.text_input(
        "Texts, separated by commas",
        ", ".join(work.draft.texts),
        key="batch-texts",
        placeholder="none: every object is segmented",
    )
    formats = st.multiselect("Formats", _EVERY, ["png", "coco"], key="batch-formats")
    _progress(texts, tuple(parts.allowed(formats, _EVERY)))


@st.fragment(run_every=1.0)
def _progress(texts: str, formats: tuple[str, ...]) -> None:
    shared, work = session.current()
    batch = work.batch
    if batch is None:
        return
    left = batch.seconds_left(batch.images)
    pace = f", {batch.rate:.1f}/s, {left:.0f} s left" if batch.busy and batch.rate else ""
    state = "waiting for another batch" if batch.state == "waiting" else batch.state
    st.progress(
        min(1.0, batch.done / batch.images),
        f"{batch.done} of {batch.images} images, {state}{pace}",
    )
    if batch.message:
        (st.error if batch.state == "failed" else st.success)(parts.problem(shared, batch.message))
    start, stop, get = st.columns(3)
    label = "Resume" if batch.state == "cancelled" else "Start"
    if start.button(label, type="primary", disabled=batch.busy or not formats, width="stretch"):
        given = [part.strip() for part in texts.split(",") if part.strip()]
        batch.start(given[:MOST_TEXTS], formats, work.words)
        st.rerun(scope="fragment")
    if stop.button("Cancel", disabled=not batch.busy, width="stretch"):
        batch.cancel()
    if batch.state in ("done", "cancelled") and batch.done:
        get.download_button(
            "Download zip", batch.result, "segclip.zip", on_click="ignore", width="stretch"
        )


def _on_zip() -> None:
    shared, work = session.current()
    file = st.session_state["zip"]
    if file is not None:
        with parts.storing_error("zip-error"):
            work.take_batch(shared.unpack(file.getvalue()))
