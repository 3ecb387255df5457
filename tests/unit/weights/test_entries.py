"""The entries of the manifest, and names that are not in it."""

from __future__ import annotations

import inspect
import json
import re

import pytest

from segclip import registry, weights
from segclip.errors import UnknownName, WeightsCorrupt, WeightsMissing
from segclip.proposers import PROPOSERS
from tests.unit.weights.test_weights import entry

pytestmark = pytest.mark.usefixtures("folders")


def test_an_unknown_name_suggests_the_nearest_and_the_file_prefix() -> None:
    entry()
    with pytest.raises(
        UnknownName, match=r"no weights are named 'tay'; the nearest: toy; `segclip weights list`"
    ):
        weights.get("tay")
    with pytest.raises(
        UnknownName, match=r"for a file or folder of your own write file:runs/toy\.pt"
    ):
        weights.locate("runs/toy.pt")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, WeightsMissing),
        ("{", WeightsCorrupt),
        ("[]", WeightsCorrupt),
        ("[" * 99_999, WeightsCorrupt),
    ],
)
def test_an_unreadable_manifest(text: str | None, error: type[Exception]) -> None:
    if text is not None:
        (weights.weights_folder() / "manifest.json").write_text(text)
    with pytest.raises(error, match=r"manifest\.json"):
        weights.table()


def test_the_real_manifest_is_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGCLIP_WEIGHTS")
    text = (weights.weights_folder() / "manifest.json").read_text("utf-8")
    names = [row["name"] for row in json.loads(text)["entries"]]
    assert len(names) == len(set(names)) == len(weights.table())
    for row in weights.manifest().values():
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)?", row.name)
        assert row.kind in ("proposer", "encoder")
        assert row.licence in ("AGPL-3.0", "Apache-2.0", "MIT", "apple-amlr")
        assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", row.sha256)
        assert row.bytes is None or row.bytes > 0
        assert row.shipped == row.file.startswith("mini/")
        if row.url:
            assert row.url.startswith("https://")
            assert row.url.endswith(f"/{row.file}")
            assert "/resolve/main/" not in row.url
        else:
            assert row.shipped or "https://" in row.note
        if row.kind == "encoder" and not row.shipped:
            assert row.options["model"] == row.name.split("/")[0]
        if row.kind == "proposer":
            known = inspect.signature(registry.resolve(PROPOSERS, row.loader, "loader")).parameters
            assert set(row.options) <= set(known), row.name
