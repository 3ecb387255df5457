"""The Train page: train an encoder on images and captions, watch, stop, resume and use it."""

from __future__ import annotations

import shlex
from typing import Any

import streamlit as st

import segclip

from .. import models as loaded
from .. import session
from ..jobs.training import TrainingRequest, TrainingRun
from ..plain import as_markdown
from ..state import Studio, Work
from . import models, parts

_SHAPES, _OWN = "Drawn shapes, to try it", "My own"
_LAYOUTS = (
    "A CSV, TSV or JSONL of images and captions, COCO captions or instances, Karpathy's JSON, "
    "Flickr8k or 30k, webdataset shards, or a folder of images per class."
)
_SCRATCH = {
    "A small network, from scratch": ("--model", "small"),
    "A small vision transformer, from scratch": ("--model", "small-vit"),
}
_WEIGHTS = "The current encoder for texts"
_TUNES = {
    "full": "everything",
    "image": "the image tower only",
    "text": "the text tower only",
    "lora": "LoRA",
}
_STATES = {"running": "being trained", "stopped": "stopped", "done": "done", "failed": "failed"}
_RECALLS = {
    "image to text R@1": "image to text, R@1",
    "text to image R@1": "text to image, R@1",
    "image to text R@5": "image to text, R@5",
    "text to image R@5": "text to image, R@5",
}


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    if not shared.settings.alone:
        st.info(
            "Training is possible only on the machine that serves this page: start the app there "
            "without --host."
        )
        return
    if not shared.training.possible:
        st.info(
            "The recipes are not part of an installed segclip: start the app from a clone of its "
            "repository."
        )
        return
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader("A new run")
        _form(shared, work)
    with right:
        _watch()


def _form(shared: Studio, work: Work) -> None:
    own = st.radio("Data", [_SHAPES, _OWN], horizontal=True, key="train-data") == _OWN
    data = ""
    if own:
        data = st.text_input(
            "Folder or file on this machine", key="train-path", help=_LAYOUTS
        ).strip()
        if st.button("Check the data", disabled=not data):
            with st.spinner("Reading it ..."):
                st.code(shared.training.check(data), language=None, wrap_lines=True)
    begin, tune = _beginning(work)
    epochs, batch, rate = st.columns(3)
    numbers = (
        epochs.number_input(
            "Epochs", 1, 10_000, 10, key="train-epochs", help="Passes over the data"
        ),
        batch.number_input(
            "Batch",
            2,
            65_536,
            64,
            key="train-batch",
            help="Images per step; larger batches need more memory",
        ),
        rate.text_input(
            "Learning rate",
            "5e-4",
            key="train-rate",
            help="1e-4 or less to fine-tune existing weights",
        ),
    )
    more = st.text_input(
        "More options",
        key="train-more",
        placeholder="--loss sigmoid --ema 0.998",
        help="Options of python -m train.contrastive; see train/README.md",
    )
    name = st.text_input("Name", shared.training.free_name(), key="train-name")
    busy = shared.training.busy
    if st.button(
        "Start", type="primary", disabled=bool(busy) or (own and not data), width="stretch"
    ):
        flags = [
            part
            for pair in zip(("--epochs", "--batch", "--lr"), map(str, numbers), strict=True)
            for part in pair
        ]
        try:
            shared.training.start(
                name.strip(), TrainingRequest(data, (*begin, *tune, *flags, *_split(more)))
            )
        except segclip.SegclipError as problem:
            st.error(as_markdown(str(problem)))
        else:
            st.session_state.pop("train-name", None)
            st.session_state["train-run"] = name.strip()
            st.rerun()
    if busy:
        st.caption(as_markdown(f"{busy} is being trained; one run at a time."))


def _beginning(work: Work) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Show the choice of initial weights and trained parts; return the recipe's options."""
    chosen = str(st.selectbox("Start from", [*_SCRATCH, _WEIGHTS, _OWN], key="train-begin"))
    if chosen in _SCRATCH:
        return _SCRATCH[chosen], ()
    start = _encoder(work.words)
    if chosen == _OWN:
        start = st.text_input(
            "Weights", "file:", key="train-start", help="file:RUN, MODEL/TAG or MODEL/file:PATH"
        )
    else:
        st.caption(as_markdown(start))
    tune = str(
        st.selectbox("Train", list(_TUNES), format_func=lambda name: _TUNES[name], key="train-tune")
    )
    return ("--start", start.strip()), ("--tune", tune)


