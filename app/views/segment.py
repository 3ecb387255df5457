"""The Segment page: an image, texts or clicks, and the masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

import segclip

from .. import answers, canvas, events, rendering, session
from ..answers import Answer
from ..plain import as_markdown, without_paths
from ..samples import TEXTS
from ..state import CachedImage, Studio, Work
from . import parts

_HINT = (
    "Click: segment the object. Right click, or shift and click: exclude. Drag: a box. "
    "Ctrl+wheel zooms, Escape clears, Ctrl+Z undoes. Paste or drop an image to open it."
)


def show() -> None:
    """Show the page."""
    _studio()


@st.fragment
def _studio() -> None:
    shared, work = session.current()
    _bar(shared, work)
    _canvas()


@st.fragment
def _canvas() -> None:
    """Show image and results; a click reruns only this fragment, not the bar above it."""
    if st.session_state.pop("other-words", False):
        st.rerun()
    shared, work = session.current()
    answer, error = _answer(shared, work)
    canvas.mount(_data(shared, work, answer, error), _on_event, _on_need)
    answers.prepare(shared.models, work)


def _bar(shared: Studio, work: Work) -> None:
    for key, texts in _fields(work).items():
        st.session_state.setdefault(key, ", ".join(texts))
    texts_key, negatives_key = _fields(work)
    wide, narrow, files = st.columns([5, 3, 3.2], vertical_alignment="bottom")
    wide.text_input(
        "What to cut out",
        key=texts_key,
        on_change=_on_words,
        placeholder="a red apple, the left mug, ... then Enter",
    )
    narrow.text_input(
        "What it is not",
        key=negatives_key,
        on_change=_on_words,
        placeholder="a tomato",
    )
    # a new key per image, so that the popover closes once an image is chosen
    name = f"image-{work.image_id}"
    with files.container(horizontal=True):
        with st.popover("Image", icon=":material/image:", width="stretch", key=name):
            _image(shared, work)
        with st.popover("Masks", icon=":material/download:", width="stretch"):
            parts.download(shared, work, key="segment")


def _image(shared: Studio, work: Work) -> None:
    st.caption(as_markdown(f"{work.image.source}, {work.image.size[1]} x {work.image.size[0]}"))
    st.pills(
        "Samples",
        list(TEXTS),
        format_func=lambda name: Path(name).stem,
        key="sample",
        on_change=_on_sample,
    )
    st.file_uploader(
        "Your own image",
        [suffix[1:] for suffix in segclip.IMAGE_SUFFIXES],
        key="upload",
        on_change=_open,
        args=("upload",),
        max_upload_size=shared.settings.upload_mb,
    )
    if st.toggle("Camera"):
        st.camera_input(
            "Take a photo",
            key="camera",
            on_change=_open,
            args=("camera",),
            label_visibility="collapsed",
        )


def _answer(shared: Studio, work: Work) -> tuple[Answer | None, str]:
    """Answer the question; one that cannot be answered is undone, and its error returned."""
    error = st.session_state.pop("error", "")
    for _ in range(2):
        try:
            if work.words not in work.cached.regions:
                with st.spinner("Analysing the image ..."):
                    return answers.answer(shared.models, work), error
            return answers.answer(shared.models, work), error
        except segclip.SegclipError as problem:
            error = error or str(problem)
            work.undo()
    return None, error


def _data(shared: Studio, work: Work, answer: Answer | None, error: str) -> dict[str, Any]:
    """Return what the browser draws; the image itself only if it was not sent before."""
    question = work.draft
    data: dict[str, Any] = {
        "image_id": work.image_id,
        "name": work.image.source,
        "image": _image_once(work),
        "size": [work.image.size[1], work.image.size[0]],
        "points": question.points,
        "boxes": [question.box] if question.box else [],
        "everything": question.everything,
        "undo": bool(work.history),
        "error": error if shared.settings.alone else without_paths(error),
        "hint": _HINT,
        "upload": shared.settings.upload_mb * 1_000_000,
        "done": st.session_state.get("done", 0),
    }
    if answer is None:
        nothing: dict[str, Any] = {"map": "0 0  ", "drawn": [], "rows": [], "notes": []}
        return data | nothing | {"headline": "", "sliders": False, "answer": ""}
    return data | {
        "map": rendering.map_runs(answer.candidates.masks[list(answer.drawn)]),
        "drawn": answer.drawn,
        "rows": rendering.rows_of(answer),
        "headline": rendering.headline(answer),
        "notes": rendering.notes(answer),
        "sliders": question.everything or (bool(question.texts) and not question.by_place),
        "threshold": rendering.slider_threshold(answer),
        "top": question.top_k,
        "own": question.threshold is None,
        "answer": f"{answer.hits}/{len(answer.candidates)} in {answer.seconds * 1000:.0f} ms",
    }


def _image_once(work: Work) -> str | None:
    if st.session_state.get("sent") == work.image_id:
        return None
    st.session_state["sent"] = work.image_id
    return rendering.image_url(work.image)


def _on_need() -> None:
    st.session_state["sent"] = ""


def _on_event() -> None:
    event = canvas.payload("event")
    if not isinstance(event, dict):
        return
    shared, work = session.current()
    before = work.image_id, work.draft.texts, work.draft.negatives
    with parts.storing_error():
        events.handle(shared, work, event)
    if before != (work.image_id, work.draft.texts, work.draft.negatives):
        _write_words(work)
    number = event.get("n")
    if isinstance(number, int):
        st.session_state["done"] = number


def _on_words() -> None:
    _, work = session.current()
    with parts.storing_error():
        work.set_texts(*(_split(st.session_state[key]) for key in _fields(work)))


def _write_words(work: Work) -> None:
    """Update the text fields after the texts changed by other means."""
    for key, texts in _fields(work).items():
        st.session_state[key] = ", ".join(texts)
    st.session_state["other-words"] = True


def _fields(work: Work) -> dict[str, tuple[str, ...]]:
    """Return the keys of the two text fields, with their texts."""
    question = work.draft
    return {f"texts-{work.image_id}": question.texts, f"not-{work.image_id}": question.negatives}


def _split(words: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))


def _on_sample() -> None:
    shared, work = session.current()
    name = st.session_state["sample"]
    if name in TEXTS:
        work.open(shared.sample(name), (TEXTS[name],))


def _open(widget: str) -> None:
    """Open an upload; an unreadable one is reported, and the former image stays."""
    shared, work = session.current()
    file = st.session_state[widget]
    if file is None:
        return
    with parts.storing_error():
        work.open(CachedImage(shared.read(file.getvalue(), file.name)))
        if work.words == "mini" and not st.session_state.setdefault("larger-models", False):
            st.session_state["larger-models"] = True
            st.toast(
                "mini is a small model of everyday objects; the Models page has larger ones for "
                "photographs."
            )
