from __future__ import annotations

from pathlib import Path

import pytest

import segclip
from segclip import loading, weights
from segclip.errors import UnknownName, Unsupported
from segclip.loading import PRESETS, load, pair


def test_every_preset_names_weights_of_the_manifest() -> None:
    entries = weights.manifest()
    for proposer, encoder in PRESETS.values():
        assert entries[proposer].kind == "proposer"
        assert entries[encoder].kind == "encoder"


def test_presets_lend_their_parts() -> None:
    assert pair("mini", None) == PRESETS["mini"]
    assert pair("photo", "mini") == (PRESETS["photo"][0], PRESETS["mini"][1])
    assert pair("fastsam-x", "file:own") == ("fastsam-x", "file:own")


@pytest.mark.parametrize(
    ("proposer", "encoder", "hint"),
    [
        ("fastsam-s", None, "needs an encoder"),
        ("file:FastSAM-s.pt", None, "needs an encoder"),
        ("foto", None, "photo"),
        ("fastsam-z", "mini", "fastsam-s"),
        ("weights/FastSAM-s.pt", "mini", "file:weights/FastSAM-s.pt"),
    ],
)
def test_an_unknown_name_lists_the_choices(proposer: str, encoder: str | None, hint: str) -> None:
    with pytest.raises(UnknownName, match=hint):
        load(proposer, encoder, device="cpu")


def test_an_unknown_policy_or_device_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="default"):
        load(policy="defualt")
    with pytest.raises(Unsupported, match="cpu"):
        load(f"file:{tmp_path}", "mini", device="tpu")


def test_the_package_exports_load() -> None:
    assert segclip.load is loading.load


def test_a_loaded_encoder_has_the_fingerprint_of_its_name() -> None:
    """An index is compared by the encoder's name, cached labels by the loaded encoder."""
    assert loading.load_encoder("mini").fingerprint == loading.encoder_fingerprint("mini")
