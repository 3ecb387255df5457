"""Run an open_clip text tower without the positions that its embeddings do not depend on.

A causal tower does not attend past the token it is pooled at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer

logger = logging.getLogger(__name__)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Turn texts into token ids (T, context); texts that are too long are truncated.

    A single warning reports where, as a long text comes in several sentences, one per template.
    """
    cut = [(kept, text) for text in texts if (kept := _kept(tokenizer, text)) is not None]
    if cut:
        kept, text = cut[0]
        others = f", and {len(cut) - 1} more" if len(cut) > 1 else ""
        logger.warning(
            "text too long for the encoder, truncated after %r: %r%s",
            kept[-40:],
            f"{text[:60]}...",
            others,
        )
    return tokenizer(list(texts))


def encode(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Embed token ids (T, context), not normalised: (T, D).

    A causal tower stops at the last token that is pooled: the same vectors for a fraction of the
    work.
    """
    tower = getattr(model, "text", model)
    pooled_at = _pooled_at(tower, tokens)
    if pooled_at is None:
        return model.encode_text(tokens)
    length = int(pooled_at.max()) + 1
    dtype = tower.transformer.get_cast_dtype()
    hidden = tower.token_embedding(tokens[:, :length]).to(dtype)  # (T, length, width)
    hidden = hidden + tower.positional_embedding[:length].to(dtype)
    hidden = tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length])
    rows = torch.arange(len(tokens), device=tokens.device)
    pooled = tower.ln_final(hidden[rows, pooled_at])  # (T, width)
    projection = tower.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection


def _pooled_at(tower: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor | None:
    """Return the position each text is pooled at (T,), or None for a tower that needs all."""
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
    future = torch.ones_like(mask, dtype=torch.bool).triu(1) & ~torch.isneginf(mask)
    special = getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False)
    return not special and not bool(future.any())


def _kept(tokenizer: Any, text: str) -> str | None:
    """Return the part of ``text`` a tokenizer keeps, or None when it keeps all of it."""
    if isinstance(tokenizer, SimpleTokenizer):
        ids, room = tokenizer.encode(text), tokenizer.context_length - 2
        return tokenizer.decode(ids[:room]).strip() if len(ids) > room else None
    inner, room = tokenizer.tokenizer, tokenizer.context_length
    ids = inner(text)["input_ids"]
    return inner.decode(ids[: room - 1], skip_special_tokens=True) if len(ids) > room else None
