"""Load the drawn objects of scenes: glyphs of the Noto Color Emoji font, with their names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from segclip.errors import WeightsMissing
from segclip.types import Array

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
RANGES = ((0x1F300, 0x1FB00), (0x2600, 0x27C0))
NOT_OBJECTS = re.compile(
    r"MODIFIER|COMPONENT|ARROW|BUTTON|SIGN|CLOCK FACE|SYMBOL "
    r"FOR|SQUARED|KEYCAP|HEAVY|ZODIAC|REGIONAL|MEDIUM|"
    r"INPUT SYMBOL|WATER "
    r"CLOSET|^(ARIES|TAURUS|GEMINI|CANCER|LEO|VIRGO|LIBRA|SCORPIUS|SAGITTARIUS|CAPRICORN|AQUARIUS|"
    r"PISCES|OPHIUCHUS)$|^NO |NON-POTABLE|RESTROOM|BATHROOM|CUSTOMS|BAGGAGE CLAIM|LEFT "
    r"LUGGAGE|PASSPORT CONTROL"
)
NATIVE = 109  # the only size the font's bitmaps exist in
MIN_AREA = 1500  # opaque pixels of 136 x 128; fewer are a stroke, not an object
DUPLICATE = 6.0  # mean absolute RGB difference at 16 px below which drawings are duplicates

# Common names of objects whose character name differs.
SPOKEN = {
    "automobile": ("car", "red car"),
    "aubergine": ("eggplant",),
    "ear of maize": ("corn", "corn on the cob"),
    "american football": ("football",),
    "hot beverage": ("coffee", "cup of coffee"),
    "slice of pizza": ("pizza",),
    "red apple": ("apple",),
    "green apple": ("apple",),
    "dog face": ("dog",),
    "cat face": ("cat",),
    "cow face": ("cow",),
    "horse face": ("horse",),
    "pig face": ("pig",),
    "mouse face": ("mouse",),
    "rabbit face": ("rabbit", "bunny"),
    "tiger face": ("tiger",),
    "monkey face": ("monkey",),
    "lion face": ("lion",),
    "bear face": ("bear",),
    "wolf face": ("wolf",),
    "fox face": ("fox",),
    "frog face": ("frog",),
    "panda face": ("panda",),
    "unicorn face": ("unicorn",),
    "dragon face": ("dragon",),
    "honeybee": ("bee",),
    "black telephone": ("telephone", "phone"),
    "mobile phone": ("phone", "cell phone", "smartphone"),
    "personal computer": ("laptop", "computer"),
    "television": ("tv",),
    "electric light bulb": ("light bulb", "lamp"),
    "evergreen tree": ("tree", "pine tree"),
    "deciduous tree": ("tree",),
    "palm tree": ("palm", "tree"),
    "soccer ball": ("football", "ball"),
    "basketball and hoop": ("basketball", "ball"),
    "racing car": ("car", "race car"),
    "recreational vehicle": ("car", "suv"),
    "oncoming automobile": ("car",),
    "airplane": ("plane", "aeroplane"),
    "steam locomotive": ("train", "locomotive"),
    "sailboat": ("boat",),
    "speedboat": ("boat", "motorboat"),
    "athletic shoe": ("shoe", "sneaker"),
    "mans shoe": ("shoe",),
    "high-heeled shoe": ("shoe", "high heel"),
    "eyeglasses": ("glasses",),
    "dark sunglasses": ("sunglasses",),
    "school satchel": ("backpack",),
    "t-shirt": ("shirt",),
    "top hat": ("hat",),
    "womans hat": ("hat",),
    "billed cap": ("cap", "hat"),
    "wrapped present": ("present", "gift"),
    "birthday cake": ("cake",),
    "shortcake": ("cake",),
    "doughnut": ("donut",),
    "soft ice cream": ("ice cream",),
    "wine glass": ("glass of wine",),
    "beer mug": ("beer",),
    "teacup without handle": ("cup", "tea"),
    "closed umbrella": ("umbrella",),
    "umbrella with rain drops": ("umbrella",),
    "football": ("rugby ball",),
}
COLOURS = {
    "red": ((0, 10), (170, 180)),
    "orange": ((10, 21),),
    "yellow": ((21, 34),),
    "green": ((34, 85),),
    "blue": ((85, 130),),
    "purple": ((130, 150),),
    "pink": ((150, 170),),
}


@dataclass(frozen=True, eq=False)
class Glyph:
    """A drawn object.

    pixels: float32 (h, w, 4) RGBA in [0, 1], colour premultiplied, trimmed. name: its character's
    name, used for scoring. texts: all its names, ``name`` first. colour: the word for its main
    colour, or "" if there is none.
    """

    character: str
    name: str
    texts: tuple[str, ...]
    colour: str
    pixels: Array


def load_glyphs(font: Path = FONT) -> list[Glyph]:
    """Draw every nameable object of the font, in code-point order, without near-duplicates.

    Raises WeightsMissing when the font is not installed.
    """
    if not font.exists():
        raise WeightsMissing(
            f"{font} is not installed; on Debian: apt-get install fonts-noto-color-emoji"
        )
    face = ImageFont.truetype(str(font), NATIVE)
    characters = [chr(code) for start, end in RANGES for code in range(start, end)]
    named = {
        c: unicodedata.name(c).lower()
        for c in characters
        if not NOT_OBJECTS.search(unicodedata.name(c, "NO "))
    }
    drawn = {c: pixels for c in named if (pixels := _draw(face, c)) is not None}
    taken = {named[c] for c in drawn}
    thumbnails = np.zeros((len(drawn), 16 * 16 * 3), np.float32)
    glyphs: list[Glyph] = []
    for character, pixels in drawn.items():
        thumbnail = _thumbnail(pixels)
        if glyphs and np.abs(thumbnails[: len(glyphs)] - thumbnail).mean(axis=1).min() < DUPLICATE:
            continue
        thumbnails[len(glyphs)] = thumbnail
        name = named[character]
        glyphs.append(
            Glyph(character, name, _texts(character, name, taken), _colour(pixels), pixels)
        )
    return glyphs


def meanings(glyphs: list[Glyph]) -> dict[str, tuple[int, ...]]:
    """Map every text to the indices of all glyphs it names.

    "apple" names the red one and the green one.
    """
    found: dict[str, list[int]] = {}
    for index, glyph in enumerate(glyphs):
        for text in glyph.texts:
            found.setdefault(text, []).append(index)
    return {text: tuple(indices) for text, indices in found.items()}


def _draw(face: ImageFont.FreeTypeFont, character: str) -> Array | None:
    canvas = PILImage.new("RGBA", (140, 132))
    ImageDraw.Draw(canvas).text((0, 0), character, font=face, embedded_color=True)
    rgba = np.asarray(canvas, np.float32) / 255
    alpha = rgba[..., 3]
    if (alpha > 0.5).sum() < MIN_AREA:
        return None
    ys, xs = np.nonzero(alpha > 0.03)
    rgba = rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=2)


def _thumbnail(pixels: Array) -> Array:
    on_grey = pixels[..., :3] + 0.5 * (1 - pixels[..., 3:])
    return cv2.resize(on_grey, (16, 16), interpolation=cv2.INTER_AREA).ravel() * 255


def _texts(character: str, name: str, taken: set[str]) -> tuple[str, ...]:
    import emoji  # part of the `train` extra: the CLDR short names and aliases

    entry = emoji.EMOJI_DATA.get(character) or emoji.EMOJI_DATA.get(character + "\ufe0f") or {}
    aliases = [entry.get("en", ""), *(entry.get("alias") or [])]
    words = [re.sub(r"[_\s]+", " ", text.strip(":").lower()) for text in aliases]
    words = [word for word in words if word not in taken]  # aliases must not name another drawing
    short = [name.removesuffix(" face")] if name.endswith(" face") and name.count(" ") == 1 else []
    candidates = [
        name,
        *words,
        *SPOKEN.get(name, ()),
        *(short if short and short[0] in _ANIMALS else []),
    ]
    return tuple(dict.fromkeys(text for text in candidates if len(text) > 1))


_ANIMALS = {
    "hamster",
    "koala",
    "polar bear",
    "raccoon",
    "dog",
    "cat",
    "cow",
    "horse",
    "pig",
    "moose",
    "chipmunk",
}


def _colour(pixels: Array) -> str:
    solid = pixels[..., 3] > 0.5
    rgb = np.clip(pixels[..., :3] * 255, 0, 255).astype(np.uint8)
    hue, saturation, value = (
        channel[solid] for channel in cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    )
    vivid = (saturation > 110) & (value > 90)
    if vivid.mean() < 0.55:
        return ""
    for word, spans in COLOURS.items():
        share = (
            sum(((hue >= low) & (hue < high) & vivid).sum() for low, high in spans) / vivid.sum()
        )
        if share > 0.7:
            return word
    return ""
