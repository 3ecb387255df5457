"""The network of a SAM file is found by its name; the parity tests run the networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segclip.errors import UnknownName, WeightsCorrupt, WeightsMissing
from segclip.proposers.ultralytics_sam import VARIANTS, UltralyticsSAM, load, variant_of


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("mobile_sam.pt", "mobile_sam"),
        ("sam2.1_t.pt", "sam2.1_t"),
        ("sam2.1_hiera_base_plus.pt", "sam2.1_b"),
        ("my sam2.1_hiera_large copy.pt", "sam2.1_l"),
    ],
)
def test_a_variant_is_read_from_the_files_name(name: str, variant: str) -> None:
    assert variant in VARIANTS
    assert variant_of(Path("weights") / name) == variant


def test_a_name_without_a_variant_lists_what_it_must_contain() -> None:
    with pytest.raises(UnknownName, match=r"own\.pt; it must contain one of mobile_sam, .*hiera"):
        variant_of(Path("own.pt"))


def test_missing_and_unknown_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"no weights at .*mobile_sam\.pt"):
        UltralyticsSAM(tmp_path / "mobile_sam.pt")
    file = tmp_path / "own.pt"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsCorrupt):
        load(file, "mobile_sam")
    torch.save({"encoder.weight": torch.zeros(3, 3)}, file)
    with pytest.raises(UnknownName, match="SAM variant"):
        load(file, "sam3")
    with pytest.raises(WeightsCorrupt, match=r"own\.pt does not fit mobile_sam.*tensors differ"):
        load(file, "mobile_sam")
