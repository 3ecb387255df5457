"""Tokenizers are built from data only, with open_clip's few options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segclip.encoders.checkpoints import Checkpoint
from segclip.encoders.tokenizers import make_tokenizer
from segclip.errors import Unsupported, WeightsCorrupt, WeightsMissing


def tokenizer(**text_cfg: Any) -> Any:
    return make_tokenizer(Checkpoint("own", {"text_cfg": text_cfg}, {}, Path("own.safetensors")))


def test_texts_have_the_length_of_the_tower_and_no_other_tokenizer_changes() -> None:
    short, usual = tokenizer(context_length=8), tokenizer()
    assert short(["a cat"]).shape == (1, 8)
    assert usual(["a cat"]).shape == (1, 77)
    assert (usual(["a cat"])[:, :8] == short(["a cat"])).all()


def test_an_option_may_shorten_texts_but_not_lengthen_them() -> None:
    assert tokenizer(context_length=16, tokenizer_kwargs={"context_length": 5}).context_length == 5
    longer = tokenizer(context_length=16, tokenizer_kwargs={"context_length": 500})
    assert longer.context_length == 16


def test_open_clips_own_options_are_used() -> None:
    upper = tokenizer(tokenizer_kwargs={"clean": "whitespace"})
    assert upper.decode(upper.encode("a  cat")).split() == ["a", "cat"]
    special = tokenizer(tokenizer_kwargs={"additional_special_tokens": ["<mask>"]})
    assert len(special.encode("<mask>")) == 1
    assert len(tokenizer().encode("<mask>")) > 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bpe_path": "/etc/passwd"}, Unsupported, "unsupported option 'bpe_path'.*allowed are"),
        ({"context_length": True}, WeightsCorrupt, "context_length in its tokenizer_kwargs"),
        ({"context_length": "7"}, WeightsCorrupt, "context_length in its tokenizer_kwargs"),
        ({"additional_special_tokens": ["(a+)+$"]}, WeightsCorrupt, "special_tokens"),
        ({"clean": ["lower"]}, WeightsCorrupt, "clean in its"),
    ],
)
def test_other_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tokenizer(tokenizer_kwargs=options)


def test_a_vocabulary_is_named_as_on_the_hub_and_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("own tokenizer", str(tmp_path), "a/b/c", 7):
        with pytest.raises(WeightsCorrupt, match="is not a name of the Hugging Face hub"):
            tokenizer(hf_tokenizer_name=name)
    with pytest.raises(WeightsMissing, match="'nobody/nothing' of own is not on this machine"):
        tokenizer(hf_tokenizer_name="nobody/nothing")
