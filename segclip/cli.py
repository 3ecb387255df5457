"""The ``segclip`` command: one typed function a verb; whatever is heavy is imported once a verb runs."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

import typer
from typer.core import TyperGroup

from . import __version__, cli_evaluate, cli_weights
from .errors import BadPrompt, SegclipError

if TYPE_CHECKING:
    from .pipeline import Segmenter
    from .selection import Selection
    from .types import Result

OUT = Path("segclip-out")
FORMATS = {"overlay": "overlay.png", "png": "mask.png", "cutout": "cutout.png", "json": "json", "coco": "coco.json"}


class Commands(TyperGroup):
    """Turn the errors a user can cause into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; Ctrl-C gives 130."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no characters
        try:
            return super().invoke(ctx)
        except SegclipError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output left: no error of anyone's
                raise
            _fail(str(error))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_evaluate.app, name="evaluate")


@dataclass(frozen=True)
class Asked:
    """What is looked for, and where."""

    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture.", show_default=False)]
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help="What to find, such as 'a red apple'.")]
    negatives: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What it is not; repeatable.")
    ] = None
    backgrounds: Annotated[
        list[str] | None,
        typer.Option("--background", metavar="TEXT", help="Replace the encoder's backgrounds; repeatable."),
    ] = None
    templates: Annotated[str | None, typer.Option(help="Sentences a text is put in: a set's name or a file.")] = None
    max_pixels: Annotated[int, typer.Option(help="Largest picture that is read.", min=1)] = 100_000_000


@dataclass(frozen=True)
class Choice:
    """Which regions are kept; see ``selection.Selection``."""

    threshold: Annotated[
        float | None, typer.Option(help="Probability to reach; stored with the encoder if left out.")
    ] = None
    top_k: Annotated[int | None, typer.Option(help="At most this many for each text.")] = None
    best: Annotated[bool, typer.Option("--best", help="The best one for each text, even below the threshold.")] = False
    nms: Annotated[float, typer.Option(help="Mask IoU from which two regions are one.")] = 0.6
    keep_parts: Annotated[bool, typer.Option("--keep-parts", help="Keep parts of a whole that matches too.")] = False
    require: Annotated[bool, typer.Option("--require", help="Exit with 1 when a text matches nothing.")] = False

    def selection(self) -> Selection:
        """Put the options into the library's terms."""
        from .selection import Selection

        chosen = Selection(self.threshold, self.top_k, self.best, self.nms)
        return replace(chosen, containment=None) if self.keep_parts else chosen


@dataclass(frozen=True)
class Models:
    """Which models run, and where."""

    preset: Annotated[str, typer.Option(help="Proposer and encoder by one name: mini, photo, photo-large.")] = "mini"
    proposer: Annotated[str | None, typer.Option(help="Proposer instead of the preset's: a name or file:PATH.")] = None
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder instead of the preset's: MODEL/TAG, MODEL/file:PATH, file:FOLDER, hf-hub:REPO."),
    ] = None
    policy: Annotated[str | None, typer.Option(help="How regions are shown to the encoder.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto"
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False
    trust: Annotated[bool, typer.Option("--trust", help="Load pickled weights the manifest doesn't know.")] = False

    def load(self, output: Output) -> Segmenter:
        """Load what was named."""
        from . import pipeline, registry

        proposer, encoder = registry.choose(pipeline.PRESETS, self.preset, "preset")
        names = self.proposer or proposer, self.encoder or encoder
        options = pipeline.LoadOptions(self.offline, self.trust)
        with output.telling(f"loading {names[0]} and {names[1]}"):
            return pipeline.load(*names, device=self.device, policy=self.policy, options=options)


@dataclass(frozen=True)
class Output:
    """What is written and said."""

    out: Annotated[Path | None, typer.Option(help=f"Folder for the files; {OUT} if left out.")] = None
    format: Annotated[str, typer.Option(help=f"Files, by comma: {', '.join(FORMATS)}.")] = "overlay,png,cutout,json"
    record: Annotated[bool, typer.Option("--json", help="Print the JSON record; files only with --out.")] = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what is loaded and how long it takes.")] = False

    def targets(self, image: Path) -> dict[str, Path]:
        """Give the path each format asked for is written to; raises UnknownName or BadPrompt before any work."""
        from . import registry

        folder = self.out or (None if self.record else OUT)
        if folder is None:
            return {}
        if folder.exists() and not folder.is_dir():
            raise BadPrompt(f"--out {folder} is a file; give a folder")
        names = dict.fromkeys(name.strip() for name in self.format.split(","))
        return {name: folder / f"{image.stem}.{registry.choose(FORMATS, name, 'format')}" for name in names}

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


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Spread a verb's dataclass parameters into the flat options typer reads."""
    groups = {name: kind for name, kind in get_type_hints(verb).items() if name != "return"}
    parameters = [parameter for kind in groups.values() for parameter in _parameters(kind)]

    @wraps(verb)
    def call(**values: Any) -> None:
        verb(*(kind(**{field.name: values[field.name] for field in fields(kind)}) for kind in groups.values()))

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )


@app.command()
@grouped
def segment(asked: Asked, choice: Choice, models: Models, output: Output) -> None:
    """Cut out of IMAGE what each TEXT names."""
    from . import images, pipeline

    _listen(output.verbose)
    targets, selection, texts = output.targets(asked.image), choice.selection(), pipeline.unique(asked.texts)
    image = images.load(asked.image, max_pixels=asked.max_pixels)
    segmenter = models.load(output)
    with output.telling(f"looking at {asked.image.name}"):
        regions = segmenter.regions(image)
    result = segmenter.rank(
        regions,
        texts,
        negatives=asked.negatives or (),
        backgrounds=asked.backgrounds or None,
        templates=asked.templates,
        selection=selection,
    )
    _report(result, targets, output)
    if choice.require and result.unanswered:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Find what a text names in a picture, and cut it out."""
    if version:
        typer.echo(__version__)


def _report(result: Result, targets: dict[str, Path], output: Output) -> None:
    from . import exporters

    written = [path for name, target in targets.items() for path in exporters.save(result, target, format=name)]
    if output.record:
        typer.echo(json.dumps(exporters.to_record(result), ensure_ascii=False))
        return
    if len(result):
        typer.echo(_table(result))
    for text, nearest in zip(result.asked, result.nearest, strict=True):
        if text in result.unanswered:
            typer.echo(f"nothing here matches {text!r} (best {nearest:.2f}, threshold {result.threshold:.2f})")
    for path in written:
        typer.echo(f"wrote {path}")


def _table(result: Result) -> str:
    columns = zip(result.texts, result.probability, result.similarity, result.quality, result.masks.boxes, strict=True)
    rows = [("text", "probability", "similarity", "quality", "box x1,y1,x2,y2")]
    rows += [(text, f"{p:.2f}", f"{s:.3f}", f"{q:.2f}", ",".join(map(str, box))) for text, p, s, q, box in columns]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _listen(verbose: bool) -> None:
    """Send what the library logs to stderr."""
    log = logging.getLogger("segclip")
    log.handlers = [logging.StreamHandler()]
    log.setLevel(logging.INFO if verbose else logging.WARNING)


def _fail(message: str) -> NoReturn:
    typer.echo(f"segclip: {' '.join(message.split())}", err=True)
    raise typer.Exit(2) from None
