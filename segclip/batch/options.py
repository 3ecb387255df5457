"""Say how a run is carried out, how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from .. import loading, registry
from ..errors import BadPrompt
from . import plan
from .plan import Ask
from .work import Answers


@dataclass(frozen=True)
class ExportOptions:
    """Hold what every image is searched for, and with what models; a row of a table comes before
    it.

    proposer, encoder, device, policy, load: as loading.load takes them. ask: texts, boxes and
    points of images that bring none of their own. boxes_of: a table of images and boxes, by the
    images' names.
    """

    formats: Sequence[str] = ("png", "coco")
    proposer: str = "mini"
    encoder: str | None = None
    device: str = "auto"
    policy: str | None = None
    ask: Ask = field(default_factory=Ask)
    boxes_of: Path | None = None
    answers: Answers = field(default_factory=Answers)
    load: loading.LoadOptions = field(default_factory=loading.LoadOptions)


@dataclass(frozen=True)
class Running:
    """Say where a run runs and when it stops.

    workers: processes. runner: "local" or "ray". address, gpus: of a Ray cluster, and the share of
    a GPU a worker gets. threads: a worker's, 0 to share the machine's out. part: "i/n", this part
    of the run only. retry_failed: do images again that failed before. max_failures: stop beyond so
    many. verify: read everything again that is done already, and do what turns out to be another.
    """

    workers: int = 1
    runner: str = "local"
    address: str | None = None
    gpus: float = 0.0
    threads: int = 0
    part: str | None = None
    retry_failed: bool = False
    max_failures: int | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        registry.choose({"local": 0, "ray": 0}, self.runner, "runner")
        if self.workers < 1:
            raise BadPrompt(f"workers must be at least 1, got {self.workers}")
        if self.part is not None:
            plan.shard([], self.part)


@dataclass
class Progress:
    """Count while a run goes on: images of this part, those done before, and what became of those
    done now.
    """

    total: int
    before: int = 0
    matched: int = 0
    empty: int = 0
    failed: int = 0
    stopped: bool = False  # too many failed
    started: float = field(default_factory=monotonic)

    @property
    def now(self) -> int:
        """Return how many were done by this run."""
        return self.matched + self.empty + self.failed

    @property
    def rate(self) -> float:
        """Return images a second."""
        return self.now / max(monotonic() - self.started, 1e-9)


@dataclass(frozen=True)
class Summary:
    """Hold how a run ended.

    images: of the plan. states: how many of them matched, were empty, failed; {} while some are
    missing. progress: what this run did. missing: images still to do, by other parts or because
    this one stopped; nothing is put together before they are done. files: those of the run as a
    whole.
    """

    images: int
    states: dict[str, int]
    progress: Progress
    missing: int
    files: tuple[Path, ...]
