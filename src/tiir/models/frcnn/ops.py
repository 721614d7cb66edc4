"""Boxes: non-maximum suppression, RoI max pooling, deltas. torchvision's kernels where it works, the same in plain torch elsewhere."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["apply_deltas", "nms", "nms_plain", "roi_max_pool", "roi_max_pool_plain", "torchvision_ops"]

LARGEST = math.log(1000 / 16)  # of a regressed side's logarithm
BLOCK = 512  # boxes that suppress each other at a time


@lru_cache(maxsize=1)
def torchvision_ops() -> Any:
    """`torchvision.ops`, or None where it is missing or does not fit this torch."""
    try:
        import torchvision.ops as ops

        one = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        ops.nms(one, one[:, 0], 0.5)
        ops.roi_pool(torch.zeros(1, 1, 2, 2), [one], 1)
    except (
        Exception
    ):  # a wheel for another torch fails in many ways: RuntimeError, AttributeError, ImportError, OSError
        return None
    return ops


def nms(boxes: Tensor, scores: Tensor, threshold: float, most: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) x1 y1 x2 y2.
        scores: (n,).
        threshold: a box goes that overlaps a better one that stays by a larger intersection over union.
        most: stop at so many.

    Returns:
        Positions of the boxes that stay, best first, int64 (k,).
    """
    ops = torchvision_ops()
    if ops is not None:
        kept: Tensor = ops.nms(boxes, scores, threshold)[:most]
        return kept
    return nms_plain(boxes, scores, threshold, most)


def nms_plain(boxes: Tensor, scores: Tensor, threshold: float, most: int) -> Tensor:
    """`nms` in plain torch: no loop over boxes, but over blocks of them, and over chains of suppression in a block.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])
        >>> nms_plain(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5, most=10).tolist()
        [1, 2]
    """
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in torch.split(order, BLOCK):
        if len(kept):
            block = block[~(_iou(boxes[block], boxes[kept]) > threshold).any(1)]
        # A box stays unless a better one that stays overlaps it. Repeated, the answer is right for one box more of
        # every chain of overlaps at least, and where it no longer changes it is right for all.
        over = (_iou(boxes[block], boxes[block]) > threshold).tril(-1).to(boxes.dtype)  # (b, b) row: by whom
        stays = torch.ones(len(block), dtype=boxes.dtype, device=boxes.device)
        while True:
            again = (over @ stays == 0).to(boxes.dtype)
            if torch.equal(again, stays):
                break
            stays = again
        kept = torch.cat([kept, block[stays.bool()]])
        if len(kept) >= most:
            break
    return kept[:most]


def roi_max_pool(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """The largest value of each cell of each region: the RoI pooling of Fast R-CNN (Girshick, 2015), not RoIAlign.

    Args:
        features: (1, C, H, W).
        rois: (r, 4) x1 y1 x2 y2, in pixels.
        size: cells a side.
        scale: cells of `features` a pixel.

    Returns:
        (r, C, size, size); a cell beyond the map is 0.
    """
    ops = torchvision_ops()
    if ops is not None:
        pooled: Tensor = ops.roi_pool(features, [rois], size, scale)
        return pooled
    return roi_max_pool_plain(features, rois, size, scale)


def roi_max_pool_plain(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """`roi_max_pool` in plain torch: a cell is the largest of four overlapping windows of 2^i x 2^j, pooled once.

    Memory: the map for each pair (i, j), and the result twice.
    """
    _, channels, height, width = features.shape
    top, bottom = _bins(rois[:, 1], rois[:, 3], size, scale, height)  # (r, size) each: [top, bottom)
    left, right = _bins(rois[:, 0], rois[:, 2], size, scale, width)
    rows, columns = (_log2(end - start) for start, end in ((top, bottom), (left, right)))
    down, across = (int(power.max()) + 1 if power.numel() else 1 for power in (rows, columns))
    tables = _windows(features[0].permute(1, 2, 0), down, across)  # (down * across * H * W, C)
    table = rows[:, :, None] * across + columns[:, None, :]  # (r, size, size)
    made: Tensor | None = None
    for y in (top, bottom - 2**rows):
        for x in (left, right - 2**columns):
            at = (table * height + y.clamp(0, height - 1)[:, :, None]) * width + x.clamp(0, width - 1)[
                :, None, :
            ]
            corner = tables.index_select(0, at.flatten())
            made = corner if made is None else torch.maximum(made, corner, out=made)
    assert made is not None
    empty = ((bottom <= top)[:, :, None] | (right <= left)[:, None, :]).flatten()
    made[empty] = 0
    return made.view(len(rois), size, size, channels).permute(0, 3, 1, 2)


def apply_deltas(boxes: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Move and stretch boxes: (..., 4) x1 y1 x2 y2 by (..., 4) dx dy dw dh divided by `weights`."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + 0.5 * sides
    by = deltas / deltas.new_tensor(weights)
    centres = by[..., :2] * sides + centres
    half = 0.5 * by[..., 2:].clamp(max=LARGEST).exp() * sides
    return torch.cat([centres - half, centres + half], -1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    sides = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - corner).clamp(min=0)  # (a, b, 2)
    both = sides[..., 0] * sides[..., 1]
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def _bins(start: Tensor, end: Tensor, size: int, scale: float, length: int) -> tuple[Tensor, Tensor]:
    first, last = (torch.floor(side * scale + 0.5) for side in (start, end))  # halves go up, as C rounds
    cell = (last - first + 1).clamp(min=1) / size  # (r,)
    i = torch.arange(size, device=start.device, dtype=start.dtype)
    lower = torch.floor(i * cell[:, None]) + first[:, None]
    upper = torch.ceil((i + 1) * cell[:, None]) + first[:, None]
    return lower.clamp(0, length).long(), upper.clamp(0, length).long()


def _log2(lengths: Tensor) -> Tensor:
    return torch.floor(torch.log2(lengths.clamp(min=1).double())).long()


def _windows(features: Tensor, down: int, across: int) -> Tensor:
    # Maxima of windows of 2^i x 2^j cells that begin at each cell, (i, j, y, x) one after another.
    height, width, channels = features.shape
    tables = features.new_empty(down, across, height, width, channels)
    tables[0, 0] = features
    for i in range(down):
        if i:
            tables[i, 0] = _with_next(tables[i - 1, 0], 2 ** (i - 1), 0)
        for j in range(1, across):
            tables[i, j] = _with_next(tables[i, j - 1], 2 ** (j - 1), 1)
    return tables.view(-1, channels)


def _with_next(table: Tensor, step: int, dim: int) -> Tensor:
    out = table.clone()
    length = table.shape[dim] - step
    if length > 0:
        torch.maximum(
            table.narrow(dim, 0, length), table.narrow(dim, step, length), out=out.narrow(dim, 0, length)
        )
    return out
