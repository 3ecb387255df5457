"""What goes over the HTTP API, as its OpenAPI document tells it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="As /images gave it.")]
Corners = tuple[Number, Number, Number, Number]

MOST_PARTS = 300  # texts, negatives and boxes of one request, all its prompts together


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Click(_Strict):
    """A click: in pixels of the upright picture."""

    x: Number
    y: Number
    label: int = Field(
        1, strict=True, ge=0, le=1, description="1 on the object, 0 on what it is not."
    )


class Prompt(_Strict):
    """One question about the picture: texts, a place, or both, as in segclip's own segment
    command.
    """

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
        False, description="Every object, without texts; boxes are looked in."
    )


class SegmentThese(_Strict):
    """Some questions about one image, with at most 300 texts, negatives and boxes, and 1000 masks,
    in all.
    """

    image: Id
    prompts: list[Prompt] = Field(min_length=1, max_length=50)
    masks: Literal["rle", "png", "polygon"] = "rle"

    @property
    def parts(self) -> int:
        """Count what is to be worked out: texts, negatives and boxes, and the prompts
        themselves.
        """
        return sum(1 + len(one.texts) + len(one.negatives) + len(one.boxes) for one in self.prompts)

    @model_validator(mode="after")
    def _bounded(self) -> SegmentThese:
        if (parts := self.parts - len(self.prompts)) > MOST_PARTS:
            raise ValueError(
                f"{parts} texts, negatives and boxes were given; one request may have {MOST_PARTS} "
                "in all"
            )
        return self


class Row(BaseModel):
    """One mask. box: xyxy, half-open. mask: COCO's RLE, a PNG of the whole picture in base64, or
    GeoJSON's polygons.
    """

    text: str
    probability: float | None
    similarity: float | None
    quality: float | None
    box: tuple[int, int, int, int]
    area: int
    mask: Any


class Answer(BaseModel):
    """The answer to one prompt, best first; texts without any row are in ``unanswered``."""

    rows: list[Row]
    unanswered: list[str]
    reasons: list[str]
    threshold: float


class Segmented(BaseModel):
    """The answers, in the order of the prompts. size: [height, width]."""

    size: tuple[int, int]
    answers: list[Answer]


class SortThis(_Strict):
    """Labels to rank for a picture, or for boxes in it."""

    image: Id
    labels: list[Text] = Field(min_length=1, max_length=1000)
    boxes: list[Corners] = Field(default_factory=list, max_length=100)
    top_k: Annotated[int, Field(strict=True, ge=1, le=1000)] = 5


class Guess(BaseModel):
    """A label and how well it fits."""

    label: str
    probability: float
    similarity: float


class Sorted(BaseModel):
    """The likeliest labels of the picture, or of each box."""

    answers: list[list[Guess]]


class SearchFor(_Strict):
    """Words, a picture, or both, to find in the server's index."""

    text: str = Field("", max_length=1000)
    image: Id | None = None
    negatives: list[Text] = Field(default_factory=list, max_length=100)
    n: Annotated[int, Field(strict=True, ge=1, le=100)] = 9
    regions: StrictBool | None = Field(
        None, description="Look at segments; left out: if there are any."
    )


class Found(BaseModel):
    """A picture that was found, named inside the indexed folder."""

    name: str
    similarity: float
    probability: float
    box: tuple[int, int, int, int] | None
    size: tuple[int, int]


class Searched(BaseModel):
    """What was found, best first."""

    matches: list[Found]


class Opened(BaseModel):
    """A picture that was received. size: [height, width]."""

    image: str
    size: tuple[int, int]


class Health(BaseModel):
    """The server is there; loaded: the models in memory."""

    ok: bool
    version: str
    loaded: list[str]
    pictures: int


class Problem(BaseModel):
    """Why a request was refused."""

    detail: Any
