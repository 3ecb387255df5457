"""Classify: which of some labels the picture, or each thing in it, shows."""

from __future__ import annotations

import streamlit as st

import segclip

from .. import answers, session
from ..plain import as_markdown
from ..state import Studio, Work
from . import parts

_LABELS = "a desk, a street, a picnic, a pond, a zoo, a toy shop"
_THINGS = (
    "apple, book, cup of coffee, pencil, potted plant, duck, turtle, bicycle, car, "
    "elephant, hamburger, teddy bear"
)
_MOST = 1000


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    left, right = st.columns([3, 2], gap="large")
    with right:
        st.subheader("What is it?")
        what = st.segmented_control(
            "Of", ["Whole picture", "Each thing in it"], default="Whole picture", key="what"
        )
        things = what == "Each thing in it"
        given = st.text_area(
            "Labels, by comma",
            _THINGS if things else "",
            key=f"labels-{things}",
            height=120,
            placeholder=_LABELS,
        )
    if (
        not given
    ):  # whole drawings are not what the shipped encoder knows: no answer before a question
        left.image(work.image.pixels)
        right.info("Write the labels to choose among.")
        return
    try:
        labels = segclip.read_labels(given)
        if len(labels) > _MOST:
            raise segclip.BadPrompt(
                f"{len(labels)} labels were given; at most {_MOST} are taken here"
            )
        result = _name_things(shared, work, labels) if things else None
        guesses = () if things else _guess(shared, work, labels)
    except segclip.SegclipError as problem:
        left.image(work.image.pixels, as_markdown(work.image.source))
        right.error(parts.problem(shared, str(problem)))
        return
    if result is None:
        left.image(work.image.pixels, as_markdown(work.image.source))
        for guess in guesses:
            right.progress(
                guess.probability, f"**{as_markdown(guess.label)}** {guess.probability:.2f}"
            )
        return
    named = ", ".join(dict.fromkeys(result.texts)) or "nothing"
    left.image(segclip.overlay(result), as_markdown(f"{work.image.source}: {named}"))
    for text, probability in zip(result.texts, result.probability, strict=True):
        right.progress(float(probability), f"**{as_markdown(text)}** {probability:.2f}")
    if not len(result):
        right.info("Nothing in the picture is like one of these labels.")


def _guess(shared: Studio, work: Work, labels: segclip.Labels) -> tuple[segclip.Guess, ...]:
    with shared.models.look(work.words) as segmenter, shared.models.read(work.words):
        (guesses,) = segclip.classify(work.image, labels, encoder=segmenter.encoder)
    return guesses


def _name_things(shared: Studio, work: Work, labels: segclip.Labels) -> segclip.Result:
    regions = answers.find_regions(shared.models, work)
    with shared.models.read(work.words) as segmenter:
        return segclip.make_classifier(segmenter.encoder, labels).name(regions)
