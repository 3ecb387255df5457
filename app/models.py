"""Load each model once for everybody, and let one caller at a time use it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import torch

import segclip

from .turns import Line, holding, step

MOST_OWN = 3  # models kept beside the presets
_TEXTS = 256  # sentences read in one step
_ALL = torch.get_num_threads()

_log = logging.getLogger(__name__)


def parts(name: str) -> tuple[str, str | None]:
    """Give the proposer and the encoder of "PROPOSER + ENCODER", or a preset alone."""
    proposer, _, encoder = name.partition(" + ")
    return proposer, encoder or None


@dataclass(eq=False)
class Loaded:
    """Hold a segmenter with its queues: pictures wait for pictures, places and texts for their
    like, never for another.

    Looking takes seconds, pointing and reading milliseconds; decoding keeps no state, so that it
    may go on beside.
    """

    segmenter: segclip.Segmenter
    looking: Line = field(default_factory=Line)
    pointing: Line = field(default_factory=Line)
    reading: Line = field(default_factory=Line)


@dataclass(eq=False)
class Models:
    """Keep what is loaded, by preset or by "PROPOSER + ENCODER"."""

    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _loading: Lock = field(default_factory=Lock)

    def load(self, name: str) -> Loaded:
        """Give a model, loaded by the first who asks. Raises UnknownName, WeightsMissing and the
        like.
        """
        found = self._loaded.get(name)
        if found is None:
            with holding(self._loading):
                found = self._loaded.get(name)
                if found is None:
                    found = self._loaded[name] = Loaded(_load(name))
                    for old in [own for own in self._loaded if own not in segclip.PRESETS][
                        :-MOST_OWN
                    ]:
                        del self._loaded[
                            old
                        ]  # whoever still asks for it waits for it to be loaded again
                    _settle()
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Name what is loaded."""
        return tuple(self._loaded)

    @contextmanager
    def look(self, name: str) -> Iterator[segclip.Segmenter]:
        """Wait for one's turn to show pictures to a model."""
        loaded = self.load(name)
        with loaded.looking.first(), _threads(_ALL):
            yield loaded.segmenter

    @contextmanager
    def point(self, name: str) -> Iterator[segclip.Segmenter]:
        """Wait for one's turn to point at places of pictures a model has seen."""
        loaded = self.load(name)
        with loaded.pointing.first():
            yield loaded.segmenter

    @contextmanager
    def read(self, name: str) -> Iterator[segclip.Segmenter]:
        """Wait for one's turn to show texts to a model."""
        loaded = self.load(name)
        with loaded.reading.first():
            yield loaded.segmenter


class Stepwise:
    """Encode in steps, between which others may have their turn, and who is late or gone ends."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_images(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Embed crops; the library hands them over in chunks."""
        step()
        embedded: np.ndarray = self._encoder.encode_images(crops)
        return embedded

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts, some hundred at a time."""
        parts = []
        for start in range(0, max(1, len(texts)), _TEXTS):
            step()
            parts.append(self._encoder.encode_texts(texts[start : start + _TEXTS]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _load(name: str) -> segclip.Segmenter:
    """Load a model. Raises SegclipError, whatever is wrong with its files: the server goes on."""
    try:
        segmenter = segclip.load(*parts(name))
        encoder: Any = Stepwise(segmenter.encoder)
        segmenter.scorer.encoder = encoder
        return replace(segmenter, encoder=encoder)
    except segclip.SegclipError:
        raise
    except Exception as error:
        _log.exception("%s could not be loaded", name)
        reason = f"{name} cannot be loaded ({type(error).__name__}); the server's log says more"
        raise segclip.WeightsCorrupt(reason) from error


def _settle() -> None:
    """Take what is loaded out of the search for garbage, which Streamlit makes after every event:
    0.2 s of each.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def quickly() -> Iterator[None]:
    """Compute what takes milliseconds on half of the cores: browser and server, at work too, hold
    up the others.
    """
    with _threads(max(1, _ALL // 2)):
        yield


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads here; who looks at a picture elsewhere has said how
    many he needs.
    """
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(_ALL)
