"""Segment: a picture, words or clicks, and the masks at once."""

from __future__ import annotations

from typing import Any

import streamlit as st

import segclip

from .. import answers, canvas, events, rendering, session
from ..answers import Answer
from ..plain import as_markdown, without_paths
from ..samples import TEXTS
from ..state import Known, Studio, Work
from . import parts

_HINT = (
    "Click: cut out the object. Right click, or shift and click: not this. Drag: a box. "
    "Ctrl+wheel zooms, Escape clears, Ctrl+Z goes back. Paste or drop a picture to open it."
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
    """Show the picture and what was found; a click on it runs this alone, the bar above it
    stays.
    """
    if st.session_state.pop("other-words", False):
        st.rerun()
    shared, work = session.current()
    answer, error = _answer(shared, work)
    canvas.mount(_data(shared, work, answer, error), _on_event, _on_need)
    answers.prepare(shared.models, work)


def _bar(shared: Studio, work: Work) -> None:
    for key, texts in _fields(work).items():
        st.session_state.setdefault(key, ", ".join(texts))
    said, ruled_out = _fields(work)
    wide, narrow, files = st.columns([5, 3, 3.2], vertical_alignment="bottom")
    wide.text_input(
        "What to cut out",
        key=said,
        on_change=_on_words,
        placeholder="a red apple, the left mug ... by comma, then Enter",
    )
    narrow.text_input(
        "What it is not",
        key=ruled_out,
        on_change=_on_words,
        placeholder="a tomato",
    )
    name = (
        f"picture-{work.picture}"  # another picture, another popover: it closes once one was chosen
    )
    with files.container(horizontal=True):
        with st.popover("Picture", icon=":material/image:", width="stretch", key=name):
            _picture(shared, work)
        with st.popover("Masks", icon=":material/download:", width="stretch"):
            parts.download(shared, work, key="segment")


def _picture(shared: Studio, work: Work) -> None:
    st.caption(as_markdown(f"{work.image.source}, {work.image.size[1]} x {work.image.size[0]}"))
    st.pills("Samples", list(TEXTS), format_func=_stem, key="sample", on_change=_on_sample)
    st.file_uploader(
        "Your own picture",
        [suffix[1:] for suffix in segclip.IMAGE_SUFFIXES],
        key="upload",
        on_change=_on_upload,
        max_upload_size=shared.settings.upload_mb,
    )
    if st.toggle("Camera"):
        st.camera_input(
            "Take a picture", key="camera", on_change=_on_camera, label_visibility="collapsed"
        )


def _answer(shared: Studio, work: Work) -> tuple[Answer | None, str]:
    """Answer the question; what cannot be answered is taken back and told."""
    error = st.session_state.pop("error", "")
    for _ in range(2):
        try:
            if work.words not in work.known.regions:
                with st.spinner("Looking at the picture ..."):
                    return answers.answer(shared.models, work), error
            return answers.answer(shared.models, work), error
        except segclip.SegclipError as problem:
            error = error or str(problem)
            work.undo()
    return None, error


def _data(shared: Studio, work: Work, answer: Answer | None, error: str) -> dict[str, Any]:
    """Give the browser what it draws; the picture only if it doesn't have it."""
    question = work.draft
    data: dict[str, Any] = {
        "picture": work.picture,
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
        nothing = {
            "map": "0 0  ",
            "drawn": [],
            "rows": [],
            "headline": "",
            "notes": [],
            "sliders": False,
            "answer": "",
        }
        return data | nothing
    own = question.threshold is None
    return data | {
        "map": rendering.map_runs(answer.candidates.masks[list(answer.drawn)]),
        "drawn": answer.drawn,
        "rows": rendering.rows_of(answer),
        "headline": rendering.headline(answer),
        "notes": rendering.notes(answer),
        "sliders": question.everything or (bool(question.texts) and not question.by_place),
        "threshold": rendering.reached(answer),
        "top": question.top_k,
        "own": own,
        "answer": f"{answer.hits}/{len(answer.candidates)} in {answer.seconds * 1000:.0f} ms",
    }


def _image_once(work: Work) -> str | None:
    if st.session_state.get("sent") == work.picture:
        return None
    st.session_state["sent"] = work.picture
    return rendering.picture_url(work.image)


def _on_need() -> None:
    st.session_state["sent"] = ""


def _on_event() -> None:
    event = canvas.told("event")
    if not isinstance(event, dict):
        return
    shared, work = session.current()
    before = work.picture, work.draft.texts, work.draft.negatives
    try:
        events.handle(shared, work, event)
    except segclip.SegclipError as problem:
        st.session_state["error"] = str(problem)
    if before != (work.picture, work.draft.texts, work.draft.negatives):
        _write_words(work)
    number = event.get("n")
    if isinstance(number, int):
        st.session_state["done"] = number


def _on_words() -> None:
    _, work = session.current()
    try:
        work.say(*(_split(st.session_state[key]) for key in _fields(work)))
    except segclip.BadPrompt as problem:
        st.session_state["error"] = str(problem)


def _write_words(work: Work) -> None:
    """Let the fields say what is asked, after it changed by other means than them."""
    for key, texts in _fields(work).items():
        st.session_state[key] = ", ".join(texts)
    st.session_state["other-words"] = True


def _fields(work: Work) -> dict[str, tuple[str, ...]]:
    """Give the keys of the two fields of words, with what is asked."""
    question = work.draft
    return {f"texts-{work.picture}": question.texts, f"not-{work.picture}": question.negatives}


def _split(words: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _on_sample() -> None:
    shared, work = session.current()
    name = st.session_state["sample"]
    if name in TEXTS:
        work.open(shared.sample(name), (TEXTS[name],))


def _on_upload() -> None:
    _open("upload")


def _on_camera() -> None:
    _open("camera")


def _open(widget: str) -> None:
    """Open what was uploaded; what cannot be read is told, and the former picture stays."""
    shared, work = session.current()
    file = st.session_state[widget]
    if file is None:
        return
    try:
        work.open(Known(shared.read(file.getvalue(), file.name)))
    except segclip.SegclipError as problem:
        st.session_state["error"] = str(problem)
        return
    if work.words == "mini" and not st.session_state.setdefault("larger-models", False):
        st.session_state["larger-models"] = True
        st.toast(
            "mini is a small model of everyday things; on the page Models there are larger ones "
            "for photographs."
        )
