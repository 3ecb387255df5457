"""TorchScript archives: their tensors are read, and their code never runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from segclip.errors import WeightsCorrupt
from segclip.weights import tensors, torchscript


class Inner(torch.nn.Module):
    """A module with parameters, buffers, a plain tensor and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.norm = torch.nn.BatchNorm2d(2)
        self.register_buffer("low", torch.arange(4).half())
        self.plain = torch.zeros(2)
        self.sizes = [1, 2, 3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use every attribute."""
        return self.layer(x) + self.plain + float(self.sizes[0])


class Outer(torch.nn.Module):
    """A module of nested modules."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList([Inner(), Inner()])
        self.scale = torch.nn.Parameter(torch.tensor(2.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use every attribute."""
        for part in self.parts:
            x = torch.cat([part(x), x[:, :1]], dim=1)
        return x * self.scale


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.jit.script(Outer()).save(str(tmp_path / "a.pt"))
    return tmp_path / "a.pt"


def test_every_tensor_is_read_as_it_is(archive: Path) -> None:
    theirs = torch.jit.load(archive).state_dict()
    stored = tensors.read(archive, trust=True)
    assert stored.container == "torchscript"
    ours = stored.tensors
    assert set(theirs) <= set(ours)
    assert {name.rpartition(".")[2] for name in set(ours) - set(theirs)} == {"plain"}
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
        assert ours[name].dtype == value.dtype


def changed(archive: Path, tree: bytes) -> bytes:
    """Return an archive with another module tree."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, tree if name.endswith("/data.pkl") else old.read(name))
    return buffer.getvalue()


class Named:
    """An object whose pickle calls a function when loaded."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    "call", ["open", "os.system", "torch.load", "torch.jit.load", "builtins.getattr"]
)
def test_a_tree_with_any_other_global_is_rejected(archive: Path, call: str, tmp_path: Path) -> None:
    module, _, name = call.rpartition(".")
    tree = f"c{module or 'builtins'}\n{name}\n(S'{tmp_path / 'ran'}'\nS'w'\ntR.".encode()
    (tmp_path / "b.pt").write_bytes(changed(archive, tree))
    with pytest.raises(WeightsCorrupt, match=r"b\.pt .*which is not a tensor"):
        tensors.read(tmp_path / "b.pt", trust=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "tree",
    [b"", b"N.", b"\x80\x02]q\x00h\x00a.", pickle.dumps({"a": 1}), b"\x80\x02K\x01.garbage", b"("],
)
def test_a_damaged_tree_is_reported(archive: Path, tree: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.pt").write_bytes(changed(archive, tree))
    with pytest.raises(WeightsCorrupt, match=r"b\.pt"):
        tensors.read(tmp_path / "b.pt", trust=True)


def test_a_bomb_is_not_unpacked(archive: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("a/data.pkl", b"\0" * (100 << 20))
        new.writestr("a/constants.pkl", b"")
    with pytest.raises(ValueError, match="many times its size"):
        torchscript.read(buffer.getvalue())


def test_a_tensor_larger_than_its_storage_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as old:
        (name,) = (name for name in old.namelist() if name.endswith("/data.pkl"))
        tree = old.read(name)
    two_by_three, huge = b"(K\x02K\x03t", b"(J\x00\x00\x00\x40K\x03t"  # pickled sizes
    assert two_by_three in tree
    (tmp_path / "b.pt").write_bytes(changed(archive, tree.replace(two_by_three, huge)))
    with pytest.raises(WeightsCorrupt, match=r"b\.pt .*storage"):
        tensors.read(tmp_path / "b.pt", trust=True)
