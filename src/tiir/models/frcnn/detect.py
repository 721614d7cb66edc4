"""From the network's maps to a fixed number of regions an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiir.models.frcnn.config import FrcnnConfig
from tiir.models.frcnn.network import STRIDE, FrcnnNetwork, map_size
from tiir.models.frcnn.ops import apply_deltas, nms, roi_max_pool

__all__ = ["Found", "detect"]

RELAXED = (0.7, 0.8, 0.9, 1.0)  # thresholds after the configuration's own; at 1 every box stays


class Found(NamedTuple):
    """The regions of one image, best first."""

    features: Tensor  # (R, D)
    boxes: Tensor  # (R, 4) x1 y1 x2 y2 in pixels of the resized picture
    objects: Tensor  # (R,) int64, as the three below
    object_scores: Tensor
    attributes: Tensor
    attribute_scores: Tensor
    nms: float  # threshold that left enough boxes
    proposal_nms: float


def detect(
    network: FrcnnNetwork, config: FrcnnConfig, pixels: Sequence[Tensor], least: int, most: int
) -> list[Found]:
    """Find regions.

    Where fewer than `least` boxes survive, the threshold of non-maximum suppression is raised step by step, first of
    the boxes, then (fewer proposals than `least`) of the proposals; `Found` says which ones were used.

    Args:
        network, config: the detector.
        pixels: pictures (3, h, w), resized and normalised.
        least, most: regions an image.

    Returns:
        What was found in each image. It may be fewer than `least` where a picture has too few anchors.
    """
    sizes = [(int(one.shape[1]), int(one.shape[2])) for one in pixels]
    h, w = (max(side) for side in zip(*sizes, strict=True))
    batch = pixels[0].new_zeros(len(pixels), 3, h, w)
    for padded, one, (height, width) in zip(batch, pixels, sizes, strict=True):
        padded[:, :height, :width] = one
    maps = network.backbone(batch.contiguous(memory_format=torch.channels_last), sizes)  # (n, D, H, W)
    objectness, deltas = network.proposal_generator.rpn_head(maps)
    anchors = network.proposal_generator.anchor_generator(*maps.shape[-2:])  # (H * W * A, 4)
    found = []
    for i, size in enumerate(sizes):
        rows, columns = map_size(*size)
        own = _own(anchors, maps.shape[-2:], rows, columns)
        found.append(
            _image(
                network,
                config,
                maps[i : i + 1, :, :rows, :columns],
                objectness[i][own],
                deltas[i][own],
                anchors[own],
                size,
                least,
                most,
            )
        )
    return found


def _own(anchors: Tensor, grid: Sequence[int], rows: int, columns: int) -> Tensor:
    # The anchors of the part of a map that an image fills, in the order that they have in a map of its own.
    at = torch.arange(len(anchors), device=anchors.device).view(grid[0], grid[1], -1)
    return at[:rows, :columns].flatten()


def _image(
    network: FrcnnNetwork,
    config: FrcnnConfig,
    res4: Tensor,
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: tuple[int, int],
    least: int,
    most: int,
) -> Found:
    for proposal_nms in _thresholds((config.proposal_nms,)):
        proposals = _propose(config, objectness, deltas, anchors, size, proposal_nms)
        if len(proposals) >= least:
            break
    pooled = roi_max_pool(res4, proposals, config.pooled, 1 / STRIDE)
    features = network.roi_heads.features(pooled)  # (r, D)
    objects, moves, attributes = network.roi_heads.box_predictor(features)
    scores, kinds = objects.softmax(1)[:, :-1].max(1)  # (r,) each, without background
    moved = moves[torch.arange(len(moves), device=moves.device), kinds]  # (r, 4) of the best class
    boxes = _clip(apply_deltas(proposals, moved, config.box_weights), size)
    for threshold in _thresholds(config.nms):
        kept = nms(boxes, scores, threshold, most)
        if len(kept) >= least:
            break
    chances, named = attributes[kept][:, :-1].softmax(1).max(1)
    return Found(
        features[kept], boxes[kept], kinds[kept], scores[kept], named, chances, threshold, proposal_nms
    )


def _propose(
    config: FrcnnConfig,
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: tuple[int, int],
    threshold: float,
) -> Tensor:
    scores, best = objectness.sort(descending=True, stable=True)
    best = best[: config.proposals_before]
    boxes = _clip(apply_deltas(anchors[best], deltas[best], config.rpn_weights), size)
    large = ((boxes[:, 2:] - boxes[:, :2]) > config.min_size).all(1)
    boxes, scores = boxes[large], scores[: len(best)][large]
    return boxes[nms(boxes, scores, threshold, config.proposals)]


def _thresholds(own: tuple[float, ...]) -> list[float]:
    return [*own, *(threshold for threshold in RELAXED if threshold > max(own))]


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    h, w = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([w, h, w, h]))
