"""The texts that a model reads of a data set: each distinct caption once."""

from __future__ import annotations

import numpy as np

from tiir.data.dataset import Dataset
from tiir.models.base import DualEncoder, PairModel

__all__ = ["Texts"]


class Texts:
    """The distinct captions of a data set, sorted by length, so that a tile holds few lengths.

    Args:
        dataset: whose captions.
        model: that counts their tokens.

    `texts` are the captions, `lengths` (n,) the tokens of each that the model reads, `of_caption` (n_captions,) the
    place of each caption's text, `truncated` how many are cut.
    """

    def __init__(self, dataset: Dataset, model: DualEncoder | PairModel) -> None:
        texts = list(dict.fromkeys(dataset.captions))
        lengths, most = model.caption_lengths(texts), model.max_length
        order = np.argsort(lengths, kind="stable")
        self.texts = [texts[i] for i in order]
        place = {text: i for i, text in enumerate(self.texts)}
        self.of_caption = np.fromiter(
            (place[text] for text in dataset.captions), np.int64, dataset.n_captions
        )
        self.lengths = lengths[order] if most is None else np.minimum(lengths[order], most)
        self.truncated = 0 if most is None else int((lengths > most).sum())

    def __len__(self) -> int:
        return len(self.texts)
