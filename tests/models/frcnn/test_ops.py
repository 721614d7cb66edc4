"""The plain operations against loops that anyone can check, and against torchvision where it works."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tiir.models.frcnn.ops import apply_deltas, nms_plain, roi_max_pool_plain, torchvision_ops


def slow_nms(boxes: Tensor, scores: Tensor, threshold: float, most: int) -> list[int]:
    numbers = boxes.numpy()  # float32, so that every intersection over union rounds alike
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        x1, y1, x2, y2 = numbers[i]
        for j in kept:
            u1, v1, u2, v2 = numbers[j]
            both = max(min(x2, u2) - max(x1, u1), np.float32(0)) * max(
                min(y2, v2) - max(y1, v1), np.float32(0)
            )
            union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both
            if union > 0 and both / union > threshold:
                break
        else:
            kept.append(i)
    return kept[:most]


def slow_pool(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    _, channels, height, width = features.shape
    out = torch.zeros(len(rois), channels, size, size)
    for r, roi in enumerate(rois):
        x1, y1, x2, y2 = (math.floor(float(side * scale) + 0.5) for side in roi)
        tall, wide = (torch.tensor(float(max(n, 1))) / size for n in (y2 - y1 + 1, x2 - x1 + 1))
        for i in range(size):
            for j in range(size):
                top, bottom = math.floor(float(i * tall)) + y1, math.ceil(float((i + 1) * tall)) + y1
                left, right = math.floor(float(j * wide)) + x1, math.ceil(float((j + 1) * wide)) + x1
                top, bottom = (min(max(side, 0), height) for side in (top, bottom))
                left, right = (min(max(side, 0), width) for side in (left, right))
                if bottom > top and right > left:
                    out[r, :, i, j] = features[0, :, top:bottom, left:right].amax((1, 2))
    return out


def random_boxes(n: int, seed: int, side: float = 100.0) -> Tensor:
    torch.manual_seed(seed)
    corner = torch.rand(n, 2) * side
    return torch.cat([corner, corner + torch.rand(n, 2) * side / 2], 1)


@given(
    n=st.integers(0, 60),
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]),
    most=st.integers(1, 60),
    coarse=st.booleans(),
)
def test_nms_equals_the_loop(n: int, seed: int, threshold: float, most: int, coarse: bool) -> None:
    boxes = random_boxes(n, seed, side=20)
    scores = torch.rand(n)
    if coarse:  # equal boxes, equal scores, boxes without area
        boxes, scores = boxes.round(), (scores * 3).round()
    assert nms_plain(boxes, scores, threshold, most).tolist() == slow_nms(boxes, scores, threshold, most)


@pytest.mark.slow
def test_nms_over_several_blocks() -> None:
    boxes, scores = random_boxes(1100, 1), torch.rand(1100)
    assert nms_plain(boxes, scores, 0.3, 1100).tolist() == slow_nms(boxes, scores, 0.3, 1100)
    assert nms_plain(boxes, scores, 0.3, 30).tolist() == slow_nms(boxes, scores, 0.3, 30)


@pytest.mark.slow
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.sampled_from([1, 2, 7, 14]),
)
def test_roi_pooling_equals_the_loop(seed: int, height: int, width: int, size: int) -> None:
    torch.manual_seed(seed)
    features = torch.randn(1, 2, height, width)  # negative ones too
    rois = (random_boxes(4, seed, side=16.0 * max(height, width)) - 20) * torch.rand(1)
    rois = torch.cat([rois, torch.tensor([[0.0, 0, 16 * width, 16 * height], [8, 8, 8, 8]])])
    pooled = roi_max_pool_plain(features, rois, size, 1 / 16)
    assert torch.equal(pooled, slow_pool(features, rois, size, 1 / 16))


def test_pooling_of_no_regions() -> None:
    assert roi_max_pool_plain(torch.ones(1, 3, 4, 4), torch.empty(0, 4), 14, 1 / 16).shape == (0, 3, 14, 14)


def test_equal_to_torchvision() -> None:
    ops = torchvision_ops()
    if ops is None:
        pytest.skip("torchvision is missing, or does not fit this torch")
    torch.manual_seed(0)
    boxes, scores = random_boxes(2000, 3), torch.rand(2000)
    assert nms_plain(boxes, scores, 0.5, 300).tolist() == ops.nms(boxes, scores, 0.5)[:300].tolist()
    features, rois = torch.randn(1, 8, 30, 40), random_boxes(50, 4, side=600)
    assert torch.equal(
        roi_max_pool_plain(features, rois, 14, 1 / 16), ops.roi_pool(features, [rois], 14, 1 / 16)
    )


def test_deltas() -> None:
    box = torch.tensor([[10.0, 20, 30, 60]])
    assert torch.allclose(apply_deltas(box, torch.zeros(1, 4), (10, 10, 5, 5)), box)
    moved = apply_deltas(box, torch.tensor([[1.0, 2, 0, 5 * math.log(2)]]), (10.0, 10.0, 5.0, 5.0))
    assert torch.allclose(moved, torch.tensor([[12.0, 8, 32, 88]]))
    huge = apply_deltas(box, torch.full((1, 4), 1e6), (10.0, 10.0, 5.0, 5.0))
    assert torch.isfinite(huge).all()
