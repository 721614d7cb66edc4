"""Training pairs: pictures, each with some of its captions, prepared by the model's own processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tiir.data.dataset import Dataset
from tiir.progress import track

__all__ = ["Collator", "Pairs", "Turns"]


class Turns:
    """Which captions of each picture an epoch takes: at most so many, in turns, in an order of the seed.

    Args:
        dataset: pictures without captions are left out.
        captions: of a picture in an epoch. None: all.
        seed: of the order of the turns.

    Example:
        >>> from tiir.data.dataset import Dataset
        >>> data = Dataset("pets", "train", ["a", "b"], ["0", "1"], ["a cat", "a tabby"], np.array([1, 1]))
        >>> turns = Turns(data, captions=1)
        >>> first = turns.take(0).tolist()
        >>> turns.epoch = 1
        >>> turns.images.tolist(), sorted(first + turns.take(0).tolist())
        ([1], [0, 1])
    """

    def __init__(self, dataset: Dataset, *, captions: int | None = None, seed: int = 0) -> None:
        order = np.random.default_rng(seed)
        own = [order.permutation(dataset.captions_of(image)) for image in range(dataset.n_images)]
        self.images = np.array([image for image, turns in enumerate(own) if len(turns)], np.int64)
        self.captions = captions
        self._own = [own[image] for image in self.images]
        # Shared memory: worker processes that live on see it change.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def epoch(self) -> int:
        """The epoch; set it before each."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def take(self, item: int) -> npt.NDArray[np.int64]:
        """Positions of the captions of the picture `images[item]` in this epoch."""
        own = self._own[item]
        n = len(own) if self.captions is None else min(self.captions, len(own))
        taken: npt.NDArray[np.int64] = np.roll(own, -n * self.epoch)[:n]
        return taken


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
        self.turns = Turns(dataset, captions=captions, seed=seed)
        self.cached: list[Tensor] | None = None
        if cache:
            images = track(range(dataset.n_images), description="preparing pictures", unit="images")
            self.cached = [prepare(dataset.image(image)) for image in images]

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, item: int) -> dict[str, Any]:
        captions = [self.dataset.captions[caption] for caption in self.turns.take(item)]
        return {"pixel_values": self.pixels(int(self.turns.images[item])), "captions": captions}

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
