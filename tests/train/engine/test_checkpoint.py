"""A run resumes from intact checkpoints only."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from segclip.encoders.patches import PatchHead
from segclip.errors import BadIndex, BadPrompt
from segclip.files import atomic
from train.engine.checkpoint import TrainingCheckpoint
from train.engine.journal import read_metrics
from train.engine.loop import Loop, LoopSettings, Validation, start

SETTINGS = LoopSettings(epochs=2, batch=2, warm_up=0, lr=0.1)


class Batch:
    count = 2

    def names(self) -> list[str]:
        return ["a", "b"]


class Line:
    """Fit a line, which takes no time; its weights are two small files."""

    monitor = "R@1"

    def __init__(self, width: int = 3) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Linear(width, 1)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def steps(self) -> int:
        return 3

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        return iter([Batch()] * (3 - first))

    def backward(self, batch: Batch) -> torch.Tensor:
        loss = (self.network(torch.randn(2, self.network.in_features)) - 1).square().mean()
        loss.backward()
        return loss.detach()

    def validate(self) -> Validation:
        return Validation({"R@1": -float(self.network.weight.detach().square().mean())})

    def save(self, folder: Path) -> None:
        rows = self.network.weight.detach().numpy().tobytes()
        atomic.write(folder / "model.safetensors", rows)
        atomic.write(folder / "config.json", b"{}")


def loop_in(
    folder: Path,
    settings: LoopSettings = SETTINGS,
    recipe: dict[str, Any] | None = None,
    width: int = 3,
) -> Loop:
    return Loop(Line(width), folder, settings, recipe or {"model": "line"})


def test_a_run_resumes_and_removes_temporary_files(folder: Path) -> None:
    for place in (folder, folder / "last"):
        (place / ".segclip-0123456789abcdef.part").write_bytes(b"half a file")
    (folder / "notes.part").write_text("a user's own")
    start(loop_in(folder), resume=True)
    assert [row["epoch"] for row in read_metrics(folder)] == [1, 2]
    assert [path.name for path in folder.rglob("*.part")] == ["notes.part"]


@pytest.mark.parametrize(
    ("recipe", "width"), [({"model": "other"}, 3), ({"model": "other"}, 5), ({"tune": "lora"}, 5)]
)
def test_other_settings_are_reported_before_a_checkpoint_is_loaded(
    folder: Path, recipe: dict[str, Any], width: int
) -> None:
    """Fault 17.16: --resume with another --model or --tune was a KeyError."""
    with pytest.raises(BadPrompt, match="began with other settings"):
        start(loop_in(folder, recipe=recipe, width=width), resume=True)


def test_a_checkpoint_of_another_model_is_reported(folder: Path) -> None:
    """Fault 17.16: where the settings are gone, or are the same for two models."""
    with pytest.raises(BadIndex, match="of another model, which differs in weight"):
        start(loop_in(folder, width=5), resume=True)
    (folder / "recipe.json").unlink()
    with pytest.raises(BadIndex, match="of another model, which differs in weight"):
        start(loop_in(folder, width=5), resume=True)


def broken(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(change(path.read_bytes())), None)[1]


def holding(state: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(state, path)


def without(name: str, value: Any = None) -> Callable[[Path], None]:
    """Remove a part of the state, or replace it."""

    def change(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        state = {key: part for key, part in state.items() if key != name} | (
            {name: value} if value is not None else {}
        )
        torch.save(state, path)

    return change


def with_moment(**parts: Any) -> Callable[[Path], None]:
    """Replace parts of the optimizer's state of the first parameter."""

    def change(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        state["optimizer"]["state"][0] |= parts
        torch.save(state, path)

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": broken(lambda data: b""),
    "zeros": broken(lambda data: bytes(len(data))),
    "cut short": broken(lambda data: data[: len(data) // 2]),
    "cut by a byte": broken(lambda data: data[:-1]),
    "random": broken(lambda data: os.urandom(len(data))),
    "a text": broken(lambda data: b"hello"),
    "a byte of it": broken(lambda data: data[:300] + bytes([data[300] ^ 255]) + data[301:]),
    "a plain pickle": broken(lambda data: pickle.dumps({"network": {}})),
    "a list": holding([1, 2]),
    "a number": holding(7),
    "no parts": holding({"a": 1}),
    "no network": without("network"),
    "no optimizer": without("optimizer"),
    "another optimizer": without("optimizer", {"state": {}, "param_groups": []}),
    "an optimizer of other shapes": with_moment(exp_avg=torch.zeros(7)),
    "an optimizer's numbers": with_moment(exp_avg=5),
    "no moments": with_moment(step=None),
    "an optimizer of no kind": without("optimizer", {"state": 5, "param_groups": 5}),
    "a step that is none": without("step", -1),
    "a time that is none": without("spent", float("nan")),
    "no account": without("extra"),
    "an account of no kind": without(
        "extra", {"epoch": "1", "first": 0, "losses": [], "best": 0.0, "stale": 0}
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_reported_in_a_line_and_left_alone(
    folder: Path, damage: str
) -> None:
    """Fault 17.16: a truncated or random last.pt was a traceback."""
    DAMAGE[damage](folder / "last.pt")
    before = (folder / "last.pt").read_bytes()
    with pytest.raises(BadIndex, match=r"last\.pt") as raised:
        start(loop_in(folder), resume=True)
    assert "\n" not in str(raised.value)
    assert (folder / "last.pt").read_bytes() == before


def test_every_single_byte_of_a_checkpoint_counts(folder: Path) -> None:
    """Fault 17.3: bytes damaged by a power cut, which torch loads silently."""
    whole, sound = (folder / "last.pt").read_bytes(), 0  # 50 of them, everywhere
    expected = torch.load(folder / "last.pt", weights_only=True)["network"]["weight"]
    for place in range(3, len(whole), len(whole) // 50):
        (folder / "last.pt").write_bytes(
            whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :]
        )
        made = loop_in(folder)
        try:
            made.resume()
        except BadIndex:
            continue
        sound += 1  # a byte of the hash's own name
        assert torch.equal(made.task.network.state_dict()["weight"], expected)
    assert sound <= 1


def test_a_checkpoint_of_an_older_version_is_resumed(folder: Path) -> None:
    torch.save(torch.load(folder / "last.pt", weights_only=True), folder / "last.pt")
    start(loop_in(folder), resume=True)
    assert [row["epoch"] for row in read_metrics(folder)] == [1, 2]


def test_a_checkpoint_that_is_a_folder_or_a_pipe_is_reported(folder: Path) -> None:
    (folder / "last.pt").unlink()
    (folder / "last.pt").mkdir()
    with pytest.raises(BadIndex, match="damaged"):
        start(loop_in(folder), resume=True)
    (folder / "last.pt").rmdir()
    os.mkfifo(folder / "last.pt")
    with pytest.raises(BadIndex, match="damaged"):
        start(loop_in(folder), resume=True)


@pytest.mark.parametrize("name", [".", "last"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "gone"])
def test_weights_damaged_by_a_power_cut_are_restored(
    folder: Path, name: str, file: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 17.3: a resumed run trusted damaged files."""
    place, sound = folder / name / file, (folder / name / file).read_bytes()
    if damage == "gone":
        place.unlink()
    else:
        place.write_bytes(b"" if damage == "empty" else sound[::-1] + b"?")
    over = LoopSettings(epochs=1, batch=2, warm_up=0, lr=0.1)
    start(loop_in(folder, over), resume=True)
    assert place.read_bytes() == sound
    capsys.readouterr()
    start(loop_in(folder, over), resume=True)
    assert "is damaged" not in capsys.readouterr().err


def test_a_run_ends_at_the_same_bytes_after_damage(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "model.safetensors").write_bytes(b"")
    (other / "last" / "config.json").write_bytes(b"")
    for place in (folder, other):
        start(loop_in(place), resume=True)
    for name in ("last/model.safetensors", "last/config.json", "metrics.jsonl"):
        if name != "metrics.jsonl":  # it contains durations
            assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_files_are_on_the_disk_before_the_checkpoint_that_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.3: files first, each synced, then the checkpoint with their hashes."""
    synced: list[str] = []
    write = os.replace
    fsync = os.fsync

    def replaced(source: Any, target: Any) -> None:
        write(source, target)
        synced.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replaced)

    def synced_once(descriptor: int) -> None:
        fsync(descriptor)
        synced.append("sync")

    monkeypatch.setattr(os, "fsync", synced_once)
    start(loop_in(tmp_path, LoopSettings(epochs=1, batch=2, warm_up=0, lr=0.1)), resume=False)
    assert synced.index("last.pt") > max(
        synced.index(name) for name in ("model.safetensors", "metrics.jsonl")
    )
    for place, name in enumerate(synced):
        if name != "sync":
            # the file before, its folder after
            assert synced[place - 1] == synced[place + 1] == "sync", name
    assert synced[-2:] == ["last.pt", "sync"]


def test_another_recipes_checkpoint_does_not_fit(folder: Path) -> None:
    network = torch.nn.Linear(3, 1)
    groups = [{"params": [network.weight]}, {"params": [network.bias]}]
    state = TrainingCheckpoint(folder, network, torch.optim.AdamW(groups), 0.5)
    with pytest.raises(BadIndex, match="does not fit this recipe"):
        state.resume()


def test_a_patch_head_under_its_former_names_is_resumed(tmp_path: Path) -> None:
    def state_of(seed: int) -> TrainingCheckpoint:
        torch.manual_seed(seed)
        head = PatchHead(4, width=3, side=8)
        return TrainingCheckpoint(tmp_path, head, torch.optim.AdamW(head.parameters()), 0.9)

    before = state_of(0)
    before.keep()
    stored = torch.load(tmp_path / "last.pt", weights_only=True)
    for name in ("network", "average"):
        stored[name] = {
            key.replace("linear.", "straight.").replace("mlp.", "bent."): value
            for key, value in stored[name].items()
        }
    assert "straight.weight" in stored["network"]
    torch.save(stored, tmp_path / "last.pt")
    again = state_of(1)
    assert again.resume()
    for name, value in before.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
        assert torch.equal(value, again.average[name]), name
