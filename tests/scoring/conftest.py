from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.features import FeatureInfo, FeatureStore
from tiir.models.base import ModelInfo

WORDS = "a the man woman dog cat red blue green runs sits on in with grass water street two three people"


@dataclass
class FakeModel:
    """A cross encoder whose score is a hash of the image's id and the caption's text; it counts what it scored."""

    max_length: int = 6
    scored: list[tuple[str, str]] = field(default_factory=list)
    nan: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self.info = ModelInfo("lxmert:fake", "r0", "cpu", "float32", "grouped by length", {"tiir": "0"})

    def caption_lengths(self, captions: Sequence[str]) -> np.ndarray:
        return np.array([len(text.split()) for text in captions])

    def bind(self, captions: Sequence[str], image_ids: Sequence[str], features: Any, *, memory: int) -> Any:
        def score_pairs(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
            names = [(image_ids[i], captions[c]) for i, c in zip(images, texts, strict=True)]
            self.scored += names
            return np.array([np.nan if name == self.nan else self.score(*name) for name in names], np.float32)

        def score_block(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
            pairs = score_pairs(np.repeat(images, len(texts)), np.tile(texts, len(images)))
            return pairs.reshape(len(images), len(texts))

        return SimpleNamespace(info=self.info, score_block=score_block, score_pairs=score_pairs)

    @staticmethod
    def score(image_id: str, caption: str) -> float:
        return zlib.crc32(f"{image_id} {caption}".encode()) / 2**31 - 1


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


@pytest.fixture(scope="session")
def pairs_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions of thirty images (no pictures), some of them twice, and region features."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    n, ids = 30, [f"i{n}" for n in range(30)]
    captions = [" ".join(rng.choice(WORDS.split(), rng.integers(1, 8))) for _ in range(2 * n)]
    captions[7] = captions[50] = captions[0]
    data = Dataset(
        "pairs", "test", ids, [f"c{n}" for n in range(2 * n)], captions, np.repeat(np.arange(n), 2)
    )
    data.save(folder / "data")
    boxes = np.tile(np.array([[0, 0, 0.5, 1], [0.25, 0.25, 1, 1], [0, 0, 1, 1]]), (n, 1, 1))
    with FeatureStore.create(folder / "features.h5", FeatureInfo(extractor="noise"), ids, 3, 8) as writer:
        writer.put(np.arange(n), rng.normal(size=(n, 3, 8)), boxes)
    return folder


@pytest.fixture(scope="session")
def tiny_lxmert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LXMERT directory with random weights, for features of width 8."""
    from tiir.models.scratch import new_lxmert

    out = tmp_path_factory.mktemp("models") / "tiny-lxmert"
    new_lxmert(
        [WORDS], out, feature_width=8, vocabulary=100, text_length=20, width=128, heads=2,
        language_layers=1, vision_layers=1, cross_layers=2,
    )  # fmt: skip
    return out
