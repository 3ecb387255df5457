"""Name the images that come with segclip, and what each is asked at first."""

from __future__ import annotations

TEXTS = {
    "coffee.jpg": "a cup of coffee",
    "cat.jpg": "a cat",
    "astronaut.jpg": "a person",
    "rocket.jpg": "a rocket",
    "desk.png": "red apple",
    "zoo.png": "elephant",
}
FIRST = "coffee.jpg"  # what a newcomer sees
