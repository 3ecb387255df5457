"""The sample images that come with segclip, each with its initial text."""

from __future__ import annotations

TEXTS = {
    "cat.jpg": "a kitten",
    "coffee.jpg": "a spoon",
    "desk.png": "red apple",
    "zoo.png": "penguin",
}
FIRST = "coffee.jpg"  # opened for a new user
