"""Training pairs of a cross encoder: images as region features, captions as token ids, and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tiir.data.dataset import Dataset
from tiir.train.negatives import HardNegatives, TruePairs
from tiir.train.pairs import Turns

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["BinaryPairs", "ContrastivePairs", "RegionCollator", "Tokens"]

IntArray = npt.NDArray[np.int64]
Row = list[tuple[int, int, bool]]  # image, caption, matched
CHUNK = 10_000  # captions tokenised at a time
TRIES = 100


class Tokens:
    """The token ids of many captions in two arrays, made once.

    Args:
        tokenizer: of the model.
        captions: texts.
        length: tokens a caption can have, start and end included; longer ones are cut.
    """

    def __init__(self, tokenizer: Any, captions: Sequence[str], length: int) -> None:
        self.padding = tokenizer.pad_token_id
        ids: list[npt.NDArray[np.int32]] = []
        for start in range(0, len(captions), CHUNK):
            texts = list(captions[start : start + CHUNK])
            rows = tokenizer(texts, truncation=True, max_length=length, padding=False)["input_ids"]
            ids += [np.array(row, np.int32) for row in rows]
        self._ids = np.concatenate([np.empty(0, np.int32), *ids])
        self._ends = np.cumsum([0, *map(len, ids)])

    def batch(self, captions: IntArray) -> tuple[Tensor, Tensor]:
        """Token ids (M, T), padded to the longest, and the mask (M, T), 0 at padding."""
        lengths = self._ends[captions + 1] - self._ends[captions]
        ids = np.full((len(captions), lengths.max(initial=1)), self.padding, np.int64)
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        ids[mask] = np.concatenate([self._ids[self._ends[c] : self._ends[c + 1]] for c in captions])
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


class _Drawn(torch.utils.data.Dataset[Row]):
    # What a draw takes depends on the seed, the epoch and the item only: a resumed training draws the same.
    def __init__(
        self, dataset: Dataset, true: TruePairs, turns: Turns, *, seed: int, hard: HardNegatives | None
    ) -> None:
        self.dataset = dataset
        self.true = true
        self.turns = turns
        self.seed = seed
        self.hard = hard

    def __len__(self) -> int:
        return len(self.turns)

    def _start(self, item: int) -> tuple[np.random.Generator, int, IntArray]:
        draw = np.random.default_rng((self.seed, self.turns.epoch, item))
        return draw, int(self.turns.images[item]), self.turns.take(item)


class BinaryPairs(_Drawn):
    """An image with its captions of the epoch, some of them (or the image) swapped for a wrong one.

    Args:
        dataset: images and captions.
        true: the pairs that are no negatives.
        turns: which captions an epoch takes.
        negatives: share of pairs that are negatives; half by swapping the image, half the caption.
        seed: of the draws.
        hard: the negatives that another model confuses.
        share: of the negatives, how many are drawn from `hard`.
    """

    def __init__(
        self,
        dataset: Dataset,
        true: TruePairs,
        turns: Turns,
        *,
        negatives: float = 0.5,
        seed: int = 0,
        hard: HardNegatives | None = None,
        share: float = 0.0,
    ) -> None:
        super().__init__(dataset, true, turns, seed=seed, hard=hard)
        self.negatives = negatives
        self.share = share if hard is not None else 0.0

    def __getitem__(self, item: int) -> Row:
        draw, image, captions = self._start(item)
        row = []
        for caption in captions:
            pair = self._negative(draw, image, int(caption)) if draw.random() < self.negatives else None
            row.append((image, int(caption), True) if pair is None else (*pair, False))
        return row

    def _negative(self, draw: np.random.Generator, image: int, caption: int) -> tuple[int, int] | None:
        swap_image, is_hard = draw.random() < 0.5, draw.random() < self.share
        if is_hard:
            assert self.hard is not None
            wrong = self.hard.images[caption] if swap_image else self.hard.captions[image]
            wrong = wrong[wrong >= 0]
            if len(wrong):
                other = int(draw.choice(wrong))
                return (other, caption) if swap_image else (image, other)
        for _ in range(TRIES):
            if swap_image:
                pair = int(draw.integers(self.dataset.n_images)), caption
            else:
                pair = image, int(draw.integers(self.dataset.n_captions))
            if not self.true(*pair):
                return pair
        return None  # nearly all pairs are true: keep this one


class ContrastivePairs(_Drawn):
    """An image with its captions of the epoch; with partners, further images (and a caption each) to tell it from.

    Args:
        dataset: images and captions.
        true: the pairs that are no negatives.
        turns: which captions an epoch takes.
        seed: of the draws.
        hard: what another model confuses: partners come from it.
        partners: of each image, in turn an image confused with it and one whose caption is.
    """

    def __init__(
        self,
        dataset: Dataset,
        true: TruePairs,
        turns: Turns,
        *,
        seed: int = 0,
        hard: HardNegatives | None = None,
        partners: int = 0,
    ) -> None:
        super().__init__(dataset, true, turns, seed=seed, hard=hard)
        self.partners = partners if hard is not None else 0

    def __getitem__(self, item: int) -> Row:
        draw, image, captions = self._start(item)
        row = [(image, int(caption), True) for caption in captions]
        for n in range(self.partners):
            assert self.hard is not None
            by_image = n % 2 == 0
            wrong = self.hard.images[draw.choice(captions)] if by_image else self.hard.captions[image]
            wrong = wrong[wrong >= 0]
            if not len(wrong):
                continue
            other = int(draw.choice(wrong))
            if by_image:
                own = self.dataset.captions_of(other)
                if not len(own):
                    continue
                row.append((other, int(draw.choice(own)), True))
            else:
                row.append((int(self.dataset.caption_image[other]), other, True))
        return row


class RegionCollator:
    """Makes a batch in which every image and every caption stands once.

    Args:
        dataset: images and captions.
        features: region features of all images; each worker process opens its own handle.
        tokens: of all captions.
        true: the pairs that are no negatives.
    """

    def __init__(self, dataset: Dataset, features: FeatureStore, tokens: Tokens, true: TruePairs) -> None:
        self.features = features
        self.rows = features.rows(dataset.image_ids)
        self.caption_image = dataset.caption_image
        self.tokens = tokens
        self.true = true

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """A batch of B images, M captions and P pairs.

        "regions" (B, R, D), "boxes" (B, R, 4), "input_ids" and "attention_mask" (M, T); "owner" (M,), the place of each
        caption's own image in the batch, -1 if it is not in it; "true" (B, M); of each pair "image" and "caption" (P,), places
        in the batch, and "matched" (P,).
        """
        pairs = np.array([pair for row in rows for pair in row], np.int64)  # (P, 3)
        images, image = np.unique(pairs[:, 0], return_inverse=True)
        captions, caption = np.unique(pairs[:, 1], return_inverse=True)
        regions, boxes = self.features.read(self.rows[images])
        input_ids, attention_mask = self.tokens.batch(captions)
        own = self.caption_image[captions]
        place = np.minimum(np.searchsorted(images, own), len(images) - 1)
        arrays = {
            "owner": np.where(images[place] == own, place, -1),
            "true": self.true(images[:, None], captions[None, :]),
            "image": image,
            "caption": caption,
            "matched": pairs[:, 2],
        }
        return {
            "regions": torch.from_numpy(regions),
            "boxes": torch.from_numpy(boxes),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            **{key: torch.from_numpy(value) for key, value in arrays.items()},
        }
