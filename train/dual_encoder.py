r"""Combine a timm image tower and a transformers text tower, for ``train.contrastive`` to train.

    python -m train.dual_encoder resnet50 distilbert-base-uncased --pooling cls \
        --out runs/dual-start
    python -m train.dual_encoder vit_base_patch16_224.augreg_in21k \
        sentence-transformers/bert-base-nli-mean-tokens \
        --out runs/dual-start
    python -m train.contrastive flickr8k --start file:runs/dual-start --lr 1e-4 --text-lr 0.1 \
        --head-lr 10 \
        --out runs/dual

Towers come with their published weights, from their hubs or, for the text, from a local folder.
``--random`` uses only the architectures; the text tower "small" is always random, with two layers
and a vocabulary built from --vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import timm
import torch
import typer

from segclip.encoders import checkpoints, dual
from segclip.errors import BadPrompt, UnknownName, Unsupported, WeightsMissing, one_line
from segclip.weights.reading import reading

from .captions import tables
from .engine import command, limits
from .engine.start import SERVING

VOCABULARY = 4000  # word pieces of our own tokenizer


def make_tokenizer(texts: list[str]) -> Any:
    """Train a lower-casing word-piece tokenizer on texts."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=1, show_progress=False)
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
    }
    pieces.post_process = None
    return PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, **special)


def image_config(name: str, size: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration of a timm tower and of its preprocessing."""
    if not timm.is_model(name):
        nearest = ", ".join(timm.list_models(f"*{name.split('.', maxsplit=1)[0][:8]}*")[:4])
        raise UnknownName(f"timm has no model {name!r}; near it: {nearest or 'nothing'}")
    pretrained = timm.get_pretrained_cfg(name)
    side = size or (pretrained.input_size[-1] if pretrained else 224)
    token = timm.create_model(name, num_classes=0).__dict__.get("global_pool") == "token"
    vision = {"timm_model_name": name, "timm_pool": "token" if token else "avg", "image_size": side}
    preprocess = {
        "mean": list(pretrained.mean),
        "std": list(pretrained.std),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    return vision, preprocess


def small_text(vocabulary: Path | None) -> tuple[dict[str, Any], Any]:
    """Configure our small text tower and train its tokenizer."""
    from transformers import BertConfig

    if vocabulary is None:
        raise BadPrompt(
            "the text tower small needs --vocabulary DATA, captions to build its word pieces from"
        )
    texts = sorted({caption for item in tables.read(vocabulary) for caption in item.captions})
    tokenizer = make_tokenizer(texts)
    sizes = {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    }
    padding = tokenizer.pad_token_id
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=padding, **sizes
    )
    return config.to_dict(), tokenizer


def published_text(name: str) -> tuple[dict[str, Any], Any]:
    """Load a published text tower's configuration and tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    with reading(Path(name), "a text tower"):
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            return config.to_dict(), AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise WeightsMissing(
                f"{name} is not a folder and cannot be downloaded: {one_line(error)}"
            ) from None


def assemble(
    image: str,
    text: tuple[dict[str, Any], Any],
    sides: tuple[int, int | None],
    pooling: str,
    weights: str | None,
) -> tuple[dual.DualEncoder, dict[str, Any], dict[str, Any]]:
    """Build the model with its configuration.

    sides: width of the joint space, side of the images (None for the tower's own). weights: of the
    text tower; None for random towers.
    """
    vision, preprocess = image_config(image, sides[1])
    config = {
        key: value
        for key, value in text[0].items()
        if not key.startswith("_") and value is not None
    }
    text_cfg = {
        "hf_config": config,
        "pooling": pooling,
        "context_length": min(64, text[1].model_max_length),
    }
    text_cfg["hf_tokenizer_name"] = weights or "small"
    model_cfg = {"embed_dim": sides[0], "vision_cfg": vision, "text_cfg": text_cfg}
    model = dual.DualEncoder(
        sides[0], {**vision, "timm_model_pretrained": weights is not None}, text_cfg
    )
    if weights is not None:
        from transformers import AutoModel

        with reading(Path(weights), "a text tower"):
            published = AutoModel.from_pretrained(weights, trust_remote_code=False)
        model.text.tower.load_state_dict(published.state_dict(), strict=False)
    return model, model_cfg, preprocess


def main(
    image: Annotated[str, typer.Argument(help="A timm model.")],
    text: Annotated[
        str,
        typer.Argument(help="A transformers or sentence-transformers model, a folder, or small."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write; train it with train.contrastive --start file:OUT."),
    ],
    pooling: Annotated[str, typer.Option(help="mean over the tokens, or cls.")] = "mean",
    embed_dim: Annotated[int, typer.Option(help="Width of the joint space.")] = 256,
    size: Annotated[
        int | None, typer.Option(help="Side of the images; default: the tower's own.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Captions to build the small tower's vocabulary from.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights in both towers.")
    ] = False,
    seed: int = 0,
) -> None:
    """Combine two towers."""
    limits.check(
        {
            "--embed-dim": (embed_dim, limits.WIDTH),
            "--size": (1 if size is None else size, limits.SIDE),
            "--seed": (seed, limits.SEED),
        }
    )
    torch.manual_seed(seed)
    if pooling not in dual.POOLINGS:
        raise UnknownName(f"unknown pooling {pooling!r}; choose one of {', '.join(dual.POOLINGS)}")
    try:
        read = small_text(vocabulary) if text == "small" else published_text(text)
    except ImportError as error:
        raise Unsupported(
            f"a dual encoder needs transformers: pip install 'segclip[train]' ({error})"
        ) from None
    weights = None if random or text == "small" else text
    model, config, preprocess = assemble(image, read, (embed_dim, size), pooling, weights)
    preprocess = {**preprocess, "size": model.visual.image_size[0]}
    checkpoints.save(model, out, model_cfg=config, preprocess_cfg=preprocess, serving=SERVING)
    read[1].save_pretrained(out)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    typer.echo(f"wrote {out}: {millions:.1f} M parameters; train it with --start file:{out}")


if __name__ == "__main__":
    command.run(main)
