"""Scores of pairs by a factored LXMERT, within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from tiir.errors import ConfigError, ModelError
from tiir.models.factored import Side, cross, encode_captions, encode_images

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore
    from tiir.models.base import ModelInfo
    from tiir.models.lxmert import LxmertMatcher

__all__ = ["PairScorer"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
CACHE = 192 * 1024**2  # bytes of one step's activations on a CPU: more than a few caches' worth is slower


class PairScorer:
    """A CrossEncoder: an LXMERT bound to captions and to images with region features.

    Images and captions are encoded in groups that fit the memory, captions of one length together, so nothing is
    padded; then only the cross layers run over pairs.

    Args:
        matcher: in evaluation mode, on its device and in its precision.
        info: where it came from.
        tokens: token ids of each caption.
        image_ids, features, memory: see `Lxmert.bind`.
    """

    def __init__(
        self,
        matcher: LxmertMatcher,
        info: ModelInfo,
        tokens: Sequence[Sequence[int]],
        image_ids: Sequence[str],
        features: FeatureStore,
        *,
        memory: int,
    ) -> None:
        config = matcher.config
        if features.width != config.visual_feat_dim:
            raise ModelError(
                f"{info.name} reads features of width {config.visual_feat_dim}, these have {features.width}",
                hint="extract features with the extractor that the model was trained with",
            )
        self.info = info
        self._matcher, self._device, self._dtype = matcher, matcher.device, matcher.lxmert.dtype
        self._features = features
        self._rows = features.rows(image_ids)
        self._tokens = tokens
        self._lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        size = torch.finfo(self._dtype).bits // 8
        h, regions = int(config.hidden_size), features.n_regions
        longest = int(self._lengths.max(initial=1))
        # Bytes of one image and of one token once encoded, and of one pair at work (see `Side` and `cross`).
        self._image_bytes = 4 * regions * h * size
        self._token_bytes = 4 * h * size
        self._row_bytes: int = (
            12 * h + 2 * config.intermediate_size
        ) * size  # of one token or region at work
        self._score_bytes: int = 4 * config.num_attention_heads * size  # of one cell of attention
        encoding = regions * (self._row_bytes + 8 * config.visual_feat_dim)
        self._step = min(memory // 2, CACHE) if self._device.type == "cpu" else memory // 2
        self._held = memory // 4  # each: images, captions
        needed = max(
            2 * max(self._pair_bytes(longest), encoding),
            4 * max(self._image_bytes, longest * self._token_bytes),
        )
        self._step = max(self._step, self._pair_bytes(longest), encoding)
        if needed > memory:
            raise ConfigError(
                f"a memory of {memory:,} bytes does not hold one pair of {longest} tokens and {regions} regions",
                hint=f"give at least {needed:,} bytes",
            )
        self._encode_images = max(1, self._step // encoding)

    def score_block(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Scores of every given image against every given caption, float32 (len(images), len(captions))."""
        scores = np.empty((len(images), len(captions)), np.float32)
        # Slices keep the pair lists small whatever the block; each holds whole groups of images.
        height = max(1, self._held // self._image_bytes)
        for top in range(0, len(images), height):
            rows = images[top : top + height]
            width = max(1, self._held // 64 // len(rows))
            for left in range(0, len(captions), width):
                columns = captions[left : left + width]
                pairs = self.score_pairs(np.repeat(rows, len(columns)), np.tile(columns, len(rows)))
                scores[top : top + height, left : left + width] = pairs.reshape(len(rows), len(columns))
        return scores

    @torch.inference_mode()
    def score_pairs(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Scores of pairs of one image and one caption each, float32 (p,)."""
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images and {len(captions)} captions make no pairs")
        scores = np.empty(len(images), np.float32)
        device = self._device
        lengths = self._lengths[captions]
        for image_group, at in _groups(images, max(1, self._held // self._image_bytes)):
            image_side = self._images(image_group)
            for length in np.unique(lengths[at]):
                same = at[lengths[at] == length]
                limit = max(1, self._held // int(length * self._token_bytes))
                for caption_group, within in _groups(captions[same], limit):
                    caption_side = self._captions(caption_group)
                    pairs = same[within]
                    row = np.searchsorted(image_group, images[pairs])
                    column = np.searchsorted(caption_group, captions[pairs])
                    step = max(1, self._step // self._pair_bytes(int(length)))
                    for start in range(0, len(pairs), step):
                        part = slice(start, start + step)
                        pooled = cross(
                            self._matcher.lxmert,
                            image_side,
                            caption_side,
                            torch.from_numpy(row[part]).to(device),
                            torch.from_numpy(column[part]).to(device),
                        )
                        scores[pairs[part]] = self._matcher.head(pooled).float().cpu().numpy()
        return scores

    def _pair_bytes(self, tokens: int) -> int:
        regions = self._features.n_regions
        return (tokens + regions) * self._row_bytes + (tokens + regions) ** 2 * self._score_bytes

    def _images(self, group: IntArray) -> Side:
        model, device, dtype = self._matcher.lxmert, self._device, self._dtype
        sides = []
        for start in range(0, len(group), self._encode_images):
            regions, boxes = self._features.read(self._rows[group[start : start + self._encode_images]])
            arrays = (torch.from_numpy(array).to(device, dtype) for array in (regions, boxes))
            sides.append(encode_images(model, *arrays))
        return _joined(sides)

    def _captions(self, group: IntArray) -> Side:
        # All of one length.
        model, device = self._matcher.lxmert, self._device
        length = len(self._tokens[group[0]])
        step = max(1, self._step // self._pair_bytes(length))
        sides = []
        for start in range(0, len(group), step):
            ids = torch.tensor(
                [self._tokens[i] for i in group[start : start + step]], device=device
            )  # (n, T)
            sides.append(encode_captions(model, ids))
        return _joined(sides)


def _groups(values: IntArray, size: int) -> Iterator[tuple[IntArray, IntArray]]:
    # The distinct values, at most `size` at a time and ascending, and where they occur.
    order = np.argsort(values, kind="stable")
    distinct, starts = np.unique(values[order], return_index=True)
    ends = np.append(starts, len(values))
    for first in range(0, len(distinct), size):
        last = min(first + size, len(distinct))
        yield distinct[first:last], order[ends[first] : ends[last]]


def _joined(sides: list[Side]) -> Side:
    if len(sides) == 1:
        return sides[0]
    return Side(
        *(
            torch.cat(tensors)
            for tensors in zip(*((s.states, s.queries, s.keys, s.values) for s in sides), strict=True)
        )
    )
