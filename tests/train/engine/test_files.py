"""Folders that recipes write data sets and runs to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segclip.errors import BadPrompt, NotWritable
from train import few, shapes
from train.engine import files, loop
from train.scenes import compose, write


@pytest.mark.parametrize(
    ("recipe", "first"),
    [(shapes, 0), (few, compose.VALIDATION_SEED), (write, compose.VALIDATION_SEED)],
)
def test_fault_17_1_a_users_data_set_is_not_replaced(
    tmp_path: Path, recipe: Any, first: int
) -> None:
    for name in ("scenes.json", "captions.jsonl"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(NotWritable, match="no recipe wrote"):
        recipe.main(tmp_path, 1, first=first)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "scenes.json": "mine",
        "captions.jsonl": "mine",
    }


def test_a_folder_that_a_recipe_made_is_written_again(tmp_path: Path) -> None:
    shapes.main(tmp_path / "new", 2, held_out=1)
    shapes.main(tmp_path / "new", 3, held_out=1)
    assert len(list((tmp_path / "new" / "images").iterdir())) == 3
    files.claim(tmp_path / "new")


def test_fault_17_1_weights_without_a_run_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(BadPrompt, match="choose another --out"):
        loop.start(SimpleNamespace(folder=tmp_path), resume=False)  # type: ignore[arg-type]
