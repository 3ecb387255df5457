"""The recipe of the text tower: its vocabulary, its batches, its loss; it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from segclip.encoders import checkpoints, text_tower
from segclip.errors import WeightsCorrupt
from train import text_distill
from train.regions.model import EMBED, MODEL
from train.text_distill import TextDistillRun, centred, distance, embed, load_vocabulary


def test_short_and_long_texts_keep_their_rows() -> None:
    torch.manual_seed(0)
    model = checkpoints.make_model(MODEL).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    tokens = tokenizer(["a cup", "a red cup with a long handle on a wooden table", "a dog"])
    with torch.no_grad():
        whole = F.normalize(text_tower.encode(model, tokens), dim=-1)
        torch.testing.assert_close(embed(model, tokens), whole, atol=1e-5, rtol=1e-4)


def test_the_distance_is_none_from_the_targets_and_grows() -> None:
    targets = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert float(distance(targets, targets)) == pytest.approx(0, abs=1e-5)
    assert float(distance(targets.roll(1, 0), targets)) > 0.5
    moved = centred(targets.numpy() + 5)
    assert np.allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    assert abs(moved.mean()) < 0.2


def test_it_learns_its_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text_distill, "BATCH", 16)
    texts = [f"word {number}" for number in range(1030)]
    rng = np.random.default_rng(0)
    np.save(tmp_path / "targets.npy", centred(rng.normal(size=(len(texts), EMBED))))
    (tmp_path / "texts.json").write_text(json.dumps({"texts": texts, "named": 10}))
    torch.manual_seed(0)
    run = TextDistillRun(checkpoints.make_model(MODEL), tmp_path, minutes=60)
    assert len(run.held) == 1000
    assert set(run.held.tolist()).isdisjoint(run.learned.tolist())
    before = float(run.loss().detach())
    for _ in range(6):
        run.update()
    assert run.last_loss < before
    assert "unknown texts: cosine" in run.report()


def test_a_damaged_vocabulary_is_reported(tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text("{")
    with pytest.raises(WeightsCorrupt, match="vocabulary"):
        load_vocabulary(tmp_path)
