"""Remember what an index was made with, and refuse to mix it with anything else."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadPrompt

ENGINES = ("auto", "numpy", "lancedb")
FORMAT = 1


@dataclass(frozen=True)
class Identity:
    """Remember what an index was made with; another encoder's vectors cannot be compared with its own.

    source: the folder, absolute, or "" where the index lies inside it. weights, proposer_weights: hashes.
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
        """Give the command that makes the index at ``place`` what it is now, but for its encoder."""
        words = ["segclip", "index", self.source or str(place.parent), *(["--out", str(place)] if self.source else [])]
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
    """Read what an index was made with. Raises BadPrompt where there is none."""
    try:
        told = json.loads((place / "index.json").read_text("utf-8"))
        if told["format"] != FORMAT:
            raise BadPrompt(f"the index at {place} has format {told['format']}, not {FORMAT}; make it with --rebuild")
        return Identity(**told)
    except FileNotFoundError:
        raise BadPrompt(f"{place} holds no index; make one with: segclip index FOLDER") from None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadPrompt(f"the index at {place} is damaged ({error}); make it again with --rebuild") from None


def check_weights(place: Path, identity: Identity, encoder: str, weights: str) -> None:
    """Raise BadPrompt unless an index was made with these weights; the message names the command that rebuilds it."""
    if weights != identity.weights:
        raise BadPrompt(
            f"the index at {place} was made with the encoder {identity.encoder} (weights {identity.weights}), not "
            f"{encoder} (weights {weights}), and their embeddings cannot be compared; to make it anew: "
            f"{identity.command(place)} --encoder {shlex.quote(encoder)} --rebuild"
        )
