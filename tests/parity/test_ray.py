"""The Ray runner: two nodes, the same bytes as here, and a worker that dies in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import ray
from ray.cluster_utils import Cluster

from segclip import IndexOptions, batch, loading, make_index
from segclip.batch import ExportOptions, Running, export
from tests import search_script
from tests.batch_script import FORMATS
from tests.exports import TEXTS, tree
from tests.fakes import paint

pytestmark = [pytest.mark.parity, pytest.mark.slow]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": 100_000_000,
            "include_dashboard": False,
        },
    )
    nodes.add_node(num_cpus=1, object_store_memory=100_000_000)
    environment = {
        "worker_process_setup_hook": search_script.put_fakes_in,
        "env_vars": {"PYTHONPATH": str(ROOT)},
    }
    ray.init(
        address=nodes.address, runtime_env=environment, log_to_driver=False, logging_level="ERROR"
    )
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def photos(tmp_path: Path, fake_models: None) -> Path:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        image = paint((("red", "blue", "green")[number % 3], (x, y, x + 50, y + 40)))
        PIL.Image.fromarray(image.pixels).save(tmp_path / "photos" / f"{number:02d}.png")
    (tmp_path / "photos" / "words.jpg").write_text("not a picture")
    return tmp_path / "photos"


def run(
    photos: Path, out: Path, report: Any = lambda progress: None, **running: Any
) -> batch.Summary:
    return export(
        photos,
        out,
        TEXTS,
        options=ExportOptions(formats=FORMATS),
        running=Running(**running),
        report=report,
    )


def test_two_nodes_give_the_bytes_of_one_process(
    cluster: Cluster, photos: Path, tmp_path: Path
) -> None:
    assert len(ray.nodes()) == 2
    run(photos, tmp_path / "here")
    summary = run(photos, tmp_path / "there", runner="ray", workers=2)
    assert summary.states == {"matched": 27, "empty": 13, "failed": 1}
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_a_worker_that_is_killed_loses_nothing(
    cluster: Cluster, photos: Path, tmp_path: Path
) -> None:
    run(photos, tmp_path / "here")
    killed: list[int] = []

    def kill_one(progress: batch.Progress) -> None:
        folders = [
            path
            for path in (tmp_path / "there" / ".segclip" / "parts-all").iterdir()
            if path.name.isdigit()
        ]
        if not killed and folders:
            killed.append(int(folders[0].name))
            os.kill(killed[0], signal.SIGKILL)

    summary = run(photos, tmp_path / "there", report=kill_one, runner="ray", workers=2)
    assert killed
    assert summary.states == {"matched": 27, "empty": 13, "failed": 1}
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.parametrize("regions", [True, pytest.param(False, marks=pytest.mark.long)])
def test_an_index_is_that_of_one_process(
    cluster: Cluster, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regions: bool
) -> None:
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)
    snapshots = []
    for name, running in (("here", Running()), ("ray", Running(workers=2, runner="ray"))):
        done = make_index(
            photos, IndexOptions(regions=regions), out=tmp_path / name, running=running
        )
        assert (done.images, len(done.failed)) == (40, 1)
        files = [path for path in (tmp_path / name).glob("snapshot-*/*") if path.is_file()]
        snapshots.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert snapshots[0] == snapshots[1]
