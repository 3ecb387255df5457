"""The options of the ``segclip`` command, grouped in dataclasses that turn them into the library's
terms.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from functools import wraps
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from .. import checks
from ..errors import BadPrompt
from ..files.formats import PER_IMAGE

if TYPE_CHECKING:
    from ..question import Question
    from ..ranking.selection import Selection
    from ..segmenter import Segmenter
    from ..types import Points, Prompt

OUT = Path("segclip-out")
FORMATS = "overlay,png,cutout,json"
LARGER = (
    "mini is a small model of everyday things. For more on photographs: segclip weights get photo, "
    "then --preset photo "
    "(this is shown once)"
)
EVERY = 30.0  # s between lines of progress where there is no terminal


@dataclass(frozen=True)
class Asked:
    """What is looked for, and where."""

    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture.", show_default=False)]
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...", help="What to find, such as 'a red apple' or 'the left mug'."
        ),
    ] = None
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            metavar="X,Y[,0]",
            help="Click on the object; with ,0 on what it is not; repeatable.",
        ),
    ] = None
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X1,Y1,X2,Y2",
            help="Box around an object, or to search in; repeatable.",
        ),
    ] = None
    like: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y", help="Find everything like what is at this place, without a text."
        ),
    ] = None
    everything: Annotated[
        bool,
        typer.Option(
            "--everything", help="Cut out every object, without a text; with --box, those inside."
        ),
    ] = False

    def question(self, against: Against, choice: Choice) -> Question:
        """Put the options into the library's terms. Raises BadPrompt before any model is loaded."""
        from ..question import Question

        self._check_texts()
        return Question(
            self.texts or (),
            self._place(),
            self._example(),
            self.everything,
            negatives=against.negatives or (),
            backgrounds=against.backgrounds or None,
            templates=against.templates,
            selection=choice.selection(),
            max_pixels=against.max_pixels,
        )

    def _check_texts(self) -> None:
        """Raise BadPrompt for texts that are files: a shell spells photos/*.png out."""
        from ..files.listing import IMAGE_SUFFIXES

        files = [text for text in self.texts or () if Path(text).suffix.lower() in IMAGE_SUFFIXES]
        if files:
            raise BadPrompt(
                f"{files[0]!r} is a file, not a text; segment takes one image. For several: "
                "segclip export FOLDER OUT "
                "--text TEXT, with a folder or a glob in quotes"
            )

    def _example(self) -> Points | None:
        from ..types import Points

        if not self.like:
            return None
        if self.texts or self.points:
            raise BadPrompt(
                "--like takes neither texts nor --point; give a --box to search in, or nothing else"
            )
        return Points([numbers("--like", self.like, (2,))])

    def _place(self) -> Prompt:
        from ..types.prompts import place

        clicks = [numbers("--point", value, (2, 3)) for value in self.points or ()]
        boxes = [numbers("--box", value, (4,)) for value in self.boxes or ()]
        labels = [click[2] if len(click) == 3 else 1 for click in clicks]
        if self.everything and (self.texts or self.like or any(labels)):
            raise BadPrompt(
                "--everything takes neither texts nor --like nor a click on an object; give a "
                "--box to look in, or "
                "--point X,Y,0 on what to leave out"
            )
        searching = bool(self.texts or self.like or self.everything)
        return place([click[:2] for click in clicks], labels, boxes, searching=searching)


@dataclass(frozen=True)
class Against:
    """What a text competes with, and how it is said; the largest picture."""

    negatives: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What it is not; repeatable.")
    ] = None
    backgrounds: Annotated[
        list[str] | None,
        typer.Option(
            "--background", metavar="TEXT", help="Replace the encoder's backgrounds; repeatable."
        ),
    ] = None
    templates: Annotated[
        str | None, typer.Option(help="Sentences a text is put in: a set's name or a file.")
    ] = None
    max_pixels: Annotated[int, typer.Option(help="Largest picture that is read.", min=1)] = (
        100_000_000
    )


@dataclass(frozen=True)
class Choice:
    """Which regions are kept; see ``selection.Selection``."""

    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability to reach, with --everything quality; left out, the encoder's own, "
            "and 0.6 times the best."
        ),
    ] = None
    top_k: Annotated[int | None, typer.Option(help="At most this many for each text.")] = None
    best: Annotated[
        bool, typer.Option("--best", help="The best one for each text, even below the threshold.")
    ] = False
    nms: Annotated[float, typer.Option(help="Mask IoU from which two regions are one.")] = 0.6
    keep_parts: Annotated[
        bool, typer.Option("--keep-parts", help="Keep parts of a whole that matches too.")
    ] = False
    require: Annotated[
        bool, typer.Option("--require", help="Exit with 1 when a text matches nothing.")
    ] = False

    def selection(self) -> Selection:
        """Put the options into the library's terms."""
        from ..ranking.selection import Selection

        chosen = Selection(self.threshold, self.top_k, self.best, self.nms)
        return replace(chosen, containment=None) if self.keep_parts else chosen


