"""Images are read, run and written side by side, in this process or in others."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest

from segclip.batch import runners
from segclip.batch.plan import Ask, Item
from segclip.batch.work import Read
from tests.batch_script import POISON
from tests.exports import draw, export_in_a_process, run_all, tree
from tests.fakes import paint

IMAGES, PATIENCE = 4, 10.0  # s


def test_the_next_image_is_read_and_the_last_written_while_the_models_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, embedded = ([Event() for _ in range(IMAGES)] for _ in range(2))
    overlapped: list[str] = []
    names = [f"{number}.png" for number in range(IMAGES)]
    for name in names:
        draw(tmp_path / name, "red")
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        if path.name in names:
            begun[names.index(path.name)].set()
        return read_bytes(path)

    class Worker:
        def answer_all(self, given: list[Read]) -> list[tuple[Read, None]]:
            (one,) = given
            number = names.index(one.item.name)
            embedded[number].set()
            if number + 1 < IMAGES and begun[number + 1].wait(PATIENCE):
                overlapped.append(f"read {number + 1}")
            return [(one, None)]

        def finish(self, one: Read, result: None) -> str:
            number = names.index(one.item.name)
            if number + 1 < IMAGES and embedded[number + 1].wait(PATIENCE):
                overlapped.append(f"wrote {number}")
            return one.item.name

    job: Any = SimpleNamespace(start=Worker, together=1, answers=SimpleNamespace(max_pixels=10**6))
    tasks = [(Item(tmp_path / name, name, Ask()), "") for name in names]
    monkeypatch.setattr(Path, "read_bytes", noted)
    assert list(runners.here(job, tasks)) == names
    assert sorted(overlapped) == ["read 1", "read 2", "read 3", "wrote 0", "wrote 1", "wrote 2"]


@pytest.mark.slow
def test_processes_and_parts_give_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    run_all(photos, tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    done = export_in_a_process(photos, tmp_path / "pool", workers=2)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "pool") == expected
    first = run_all(photos, tmp_path / "parts", part="2/2")
    assert first.missing == 4
    assert not (tmp_path / "parts" / "coco.json").exists()
    assert run_all(photos, tmp_path / "parts", part="1/2").missing == 0
    assert tree(tmp_path / "parts") == expected


@pytest.mark.slow
def test_an_image_that_kills_its_process_is_the_only_failure(photos: Path, tmp_path: Path) -> None:
    pixels = paint(("red", (5, 5, 60, 60))).pixels.copy()
    pixels[0, 0] = POISON
    PIL.Image.fromarray(pixels).save(photos / "c.png")
    done = export_in_a_process(photos, tmp_path / "out", workers=2)
    assert done.returncode == 0, done.stderr
    (row,) = (tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()
    assert json.loads(row)["image"] == "c.png"
    assert "the process died" in json.loads(row)["reason"]
