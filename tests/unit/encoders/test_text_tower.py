"""Text towers stop at the token they pool, and long texts are cut with a warning."""

from __future__ import annotations

import logging
from typing import Any

import open_clip
import pytest
import torch

from segclip.encoders import checkpoints, text_tower
from segclip.encoders.openclip import OpenClip
from tests.small_clip import MODEL_CFG


def test_a_causal_tower_runs_only_to_the_pooled_token() -> None:
    tokens = open_clip.SimpleTokenizer(context_length=16)(
        ["cat", "a photo of two red dogs", "x " * 30]
    )
    torch.manual_seed(0)
    model: Any = checkpoints.make_model(MODEL_CFG).eval()
    lengths: list[int] = []
    model.transformer.register_forward_pre_hook(
        lambda module, inputs: lengths.append(inputs[0].shape[1])
    )
    with torch.inference_mode():
        for rows, length in ((tokens[:1], 3), (tokens[:2], 8), (tokens, 16)):
            assert torch.allclose(
                text_tower.encode(model, rows), model.encode_text(rows), atol=1e-5
            )
            assert lengths[-2:] == [length, 16]


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"embed_cls": True},
        {"pool_type": "eos", "eos_id": 49407},
        {"proj_bias": True},
        {"proj_type": "none", "width": 32},
    ],
)
def test_every_kind_of_text_tower_equals_open_clip(text_cfg: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = {**MODEL_CFG, "custom_text": True, "text_cfg": {**MODEL_CFG["text_cfg"], **text_cfg}}
    model = checkpoints.make_model(config).eval()
    tokens = open_clip.SimpleTokenizer(context_length=16)(["cat", "two red dogs"])
    with torch.inference_mode():
        assert torch.allclose(
            text_tower.encode(model, tokens), model.encode_text(tokens), atol=1e-5
        )


def test_a_warning_reports_where_a_long_text_is_truncated(
    small: OpenClip, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen"
    )
    with caplog.at_level(logging.WARNING):
        cut, kept = small.encode_texts([text, text[: text.index(" fifteen")]])
    assert cut == pytest.approx(kept)
    assert len(caplog.messages) == 1
    assert "fourteen'" in caplog.messages[0]
