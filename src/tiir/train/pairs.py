"""Training pairs: pictures, each with some of its captions, prepared by the model's own processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiir.data.dataset import Dataset
from tiir.progress import track

__all__ = ["Collator", "Pairs"]


class Pairs(torch.utils.data.Dataset[dict[str, Any]]):
    """The pictures of a data set with their captions: a step encodes a picture once for all of them.

    Args:
        dataset: pictures and captions; pictures without captions are left out.
        prepare: turns a picture into the model's tensor (3, H, W), float32.
        captions: at most so many captions of a picture in an epoch, in turns. None: all.
        seed: of the order of the turns.
        cache: prepare all pictures once and keep them in memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        prepare: Callable[[Any], Tensor],
        *,
        captions: int | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.dataset = dataset
        self.prepare = prepare
        self.captions = captions
        self.epoch = 0
        order = np.random.default_rng(seed)
        own = [order.permutation(dataset.captions_of(image)) for image in range(dataset.n_images)]
        self.images = [image for image, turns in enumerate(own) if len(turns)]
        self.turns = [own[image] for image in self.images]
        self.cached: list[Tensor] | None = None
        if cache:
            images = track(range(dataset.n_images), description="preparing pictures", unit="images")
            self.cached = [prepare(dataset.image(image)) for image in images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, Any]:
        turns = self.turns[item]
        n = len(turns) if self.captions is None else min(self.captions, len(turns))
        chosen = np.roll(turns, -n * self.epoch)[:n]
        captions = [self.dataset.captions[caption] for caption in chosen]
        return {"pixel_values": self.pixels(self.images[item]), "captions": captions}

    def pixels(self, image: int) -> Tensor:
        """The prepared picture at a position of the data set, (3, H, W)."""
        return self.prepare(self.dataset.image(image)) if self.cached is None else self.cached[image]


class Collator:
    """Stacks the pictures of a batch and tokenises their captions together.

    Args:
        tokenizer: of the model.
        length: tokens a caption can have, start and end included; longer ones are cut.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = length
        # Models without an attention mask (SigLIP) see their padding, so it must be what they were trained with.
        self.padding = "longest" if "attention_mask" in tokenizer.model_input_names else "max_length"

    def tokens(self, captions: Sequence[str]) -> Any:
        """Token ids (M, length), and the attention mask where the model has one."""
        return self.tokenizer(
            list(captions), padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt"
        )

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch: "pixel_values" (B, 3, H, W), the tokens of M captions, and "owner" (M,), the row of each's picture."""
        return {
            **self.tokens([caption for row in rows for caption in row["captions"]]),
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
            "owner": torch.tensor([i for i, row in enumerate(rows) for _ in row["captions"]]),
        }
