"""Embeddings of texts and of the everyday names, and their cosine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segclip.ranking import embedding
from segclip.ranking.embedding import embed_texts, embed_vocabulary, similarity, unit
from segclip.ranking.vocabulary import everyday
from tests.fakes import FakeEncoder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(embedding, "_KEPT", {})
    return tmp_path / "home"


def test_a_text_is_the_mean_over_templates(encoder: FakeEncoder) -> None:
    both = embed_texts(encoder, ["red"], ["{}", "{} on black"])
    single = [embed_texts(encoder, ["red"], [template]) for template in ("{}", "{} on black")]
    assert both == pytest.approx(unit(single[0] + single[1]), abs=1e-6)


def test_similarity_is_the_cosine() -> None:
    rows = unit(np.array([[3.0, 4.0], [-1.0, 0.0]]))
    assert similarity(rows, rows) == pytest.approx(np.array([[1, -0.6], [-0.6, 1]]))
    assert similarity(rows, rows).dtype == np.float32


def test_everyday_names_are_embedded_once_for_an_encoder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder(fingerprint="one")
    first = embed_vocabulary(encoder, ("a {}",))
    assert len(first) == len(everyday().names) == len(encoder.texts_encoded)
    assert (embed_vocabulary(encoder, ("a {}",)) == first).all()
    monkeypatch.setattr(embedding, "_KEPT", {})  # as in another process
    assert (embed_vocabulary(encoder, ("a {}",)) == first).all()
    assert len(encoder.texts_encoded) == len(first)
    other = FakeEncoder(fingerprint="two")
    embed_vocabulary(other, ("a {}",))
    embed_vocabulary(encoder, ("the {}",))
    assert other.texts_encoded
    assert len(list((home / "vocabularies").iterdir())) == 3


def test_a_damaged_file_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FakeEncoder(fingerprint="one")
    first = embed_vocabulary(encoder, ("a {}",))
    (file,) = (home / "vocabularies").iterdir()
    for content in (b"", b"no array", file.read_bytes()[:300]):
        file.write_bytes(content)
        monkeypatch.setattr(embedding, "_KEPT", {})
        assert (embed_vocabulary(encoder, ("a {}",)) == first).all()
        assert np.load(file).shape == first.shape


def test_an_encoder_that_is_not_known_again_is_not_kept(home: Path) -> None:
    embed_vocabulary(FakeEncoder(), ("a {}",))
    assert not home.exists()
