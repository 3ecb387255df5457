"""Requests and responses of the HTTP API, as in its OpenAPI schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="As returned by POST /images.")]
Corners = tuple[Number, Number, Number, Number]

MOST_PARTS = 300  # texts, negatives and boxes per request, over all its prompts


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Click(_Strict):
    """A click, in pixels of the upright image."""

    x: Number
    y: Number
    label: int = Field(
        1, strict=True, ge=0, le=1, description="1 for foreground, 0 for background."
    )


class Prompt(_Strict):
    """One query: texts, points or boxes, or both, as in the ``segclip segment`` command."""

    texts: list[Text] = Field(default_factory=list, max_length=100)
    negatives: list[Text] = Field(default_factory=list, max_length=100)
    points: list[Click] = Field(default_factory=list, max_length=100)
    boxes: list[Corners] = Field(
        default_factory=list, max_length=100, description="xyxy in pixels, half-open."
    )
    threshold: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None
    best: StrictBool = False
    everything: StrictBool = Field(
        False, description="Every object, without texts; boxes limit the area."
    )


class SegmentRequest(_Strict):
    """Prompts for one image: in all at most 300 texts, negatives and boxes, and 1000 masks."""

    image: Id
    prompts: list[Prompt] = Field(min_length=1, max_length=50)
    masks: Literal["rle", "png", "polygon"] = "rle"

    @property
    def parts(self) -> int:
        """Return the size of the request: its prompts, texts, negatives and boxes."""
        return sum(1 + len(one.texts) + len(one.negatives) + len(one.boxes) for one in self.prompts)

    @model_validator(mode="after")
    def _bounded(self) -> SegmentRequest:
        if (parts := self.parts - len(self.prompts)) > MOST_PARTS:
            raise ValueError(
                f"{parts} texts, negatives and boxes were given; one request may have {MOST_PARTS}"
            )
        return self


class MaskResponse(BaseModel):
    """One mask. box: xyxy, half-open.

    mask: COCO's RLE, a PNG of the whole image in base64, or GeoJSON polygons.
    """

    text: str
    probability: float | None
    similarity: float | None
    quality: float | None
    box: tuple[int, int, int, int]
    area: int
    mask: Any


class AnswerResponse(BaseModel):
    """The answer to one prompt, best first; texts without any row are in ``unanswered``."""

    rows: list[MaskResponse]
    unanswered: list[str]
    reasons: list[str]
    threshold: float


class SegmentResponse(BaseModel):
    """The answers, in the order of the prompts. size: [height, width]."""

    size: tuple[int, int]
    answers: list[AnswerResponse]


class ClassifyRequest(_Strict):
    """Labels to rank for an image, or for boxes in it."""

    image: Id
    labels: list[Text] = Field(min_length=1, max_length=1000)
    boxes: list[Corners] = Field(default_factory=list, max_length=100)
    top_k: Annotated[int, Field(strict=True, ge=1, le=1000)] = 5


class GuessResponse(BaseModel):
    """A label with its scores."""

    label: str
    probability: float
    similarity: float


class ClassifyResponse(BaseModel):
    """The most probable labels of the image, or of each box."""

    answers: list[list[GuessResponse]]


class SearchRequest(_Strict):
    """A text, an image, or both, to search for in the server's index."""

    text: str = Field("", max_length=1000)
    image: Id | None = None
    negatives: list[Text] = Field(default_factory=list, max_length=100)
    n: Annotated[int, Field(strict=True, ge=1, le=100)] = 9
    regions: StrictBool | None = Field(
        None, description="Search segments. Default: if the index has any."
    )


class SearchMatch(BaseModel):
    """A matching image, named by its path inside the indexed folder."""

    name: str
    similarity: float
    probability: float
    box: tuple[int, int, int, int] | None
    size: tuple[int, int]


class SearchResponse(BaseModel):
    """The matches, best first."""

    matches: list[SearchMatch]


class OpenedImage(BaseModel):
    """An uploaded image. size: [height, width]."""

    image: str
    size: tuple[int, int]


class Health(BaseModel):
    """The state of the server. loaded: the models in memory."""

    ok: bool
    version: str
    loaded: list[str]
    pictures: int


class Problem(BaseModel):
    """The reason why a request was refused."""

    detail: Any
