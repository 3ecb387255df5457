"""A dual encoder embeds both sides in one space, whatever a batch's padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segclip.encoders.dual import DualEncoder, TextSide

pytest.importorskip("transformers")
VISION = {"timm_model_name": "test_vit", "image_size": 160}
BERT = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "pad_token_id": 0,
}
TEXTS = torch.tensor([[5, 6, 7, 0, 0, 0], [8, 9, 0, 0, 0, 0]])


def text_side(**settings: Any) -> TextSide:
    torch.manual_seed(0)
    return TextSide(8, {"hf_config": BERT, **settings}).eval()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_changes_no_text(pooling: str) -> None:
    side = text_side(pooling=pooling)
    with torch.no_grad():
        together, alone = side(TEXTS), side(TEXTS[1:, :2])
    torch.testing.assert_close(together[1:], alone)
    assert not torch.allclose(together[0], together[1])


def test_a_text_of_padding_alone_is_embedded() -> None:
    with torch.no_grad():
        assert text_side()(torch.zeros(1, 6, dtype=torch.long)).isfinite().all()


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown pooling 'last'; choose one of mean, cls"):
        text_side(pooling="last")


def test_code_that_a_configuration_points_to_is_not_looked_for() -> None:
    mapped = {**BERT, "auto_map": {"AutoModel": "nobody/nothing--code.Evil"}}
    assert text_side(hf_config=mapped)(TEXTS).shape == (2, 8)


def test_both_sides_are_embedded_in_one_space() -> None:
    model = DualEncoder(8, VISION, {"hf_config": BERT}).eval()
    with torch.no_grad():
        images, texts = model.encode_image(torch.zeros(3, 3, 160, 160)), model.encode_text(TEXTS)
    assert (images.shape, texts.shape) == ((3, 8), (2, 8))
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
