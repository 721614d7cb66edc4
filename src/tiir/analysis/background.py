"""What a diagnosis takes from the data set alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.analysis.duplicates import near_duplicates
from tiir.analysis.missing import judged_pairs
from tiir.analysis.similarity import CaptionFit
from tiir.analysis.typos import Typo, find_typos, is_english
from tiir.analysis.words import Words
from tiir.data.dataset import Dataset
from tiir.errors import DataError, several

__all__ = ["Background", "background"]


@dataclass(frozen=True, eq=False)
class Background:
    """What a diagnosis takes from the data set alone: made once, it serves all Runs of it.

    Args:
        words: of the captions.
        typos: in them.
        fit: how well captions fit images; None where it cannot be learnt.
        judged: pairs that people judged; see `tiir.analysis.missing.judged_pairs`.
        duplicates: pairs of nearly the same photo; None where photos are not looked at.
        notes: what could not be looked at, and why.
    """

    words: Words
    typos: list[Typo]
    fit: CaptionFit | None
    judged: pd.DataFrame
    duplicates: pd.DataFrame | None
    notes: list[str]

    def __repr__(self) -> str:
        return f"Background({several(len(self.typos), 'typo')}, {several(len(self.judged), 'judged pair')}, notes: {self.notes})"


def background(
    dataset: Dataset,
    protocol: str = "",
    *,
    text_vectors: npt.NDArray[np.float32] | None = None,
    photos: bool = True,
) -> Background:
    """What a diagnosis takes from the data set alone.

    Args:
        dataset: that will be diagnosed.
        protocol: in use; what it counts as positives already is no judgement.
        text_vectors: of the captions, (n_captions, n_dims), as more evidence of missing labels.
        photos: look for near duplicates among them, where the data set has any.

    Example:
        >>> data = Dataset("pets", "test", ["a", "b"], ["k", "l"], ["a black cat", "a dog"], np.array([0, 1]))
        >>> background(data).notes[-1]
        'near-duplicate images are not looked for: no photos to look at'
    """
    notes: list[str] = []
    words = Words(dataset.captions, dataset.caption_image, dataset.n_images)
    fit = _fit(words, text_vectors, notes)
    if not is_english(words):
        notes.append(
            "the captions are not in English: typos are not looked for, other tags of wording may mislead"
        )
    judged = judged_pairs(dataset, protocol)
    if not len(judged):
        notes.append("nobody judged pairs of this data set: missing labels are only suspected")
    duplicates = near_duplicates(dataset) if photos and dataset.image_root is not None else None
    if duplicates is None:
        notes.append("near-duplicate images are not looked for: no photos to look at")
    return Background(words, find_typos(words), fit, judged, duplicates, notes)


def _fit(words: Words, vectors: Any, notes: list[str]) -> CaptionFit | None:
    try:
        return CaptionFit(words, vectors)
    except DataError as problem:
        if vectors is not None:
            raise
        notes.append(f"missing labels are not suspected: {problem}")
        return None
