"""Scores of pairs by a factored LXMERT, within a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
CACHE = (
    96 * 1024**2
)  # bytes of one step's work on a CPU: with larger tensors the system maps fresh pages each time


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
        self._sizes = _Sizes(config, features.n_regions, torch.finfo(self._dtype).bits // 8)
        longest = int(self._lengths.max(initial=1))
        # Half of the memory is for work, a quarter each for encoded images and encoded captions.
        least = max(self._sizes.pair(longest), self._sizes.encoding)
        needed = max(2 * least, 4 * self._sizes.image, 4 * longest * self._sizes.token)
        if needed > memory:
            raise ConfigError(
                f"a memory of {memory:,} bytes does not hold one pair of {longest} tokens and "
                f"{features.n_regions} regions",
                hint=f"give at least {needed:,} bytes",
            )
        self._held, self._least = memory // 4, least
        self.to(str(self._device))

    def to(self, device: str) -> None:
        """Move the model to another device; `info` keeps the first one."""
        self._device = torch.device(device)
        self._matcher.to(self._device)
        self._work = 2 * self._held
        if self._device.type == "cpu":
            self._work = min(self._work, max(CACHE, self._least))

    def score_block(self, images: IntArray, captions: IntArray) -> FloatArray:
        """Scores of every given image against every given caption, float32 (len(images), len(captions))."""
        scores = np.empty((len(images), len(captions)), np.float32)
        # Slices keep the pair lists small whatever the block; each holds whole groups of images.
        height = max(1, self._held // self._sizes.image)
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
        for image_group, at in _groups(images, max(1, self._held // self._sizes.image)):
            caption_side = image_side = None  # gone before the next ones are made
            image_side = self._images(image_group)
            for length in np.unique(lengths[at]):
                same = at[lengths[at] == length]
                limit = max(1, self._held // (int(length) * self._sizes.token))
                for caption_group, within in _groups(captions[same], limit):
                    caption_side = None
                    caption_side = self._captions(caption_group)
                    pairs = same[within]
                    row = np.searchsorted(image_group, images[pairs])
                    column = np.searchsorted(caption_group, captions[pairs])
                    step = max(1, self._work // self._sizes.pair(int(length)))
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
                        del pooled
        return scores

    def _images(self, group: IntArray) -> Side:
        model, device, dtype = self._matcher.lxmert, self._device, self._dtype

        def encode(part: IntArray) -> Side:
            regions, boxes = self._features.read(self._rows[part])
            arrays = (torch.from_numpy(array).to(device, dtype, copy=True) for array in (regions, boxes))
            return encode_images(model, *arrays)

        return _in_steps(group, max(1, self._work // self._sizes.encoding), encode)

    def _captions(self, group: IntArray) -> Side:
        # All of one length.
        def encode(part: IntArray) -> Side:
            ids = torch.tensor([self._tokens[i] for i in part], device=self._device)  # (n, T)
            return encode_captions(self._matcher.lxmert, ids)

        step = max(1, self._work // self._sizes.pair(len(self._tokens[group[0]])))
        return _in_steps(group, step, encode)


class _Sizes:
    """Bytes that tensors take, generously.

    Args:
        config: a transformers LxmertConfig.
        regions: of an image.
        size: bytes of a number.
    """

    def __init__(self, config: Any, regions: int, size: int) -> None:
        h, inner, self._regions = int(config.hidden_size), int(config.intermediate_size), regions
        self._row = (12 * h + 2 * inner) * size  # one token or region at work
        self._cell = 4 * int(config.num_attention_heads) * size  # one cell of attention
        self._first = 3 * int(config.num_attention_heads) * h * size  # [CLS] in the last layer
        self.image = 4 * regions * h * size  # one encoded image
        self.token = 4 * h * size  # one token of an encoded caption
        self.encoding = regions * (self._row + 8 * int(config.visual_feat_dim)) + regions**2 * self._cell

    def pair(self, tokens: int) -> int:
        """Bytes of one pair at work in the cross layers."""
        rows = tokens + self._regions
        return rows * self._row + rows**2 * self._cell + self._first


def _in_steps(group: IntArray, step: int, encode: Callable[[IntArray], Side]) -> Side:
    # Encoded a few at a time, into tensors that are made once.
    if len(group) <= step:
        return encode(group)
    whole: list[torch.Tensor] = []
    for start in range(0, len(group), step):
        side = encode(group[start : start + step])
        tensors = (side.states, side.queries, side.keys, side.values)
        if not whole:
            whole = [tensor.new_empty((len(group), *tensor.shape[1:])) for tensor in tensors]
        for out, tensor in zip(whole, tensors, strict=True):
            out[start : start + step] = tensor
        del side, tensors
    return Side(*whole)


def _groups(values: IntArray, size: int) -> Iterator[tuple[IntArray, IntArray]]:
    # The distinct values, at most `size` at a time and ascending, and where they occur.
    order = np.argsort(values, kind="stable")
    distinct, starts = np.unique(values[order], return_index=True)
    ends = np.append(starts, len(values))
    for first in range(0, len(distinct), size):
        last = min(first + size, len(distinct))
        yield distinct[first:last], order[ends[first] : ends[last]]
