"""Hashes of the weights that ship are written into the manifest, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from train.release import ship

WEIGHTS = Path(__file__).parents[3] / "weights"


def test_a_stamp_describes_the_weights_in_the_folder(tmp_path: Path) -> None:
    shutil.copy(WEIGHTS / "manifest.json", tmp_path)
    shutil.copytree(WEIGHTS / "mini", tmp_path / "mini")
    table = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    shipped = [entry for entry in table["entries"] if entry["name"] in ship.SHIPPED]
    assert len(shipped) == len(ship.SHIPPED)
    for entry in shipped:
        entry.update(bytes=1, sha256="0")
    (tmp_path / "manifest.json").write_text(json.dumps(table), "utf-8")
    ship.stamp(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text("utf-8")) == json.loads(
        (WEIGHTS / "manifest.json").read_text("utf-8")
    )
