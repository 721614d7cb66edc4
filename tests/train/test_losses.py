from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.train.losses import binary_loss, contrastive_loss, hinge_loss, infonce_loss


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


def blocks(draw_seed: int, owner: list[int], n: int = 5):
    """Scores, owners, and some further true pairs, drawn at random."""
    rng = np.random.default_rng(draw_seed)
    scores, true = rng.normal(size=(n, len(owner))), rng.random((n, len(owner))) < 0.2
    return scores, true


def rivals_of(scores, owner, true, c):
    """The scores that caption c has to beat: of its own among the images, and of its image among the captions."""
    negative = [[i != owner[j] and not true[i, j] for j in range(len(owner))] for i in range(len(scores))]
    images = [scores[i, c] for i in range(len(scores)) if negative[i][c]]
    captions = [scores[owner[c], j] for j in range(len(owner)) if negative[owner[c]][j]]
    return images, captions


def slow_hinge(scores, owner, true, margin, top):
    total = 0.0
    for c, own in enumerate(owner):
        for rivals in rivals_of(scores, owner, true, c):
            violations = sorted((max(0.0, margin + rival - scores[own, c]) for rival in rivals), reverse=True)
            total += sum(violations[:top])
    return total / len(owner) / 2


def slow_infonce(scores, owner, true, scale):
    total = 0.0
    for c, own in enumerate(owner):
        for rivals in rivals_of(scores, owner, true, c):
            total -= scale * scores[own, c] - math.log(
                math.exp(scale * scores[own, c]) + sum(math.exp(scale * rival) for rival in rivals)
            )
    return total / len(owner) / 2


OWNERS = st.lists(st.integers(0, 4), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(OWNERS, st.integers(0, 10_000), st.floats(0.05, 2), st.one_of(st.none(), st.integers(1, 12)))
def test_hinge_equals_the_slow_oracle(owner, seed, margin, top):
    scores, true = blocks(seed, owner)
    got = hinge_loss(
        torch.tensor(scores), torch.tensor(owner), margin=margin, top=top, true=torch.tensor(true)
    )
    assert got.item() == pytest.approx(slow_hinge(scores, owner, true, margin, top), rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(OWNERS, st.integers(0, 10_000), st.floats(0.5, 5))
def test_infonce_equals_the_slow_oracle(owner, seed, scale):
    scores, true = blocks(seed, owner)
    got = infonce_loss(torch.tensor(scores), torch.tensor(owner), scale=scale, true=torch.tensor(true))
    assert got.item() == pytest.approx(slow_infonce(scores, owner, true, scale), rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=1, max_size=9))
def test_binary_equals_the_slow_oracle(pairs):
    expected = sum(math.log1p(math.exp(-score if matched else score)) for score, matched in pairs) / len(
        pairs
    )
    scores, matched = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    assert binary_loss(scores, matched.bool()).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", [hinge_loss, infonce_loss])
def test_pairs_that_are_not_scored_do_not_count(loss):
    scores, owner = torch.randn(3, 3, dtype=torch.float64, requires_grad=True), torch.arange(3)
    skip = torch.zeros(3, 3, dtype=torch.bool)
    skip[0, 1] = True
    holed = scores.detach().clone()
    holed[0, 1] = float("-inf")
    value = loss(scores, owner, true=skip)
    assert value.item() == pytest.approx(loss(holed, owner, true=skip).item())
    value.backward()
    assert scores.grad[0, 1] == 0
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("loss", [hinge_loss, infonce_loss])
def test_a_batch_without_negatives_costs_nothing(loss):
    scores = torch.randn(1, 2, requires_grad=True)
    value = loss(scores, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.allclose(scores.grad, torch.zeros(1, 2), atol=1e-6)


def test_half_precision_scores_are_summed_in_float32():
    scores = (torch.randn(4, 4) * 3).to(torch.bfloat16)
    assert infonce_loss(scores, torch.arange(4)).dtype == torch.float32
    assert binary_loss(scores[0], torch.tensor([1, 0, 0, 1])).dtype == torch.float32
