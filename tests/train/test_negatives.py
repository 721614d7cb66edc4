from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.errors import RunError
from tiir.scoring.run import Run, RunInfo
from tiir.train.negatives import TruePairs, hard_negatives


def dataset(owner, texts, n=5) -> Dataset:
    ids = [str(c) for c in range(len(owner))]
    return Dataset("x", "train", [f"i{i}" for i in range(n)], ids, texts, np.array(owner, np.int64))


def run_of(data: Dataset, scores: np.ndarray) -> Run:
    return Run(RunInfo.about(data, "x", "by hand"), scores=scores.astype(np.float32))


CAPTIONS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcdefgh")), min_size=1, max_size=14)


@settings(max_examples=50, deadline=None)
@given(CAPTIONS)
def test_true_pairs_equal_a_look_at_the_texts(captions):
    owner, texts = zip(*captions, strict=True)
    data = dataset(owner, texts)
    got = TruePairs(data)(np.arange(5)[:, None], np.arange(len(owner))[None, :])
    expected = [[text in {t for o, t in captions if o == image} for text in texts] for image in range(5)]
    assert got.tolist() == expected


@settings(max_examples=50, deadline=None)
@given(CAPTIONS, st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 7))
def test_hard_negatives_equal_a_full_sort_for_any_tile(captions, seed, depth, tile):
    owner, texts = zip(*captions, strict=True)
    data = dataset(owner, texts)
    scores = np.random.default_rng(seed).permutation(5 * len(owner)).reshape(5, -1).astype(float)
    hard = hard_negatives(run_of(data, scores), data, depth=depth, tile=tile)
    true = TruePairs(data)(np.arange(5)[:, None], np.arange(len(owner))[None, :])
    for image in range(5):
        best = [c for c in np.argsort(-scores[image]) if not true[image, c]][:depth]
        assert hard.captions[image].tolist() == best + [-1] * (hard.captions.shape[1] - len(best))
    for caption in range(len(owner)):
        best = [i for i in np.argsort(-scores[:, caption]) if not true[i, caption]][:depth]
        assert hard.images[caption].tolist() == best + [-1] * (hard.images.shape[1] - len(best))


@settings(max_examples=50, deadline=None)
@given(CAPTIONS, st.integers(0, 4), st.integers(0, 5), st.data())
def test_a_block_of_true_pairs_is_that_of_the_pairs(captions, first, n, draw):
    owner, texts = zip(*captions, strict=True)
    true = TruePairs(dataset(owner, texts))
    rows = range(first, min(first + n, 5))
    columns = np.array(draw.draw(st.lists(st.integers(0, len(owner) - 1), min_size=1)))
    assert np.array_equal(true.block(rows, columns), true(np.array(rows, int)[:, None], columns[None, :]))


def test_a_text_that_many_images_share_leaves_hard_negatives():
    owner, texts = np.tile(np.arange(60), 2), ["the same"] * 60 + [str(c) for c in range(60)]
    data = dataset(owner, texts, n=60)
    scores = np.random.default_rng(0).normal(size=(60, 120))
    scores[:, :60] += 10  # the shared text scores best everywhere, and is true everywhere
    hard = hard_negatives(run_of(data, scores), data, depth=20, tile=32)
    assert (hard.captions >= 60).all()
    assert (hard.images[:60] == -1).all()
    assert (hard.images[60:] >= 0).all()


def test_of_embeddings_as_of_their_scores():
    rng = np.random.default_rng(0)
    data = dataset(rng.integers(0, 30, 90), [str(c) for c in range(90)], n=30)
    images, texts = (rng.normal(size=(n, 8)).astype(np.float32) for n in (30, 90))
    info = RunInfo.about(data, "x", "by hand")
    ours = hard_negatives(Run(info, image_embeds=images, text_embeds=texts), data, depth=4, tile=16)
    plain = hard_negatives(Run(info, scores=images @ texts.T), data, depth=4)
    assert np.array_equal(ours.captions, plain.captions)
    assert np.array_equal(ours.images, plain.images)
    assert ours.captions.dtype == np.int32


def test_pairs_without_a_score_are_no_negatives():
    data = dataset([0, 1], ["a", "b"], n=2)
    hard = hard_negatives(run_of(data, np.array([[1.0, np.nan], [0.5, 1.0]])), data, depth=1)
    assert hard.captions.tolist() == [[-1], [0]]
    assert hard.images.tolist() == [[1], [-1]]


def test_a_run_of_other_data_is_refused():
    data = dataset([0, 1], ["a", "b"], n=2)
    with pytest.raises(RunError, match="fingerprint"):
        hard_negatives(run_of(data, np.eye(2)), dataset([0, 1], ["a", "c"], n=2))
