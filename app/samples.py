"""Name the images that come with segclip, and what each is asked at first."""

from __future__ import annotations

TEXTS = {
    "cat.jpg": "a kitten",
    "coffee.jpg": "a spoon",
    "desk.png": "red apple",
    "zoo.png": "penguin",
}
FIRST = "coffee.jpg"  # what a newcomer sees
