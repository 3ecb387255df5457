"""Damage indexes by seed: searching and indexing them end well or in a plain error, and touch
nothing else.

SEGCLIP_FUZZ_EXAMPLES says how many are tried, SEGCLIP_FUZZ_SEED from which seed on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image
import pytest

from segclip import Filter, Index, IndexOptions, loading, make_index
from segclip.errors import SegclipError
from segclip.search import checked, results, rows
from segclip.search.build import INSIDE
from tests import search_script
from tests.fakes import paint
from tests.fuzz import WEIRD

EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "25"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "17"))
COLOURS = ("red", "green", "blue")
UNEXPECTED = (
    *WEIRD,
    3,
    ".",
    "../precious.png",
    "/etc/passwd",
    "file:evil",
    ["red.png"] * 3,
    "numpy",
    "lancedb",
    "snapshot-0123456789abcdef",
)


def make_sound(folder: Path) -> None:
    """Draw a few images with something precious beside them, and index them."""
    for colour in COLOURS:
        path = folder / "photos" / ("sub" if colour == "red" else ".") / f"{colour}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(
            paint((colour, (5, 5, 40, 40)), ("black", (50, 5, 60, 30)), size=(60, 70)).pixels
        ).save(path)
    PIL.Image.fromarray(paint(("red", (0, 0, 9, 9)), size=(20, 20)).pixels).save(
        folder / "precious.png"
    )
    make_index(folder / "photos", IndexOptions(regions=True))


def try_damaged_index(seed: int, sound: Path, folder: Path) -> None:
    """Damage a copy of what ``make_sound`` made, search it, index it, search it again.

    Raises AssertionError where an index that was brought up to date cannot be searched, or no
    longer finds what it did though nobody forged it, and whatever error is not segclip's.
    """
    rng = random.Random(seed)
    shutil.copytree(sound, folder)
    photos = folder / "photos"
    harms = [rng.choice((*HARMS, *FORGERIES)) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    for harm in harms:
        harm(rng, photos / INSIDE)
    _search(photos)
    if _ends_well(lambda: make_index(photos)):
        found = Index(photos, encoder="mini-clip").search("red", n=1)
        assert set(harms) & set(FORGERIES) or found[0].name == "sub/red.png", f"seed {seed}"
    elif _ends_well(lambda: make_index(photos, IndexOptions(regions=True, rebuild=True))):
        assert _search(photos), f"seed {seed}: rebuilt, and not to be searched"
    left = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if INSIDE not in path.parts
    }
    assert left == {
        "photos",
        "photos/sub",
        "photos/sub/red.png",
        "photos/green.png",
        "photos/blue.png",
        "precious.png",
    }
    for name in ("photos/sub/red.png", "precious.png"):
        assert (folder / name).read_bytes() == (sound / name).read_bytes(), f"seed {seed}"


def _search(photos: Path) -> bool:
    """Search in every way; answer whether nothing was in the way."""

    def search() -> None:
        index = Index(photos)
        found = index.search("red", n=9)
        deep = index.search("red", n=9, regions=True)
        index.search("red", where=Filter(folder="sub", min_side=1))
        results.to_records(index, deep)
        results.draw(index, [*found, *deep])

    return _ends_well(search)


def _ends_well(call: Callable[[], object]) -> bool:
    """Do something; answer whether it ended without an error of segclip's, which must say in a line
    what is wrong.
    """
    try:
        call()
    except SegclipError as error:
        reason = str(error)
    else:
        return True
    assert 0 < len(reason) < 9000
    return False


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def _damage_bytes(rng: random.Random, place: Path) -> None:
    for path in rng.sample(files := _files(place), k=min(len(files), rng.choice((1, 1, 2)))):
        data = bytearray(path.read_bytes())
        start = rng.randrange(len(data) + 1)
        length = rng.choice((1, 16, 4096, len(data) + 1))
        how = rng.randrange(5)
        if how == 0:
            del data[start:]
        elif how == 1:
            data[start : start + length] = bytes(len(data[start : start + length]))
        elif how == 2:
            data[start : start + length] = rng.randbytes(len(data[start : start + length]))
        elif how == 3:
            data = bytearray(
                rng.choice(
                    (b"", b"{", b"[" * 50_000, b'{"a":' * 50_000, b"null", rng.randbytes(3000))
                )
            )
        else:
            data += rng.randbytes(length)
        path.write_bytes(data)


def _replace_file(rng: random.Random, place: Path) -> None:
    if not (files := _files(place)):
        return
    path = rng.choice(files)
    path.unlink()
    how = rng.randrange(4)
    if how == 1:
        path.mkdir()
    elif how == 2:
        path.symlink_to(rng.choice(("/dev/null", "nowhere", place.parent.parent / "precious.png")))
    elif how == 3:
        os.mkfifo(path)


def _mutate(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """Change one thing somewhere inside a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {other: value[other] for other in value if other != key}
        return {**value, key: _mutate(rng, value[key], depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _mutate(rng, value[at], depth + 1), *value[at + 1 :]]
    return (
        rng.choice(UNEXPECTED)
        if depth
        else {**value, str(rng.random()): 1}
        if isinstance(value, dict)
        else value
    )


def _damage_json(rng: random.Random, place: Path) -> None:
    files = [place / "index.json", place / "current.json", *place.glob("snapshot-*/pictures.json")]
    path = rng.choice(files)
    with suppress(OSError, ValueError, TypeError, RecursionError):
        content = _mutate(rng, checked.read_json(path))
        path.write_text(json.dumps(content), "utf-8")
        if path.name == "pictures.json" and rng.random() < 0.8:
            _vouch(place, path)


def _vouch(place: Path, path: Path) -> None:
    crc = zlib.crc32(path.read_bytes())
    (place / "current.json").write_text(json.dumps({"snapshot": path.parent.name, "checksum": crc}))


def _damage_vectors(rng: random.Random, place: Path) -> None:
    """Change vectors or rows as someone would who knows of the checksums."""
    for path in place.glob("snapshot-*/pictures.json"):
        if not path.is_file():  # a pipe by now, which would wait for a writer
            continue
        with suppress(OSError, ValueError, TypeError, RecursionError):
            file = rng.choice([other for other in _files(path.parent) if other != path])
            data = bytearray(file.read_bytes())
            start = rng.randrange(0, max(1, len(data)), 4)
            data[start : start + 4] = rng.choice((rng.randbytes(4), b"\xff" * 4, b"\0\0\xc0\x7f"))
            file.write_bytes(data)
            content = json.loads(path.read_text("utf-8"))
            content["files"] = checked.checksums(path.parent)
            path.write_text(json.dumps(content), "utf-8")
            _vouch(place, path)


def _damage_rows(rng: random.Random, place: Path) -> None:
    """Change a row of the journal by SQL."""
    failures = (
        sqlite3.Error,
        zlib.error,
        TypeError,
        ValueError,
        RecursionError,
    )  # what was damaged before, or is no row any more
    with suppress(*failures), closing(sqlite3.connect(place / rows.NAME)) as table, table:
        name, rest = rng.choice(table.execute("SELECT name, rest FROM outcomes").fetchall())
        column = rng.choice(
            ("name", "content", "size", "mtime", "ctime", "inode", "asked", "state", *["rest"] * 4)
        )
        bomb = zlib.compress(b"[" * 100_000)
        value: Any = rng.choice(
            (None, -1, "words", b"bytes", 1.5, bomb, bytes(rest[: len(rest) // 2]))
        )
        if column == "rest" and rng.random() < 0.8:
            value = zlib.compress(
                json.dumps(_mutate(rng, json.loads(zlib.decompress(rest)))).encode()
            )
        table.execute(f"UPDATE outcomes SET {column} = ? WHERE name = ?", (value, name))


def _damage_tables(rng: random.Random, place: Path) -> None:
    """Change the journal's schema."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(place / rows.NAME)) as table, table:
        table.execute(
            rng.choice(
                (
                    "DROP TABLE outcomes", "ALTER TABLE outcomes ADD COLUMN more", ("PRAGMA "
                                                                                   "user_version = "
                                                                                   "99"),
                    "CREATE TABLE more (a)", "ALTER TABLE outcomes RENAME COLUMN rest TO rested",
                    "CREATE TRIGGER trap AFTER INSERT ON outcomes BEGIN DELETE FROM outcomes; END",
                )
            )
        )  # fmt: skip


Harm: TypeAlias = Callable[[random.Random, Path], None]
HARMS: tuple[Harm, ...] = (
    _damage_bytes,
    _damage_bytes,
    _damage_bytes,
    _replace_file,
    _damage_tables,
)
FORGERIES: tuple[Harm, ...] = (
    _damage_json,
    _damage_vectors,
    _damage_rows,
    _damage_rows,
)  # who knows what finds it?


@pytest.fixture
def sound(fake_models: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)
    make_sound(tmp_path / "sound")
    return tmp_path / "sound"


def test_no_damaged_index_ends_in_a_traceback(sound: Path, tmp_path: Path) -> None:
    """Fault 17.b: any index, however damaged, ends in one line, and is mended by indexing again."""
    for seed in range(SEED, SEED + EXAMPLES):
        try:
            try_damaged_index(seed, sound, tmp_path / "damaged")
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(tmp_path / "damaged")
