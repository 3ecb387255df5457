"""Index a folder with fake models in a process of its own: python -m tests.search_script FOLDER
KILL WORKERS.

KILL: "no", or N to die by SIGKILL before the N-th time it changes the disk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from segclip import loading
from segclip.batch import Running
from segclip.search import IndexOptions, make_index, store
from tests import batch_script
from tests.fakes import FakeEncoder


def fake_encoder(name: str, **options: Any) -> FakeEncoder:
    return FakeEncoder()


def fake_hash(name: str, **options: Any) -> str:
    return f"hash of {name}"


def put_fakes_in() -> None:
    """Let every model of this process be a fake one."""
    batch_script.put_fakes_in()
    loading.load_encoder = fake_encoder
    loading.encoder_fingerprint = fake_hash


def die_after(count: int) -> None:
    """Kill this process before the count-th change it makes to the disk, in the midst of a snapshot
    too.
    """
    counted = batch_script.die_after(count)
    store.write_images = counted(store.write_images)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]


def main() -> None:
    put_fakes_in()
    folder, kill, workers = sys.argv[1:]
    if kill != "no":
        die_after(int(kill))
    make_index(Path(folder), IndexOptions(regions=True), running=Running(workers=int(workers)))


if __name__ == "__mp_main__":  # a process of a pool
    put_fakes_in()
if __name__ == "__main__":
    main()
