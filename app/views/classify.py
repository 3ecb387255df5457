"""The Classify page: label the image, or each object in it."""

from __future__ import annotations

import streamlit as st

import segclip

from .. import answers, session
from ..plain import as_markdown
from ..state import Studio, Work
from . import parts

_LABELS = "a desk, a street, a picnic, a pond, a zoo, a toy shop"
_OBJECTS = (
    "apple, book, cup of coffee, pencil, potted plant, duck, turtle, bicycle, car, "
    "elephant, hamburger, teddy bear"
)
_MOST = 1000


def show() -> None:
    """Show the page."""
    shared, work = session.current()
    left, right = st.columns([3, 2], gap="large")
    with right:
        st.subheader("Classification")
        target = st.segmented_control(
            "Classify", ["Whole image", "Each object"], default="Whole image", key="target"
        )
        objects = target == "Each object"
        given = st.text_area(
            "Labels, separated by commas",
            _OBJECTS if objects else "",
            key=f"labels-{objects}",
            height=120,
            placeholder=_LABELS,
        )
    # no default labels: the shipped encoder is not trained on whole drawings
    if not given:
        left.image(work.image.pixels)
        right.info("Enter the labels to choose from.")
        return
    try:
        labels = segclip.read_labels(given)
        if len(labels) > _MOST:
            raise segclip.BadPrompt(
                f"{len(labels)} labels were given; at most {_MOST} are allowed here"
            )
        result = _label_objects(shared, work, labels) if objects else None
        guesses = () if objects else _guess(shared, work, labels)
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
    found = ", ".join(dict.fromkeys(result.texts)) or "nothing"
    left.image(segclip.overlay(result), as_markdown(f"{work.image.source}: {found}"))
    for text, probability in zip(result.texts, result.probability, strict=True):
        right.progress(float(probability), f"**{as_markdown(text)}** {probability:.2f}")
    if not len(result):
        right.info("No object in the image matches these labels.")


def _guess(shared: Studio, work: Work, labels: segclip.Labels) -> tuple[segclip.Guess, ...]:
    with shared.models.encoding(work.words) as segmenter, shared.models.embedding(work.words):
        (guesses,) = segclip.classify(work.image, labels, encoder=segmenter.encoder)
    return guesses


def _label_objects(shared: Studio, work: Work, labels: segclip.Labels) -> segclip.Result:
    regions = answers.find_regions(shared.models, work)
    with shared.models.embedding(work.words) as segmenter:
        return segclip.make_classifier(segmenter.encoder, labels).name(regions)
