"""The ledger of an output's files: mended when damaged, believed only for our own paths."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from segclip.batch import ledger, state
from segclip.batch.ledger import is_ours
from segclip.errors import BadIndex
from tests.exports import run, snapshot, tree


def mutate(data: bytes, seed: int) -> bytes:
    """Damage a file as a disk, an editor or an attacker would."""
    chance = random.Random(seed)
    changed = bytearray(data)
    kind = chance.randrange(4)
    if kind == 0:
        del changed[chance.randrange(len(changed)) :]
    elif kind == 1:
        start = chance.randrange(len(changed))
        del changed[start : start + chance.randrange(1, 2000)]
    for _ in range(chance.choice((1, 10, 300)) if kind > 1 and changed else 0):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [0, *(pytest.param(block, marks=pytest.mark.long) for block in range(1, 20))]
)
def test_fault_17_5_mutated_journals_are_repaired(folder: Path, tmp_path: Path, block: int) -> None:
    out = tmp_path / "out"
    run(folder, out)
    state, wanted = out / ".segclip", tree(out)
    before = snapshot(tmp_path, but=out)
    for seed in range(25 * block, 25 * block + 25):
        for name in ("journal.sqlite", "files.jsonl") if seed % 3 == 0 else ("journal.sqlite",):
            (state / name).write_bytes(mutate((state / name).read_bytes(), seed))
        try:
            run(folder, out)
        except BadIndex as error:  # the number of a newer version
            assert "newer segclip" in str(error)  # noqa: PT017
            (state / "journal.sqlite").unlink()
            run(folder, out)
        assert tree(out) == wanted, seed
        assert snapshot(tmp_path, but=out) == before, seed


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/etc/x",
        "png",
        "png/..",
        "png/../../x",
        "png//a",
        "./png/a",
        "notes.txt",
        "png/\0",
        "yolo",
    ],
)
def test_fault_17_2_other_paths_are_not_ours(path: str) -> None:
    assert not is_ours(path)


def test_output_paths_are_ours() -> None:
    assert all(map(is_ours, ("png/a", "yolo/images/x/y.png", "coco.json", "labelme/é/木.json")))


def test_a_list_of_entries_is_read_up_to_a_limit(
    tmp_path: Path,
) -> None:
    path = tmp_path / state.STATE / "files.jsonl"
    path.parent.mkdir()
    path.write_text('["a", "png/a"]\n' + "[" * 200_000 + '\n["b", "png/b"]\n["c", "png/c"]\n')
    assert state.written(tmp_path) == {"png/a", "png/b", "png/c"}
    assert [kept.path for kept in ledger.read_entries(path, most=20)] == ["png/a"]
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert state.written(tmp_path) == frozenset()
