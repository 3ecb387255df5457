"""Parts of the small SAM: the drawing of a prompt and the proposal that a mask starts from."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import TwoWayTransformer

from segclip.proposers.trunk import DrawnPromptEncoder, FineMaskDecoder, beyond, box_iou

CELLS, FINE = 8, 4
LEVELS = (4, 1, 1)  # proposals per cell, of strides 8, 16 and 32


@pytest.fixture
def prompts() -> DrawnPromptEncoder:
    return DrawnPromptEncoder(16, (CELLS, CELLS), (128, 128), 4)


@pytest.fixture
def decoder() -> FineMaskDecoder:
    transformer = TwoWayTransformer(depth=1, embedding_dim=16, mlp_dim=16, num_heads=2)
    return FineMaskDecoder(
        transformer_dim=16, transformer=transformer, iou_head_hidden_dim=8, fine=FINE
    )


def proposed(*proposals: tuple[int, int, int, tuple[float, ...], float]) -> torch.Tensor:
    """Lay out proposals as the encoder does.

    Each is given as level, x and y of its cell, box, value of all coefficients.
    """
    size = 5 + FINE
    levels = [torch.zeros(size, count, CELLS, CELLS) for count in LEVELS]
    for level in levels:
        level[0] = -20  # no confidence
    for level, x, y, box, value in proposals:
        levels[level][:, 0, y, x] = torch.tensor([0.0, *box, *[value] * FINE])
    return torch.cat([level.flatten(0, 1) for level in levels])[None]


def test_clicks_are_gaussians_and_boxes_are_distances(prompts: DrawnPromptEncoder) -> None:
    points = torch.tensor([[[39.5, 71.5], [7.5, 7.5]]]), torch.tensor([[1, 0]])
    box = torch.tensor([[16.0, 32.0, 64.0, 96.0]])
    marks = prompts.draw(points, box, 1)[0]
    assert divmod(int(marks[0].argmax()), CELLS) == (4, 2)
    assert marks[0, 4, 2] == pytest.approx(1, abs=1e-5)
    assert divmod(int(marks[1].argmax()), CELLS) == (0, 0)
    # in cells of 16 px, from the cell's centre
    assert marks[2:, 0, 0].tolist() == [1 - 0.5, 2 - 0.5, 4 - 0.5, 6 - 0.5]
    assert marks[2:, 4, 3].tolist() == [1 - 3.5, 2 - 4.5, 4 - 3.5, 6 - 4.5]


def test_an_empty_prompt_draws_nothing(prompts: DrawnPromptEncoder) -> None:
    assert not prompts.draw(None, None, 2).any()
    sparse, dense = prompts(None, None, None)
    assert sparse.shape == (1, 0, 16)
    assert dense.shape == (1, 16 + 6, CELLS, CELLS)


def test_a_click_starts_from_the_proposal_of_its_cell(
    prompts: DrawnPromptEncoder, decoder: FineMaskDecoder
) -> None:
    here, there = (0.0, 0.0, 8.0, 8.0), (16.0, 16.0, 30.0, 30.0)
    given = proposed((1, 2, 4, here, 1.0), (2, 6, 6, there, 2.0))
    for at, box, value in (((39.5, 71.5), here, 1.0), ((103.5, 103.5), there, 2.0)):
        marks = prompts.draw((torch.tensor([[at]]), torch.ones(1, 1)), None, 1)
        _, boxes, coefficients, where = decoder.choose(given, marks[:, :2], torch.zeros(1, 4))
        torch.testing.assert_close(boxes[0, 0], torch.tensor(box), rtol=0, atol=0.1)
        torch.testing.assert_close(
            coefficients[0, 0], torch.full((FINE,), value), rtol=0, atol=0.05
        )
        assert where.shape == (1, 4, CELLS * CELLS)
        torch.testing.assert_close(where.sum(dim=2), torch.ones(1, 4))


def test_a_box_starts_from_the_proposal_of_its_box(decoder: FineMaskDecoder) -> None:
    near, other = (4.0, 4.0, 20.0, 20.0), (6.0, 0.0, 30.0, 12.0)
    given = proposed((0, 3, 3, near, 1.0), (1, 3, 3, other, 2.0))
    _, boxes, coefficients, _ = decoder.choose(
        given, torch.zeros(2, 2, CELLS, CELLS), torch.tensor([near, other])
    )
    torch.testing.assert_close(boxes[:, 0], torch.tensor([near, other]), rtol=0, atol=0.5)
    torch.testing.assert_close(coefficients[:, 0, 0], torch.tensor([1.0, 2.0]), rtol=0, atol=0.05)
    # of the three the first uses stride 8 only, the second stride 16
    assert (boxes[0, 1] - torch.tensor(near)).abs().max() < 0.5
    assert (boxes[0, 2] - torch.tensor(other)).abs().max() < 0.5


def test_the_iou_of_boxes() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    many = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [8.0, 8.0, 9.0, 9.0]]).T
    torch.testing.assert_close(
        box_iou(one, many), torch.tensor([[1.0, 1 / 3, 0.0], [0.0, 0.0, 0.0]])
    )


def test_cells_outside_a_box_have_their_distance_from_it() -> None:
    far = beyond(torch.tensor([[[2.0, 3.0, 5.0, 6.0]]]), (12, 12))[0, 0]
    assert not far[3:6, 2:5].any()
    assert far[4].tolist() == [1.5, 0.5, 0, 0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4, 4]  # at most 4
    assert far[2, 1] == 1.0
