"""Remember what an index was made with, and refuse to mix it with anything else."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..batch.journal import Damaged
from ..errors import BadIndex, BadPrompt
from . import store

ENGINES = ("auto", *store.ENGINES)
FORMAT = 1
_LONGEST = 1024  # characters of an entry


@dataclass(frozen=True)
class Identity:
    """Remember what an index was made with; another encoder's vectors cannot be compared with its
    own.

    source: the folder, absolute, or "" where the index lies inside it. weights, proposer_weights:
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
        """Give the command that makes the index at ``place`` what it is now, but for its
        encoder.
        """
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
        """Name what an embedding depends on; who is only whole does not depend on the proposer."""
        told = {"weights": self.weights, "regions": self.regions, "format": FORMAT}
        if self.regions:
            told |= {"proposer": self.proposer_weights, "policy": self.policy}
        return told


def read_identity(place: Path) -> Identity:
    """Read what an index was made with. Raises BadPrompt where there is none, Damaged, and BadIndex
    for a newer one.
    """
    try:
        return parse(store.read_json(place / "index.json"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadPrompt(f"{place} holds no index; make one with: segclip index FOLDER") from None
    except (OSError, ValueError) as error:
        raise Damaged(
            f"the index at {place} is damaged, index.json: {error}; run segclip index again: it "
            "keeps every embedding "
            "that is sound"
        ) from None


def parse(told: object) -> Identity:
    """Read an identity. Raises ValueError, and BadIndex for one of a newer segclip."""
    if not isinstance(told, dict):
        raise ValueError("it is no JSON object")
    if type(told.get("format")) is int and told["format"] > FORMAT:
        raise BadIndex(
            f"the index has format {told['format']}, and this segclip reads {FORMAT}; update "
            "segclip"
        )
    words = ("source", "encoder", "weights", "proposer", "proposer_weights")
    named = {*words, "policy", "regions", "engine", "format"}
    if told.keys() != named or not all(_is_word(told[word]) for word in words):
        raise ValueError("its entries are others")
    if not (told["policy"] is None or _is_word(told["policy"])) or not isinstance(
        told["regions"], bool
    ):
        raise ValueError("its entries are of other types")
    if told["engine"] not in ENGINES or told["format"] != FORMAT or type(told["format"]) is not int:
        raise ValueError("its engine or format is none")
    return Identity(**told)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= _LONGEST


def is_place(model: str) -> bool:
    """Decide whether a model is named by where it lies, file:PATH or hf-hub:REPO, and not by a name
    segclip knows.
    """
    return ":" in model or "\\" in model


def check_named(place: Path, flag: str, model: str) -> None:
    """Raise BadPrompt where an index, and not its user, names a model by where it lies: it may come
    from anywhere.
    """
    if is_place(model):
        raise BadPrompt(
            f"the index at {place} was made with {model!r}, and what an index names is not loaded "
            "unless segclip knows "
            f"it; if it is yours, name it: {flag} {shlex.quote(model)}"
        )


def check_weights(place: Path, identity: Identity, encoder: str, weights: str) -> None:
    """Raise BadPrompt unless an index was made with these weights; the message names the command
    that rebuilds it.
    """
    if weights != identity.weights:
        raise BadPrompt(
            f"the index at {place} was made with the encoder {identity.encoder!r} (weights "
            f"{identity.weights}), not "
            f"{encoder} (weights {weights}), and their embeddings cannot be compared; to make it "
            "anew: "
            f"{identity.command(place)} --encoder {shlex.quote(encoder)} --rebuild"
        )
