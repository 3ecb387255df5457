"""Identity of an index: the models it was built with, which must not be mixed with others."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..batch.journal import Damaged
from ..errors import BadIndex, BadPrompt
from . import checked, store

ENGINES = ("auto", *store.ENGINES)
FORMAT = 1
_LONGEST = 1024  # characters of an entry


@dataclass(frozen=True)
class Identity:
    """What an index was built with; vectors of another encoder are not comparable.

    source: the folder, absolute, or "" if the index is inside it. weights, proposer_weights:
    hashes.
    """

    source: str
    encoder: str
    weights: str
    proposer: str
    proposer_weights: str
    policy: str | None
    regions: bool
    engine: str = "auto"
    format: int = FORMAT

    def command(self, place: Path) -> str:
        """Return the command that rebuilds the index at ``place``, without its --encoder."""
        words = [
            "segclip",
            "index",
            self.source or str(place.parent),
            *(["--out", str(place)] if self.source else []),
        ]
        words += ["--regions", "--proposer", self.proposer] if self.regions else []
        words += ["--policy", self.policy] if self.policy else []
        words += ["--engine", self.engine] if self.engine != "auto" else []
        return shlex.join(words)

    def settings(self) -> dict[str, Any]:
        """Return what embeddings depend on; those of whole images do not depend on the proposer."""
        settings = {"weights": self.weights, "regions": self.regions, "format": FORMAT}
        if self.regions:
            settings |= {"proposer": self.proposer_weights, "policy": self.policy}
        return settings


def read_identity(place: Path) -> Identity:
    """Read an index's identity. Raises BadPrompt without an index, Damaged, and as ``parse``."""
    try:
        return parse(checked.read_json(place / "index.json"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadPrompt(f"{place} holds no index; make one with: segclip index FOLDER") from None
    except (OSError, ValueError) as error:
        raise Damaged(
            f"the index at {place} is damaged, index.json: {error}; run segclip index again: it "
            "keeps every embedding that is sound"
        ) from None


def parse(data: object) -> Identity:
    """Validate an identity. Raises ValueError, and BadIndex for one of a newer segclip."""
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    if type(data.get("format")) is int and data["format"] > FORMAT:
        raise BadIndex(
            f"the index has format {data['format']}, and this segclip reads {FORMAT}; update "
            "segclip"
        )
    words = ("source", "encoder", "weights", "proposer", "proposer_weights")
    named = {*words, "policy", "regions", "engine", "format"}
    if data.keys() != named or not all(_is_word(data[word]) for word in words):
        raise ValueError("its entries are not those of an index")
    if not (data["policy"] is None or _is_word(data["policy"])) or not isinstance(
        data["regions"], bool
    ):
        raise ValueError("its entries have the wrong types")
    if data["engine"] not in ENGINES or data["format"] != FORMAT or type(data["format"]) is not int:
        raise ValueError("its engine or format is unknown")
    return Identity(**data)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= _LONGEST


def is_place(model: str) -> bool:
    """Return whether a model is given by location: file:PATH or hf-hub:REPO."""
    return ":" in model or "\\" in model


def check_named(place: Path, flag: str, model: str) -> None:
    """Raise BadPrompt if only the index names a model by location: it may be a stranger's."""
    if is_place(model):
        raise BadPrompt(
            f"the index at {place} was made with {model!r}, and what an index names is not loaded "
            f"unless segclip knows it; if it is yours, name it: {flag} {shlex.quote(model)}"
        )


def check_weights(place: Path, identity: Identity, encoder: str, weights: str) -> None:
    """Raise BadPrompt, with the rebuild command, unless an index was built with these weights."""
    if weights != identity.weights:
        raise BadPrompt(
            f"the index at {place} was made with the encoder {identity.encoder!r} (weights "
            f"{identity.weights}), not {encoder} (weights {weights}), and their embeddings cannot "
            f"be compared; to rebuild it: {identity.command(place)} --encoder "
            f"{shlex.quote(encoder)} --rebuild"
        )
