"""Options, progress and summary of an export."""

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
    """Options of an export: prompts, models and formats; a table's rows override the prompts.

    ask: default texts, boxes and points, for images without their own. boxes_of: a table of boxes
    by image name.
    """

    formats: Sequence[str] = ("png", "coco")
    models: loading.ModelSpec = field(default_factory=loading.ModelSpec)
    ask: Ask = field(default_factory=Ask)
    boxes_of: Path | None = None
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True)
class Running:
    """Where a run executes and when it stops.

    workers: processes. runner: "local" or "ray". address, gpus: of a Ray cluster, and the share of
    a GPU per worker. threads: per worker; 0 divides the machine's cores among the workers. part:
    "i/n", only this part of the run. retry_failed: retry images that failed before. max_failures:
    stop after more failures than this. verify: reread images and files already done, and redo those
    that changed.
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
    """Counts of a run: images of this part, those already done, and outcomes of this run."""

    total: int
    before: int = 0
    matched: int = 0
    empty: int = 0
    failed: int = 0
    stopped: bool = False  # too many failed
    started: float = field(default_factory=monotonic)

    @property
    def now(self) -> int:
        """Return how many images this run processed."""
        return self.matched + self.empty + self.failed

    @property
    def rate(self) -> float:
        """Return images per second."""
        return self.now / max(monotonic() - self.started, 1e-9)


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    images: number planned. states: how many matched, were empty or failed; {} while some are
    missing. progress: of this run. missing: images still to do, by other parts or because this one
    stopped; the files of the run as a whole are written only after them. files: these files.
    """

    images: int
    states: dict[str, int]
    progress: Progress
    missing: int
    files: tuple[Path, ...]
