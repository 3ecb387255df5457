"""Write the files of a run, replacing those of an earlier run for the same target but no others.

The folder's ``.segclip-files`` records the files of each target by name and SHA-256. A file that is
not recorded, or has changed since, belongs to the user: it is neither removed nor replaced.
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

STATE = ".segclip-files"  # not the batches' ".segclip", which marks the whole folder as segclip's
# bytes of a file name: file systems allow 255, and outputs append a label and a suffix
LONGEST = 200
_MAX_RECORD = 4 << 20  # bytes of a record
_MAX_SUFFIX = 16  # bytes of a suffix that is kept


def renew(folder: Path, target: str, write: Callable[[Path], Sequence[Path]]) -> list[Path]:
    """Write files in place of those of an earlier run for the same target; return their paths.

    target: a name for the files' source, such as "segment desk". write: writes into the empty
    folder it is called with, and returns the paths. Raises NotWritable, before changing anything,
    where a file of the same name is not segclip's.
    """
    digest = sha256(target.encode("utf-8", "surrogatepass")).hexdigest()
    record = folder / STATE / "written" / f"{digest[:32]}.json"
    _refuse_links(record)
    with _staging(folder) as staged:
        names = [path.name for path in write(staged)]
        new = {name: regular.digest(staged / name, links=False) for name in names}
        former = _read(record)
        for name in new:
            _refuse_foreign(folder / name, former.get(name, ()))
        both = {
            name: {*former.get(name, ()), *([new[name]] if name in new else ())}
            for name in {**former, **new}
        }
        _write(record, target, both)  # first, so that a kill leaves no unrecorded file
        for name in names:
            (staged / name).replace(folder / name)
    for name in former.keys() - new.keys():
        if _is_ours(folder / name, former[name]):
            (folder / name).unlink(missing_ok=True)
    _write(record, target, {name: {known} for name, known in new.items()})
    return [folder / name for name in names]


def written(folder: str | Path) -> frozenset[str]:
    """Return the names of the files in a folder that segclip wrote and that are unchanged."""
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
    """Return a unique name for each path: its stem if possible, else with suffix and folders.

    Names that differ only in case or Unicode form count as equal: some file systems fold them.
    """
    pending = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    chosen: dict[Path, str] = {}
    depths = range(max((len(path.parts) for path in pending), default=0))
    for depth, suffix in ((depth, suffix) for depth in depths for suffix in (False, True)):
        names = {path: _label(path, depth, suffix) for path in pending}
        counts = Counter(folded(name) for name in [*names.values(), *chosen.values()])
        chosen |= {path: name for path, name in names.items() if counts[folded(name)] == 1}
        pending = [path for path in pending if path not in chosen]
    for path in pending:  # "a-b/1.png" and "a/b-1.png"
        chosen[path] = f"{path.stem}-{sha256(os.fsencode(path)).hexdigest()[:8]}"
    return [shortened(chosen[Path(os.path.abspath(path))]) for path in paths]


def folded(name: str) -> str:
    """Return a key that is equal for all names that a file system may take as the same."""
    return normalize("NFC", normalize("NFD", name).casefold())


def shortened(name: str) -> str:
    """Return a name short enough to append to; a long one is cut and ends in a hash of it all."""
    if len(os.fsencode(name)) <= LONGEST:
        return name
    suffix = PurePath(name).suffix
    kept = suffix if len(os.fsencode(suffix)) <= _MAX_SUFFIX else ""
    end = f"~{sha256(os.fsencode(name)).hexdigest()[:16]}{kept}"
    return os.fsencode(name)[: LONGEST - len(os.fsencode(end))].decode("utf-8", "ignore") + end


def _label(path: Path, depth: int, suffix: bool) -> str:
    """Return a path's stem, or name with ``suffix``, after ``depth`` of its parent folders."""
    folders = path.parent.parts[1:]
    return "-".join([*folders[len(folders) - depth :], path.name if suffix else path.stem])


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    staged = folder / STATE / f"new-{uuid4().hex[:16]}"
    try:
        staged.mkdir(parents=True)
        yield staged
    except OSError as error:
        raise NotWritable(f"{folder} cannot be written to: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _refuse_links(record: Path) -> None:
    """Refuse links and pipes among a folder's records, which may come from an untrusted source."""
    with suppress(OSError):  # an unreachable path fails with its own error when written
        for path in (record.parent.parent, record.parent, record):
            regular.refuse_strange(path)


def _refuse_foreign(path: Path, known: Iterable[str]) -> None:
    if os.path.lexists(path) and not _is_ours(path, known):
        raise NotWritable(
            f"{path} is there already, and not as segclip wrote it; move it away, or name another "
            "folder with --out"
        )


def _is_ours(path: Path, known: Iterable[str]) -> bool:
    with suppress(OSError, ValueError):  # a record may hold an invalid file name
        return regular.digest(path, links=False) in set(known)
    return False


def _read(record: Path) -> dict[str, list[str]]:
    """Read the names and hashes of a target; a damaged record counts as empty."""
    with suppress(OSError, ValueError, RecursionError, TypeError, AttributeError):
        files = json.loads(regular.read(record, most=_MAX_RECORD, links=False))["files"]
        plain = {name for name in files if Path(name).name == name and name not in ("", ".", "..")}
        return {name: [str(known) for known in files[name]] for name in plain}
    return {}


def _write(record: Path, target: str, files: Mapping[str, Iterable[str]]) -> None:
    content = {
        "target": target,
        "files": {name: sorted(known) for name, known in sorted(files.items())},
    }
    atomic.write(record, json.dumps(content, indent=1).encode())
