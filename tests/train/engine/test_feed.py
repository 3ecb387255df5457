"""Items are checked before training, and batches are made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segclip.errors import BadPrompt
from tests.train.captions.test_tables import write_image
from train.captions.tables import CaptionItem
from train.engine.feed import check


def test_missing_images_and_empty_captions_are_reported_or_left_out(tmp_path: Path) -> None:
    good = CaptionItem(write_image(tmp_path / "a.png"), ("x",), "a")
    missing, empty = (
        CaptionItem(tmp_path / "gone.png", ("x",), "g"),
        CaptionItem(good.image, ("",), "e"),
    )
    with pytest.raises(BadPrompt, match=r"gone.png, which is missing"):
        check([good, missing], skip_bad=False)
    with pytest.raises(BadPrompt, match="empty caption"):
        check([good, empty], skip_bad=False)
    half = CaptionItem(good.image, ("\udcff",), "h")  # as from a folder name in another encoding
    pipe = CaptionItem(tmp_path / "pipe.png", ("x",), "p")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadPrompt, match="a lone surrogate"):
        check([good, half], skip_bad=False)
    with pytest.raises(BadPrompt, match=r"pipe.png, which is no regular file"):
        check([good, pipe], skip_bad=False)
    assert check([good, missing, empty, half, pipe], skip_bad=True) == [good]
