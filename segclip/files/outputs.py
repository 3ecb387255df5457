"""Put the files of a run into a folder: what an earlier run left for the same target goes, what is
not segclip's stays.

The folder's ``.segclip-files`` records the files of each target by name and SHA-256. A file that is
not there, or has been changed since, is somebody's own: it is neither removed nor replaced.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path, PurePath
from unicodedata import normalize
from uuid import uuid4

from ..errors import NotWritable
from . import atomic, regular

STATE = ".segclip-files"  # not the batches' ".segclip", which marks a folder as all segclip's
# bytes of a file's name; file systems take 255, and what is made of a file is marked and has an
# ending
_LONGEST = 200
_RECORD = 4 << 20  # bytes of a record
_ENDING = 16  # bytes of an ending that is kept


def renew(folder: Path, target: str, write: Callable[[Path], Sequence[Path]]) -> list[Path]:
    """Write files in place of those of an earlier run for the same target; return their paths in
    ``folder``.

    target: what the files are of, such as "segment desk". write: called with an empty folder,
    returns what it wrote there. Raises NotWritable, before anything is changed, where a file of
    that name is not segclip's.
    """
    record = (
        folder
        / STATE
        / "written"
        / f"{sha256(target.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.json"
    )
    _refuse_links(record)
    with _staging(folder) as staged:
        names = [path.name for path in write(staged)]
        new = {name: _hash(staged / name) for name in names}
        former = _read(record)
        for name in new:
            _refuse_strange(folder / name, former.get(name, ()))
        both = {
            name: {*former.get(name, ()), *([new[name]] if name in new else ())}
            for name in {**former, **new}
        }
        _write(record, target, both)  # first, so that a kill leaves no file that nobody knows
        for name in names:
            os.replace(staged / name, folder / name)
    for name in former.keys() - new.keys():
        if _is_ours(folder / name, former[name]):
            (folder / name).unlink(missing_ok=True)
    _write(record, target, {name: {known} for name, known in new.items()})
    return [folder / name for name in names]


def written(folder: str | Path) -> frozenset[str]:
    """Return the names of the files in a folder that segclip wrote there and nobody has changed
    since.
    """
    records = Path(folder) / STATE / "written"
    if any(map(os.path.islink, (records, records.parent))):
        return frozenset()
    known: dict[str, set[str]] = {}
    for record in sorted(records.glob("*.json")):
        for name, hashes in _read(record).items():
            known.setdefault(name, set()).update(hashes)
    return frozenset(
        name for name, hashes in known.items() if _is_ours(Path(folder) / name, hashes)
    )


def labels(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path that no other of them has: its stem where that will do, else more
    of the path.

    Names that differ by case or Unicode form alone count as one: some file systems fold them.
    """
    waiting = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    chosen: dict[Path, str] = {}
    depths = range(max((len(path.parts) for path in waiting), default=0))
    for depth, whole in ((depth, whole) for depth in depths for whole in (False, True)):
        names = {path: _label(path, depth, whole) for path in waiting}
        counts = Counter(_folded(name) for name in [*names.values(), *chosen.values()])
        chosen |= {path: name for path, name in names.items() if counts[_folded(name)] == 1}
        waiting = [path for path in waiting if path not in chosen]
    for path in waiting:  # "a-b/1.png" and "a/b-1.png"
        chosen[path] = f"{path.stem}-{sha256(os.fsencode(path)).hexdigest()[:8]}"
    return [shortened(chosen[Path(os.path.abspath(path))]) for path in paths]


def shortened(name: str) -> str:
    """Return a file's name that leaves room for what is appended to it: a long one ends in a hash
    of the whole.
    """
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    suffix = PurePath(name).suffix
    ending = suffix if len(os.fsencode(suffix)) <= _ENDING else ""
    mark = f"~{sha256(os.fsencode(name)).hexdigest()[:16]}{ending}"
    return os.fsencode(name)[: _LONGEST - len(os.fsencode(mark))].decode("utf-8", "ignore") + mark


def _label(path: Path, depth: int, whole: bool) -> str:
    """Return a path's name with so many folders before it. whole: with its ending."""
    folders = path.parent.parts[1:]
    return "-".join([*folders[len(folders) - depth :], path.name if whole else path.stem])


def _folded(name: str) -> str:
    return normalize("NFC", normalize("NFC", name).casefold())


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    place = folder / STATE / f"new-{uuid4().hex[:16]}"
    try:
        place.mkdir(parents=True)
        yield place
    except OSError as error:
        raise NotWritable(f"{folder} cannot be written to: {error.strerror or error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _refuse_links(record: Path) -> None:
    """Refuse links and pipes among the records of a folder, which may have been received from
    elsewhere.
    """
    with suppress(
        OSError
    ):  # one that cannot be reached cannot be written to either, which is said then
        for path in (record.parent.parent, record.parent, record):
            regular.refuse_strange(path)


def _refuse_strange(path: Path, known: Iterable[str]) -> None:
    if os.path.lexists(path) and not _is_ours(path, known):
        raise NotWritable(
            f"{path} is there already, and not as segclip wrote it; move it away, or name another "
            "folder with --out"
        )


def _is_ours(path: Path, known: Iterable[str]) -> bool:
    with suppress(OSError, ValueError):  # a record may name what no file can be called
        return _hash(path) in set(known)
    return False


def _hash(path: Path) -> str:
    with regular.open_file(path, links=False) as file:
        digest = sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read(record: Path) -> dict[str, list[str]]:
    """Read the names and hashes of a target; a record that is not as it was written says
    nothing.
    """
    with suppress(OSError, ValueError, RecursionError, TypeError, AttributeError):
        files = json.loads(regular.read(record, most=_RECORD, links=False))["files"]
        plain = {name for name in files if Path(name).name == name and name not in ("", ".", "..")}
        return {name: [str(known) for known in files[name]] for name in plain}
    return {}


def _write(record: Path, target: str, files: Mapping[str, Iterable[str]]) -> None:
    content = {
        "target": target,
        "files": {name: sorted(known) for name, known in sorted(files.items())},
    }
    atomic.write(record, json.dumps(content, indent=1).encode())
