"""Load each model once for all users, and let one caller at a time use it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np

import segclip

from .turns import Line, holding, step

MOST_OWN = 3  # models kept in memory besides the presets
_TEXTS = 256  # texts embedded per step

_log = logging.getLogger(__name__)


def parts(name: str) -> tuple[str, str | None]:
    """Split "PROPOSER + ENCODER" into its names; a preset comes without an encoder."""
    proposer, _, encoder = name.partition(" + ")
    return proposer, encoder or None


@dataclass(eq=False)
class Loaded:
    """A segmenter with a queue per kind of work: images, prompts at points or boxes, and texts.

    Encoding an image takes seconds, decoding a prompt or embedding a text milliseconds. Decoding
    keeps no state, so the three can run at the same time.
    """

    segmenter: segclip.Segmenter
    encoding: Line = field(default_factory=Line)
    decoding: Line = field(default_factory=Line)
    embedding: Line = field(default_factory=Line)


@dataclass(eq=False)
class Models:
    """The loaded models, by preset or by "PROPOSER + ENCODER".

    source: loads a segmenter by the names that ``parts`` returns. threads: of torch, for encoding
    images.
    """

    source: Callable[..., segclip.Segmenter] = segclip.load
    threads: int = field(default_factory=segclip.get_threads)
    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _loading: Lock = field(default_factory=Lock)

    def load(self, name: str) -> Loaded:
        """Return a model, loading it on first use. Raises UnknownName, WeightsMissing and so on."""
        found = self._loaded.get(name)
        if found is None:
            with holding(self._loading):
                found = self._loaded.get(name)
                if found is None:
                    found = self._loaded[name] = Loaded(self._read(name))
                    own = [name for name in self._loaded if name not in segclip.PRESETS]
                    for old in own[:-MOST_OWN]:
                        del self._loaded[old]  # loaded again if it is still needed
                    _freeze_garbage()
        return found

    def _read(self, name: str) -> segclip.Segmenter:
        """Load a model. Raises only SegclipError, whatever its files hold: the server survives."""
        try:
            segmenter = self.source(*parts(name))
            encoder: Any = Stepwise(segmenter.encoder)
            segmenter.scorer.encoder = encoder
            return replace(segmenter, encoder=encoder)
        except segclip.SegclipError:
            raise
        except Exception as error:
            _log.exception("%s could not be loaded", name)
            reason = f"{name} cannot be loaded ({type(error).__name__}); see the server's log"
            raise segclip.WeightsCorrupt(reason) from error

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the loaded models."""
        return tuple(self._loaded)

    @contextmanager
    def encoding(self, name: str) -> Iterator[segclip.Segmenter]:
        """Wait for a turn to encode images with a model."""
        loaded = self.load(name)
        with loaded.encoding.first(), segclip.limit_threads(self.threads, after=self.threads):
            yield loaded.segmenter

    @contextmanager
    def decoding(self, name: str) -> Iterator[segclip.Segmenter]:
        """Wait for a turn to decode points and boxes in images that a model has encoded."""
        loaded = self.load(name)
        with loaded.decoding.first():
            yield loaded.segmenter

    @contextmanager
    def embedding(self, name: str) -> Iterator[segclip.Segmenter]:
        """Wait for a turn to embed texts with a model."""
        loaded = self.load(name)
        with loaded.embedding.first():
            yield loaded.segmenter

    @contextmanager
    def quickly(self) -> Iterator[None]:
        """Use half of the cores for work of milliseconds: browser and server need the others."""
        with segclip.limit_threads(max(1, self.threads // 2), after=self.threads):
            yield


class Stepwise:
    """An encoder that works in steps; between two of them others get a turn, or the work ends."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_images(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Embed crops; the library passes them in chunks."""
        step()
        embedded: np.ndarray = self._encoder.encode_images(crops)
        return embedded

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts, ``_TEXTS`` at a time."""
        chunks = []
        for start in range(0, max(1, len(texts)), _TEXTS):
            step()
            chunks.append(self._encoder.encode_texts(texts[start : start + _TEXTS]))
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _freeze_garbage() -> None:
    """Exclude loaded models from garbage collection, which Streamlit runs after every event.

    It would take 0.2 s each time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
