"""Options of the ``segclip`` command: dataclasses that convert them to library objects."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadPrompt
from .inputs import check_image, local_path, note_missing_quotes
from .output import OutputOptions
from .parsing import parse_numbers

if TYPE_CHECKING:
    from ..loading import ModelSpec
    from ..question import Question
    from ..ranking.concepts import Concept, Example
    from ..ranking.selection import Selection
    from ..segmenter import Segmenter
    from ..types import Points, Prompt


def _forbid_network(offline: bool) -> bool:
    """Forbid it to the whole process and its workers, before a library decides for itself."""
    if offline:
        from .. import weights

        weights.set_offline()
    return offline


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Never use the network.", callback=_forbid_network)
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load pickled weights that the manifest does not list.")
]
# the names are those of scoring.crops.POLICIES and ranking.templates, which would import NumPy
POLICY = typer.Option(
    help="How regions are cropped for the encoder: default, context, keep, tight or ultralytics."
)
TEMPLATES = typer.Option(help="Prompt templates: plain, photo, clip-7, clip-80, or a file.")
MAX_PIXELS = 100_000_000  # that of segclip.question, which would import NumPy for --help
MaxPixels = Annotated[int, typer.Option(help="Largest image to read, in pixels.", min=1)]
LARGER = (
    "mini is a small model of everyday objects. For better results on photographs: segclip weights "
    "get photo, then --preset photo (this hint appears once)"
)


LIKE_THIS = "like-this"  # name of the concept that --like makes
_NUMBERS = re.compile(r"[-+\d.,e ]*", re.IGNORECASE)


def _is_click(text: str) -> bool:
    return not Path(text).is_file() and bool(_NUMBERS.fullmatch(text)) and text.count(",") < 3


@dataclass(frozen=True)
class QueryOptions:
    """The image, and what to segment in it: texts, points, boxes, an example, or everything."""

    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE",
            help="The image; - reads standard input.",
            show_default=False,
            parser=local_path,
        ),
    ]
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...", help="What to find, such as 'a red apple' or 'the left mug'."
        ),
    ] = None
    more_texts: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="The same as TEXT; repeatable."),
    ] = None
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            metavar="X,Y[,0]",
            help="Foreground click; with ,0 a background click; repeatable.",
        ),
    ] = None
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X1,Y1,X2,Y2",
            help="Box around an object; with texts, the area to search; repeatable.",
        ),
    ] = None
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="EXAMPLE",
            help="Find all objects similar to this one: X,Y or X1,Y1,X2,Y2 in IMAGE, or FILE, "
            "FILE@X,Y, FILE@X1,Y1,X2,Y2, FILE@MASK.png; repeatable, alone or with texts.",
        ),
    ] = None
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", metavar="EXAMPLE", help="Counter-example; repeatable."),
    ] = None
    everything: Annotated[
        bool,
        typer.Option(
            "--everything", help="Segment every object, without a text; with --box, those inside."
        ),
    ] = False

    def question(self, rivals: RivalOptions, selection: SelectionOptions) -> Question:
        """Convert the options to a question. Raises BadPrompt before any model is loaded."""
        from ..question import Question

        check_image("segment", self.image, self.texts)
        note_missing_quotes(self.words or ())
        taught = [f"@{LIKE_THIS}"] if self.examples() else []
        return Question(
            [*self.texts, *taught],
            self._place(),
            self._example(),
            self.everything,
            negatives=rivals.negatives or (),
            backgrounds=rivals.backgrounds or None,
            templates=rivals.templates,
            selection=selection.selection(),
            max_pixels=rivals.max_pixels,
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts, however they were given."""
        return (*(self.words or ()), *(self.more_texts or ()))

    def _example(self) -> Points | None:
        """Return the click of a single --like X,Y, which is answered within the image alone."""
        from ..types import Points

        if self.points and (self.like or self.unlike):
            raise BadPrompt("--like takes no --point; only texts, and --box to limit the search")
        if self.examples() or not self.like:
            return None
        return Points([parse_numbers("--like", self.like[0], (2,))])

    def examples(self) -> tuple[list[Example], list[Example]] | None:
        """Return the examples of --like and --unlike, unless they are one click in the image.

        Raises BadPrompt.
        """
        like, unlike = self.like or [], self.unlike or []
        if unlike and not like:
            raise BadPrompt("--unlike takes an example of what to find too: --like FILE@X,Y")
        inside = len(like) == 1 and _is_click(like[0])
        if not like or (inside and not unlike and not self.texts):
            return None
        return [self._parsed(text) for text in like], [self._parsed(text) for text in unlike]

    def _parsed(self, text: str) -> Example:
        from ..ranking.concepts import Example

        here = Path(text).is_file() or not _NUMBERS.fullmatch(text)
        return Example.parse(text if here else f"{self.image}@{text}")

    def concepts(self, segmenter: Segmenter) -> tuple[Concept, ...]:
        """Make the concept that ``question`` names, if there are examples."""
        examples = self.examples()
        return (segmenter.concept(LIKE_THIS, *examples),) if examples else ()

    def _place(self) -> Prompt:
        from ..types.prompts import place

        clicks = [parse_numbers("--point", value, (2, 3)) for value in self.points or ()]
        boxes = [parse_numbers("--box", value, (4,)) for value in self.boxes or ()]
        labels = [click[2] if len(click) == 3 else 1 for click in clicks]
        if self.everything and (self.texts or self.like or any(labels)):
            raise BadPrompt(
                "--everything takes neither texts nor --like nor a click on an object; limit it "
                "with --box, or exclude an object with --point X,Y,0"
            )
        searching = bool(self.texts or self.like or self.everything)
        return place([click[:2] for click in clicks], labels, boxes, searching=searching)