def _encoder(words: str) -> str:
    """Return the name of a model's encoder as recipes take it."""
    proposer, encoder = loaded.parts(words)
    name = encoder or segclip.PRESETS[proposer][1]
    known = next(
        (row for row in segclip.list_weights() if row.name == name and row.kind == "encoder"), None
    )
    return f"file:{known.path}" if known and known.path.is_dir() else name


def _split(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise segclip.BadPrompt(f"{options}: {error}") from None


@st.fragment(run_every=2.0)
def _watch() -> None:
    shared, work = session.current()
    training = shared.training
    if st.session_state.get("train-busy", training.busy) != training.busy:
        st.session_state["train-busy"] = training.busy
        st.rerun()  # the form may start another run now, or no longer
    st.session_state["train-busy"] = training.busy
    names = training.names()
    if not names:
        st.subheader("No training runs yet")
        st.caption(
            "Choose data and press Start: loss, recall and retrieved images appear here after each "
            "epoch."
        )
        return
    if st.session_state.get("train-run") not in names:
        st.session_state["train-run"] = training.busy or names[0]
    run = training.read_run(str(st.selectbox("Run", names, key="train-run")))
    with st.container(horizontal=True, vertical_alignment="center"):
        _buttons(shared, work, run)
    if error := st.session_state.pop("train-error", "") or st.session_state.pop("model-error", ""):
        st.error(as_markdown(error))
    if run.state == "failed":
        st.error(as_markdown(run.words))
    else:
        st.progress(
            run.share,
            as_markdown(f"{_STATES[run.state]}: {run.words}" if run.words else _STATES[run.state]),
        )
    if run.rows:
        _curves(run)
    with st.expander("Log"):
        st.code(run.log, language=None, wrap_lines=True)


def _buttons(shared: Studio, work: Work, run: TrainingRun) -> None:
    training = shared.training
    with parts.storing_error("train-error"):
        if st.button("Stop", disabled=run.state != "running", help="The last checkpoint is kept"):
            training.stop()
        over = (
            run.state in ("running", "done")
            or bool(training.busy)
            or not (run.folder / "last.pt").is_file()
        )
        if st.button(
            "Resume",
            disabled=over,
            help="Continue from the last checkpoint, with the same settings",
        ):
            training.resume(run.name)
            st.rerun(scope="fragment")
        if st.button(
            "Use best checkpoint",
            disabled=not run.best,
            type="primary",
            help="Use it for texts on every page",
        ):
            proposer, _ = loaded.parts(work.words)
            if models.use_model(shared, work, "words", f"{proposer} + file:{training.keep(run)}"):
                st.session_state["goto"] = "segment"
                st.rerun()


def _curves(run: TrainingRun) -> None:
    last = run.rows[-1]
    loss, recall = st.columns(2)
    loss.metric("Loss", f"{last['loss']:.3f}")
    best = max(row["R@1"] for row in run.rows)
    recall.metric("Recall@1 on held-out images", f"{last['R@1']:.1%}", help=f"best: {best:.1%}")
    loss.vega_lite_chart(_chart(run, {"loss": "loss"}, zero=False), height=280)
    recall.vega_lite_chart(
        _chart(run, _RECALLS, zero=True), height=340
    )  # higher, for the legend below
    if run.sample_sheet:
        with st.expander("Images retrieved by held-out texts"):
            st.image(
                str(run.sample_sheet),
                f"Epoch {int(last['epoch'])}: the five nearest images of a few texts",
            )


def _chart(run: TrainingRun, columns: dict[str, str], *, zero: bool) -> dict[str, Any]:
    """Return a chart of metrics over the epochs."""
    values = [
        {"epoch": row["epoch"], "value": row[name], "of": label}
        for row in run.rows
        for name, label in columns.items()
        if name in row
    ]
    encoding: dict[str, Any] = {
        "x": {
            "field": "epoch",
            "type": "quantitative",
            "title": "epoch",
            "axis": {"tickMinStep": 1, "format": "d"},
        },
        "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": zero}},
    }
    if len(columns) > 1:
        legend = {"orient": "bottom", "columns": 2, "title": None, "symbolType": "stroke"}
        encoding["color"] = {"field": "of", "type": "nominal", "legend": legend}
    return {
        "data": {"values": values},
        "mark": {"type": "line", "point": True, "tooltip": True},
        "encoding": encoding,
    }
