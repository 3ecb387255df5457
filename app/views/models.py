"""Models: what answers, what is installed, what may be fetched."""

from __future__ import annotations

import os
from functools import partial
from threading import Thread

import streamlit as st

import segclip

from .. import session
from ..state import Studio, Work


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    _choose(shared, work)
    st.subheader("Weights")
    _table(shared)


def _choose(shared: Studio, work: Work) -> None:
    presets = list(segclip.PRESETS)
    known = {status.name: status.installed for status in segclip.list_weights()}
    lacking = {name: [part for part in segclip.PRESETS[name] if not known.get(part, True)] for name in presets}

    def told(name: str) -> str:
        if name not in presets:
            return name
        return f"{name} ({' and '.join(segclip.PRESETS[name])}{', not installed' if lacking[name] else ''})"

    words, clicks = st.columns(2)
    for column, title, current, key in (
        (words, "Words are answered by", work.words, "words"),
        (clicks, "Clicks and boxes are answered by", work.clicks, "clicks"),
    ):
        own = [name for name in dict.fromkeys((*shared.models.names, current)) if name not in presets]
        own = own if shared.settings.alone else []
        st.session_state[f"model-{key}"] = current  # one that could not be loaded was not taken
        use = partial(_use, shared, work, key)
        column.selectbox(title, presets + own, format_func=told, key=f"model-{key}", on_change=use)
    with st.container():  # there without an error too, so that what is below it stays open when one comes or goes
        if error := st.session_state.pop("model-error", ""):
            st.error(error)
    if not shared.settings.alone:
        return
    with st.expander("Models of your own"):
        st.caption("As on the command line: a name of the table, MODEL/TAG of open_clip, or file:PATH on the server.")
        proposer = st.text_input("Proposer", segclip.PRESETS["mini"][0], key="own-proposer")
        encoder = st.text_input("Encoder", segclip.PRESETS["mini"][1], key="own-encoder")
        if st.button("Let them answer words"):
            let_answer(shared, work, "words", f"{proposer} + {encoder}")
            st.rerun()


def _use(shared: Studio, work: Work, kind: str) -> None:
    let_answer(shared, work, kind, st.session_state[f"model-{kind}"])


def let_answer(shared: Studio, work: Work, kind: str, name: str) -> bool:
    """Load a model before it is used: whether it could be; else why is kept to be told, and the former stays."""
    try:
        shared.models.load(name)
    except segclip.SegclipError as problem:
        st.session_state["model-error"] = str(problem)
        return False
    work.use(words=name if kind == "words" else None, clicks=name if kind == "clicks" else None)
    return True


@st.fragment(run_every=2.0)
def _table(shared: Studio) -> None:
    for row in segclip.list_weights():
        name, act = st.columns([5, 1], vertical_alignment="center")
        size = f"{row.bytes / 1e6:,.1f} MB" if row.bytes else "size unknown"
        note = f"  \n:small[{row.note}]" if row.note else ""
        name.markdown(f"**{row.name}** {row.kind} :gray[· {size} · {row.licence}]{note}")
        fetching = shared.fetching.get(row.name)
        if row.installed:
            act.caption("installed")
        elif fetching == "":
            act.progress(_share(row.path, row.bytes), "fetching ...")
        else:
            if fetching:
                name.error(fetching)
            closed = not shared.settings.alone
            act.button("Download", disabled=closed, key=f"fetch-{row.name}", on_click=partial(_fetch, shared, row.name))


def _share(path: os.PathLike[str], size: int | None) -> float:
    """Say how much of a file is there: its bytes so far lie beside its place."""
    place = os.path.dirname(path)
    parts = [os.path.getsize(entry) for entry in os.scandir(place) if entry.is_file()] if os.path.isdir(place) else []
    return min(1.0, max(parts, default=0) / size) if size else 0.0


def _fetch(shared: Studio, name: str) -> None:
    """Fetch weights beside the page, for who may; a failure is kept to be shown."""
    if not shared.settings.alone:
        return
    shared.fetching[name] = ""

    def run() -> None:
        try:
            segclip.get_weights(name, progress=False)
            shared.fetching.pop(name, None)
        except segclip.SegclipError as problem:
            shared.fetching[name] = str(problem)

    Thread(target=run, daemon=True).start()
