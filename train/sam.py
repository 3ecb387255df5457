"""Train mini-sam, SAM's decoders on the mini proposer's trunk, by simulated clicks and boxes.

    python -m train.sam --trunk weights/mini/proposer --photos ../shared/coco-dev \
        --photos ../shared/photos \
        --foreground ../shared/foreground --out weights/mini/sam --minutes 90

As in Segment Anything (Kirillov et al. 2023, https://arxiv.org/abs/2304.02643, section A): a first
prompt, a point or a loose box, then points in the error of the last answer, which is given back as
a mask; of the three masks of a single point only the best one is trained. Training uses tiles, each
a window of serving's frame: the positions of its cells and prompts are those of a random place in
the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
import typer

from segclip.errors import BadPrompt
from segclip.proposers import sam
from segclip.proposers.edges import EdgeOptions
from segclip.proposers.grid import GridOptions
from segclip.proposers.promptable import SAMOptions
from segclip.proposers.trunk import Trunk
from segclip.weights.reading import reading

from .engine import command
from .engine.checkpoint import TrainingCheckpoint
from .engine.clicks import correction, first_prompt
from .engine.mask_loss import judge
from .engine.options import (
    FirstTile,
    Foreground,
    Minutes,
    PeakRate,
    Photos,
    ResumeRuns,
    Runs,
    ServedOut,
)
from .engine.prompting import decode
from .engine.timed import RunningMeans, ServedRun, TimedRecipe
from .scenes.material import Material, load_material
from .scenes.tiles import FRAME, PATCH, SIDES, Tile, make_tile

ARCHITECTURE = sam.Architecture(
    image_size=FRAME,
    patch=PATCH,
    encoder=Trunk(),
    channels=128,
    mask_channels=16,
    decoder_depth=2,
    decoder_mlp=256,
    quality_width=128,
    decoder_heads=4,
)
GRID = GridOptions(
    points_per_side=16, min_quality=0.5, min_stability=0.5, nms=0.8
)  # it is less sure of itself
ROUNDS = 3  # at most: the first prompt and two corrections
EARLY_SHARE = 0.04  # of a run, in which nothing is corrected yet
# of the random frequencies; segment-anything's 1 is slow to separate nearby places
POSITION_SCALE = 2.5
PLAIN = 0.2  # initial scale of tokens and features, relative to their positions
QUIET = 0.1  # initial scale of what is learned on top of the proposals
# initial factor of the attention, so that it is spent near the prompt
SHARP = 2.7


@dataclass(frozen=True)
class SamRecipe(TimedRecipe):
    """Every setting of a run."""

    minutes: float = 90
    trunk_lr: float = 2e-4
    first: int = 600_000


@torch.no_grad()
def prefer_near(network: Any) -> None:
    """Initialise attention to favour the prompt's place, which a SAM takes long to learn.

    Queries and keys are projected alike, so that equal positions attract; the first self-attention
    passes the prompt's position on to all tokens; everything but positions starts small.
    """
    prompts, decoder = network.prompt_encoder, network.mask_decoder
    prompts.pe_layer.positional_encoding_gaussian_matrix.mul_(POSITION_SCALE)
    tokens = [*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed]
    for embedding in (*tokens, decoder.iou_token, decoder.mask_tokens):
        embedding.weight.mul_(PLAIN)
    network.image_encoder.neck[-1].weight.mul_(PLAIN)
    first = decoder.transformer.layers[0].self_attn
    for projection in (first.v_proj, first.out_proj):
        torch.nn.init.eye_(projection.weight)
        projection.bias.zero_()
    fine = network.image_encoder.fine
    fine.bias.zero_()
    fine.weight.mul_(QUIET)[:, : len(fine.weight)] += torch.eye(len(fine.weight))[
        ..., None, None
    ]  # the prototypes
    for head in (*decoder.output_hypernetworks_mlps, decoder.iou_prediction_head):
        head.layers[-1].weight.mul_(QUIET)
    attentions = [decoder.transformer.final_attn_token_to_image]
    for layer in decoder.transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        attention.q_proj.weight.mul_(SHARP)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.k_proj.bias.copy_(attention.q_proj.bias)


class SamRun(ServedRun):
    """Train the prompt encoder and the mask decoder."""

    recipe: SamRecipe

    def __init__(self, folder: Path, recipe: SamRecipe, material: Material) -> None:
        self.material = material
        torch.manual_seed(0)
        self.network: Any = ARCHITECTURE.build()
        prefer_near(self.network)
        given = [value for part in self._given() for value in part.parameters()]
        others = [
            value
            for value in self.network.parameters()
            if not any(value is other for other in given)
        ]
        groups = [{"params": others, "lr": recipe.lr}, {"params": given, "lr": recipe.trunk_lr}]
        optimizer = torch.optim.AdamW(
            groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
        )
        super().__init__(TrainingCheckpoint(folder, self.network, optimizer, recipe.ema), recipe)
        self.averages = RunningMeans()
        self.early = EARLY_SHARE
        self.network.train()
        for part in self._given():
            part.eval()  # their norms keep the statistics they came with

    def _given(self) -> tuple[Any, ...]:
        """Return the parts that come from the proposer: trunk and head."""
        return self.network.image_encoder.trunk, self.network.image_encoder.head

    def report(self) -> str:
        """Return the pace, the minutes left and the IoU reached."""
        return f"{self.pace:.2f} s/step  {self.left:.0f} min left  IoU: {self.averages.line()}"

    def loss(self) -> torch.Tensor | None:
        """Return the mean loss of some tiles; None if they hold no object."""
        rng = np.random.default_rng([self.recipe.first, self.state.step])
        side = int(rng.choice(list(SIDES), p=[often for _, often in SIDES.values()]))
        start = self.recipe.first + self.state.step * max(count for count, _ in SIDES.values())
        made = (
            make_tile(seed, self.material, side) for seed in range(start, start + SIDES[side][0])
        )
        tiles = [tile for tile in made if tile]
        if not tiles:
            self.state.step += 1
            return None
        pixels = (
            torch.from_numpy(np.stack([tile.pixels for tile in tiles])).permute(0, 3, 1, 2).float()
            / 255
        )
        maps = self.network.image_encoder(pixels)
        rounds = 1 if self.share < self.early else ROUNDS
        losses = [self._loss(maps[[row]], tile, rng, rounds) for row, tile in enumerate(tiles)]
        return torch.stack(losses).mean()

    def _loss(
        self, maps: torch.Tensor, tile: Tile, rng: np.random.Generator, rounds: int
    ) -> torch.Tensor:
        """Return the mean loss of a tile's objects, prompted and corrected ``rounds`` times."""
        first = [first_prompt(rng, mask) for mask in tile.masks]
        order = sorted(
            range(len(first)), key=lambda row: first[row].box is not None
        )  # those by click come first
        prompts, truth, masks = [first[row] for row in order], tile.shares[order], tile.masks[order]
        single = sum(prompt.box is None for prompt in prompts)
        answered, losses = None, []
        for turn in range(int(rng.integers(1, rounds + 1))):
            logits, quality = decode(self.network, maps, prompts, answered, tile.corner)
            split = single if turn == 0 else 0  # a single click may mean any of several things
            loss, answered, reached = judge(logits, quality, truth, split)
            losses.append(loss.mean())
            names = ("click", "box") if turn == 0 else (f"{turn} corrected", f"{turn} corrected")
            self._average(names[0], reached[:split])
            self._average(names[1], reached[split:])
            guesses = F.interpolate(answered, size=tile.side, mode="bilinear")[:, 0].numpy() > 0
            fixes = [
                correction(rng, real, guess) for real, guess in zip(masks, guesses, strict=True)
            ]
            prompts = [prompt.corrected(fix) for prompt, fix in zip(prompts, fixes, strict=True)]
        return torch.stack(losses).mean()

    def _average(self, name: str, reached: torch.Tensor) -> None:
        if len(reached):
            self.averages.add(name, float(reached.mean()))

    def start_from(self, trunk: Path) -> None:
        """Take what a trained proposer has."""
        with reading(trunk / "model.safetensors"):
            state = safetensors.torch.load_file(trunk / "model.safetensors")
            last = max(int(name.split(".")[1]) for name in state)
            for part, place in zip(self._given(), ("model.", f"model.{last}."), strict=True):
                part.load_state_dict({name: state[place + name] for name in part.state_dict()})
        self.state.restart()

    def go_on(self, folder: Path) -> None:
        """Take what a trained mini-sam has, but for its refiner, which is trained by itself."""
        state = sam.load(folder)[0].state_dict()
        self.network.load_state_dict({name: state[name] for name in self.network.state_dict()})
        self.early = 0
        self.state.restart()

    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""
        network: Any = ARCHITECTURE.build()
        network.load_state_dict(self.state.average)
        sam.save(network, ARCHITECTURE, out, SAMOptions(grid=GRID, edges=EdgeOptions()))


def main(
    out: ServedOut,
    photos: Photos,
    foreground: Foreground = None,
    runs: Runs = Path("runs/sam"),
    trunk: Annotated[
        Path | None, typer.Option(help="Folder of a trained proposer to take the trunk from.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Folder of a trained mini-sam to go on from.")
    ] = None,
    first: FirstTile = SamRecipe.first,
    lr: PeakRate = SamRecipe.lr,
    minutes: Minutes = SamRecipe.minutes,
    resume: ResumeRuns = False,
) -> None:
    """Train mini-sam and write it."""
    if not (trunk or start):
        raise BadPrompt(
            "nothing to start from; give --trunk, a trained proposer, "
            "or --start, a trained mini-sam"
        )
    cv2.setNumThreads(1)
    recipe = SamRecipe(
        minutes=minutes, first=first, lr=lr, trunk_lr=lr * SamRecipe.trunk_lr / SamRecipe.lr
    )
    run = SamRun(runs, recipe, load_material(photos, foreground))
    if start:
        run.go_on(start)
    if trunk:
        run.start_from(trunk)
    run.carry_out(out, resume=resume)


if __name__ == "__main__":
    command.run(main)
