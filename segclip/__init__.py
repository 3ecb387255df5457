"""Find what a text names in an image, and cut it out.

Public names are loaded on first use: importing segclip imports neither torch nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from .batch import Answers as Answers
    from .batch import Ask as Ask
    from .batch import ExportOptions as ExportOptions
    from .batch import Progress as Progress
    from .batch import Running as Running
    from .batch import Summary as Summary
    from .batch import export as export
    from .drawing import contact_sheet as contact_sheet
    from .drawing import overlay as overlay
    from .drawing import shrink as shrink
    from .errors import BadImage as BadImage
    from .errors import BadIndex as BadIndex
    from .errors import BadPrompt as BadPrompt
    from .errors import BadTable as BadTable
    from .errors import Busy as Busy
    from .errors import NotWritable as NotWritable
    from .errors import SegclipError as SegclipError
    from .errors import UnknownName as UnknownName
    from .errors import Unsupported as Unsupported
    from .errors import WeightsCorrupt as WeightsCorrupt
    from .errors import WeightsMissing as WeightsMissing
    from .exporters import save as save
    from .exporters import to_record as to_record
    from .files.formats import PER_IMAGE as PER_IMAGE
    from .files.formats import PER_RUN as PER_RUN
    from .files.listing import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from .images import load_image as load_image
    from .loading import PRESETS as PRESETS
    from .loading import ModelSpec as ModelSpec
    from .loading import load as load
    from .loading import load_encoder as load_encoder
    from .loading import load_picker as load_picker
    from .question import Question as Question
    from .ranking.concepts import Concept as Concept
    from .ranking.concepts import Example as Example
    from .ranking.selection import Selection as Selection
    from .scoring.crops import POLICIES as POLICIES
    from .scoring.crops import CropPolicy as CropPolicy
    from .scoring.crops import View as View
    from .scoring.heat import heat_maps as heat_maps
    from .scoring.heat import label_pixels as label_pixels
    from .search import Filter as Filter
    from .search import Index as Index
    from .search import IndexOptions as IndexOptions
    from .search import Match as Match
    from .search import Query as Query
    from .search import find_matches as find_matches
    from .search import make_index as make_index
    from .segmenter import Segmenter as Segmenter
    from .startup import get_threads as get_threads
    from .startup import limit_threads as limit_threads
    from .types import Boxes as Boxes
    from .types import Encoded as Encoded
    from .types import Everything as Everything
    from .types import Image as Image
    from .types import Masks as Masks
    from .types import Points as Points
    from .types import Proposals as Proposals
    from .types import Regions as Regions
    from .types import Resemblance as Resemblance
    from .types import Result as Result
    from .types import Scores as Scores
    from .types.prompts import place as place
    from .weights import get_weights as get_weights
    from .weights import list_weights as list_weights
    from .zeroshot import Classifier as Classifier
    from .zeroshot import Guess as Guess
    from .zeroshot import Labels as Labels
    from .zeroshot import classify as classify
    from .zeroshot import make_classifier as make_classifier
    from .zeroshot import read_labels as read_labels

_HOMES = {
    "batch": ("Answers", "Ask", "ExportOptions", "Progress", "Running", "Summary", "export"),
    "ranking.concepts": ("Concept", "Example"),
    "scoring.crops": ("CropPolicy", "POLICIES", "View"),
    "drawing": ("contact_sheet", "overlay", "shrink"),
    "errors": (
        "BadImage",
        "BadIndex",
        "BadPrompt",
        "BadTable",
        "Busy",
        "NotWritable",
        "SegclipError",
        "UnknownName",
        "Unsupported",
        "WeightsCorrupt",
        "WeightsMissing",
    ),
    "exporters": ("save", "to_record"),
    "files.formats": ("PER_IMAGE", "PER_RUN"),
    "scoring.heat": ("heat_maps", "label_pixels"),
    "images": ("load_image",),
    "files.listing": ("IMAGE_SUFFIXES",),
    "loading": ("ModelSpec", "PRESETS", "load", "load_encoder", "load_picker"),
    "types.prompts": ("place",),
    "question": ("Question",),
    "search": ("Filter", "Index", "IndexOptions", "Match", "Query", "find_matches", "make_index"),
    "segmenter": ("Segmenter",),
    "startup": ("get_threads", "limit_threads"),
    "ranking.selection": ("Selection",),
    "types": (
        "Boxes",
        "Encoded",
        "Everything",
        "Image",
        "Masks",
        "Points",
        "Proposals",
        "Regions",
        "Resemblance",
        "Result",
        "Scores",
    ),
    "weights": ("get_weights", "list_weights"),
    "zeroshot": ("Classifier", "Guess", "Labels", "classify", "make_classifier", "read_labels"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_MODULES)  # noqa: PLE0605 - sorted returns a list


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'segclip' has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
