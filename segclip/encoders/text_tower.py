"""Run an open_clip text tower only as far as it can see: a causal one never looks past the token it
is pooled at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer

logger = logging.getLogger(__name__)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Turn texts into token ids (T, context); a text too long is cut, and a warning tells where.

    One warning for all: a long text comes in several sentences, one a template.
    """
    cut = [(kept, text) for text in texts if (kept := _kept(tokenizer, text)) is not None]
    if cut:
        kept, text = cut[0]
        others = f", and {len(cut) - 1} like it" if len(cut) > 1 else ""
        logger.warning(
            "too long for the encoder, read only up to %r: %r%s",
            kept[-40:],
            f"{text[:60]}...",
            others,
        )
    return tokenizer(list(texts))


def encode(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Embed token ids (T, context), not normalised: (T, D).

    A causal tower stops at the last token anything is pooled from: the same vectors for a fraction
    of the work.
    """
    tower = getattr(model, "text", model)
    pooled_at = _pooled_at(tower, tokens)
    if pooled_at is None:
        return model.encode_text(tokens)
    length = int(pooled_at.max()) + 1
    dtype = tower.transformer.get_cast_dtype()
    hidden = tower.token_embedding(tokens[:, :length]).to(dtype) + tower.positional_embedding[
        :length
    ].to(dtype)
    hidden = tower.transformer(
        hidden, attn_mask=tower.attn_mask[:length, :length]
    )  # (T, length, width)
    pooled = tower.ln_final(
        hidden[torch.arange(len(tokens), device=tokens.device), pooled_at]
    )  # (T, width)
    projection = tower.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection


def _pooled_at(tower: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor | None:
    """Find the position each text is pooled at (T,), or None for a tower that must read every
    position.
    """
    if not _is_plainly_causal(tower):
        return None
    pool = getattr(tower, "text_pool_type", None) or tower.pool_type
    if pool == "argmax":
        return tokens.argmax(dim=-1)
    if pool == "eos":
        eos = getattr(tower, "text_eos_id", None) or tower.eos_id
        return (tokens == eos).int().argmax(dim=-1)
    return None


def _is_plainly_causal(tower: torch.nn.Module) -> bool:
    mask = getattr(tower, "attn_mask", None)
    if mask is None or mask.ndim != 2:
        return False
    looks_ahead = torch.ones_like(mask, dtype=torch.bool).triu(1) & ~torch.isneginf(mask)
    special = getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False)
    return not special and not bool(looks_ahead.any())


def _kept(tokenizer: Any, text: str) -> str | None:
    """Give the part of ``text`` a tokenizer keeps, or None when it keeps it all."""
    if isinstance(tokenizer, SimpleTokenizer):
        ids, room = tokenizer.encode(text), tokenizer.context_length - 2
        return tokenizer.decode(ids[:room]).strip() if len(ids) > room else None
    inner, room = tokenizer.tokenizer, tokenizer.context_length
    ids = inner(text)["input_ids"]
    return inner.decode(ids[: room - 1], skip_special_tokens=True) if len(ids) > room else None
