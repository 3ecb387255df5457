"""Containers are recognised by their content, and every defect is one line with the file's name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from segclip.errors import BadPrompt, SegclipError, Unsupported, WeightsCorrupt, WeightsMissing
from segclip.weights import reading
from segclip.weights.reading import check_whole, container_of, described, read_config


def saved(save: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


TENSORS = safetensors.numpy.save({"a": np.zeros(3, np.float32)})
CONTAINERS = {
    "safetensors": TENSORS,
    "pickle": saved(lambda file: torch.save({"a": torch.zeros(3)}, file)),
    "torchscript": zipped("net/data.pkl", "net/constants.pkl"),
    "numpy": zipped("a.npy", "b.npy"),
    "none": b"<html>404</html>",
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_is_recognised_by_its_content(tmp_path: Path, container: str) -> None:
    (tmp_path / "weights.pt").write_bytes(CONTAINERS[container])
    assert container_of(tmp_path / "weights.pt") == container


@pytest.mark.parametrize(
    "data", [CONTAINERS["pickle"][:-30], b"\x80\x04K\x01.", CONTAINERS["numpy"][:-9]]
)
def test_what_may_hold_code_counts_as_a_pickle(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cut").write_bytes(data)
    assert container_of(tmp_path / "cut") == "pickle"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (CONTAINERS["none"], "it begins with '<html>404</html>'"),
        (b"\0\1\2", r"neither safetensors nor a torch checkpoint$"),
        (TENSORS[:-1], "incomplete or damaged"),
        (TENSORS + b"x", "incomplete or damaged"),
        (CONTAINERS["pickle"][:-30], "cannot be read as weights"),
    ],
)
def test_an_incomplete_file_is_reported(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(WeightsCorrupt, match=message):
        check_whole(tmp_path / "w")


def test_a_complete_file_passes(tmp_path: Path) -> None:
    for container in ("safetensors", "pickle"):
        (tmp_path / "w").write_bytes(CONTAINERS[container])
        check_whole(tmp_path / "w")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadPrompt("ours"), BadPrompt),
        (ImportError("no module"), Unsupported),
        (MemoryError(), WeightsCorrupt),
        (FileNotFoundError(2, "No such file", "FILE"), WeightsMissing),
        (FileNotFoundError(2, "No such file", "other"), WeightsCorrupt),
        (ZeroDivisionError("one\ntwo"), WeightsCorrupt),
    ],
)
def test_errors_of_libraries_become_ours(error: Exception, kind: type[SegclipError]) -> None:
    with pytest.raises(kind) as raised, reading.reading(Path("FILE")):
        raise error
    assert len(str(raised.value).splitlines()) == 1
    assert kind is BadPrompt or "FILE" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds a list"),
        ("{", "cannot be read as a configuration"),
        ('{"a": NaN}', "the number nan, not finite"),
        ('{"a": [1e9]}', "too large"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "nested more than 32 deep"),
    ],
)
def test_a_configuration_holds_small_plain_values(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsCorrupt, match=message):
        read_config(tmp_path / "config.json")


def test_a_large_configuration_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(WeightsCorrupt, match="too many for a configuration"):
        read_config(tmp_path / "config.json")


@dataclass(frozen=True)
class Layer:
    width: int
    share: float = 0.5
    sizes: tuple[int, ...] = ()
    name: str | None = None


def test_a_dataclass_is_built_from_json() -> None:
    values = {"width": 3, "share": 1, "sizes": [1, 2], "name": None}
    assert described(Layer, values) == Layer(3, 1, (1, 2), None)
    assert described(Layer, {"width": -3}, signed=("width",)) == Layer(-3)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"width": "3"}, ValueError),
        ({"width": True}, ValueError),
        ({"width": -1}, ValueError),
        ({"width": 1 << 20}, ValueError),
        ({"width": 9, "sizes": [1, "2"]}, ValueError),
        ({"width": 9, "sizes": 1}, ValueError),
        ({"width": 9, "depth": 1}, ValueError),
        ({}, TypeError),
        ([], TypeError),
    ],
)
def test_other_values_are_refused(values: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        described(Layer, values, {"width": 100})