@dataclass(frozen=True)
class RivalOptions:
    """Texts that compete with the query, prompt templates, and the size limit of images."""

    negatives: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="Text to exclude; repeatable.")
    ] = None
    backgrounds: Annotated[
        list[str] | None,
        typer.Option(
            "--background",
            metavar="TEXT",
            help="Replace the encoder's background texts; repeatable.",
        ),
    ] = None
    templates: Annotated[str | None, TEMPLATES] = None
    max_pixels: MaxPixels = MAX_PIXELS


@dataclass(frozen=True)
class SelectionOptions:
    """Which regions are kept; see ``selection.Selection``."""

    threshold: Annotated[
        float | None,
        typer.Option(
            help="Minimum probability (with --everything: minimum quality). Default: the encoder's "
            "own threshold, and 0.6x the best match."
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "-k", "-n", help="At most this many regions per text."),
    ] = None
    best: Annotated[
        bool, typer.Option("--best", help="The best region per text, even below the threshold.")
    ] = False
    nms: Annotated[float, typer.Option(help="Mask IoU above which two regions are duplicates.")] = (
        0.6
    )
    keep_parts: Annotated[
        bool, typer.Option("--keep-parts", help="Keep parts of an object that also matches.")
    ] = False
    require: Annotated[
        bool, typer.Option("--require", help="Exit with code 1 if a text matches nothing.")
    ] = False

    def selection(self) -> Selection:
        """Convert the options to a selection."""
        from ..ranking.selection import Selection

        selection = Selection(self.threshold, self.top_k, self.best, self.nms)
        return replace(selection, containment=None) if self.keep_parts else selection


@dataclass(frozen=True)
class ModelOptions:
    """The models, and the device they run on."""

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
    policy: Annotated[str | None, POLICY] = None
    device: Device = "auto"
    offline: Offline = False
    trust: Trust = False

    def spec(self) -> ModelSpec:
        """Convert the options to a ModelSpec. Raises UnknownName."""
        from .. import loading, registry

        proposer, encoder = registry.choose(loading.PRESETS, self.preset, "preset")
        return loading.ModelSpec(
            self.proposer or proposer,
            self.encoder or encoder,
            self.device,
            self.policy,
            self.offline,
            self.trust,
        )

    def load(self, output: OutputOptions, *, with_encoder: bool = True) -> Segmenter:
        """Load the models; without texts the proposer alone, in half the time."""
        spec = self.spec()
        if not with_encoder:
            with output.timed(f"loading {spec.proposer}"):
                return spec.open_picker()
        with output.timed(f"loading {spec.proposer} and {spec.encoder}"):
            return spec.open()

    def suggest_larger(self, image: Path) -> str:
        """Return a hint about larger models the first time that mini gets a user's own image."""
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


@dataclass(frozen=True)
class WorkerOptions:
    """Workers of a run over many images."""

    workers: Annotated[
        int, typer.Option(help="Worker processes, each with its own models.", min=1, max=256)
    ] = 1
    runner: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local"
    address: Annotated[
        str | None,
        typer.Option(help="Address of the Ray cluster. Default: start one on this machine."),
    ] = None
    gpus: Annotated[
        float, typer.Option(help="GPUs per worker, possibly a fraction, with Ray.", min=0)
    ] = 0.0
    threads: Annotated[
        int,
        typer.Option(
            help="Threads per worker; 0 divides the machine's cores among the workers.",
            min=0,
            max=1024,
        ),
    ] = 0
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry images that failed before.")
    ] = False
