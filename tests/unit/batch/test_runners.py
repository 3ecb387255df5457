from __future__ import annotations

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from segclip.batch import runners

IMAGES, PATIENCE = 4, 10.0  # s


def test_the_next_image_is_read_and_the_last_written_while_the_models_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, embedded = ([Event() for _ in range(IMAGES)] for _ in range(2))
    overlapped: list[str] = []

    def read(item: int, asked: str, max_pixels: int) -> int:
        begun[item].set()
        return item

    class Worker:
        def answer_all(self, given: list[int]) -> list[tuple[int, None]]:
            (item,) = given
            embedded[item].set()
            if item + 1 < IMAGES and begun[item + 1].wait(PATIENCE):
                overlapped.append(f"read {item + 1}")
            return [(item, None)]

        def finish(self, item: int, result: None) -> int:
            if item + 1 < IMAGES and embedded[item + 1].wait(PATIENCE):
                overlapped.append(f"wrote {item}")
            return item

    job: Any = SimpleNamespace(start=Worker, together=1, answers=SimpleNamespace(max_pixels=1))
    tasks: Any = [(item, "") for item in range(IMAGES)]
    monkeypatch.setattr(runners, "read", read)
    assert list(runners.here(job, tasks)) == [0, 1, 2, 3]
    assert sorted(overlapped) == ["read 1", "read 2", "read 3", "wrote 0", "wrote 1", "wrote 2"]
