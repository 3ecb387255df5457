from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import segclip


def test_public_names_are_complete_sorted_and_typed() -> None:
    assert segclip.__all__ == sorted(segclip.__all__)
    for name in segclip.__all__:
        assert getattr(segclip, name) is not None
    source = Path(segclip.__file__).read_text(encoding="utf-8")
    typed = [line.split()[-1] for line in source.splitlines() if line.startswith("    from .")]
    assert sorted(typed) == segclip.__all__
    assert not hasattr(segclip, "lod")


def test_importing_segclip_is_light_and_without_effects() -> None:
    code = (
        "import json, os, sys; before = dict(os.environ); import segclip; light = "
        "sorted(sys.modules); "
        "unchanged = before == dict(os.environ); segclip.load; "
        "print(json.dumps([light, sorted(sys.modules), unchanged]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    light, loaded, unchanged = json.loads(output.stdout)
    assert unchanged
    assert not {"torch", "numpy", "cv2"} & set(light)
    assert not {"torch", "ultralytics", "open_clip", "segclip.cli"} & set(loaded)
