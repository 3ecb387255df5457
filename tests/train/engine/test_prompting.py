"""Many prompts are encoded at once, as the prompt encoder encodes each."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.train.test_sam import run_in
from train.engine import prompting
from train.engine.clicks import ClickPrompt


def test_tokens_are_those_of_the_prompt_encoder(tmp_path: Path, trunk: Path) -> None:
    run = run_in(tmp_path, trunk)
    prompts = run.network.prompt_encoder
    point = torch.tensor([[[40.0, 60.0]]]), torch.ones(1, 1)
    box = torch.tensor([[10.0, 20.0, 90.0, 70.0]])
    click = ((40, 60, 1),)
    for ask, given in (
        (ClickPrompt(click), {"points": point, "boxes": None}),
        (ClickPrompt(box=(10, 20, 90, 70)), {"points": None, "boxes": box}),
        (ClickPrompt(click, (10, 20, 90, 70)), {"points": point, "boxes": box}),
    ):
        tokens, drawn = prompting._encode(prompts, [ask], (0, 0))
        sparse, dense = prompts(**given, masks=None)
        torch.testing.assert_close(tokens, sparse)
        nothing = prompts.no_mask_embed.weight[..., None, None].expand(1, -1, *drawn.shape[2:])
        torch.testing.assert_close(prompts.with_marks(nothing, drawn), dense)
