"""The Models page: models in use, installed weights and downloads."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from threading import Thread

import streamlit as st

import segclip

from .. import session
from ..plain import as_markdown, without_paths
from ..state import Studio, Work
from . import parts


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    _choose(shared, work)
    st.subheader("Weights")
    _table(shared)


def _choose(shared: Studio, work: Work) -> None:
    missing = _missing()

    def label(name: str) -> str:
        if name not in segclip.PRESETS:
            return name if shared.settings.alone else without_paths(name)
        note = ", not installed" if name in missing else ""
        return f"{name} ({' and '.join(segclip.PRESETS[name])}{note})"

    words, clicks = st.columns(2)
    for column, title, current, key in (
        (words, "Model for texts", work.words, "words"),
        (clicks, "Model for clicks and boxes", work.clicks, "clicks"),
    ):
        st.session_state[f"model-{key}"] = current  # not one that failed to load
        use = partial(_use, shared, work, key)
        column.selectbox(
            title, offered(shared, work), format_func=label, key=f"model-{key}", on_change=use
        )
    # always present, so that the expander below stays open when an error appears or goes
    with st.container():
        # kept until another model is chosen: a rerun of the page must not take it from the user
        if error := st.session_state.get("model-error", ""):
            st.error(parts.problem(shared, error))
    if not shared.settings.alone:
        return
    with st.expander("Custom models"):
        st.caption(
            "As on the command line: a name in the table, MODEL/TAG of open_clip, or file:PATH on "
            "the server."
        )
        proposer = st.text_input("Proposer", segclip.PRESETS["mini"][0], key="own-proposer")
        encoder = st.text_input("Encoder", segclip.PRESETS["mini"][1], key="own-encoder")
        if st.button("Use for texts"):
            use_model(shared, work, "words", f"{proposer} + {encoder}")
            st.rerun()


def offered(shared: Studio, work: Work) -> list[str]:
    """Return the models that this user may choose; custom ones only on the local machine."""
    settings = shared.settings
    own = (*shared.models.names, work.words, work.clicks) if settings.alone else ()
    return list(dict.fromkeys((*segclip.PRESETS, settings.words, settings.clicks, *own)))


def _missing() -> set[str]:
    """Return the presets whose weights are not all installed."""
    here = {status.name: status.installed for status in segclip.list_weights()}
    return {
        name
        for name, both in segclip.PRESETS.items()
        if not all(here.get(part, True) for part in both)
    }


def _use(shared: Studio, work: Work, kind: str) -> None:
    use_model(shared, work, kind, st.session_state[f"model-{kind}"])


def use_model(shared: Studio, work: Work, kind: str, name: str) -> bool:
    """Load a model and switch to it; return whether that succeeded.

    An error is stored to be displayed, and the former model stays. Remote users can only choose
    installed models of the list: any other name could make the server open or download a file.
    """
    try:
        if not shared.settings.alone:
            _check(shared, work, name)
        shared.models.load(name)
    except segclip.SegclipError as problem:
        st.session_state["model-error"] = str(problem)
        return False
    st.session_state.pop("model-error", None)
    work.use(words=name if kind == "words" else None, clicks=name if kind == "clicks" else None)
    return True


def _check(shared: Studio, work: Work, name: str) -> None:
    if name not in offered(shared, work):
        raise segclip.UnknownName("only the models in the list can be chosen here")
    if name in _missing():
        raise segclip.WeightsMissing(
            f"{name} is not installed on this server; its operator can download the weights"
        )


@st.fragment(run_every=2.0)
def _table(shared: Studio) -> None:
    for row in segclip.list_weights():
        name, act = st.columns([5, 1], vertical_alignment="center")
        size = f"{row.bytes / 1e6:,.1f} MB" if row.bytes else "size unknown"
        note = f"  \n:small[{as_markdown(row.note)}]" if row.note else ""
        facts = as_markdown(f"{size} · {row.licence}")
        name.markdown(f"**{as_markdown(row.name)}** {as_markdown(row.kind)} :gray[· {facts}]{note}")
        fetching = shared.fetching.get(row.name)
        if row.installed:
            act.caption("installed")
        elif fetching == "":
            act.progress(_share(row.path, row.bytes), "downloading ...")
        else:
            if fetching:
                name.error(parts.problem(shared, fetching))
            closed = not shared.settings.alone
            act.button(
                "Download",
                disabled=closed,
                key=f"fetch-{row.name}",
                on_click=partial(_fetch, shared, row.name),
            )


def _share(path: os.PathLike[str], size: int | None) -> float:
    """Return the downloaded fraction of a file; its partial download lies in the same folder."""
    place = Path(path).parent
    parts = (
        [entry.stat().st_size for entry in os.scandir(place) if entry.is_file()]
        if place.is_dir()
        else []
    )
    return min(1.0, max(parts, default=0) / size) if size else 0.0


def _fetch(shared: Studio, name: str) -> None:
    """Download weights in the background if allowed; an error is stored to be displayed."""
    if not shared.settings.alone:
        return
    shared.fetching[name] = ""

    def run() -> None:
        try:
            segclip.get_weights(name, progress=False)
            shared.fetching.pop(name, None)
        except segclip.SegclipError as problem:
            shared.fetching[name] = str(problem)
        finally:
            if shared.fetching.get(name) == "":  # an unexpected error
                shared.fetching[name] = "Internal error; see the server's log."

    Thread(target=run, daemon=True).start()
