from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.train.losses import contrastive_loss


def slow_loss(images: np.ndarray, texts: np.ndarray, scale: float, owner: list[int]) -> float:
    """Caption by caption, with lists of who competes with whom."""
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    total = 0.0
    for c, own in enumerate(owner):
        right = scale * float(images[own] @ texts[c])
        other_images = [scale * float(image @ texts[c]) for i, image in enumerate(images) if i != own]
        other_texts = [scale * float(images[own] @ text) for t, text in enumerate(texts) if owner[t] != own]
        for rivals in (other_images, other_texts):
            total -= right - math.log(sum(math.exp(score) for score in [right, *rivals]))
    return total / len(owner) / 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(0, 10_000), st.floats(0.5, 20))
def test_equals_the_slow_oracle(owner, seed, scale):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(5, 4)), rng.normal(size=(len(owner), 4))
    got = contrastive_loss(torch.tensor(images), torch.tensor(texts), scale, torch.tensor(owner))
    assert got.item() == pytest.approx(slow_loss(images, texts, scale, owner), rel=1e-9, abs=1e-12)


def test_one_caption_an_image_is_clips_own_loss():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    images, texts = (torch.nn.functional.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    expected = image_text_contrastive_loss(7.0 * texts @ images.T)
    assert torch.allclose(contrastive_loss(images, texts, 7.0, torch.arange(6)), expected, atol=1e-6)


def test_captions_of_one_image_do_not_push_each_other_away():
    # Equal captions of the same image cost nothing; the same captions on two images do.
    images, texts = torch.eye(2), torch.eye(2)[[0, 0, 1]]
    assert contrastive_loss(images, texts, 100.0, torch.tensor([0, 0, 1])) < 1e-6
    assert contrastive_loss(images, torch.eye(2)[[0, 0]], 100.0, torch.tensor([0, 1])) > 1


def test_gradients_are_finite():
    images, texts = torch.randn(3, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    contrastive_loss(images, texts, 10.0, torch.tensor([0, 0, 0, 0, 1, 2])).backward()
    assert torch.isfinite(images.grad).all()
    assert torch.isfinite(texts.grad).all()


def test_length_of_the_vectors_does_not_matter():
    images, texts, owner = torch.randn(4, 8), torch.randn(4, 8), torch.arange(4)
    one = contrastive_loss(images, texts, 5.0, owner)
    assert torch.allclose(one, contrastive_loss(3 * images, 0.1 * texts, 5.0, owner), atol=1e-6)
