"""The mini encoder's architecture."""

from __future__ import annotations

from segclip.encoders import checkpoints
from train.regions.model import BACKGROUNDS, EMBED, MODEL, SHIPPED, TEMPLATES, WIDE


def test_the_shipped_model_is_the_trained_one_with_a_wider_space() -> None:
    trained, shipped = checkpoints.make_model(MODEL), checkpoints.make_model(SHIPPED)
    differing = {
        name
        for name, value in trained.state_dict().items()
        if value.shape != shipped.state_dict()[name].shape
    }
    assert trained.state_dict().keys() == shipped.state_dict().keys()
    assert all("head.mlp" in name or name == "text_projection" for name in differing)
    assert (trained.text_projection.shape[1], shipped.text_projection.shape[1]) == (EMBED, WIDE)


def test_templates_take_a_text_and_backgrounds_are_none() -> None:
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert len(set(BACKGROUNDS)) == 2
