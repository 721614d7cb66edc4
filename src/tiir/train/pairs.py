"""Training pairs: a picture and one of its captions, prepared by the model's own processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tiir.data.dataset import Dataset
from tiir.progress import track

__all__ = ["Collator", "Pairs"]


class Pairs(torch.utils.data.Dataset[dict[str, Any]]):
    """Every caption of a data set with its picture; an epoch sees each caption once.

    Args:
        dataset: pictures and captions.
        prepare: turns a picture into the model's tensor (3, H, W), float32.
        cache: prepare all pictures once and keep them in memory.
    """

    def __init__(self, dataset: Dataset, prepare: Callable[[Any], Tensor], *, cache: bool) -> None:
        self.dataset = dataset
        self.prepare = prepare
        self.cached: list[Tensor] | None = None
        if cache:
            images = track(range(dataset.n_images), description="preparing pictures", unit="images")
            self.cached = [prepare(dataset.image(image)) for image in images]

    def __len__(self) -> int:
        return self.dataset.n_captions

    def __getitem__(self, caption: int) -> dict[str, Any]:
        image = int(self.dataset.caption_image[caption])
        return {"pixel_values": self.pixels(image), "caption": self.dataset.captions[caption], "image": image}

    def pixels(self, image: int) -> Tensor:
        """The prepared picture at a position, (3, H, W)."""
        return self.prepare(self.dataset.image(image)) if self.cached is None else self.cached[image]


class Collator:
    """Stack pictures, tokenise captions together.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # Models without an attention mask (SigLIP) see their padding, so it must be what they were trained with.
        self.padding = "longest" if "attention_mask" in tokenizer.model_input_names else "max_length"

    def tokens(self, captions: Sequence[str]) -> Any:
        """Token ids (n, length), and the attention mask where the model has one."""
        return self.tokenizer(list(captions), padding=self.padding, truncation=True, return_tensors="pt")

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return {
            **self.tokens([row["caption"] for row in rows]),
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
            "image": torch.tensor([row["image"] for row in rows]),
        }