@dataclass(frozen=True)
class Models:
    """Which models run, and where."""

    preset: Annotated[str, typer.Option(help="mini, mini-sam, photo or photo-large.")] = "mini"
    proposer: Annotated[
        str | None, typer.Option(help="Proposer instead of the preset's: a name or file:PATH.")
    ] = None
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder instead of the preset's: MODEL/TAG, MODEL/file:PATH, file:FOLDER, "
            "hf-hub:REPO."
        ),
    ] = None
    policy: Annotated[str | None, typer.Option(help="How regions are shown to the encoder.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto"
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False
    trust: Annotated[
        bool, typer.Option("--trust", help="Load pickled weights the manifest doesn't know.")
    ] = False

    def load(self, output: Output, *, with_encoder: bool = True) -> Segmenter:
        """Load what was named; the proposer alone, in half the time, where no words are to be
        read.
        """
        from .. import loading

        names, options = self._names(), loading.LoadOptions(self.offline, self.trust)
        if not with_encoder:
            with output.telling(f"loading {names[0]}"):
                return loading.load_picker(names[0], device=self.device, options=options)
        with output.telling(f"loading {names[0]} and {names[1]}"):
            return loading.load(*names, device=self.device, policy=self.policy, options=options)

    def suggest_larger(self, image: Path) -> str:
        """Return how to get models that know more, the first time that a photo of one's own is
        given to mini.
        """
        from ..weights import cache

        samples = {"samples", "segclip_samples"}
        if (
            self.preset != "mini"
            or self.proposer
            or self.encoder
            or image.absolute().parent.name in samples
        ):
            return ""
        return LARGER if cache.first_time("larger-models") else ""

    def _names(self) -> tuple[str, str]:
        from .. import loading, registry

        proposer, encoder = registry.choose(loading.PRESETS, self.preset, "preset")
        return self.proposer or proposer, self.encoder or encoder


@dataclass(frozen=True)
class Output:
    """What is written and said."""

    out: Annotated[Path | None, typer.Option(help=f"Folder for the files; {OUT} if left out.")] = (
        None
    )
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"Files, by comma or repeated: {', '.join(PER_IMAGE)}; {FORMATS} if left out.",
        ),
    ] = None
    record: Annotated[
        bool, typer.Option("--json", help="Print the JSON record; files only with --out.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say what is loaded and how long it takes.")
    ] = False

    def targets(self, image: Path) -> dict[str, str]:
        """Return the file name of each format asked for; raises UnknownName or BadPrompt before any
        work.
        """
        from .. import registry
        from ..files import outputs

        if self.folder and self.folder.exists() and not self.folder.is_dir():
            raise BadPrompt(f"--out {self.folder} is a file; give a folder")
        names = comma(self.formats or [FORMATS])
        if not names:
            raise BadPrompt(f"--format names nothing; choose some of {', '.join(PER_IMAGE)}")
        stem = outputs.shortened(image.stem)
        return {name: f"{stem}.{registry.choose(PER_IMAGE, name, 'format')}" for name in names}

    @property
    def folder(self) -> Path | None:
        """Return where files go; None where none are written."""
        return self.out or (None if self.record else OUT)

    @contextmanager
    def telling(self, message: str) -> Iterator[None]:
        """Say on a terminal what is being waited for, and how long it took."""
        told = sys.stderr.isatty() and not self.record and not self.verbose
        start = perf_counter()
        if told:
            typer.echo(f"{message} ...", nl=False, err=True)
        yield
        if told:
            typer.echo(f" {perf_counter() - start:.1f} s", err=True)


class Lines:
    """Tell progress in a line now and then, where there is no terminal."""

    def __init__(self) -> None:
        self.last = monotonic()

    def __call__(self, done: int, total: int, rate: float, told: str) -> None:
        """Hear of a step; rate: steps a second."""
        if monotonic() - self.last < EVERY:
            return
        self.last = monotonic()
        typer.echo(
            f"{done} of {total}, {told}, {(total - done) / max(rate, 1e-9) / 60:.0f} min left",
            err=True,
        )


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Spread a verb's dataclass parameters into the flat options typer reads."""
    groups = {name: kind for name, kind in get_type_hints(verb).items() if name != "return"}
    parameters = [parameter for kind in groups.values() for parameter in _parameters(kind)]

    @wraps(verb)
    def call(**values: Any) -> None:
        for parameter in parameters:
            checks.check(values[parameter.name], parameter.name, parameter.annotation)
        verb(
            *(
                kind(**{field.name: values[field.name] for field in fields(kind)})
                for kind in groups.values()
            )
        )

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[field.name],
        )


def comma(values: Iterable[str]) -> list[str]:
    """Return what an option names, by comma, repeated or both: each once, in that order."""
    return list(
        dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip())
    )


def numbers(flag: str, value: str, counts: tuple[int, ...]) -> list[float]:
    """Read numbers by comma; raises BadPrompt."""
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not all(
        abs(number) <= checks.MOST for number in numbers
    ):  # nan is not
        wanted, example = (
            " or ".join(map(str, counts)),
            ",".join(("120", "80", "400", "380")[: counts[0]]),
        )
        raise BadPrompt(
            f"{flag} takes {wanted} numbers by comma, finite, in pixels, such as {flag} {example}; "
            f"got {value[:80]!r}"
        )
    return numbers


@dataclass(frozen=True)
class Crew:
    """Who does the work of a run over many pictures."""

    workers: Annotated[
        int, typer.Option(help="Processes, each with its own models.", min=1, max=256)
    ] = 1
    runner: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local"
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster; one is started here if left out.")
    ] = None
    gpus: Annotated[
        float, typer.Option(help="Share of a GPU for each worker, with Ray.", min=0)
    ] = 0.0
    threads: Annotated[
        int,
        typer.Option(help="Threads of each worker; 0 shares the machine's out.", min=0, max=1024),
    ] = 0
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do again what failed before.")
    ] = False
