from __future__ import annotations

import math
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.data.positives import Positives
from tiir.engine import Engine
from tiir.errors import RanksError, RunError
from tiir.metrics import counting, rank_embeddings, rank_run, rank_scores, recall
from tiir.scoring.embeddings import MANY, Embeddings
from tiir.scoring.run import Run, RunInfo

TIES = ("pessimistic", "optimistic", "expected")
OWN = np.array([0, 0, 1, 2, 2, 2])


def all_scores(images: Any, texts: Any) -> Any:
    """The whole matrix, each entry by the definition: a float64 sum over one pair of vectors."""
    a, b = images.astype(np.float64), texts.astype(np.float64)
    return np.array([[(x * y).sum() for y in b] for x in a])


def plain_ranks(scores: Any, relevant: Any, ties: str) -> list[float]:
    """Rank of each row's best positive, by going through the row. `relevant`: bool, same shape."""
    found = []
    for row, own in zip(scores.tolist(), relevant.tolist(), strict=True):
        best = max(s for s, r in zip(row, own, strict=True) if r)
        better = sum(s > best for s, r in zip(row, own, strict=True) if not r)
        tied = sum(s == best for s, r in zip(row, own, strict=True) if not r)
        positives = sum(s == best for s, r in zip(row, own, strict=True) if r)
        extra = {"pessimistic": tied, "optimistic": 0, "expected": tied / (positives + 1)}[ties]
        found.append(1 + better + extra)
    return found


def hit_probability(better: int, tied: int, positives: int, k: int) -> float:
    """That one of `positives` shuffled among `tied` negatives, after `better` others, is in the first k."""
    slots = min(max(k - better, 0), tied + positives)
    return 1 - math.comb(tied, slots) / math.comb(tied + positives, slots)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings full of repeated, parallel, tiny and large vectors, and relevant pairs both ways."""
    n_images, n_captions = draw(st.integers(1, 12)), draw(st.integers(1, 20))
    d = draw(st.integers(1, 64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["gauss", "constant", "signs", "nearly constant", "scaled", "zero"]))
    distinct = rng.standard_normal((draw(st.integers(1, 8)), d))
    if kind == "constant":
        distinct[:] = distinct[0]
    elif kind == "signs":
        distinct = np.sign(distinct)
    elif kind == "nearly constant":
        distinct = distinct[0] + 1e-7 * distinct
    elif kind == "scaled":
        distinct *= 10.0 ** rng.integers(-2, 3, size=(len(distinct), 1))
    elif kind == "zero":
        distinct[:] = 0
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    images = distinct[rng.integers(len(distinct), size=n_images)].astype(dtype)
    texts = distinct[rng.integers(len(distinct), size=n_captions)].astype(dtype)
    relevant = rng.random((n_images, n_captions)) < draw(st.sampled_from([0.1, 0.5]))
    relevant[rng.integers(n_images, size=n_captions), np.arange(n_captions)] = True
    relevant[np.arange(n_images), rng.integers(n_captions, size=n_images)] = True
    return images, texts, relevant


class Elsewhere(Engine):
    """Pickles the job and every result, and takes the pieces from the end, as if other machines did it."""

    def run(self, job, numbers, put, **_):
        job = pickle.loads(pickle.dumps(job))
        for n, result in pickle.loads(pickle.dumps(list(job.results(numbers[::-1])))):
            put(n, result)


class Team(Engine):
    """One of two threads that share the pieces as torchrun's processes do."""

    def __init__(self, rank, values, barrier):
        self.rank, self.values, self.barrier = rank, values, barrier

    def run(self, job, numbers, put, **_):
        for n, result in job.results(numbers[self.rank :: 2]):
            put(n, result)

    def gathered(self, value):
        self.values[self.rank] = value
        self.barrier.wait(10)
        found = list(self.values)
        self.barrier.wait(10)
        return found


def together(rank):
    """What `rank(engine=...)` gives in two threads: the same in both."""
    values, barrier = [None, None], threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda n: rank(engine=Team(n, values, barrier)), range(2))
    assert np.array_equal(one.i2t, other.i2t)
    assert np.array_equal(one.t2i, other.t2i)
    return one


ENGINES = {
    "none": lambda rank: rank(engine=None),
    "here": lambda rank: rank(engine=Engine()),
    "elsewhere": lambda rank: rank(engine=Elsewhere()),
    "together": together,
}


@settings(max_examples=200, deadline=None)
@given(
    problems(), st.integers(1, 25), st.integers(1, 3), st.sampled_from(TIES), st.sampled_from(list(ENGINES))
)
def test_embeddings_equal_the_oracle_for_every_block_band_and_engine(problem, block, tall, ties, engine):
    images, texts, relevant = problem
    scores = all_scores(images, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "TALL", tall)
        patch.setattr(counting, "MANY", 1)
        found = ENGINES[engine](partial(rank_embeddings, images, texts, relevant, ties=ties, block=block))
    assert found.i2t.tolist() == plain_ranks(scores, relevant, ties)
    assert found.t2i.tolist() == plain_ranks(scores.T, relevant.T, ties)


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from(TIES))
def test_matrix_equals_the_oracle(problem, ties):
    images, texts, relevant = problem
    with np.errstate(over="ignore"):
        scores = images @ texts.T
    if not np.isfinite(scores).all():
        return
    found = rank_scores(scores, relevant, ties=ties)
    assert found.i2t.tolist() == plain_ranks(scores, relevant, ties)
    assert found.t2i.tolist() == plain_ranks(scores.T, relevant.T, ties)


def test_larger_than_one_piece_of_a_tile():
    # 300 rows and 2,500 columns exceed the counting piece, so that counts of pieces must add up.
    rng = np.random.default_rng(0)
    own = rng.integers(300, size=2500)
    own[:300] = np.arange(300)
    scores = rng.integers(0, 40, size=(300, 2500)).astype(np.float32) + 15 * (own == np.arange(300)[:, None])
    relevant = own == np.arange(300)[:, None]
    found = rank_scores(scores, own)
    assert found.i2t.tolist() == plain_ranks(scores, relevant, "pessimistic")
    assert found.t2i.tolist() == plain_ranks(scores.T, relevant.T, "pessimistic")


@pytest.mark.parametrize("block", [97, 256, 2040, 5000])
def test_collapsed_embeddings(block):
    # Scores that float32 cannot tell apart, and more pairs in doubt than `MANY`.
    rng = np.random.default_rng(0)
    base = rng.standard_normal(16)
    own = np.repeat(np.arange(400), 5)
    images = (base + 1e-8 * rng.standard_normal((400, 16))).astype(np.float64)
    texts = (base + 1e-8 * rng.standard_normal((2000, 16))).astype(np.float64)
    texts[::7] = texts[0]
    scores = np.concatenate([(images[i] * texts).sum(1)[None] for i in range(400)])
    assert (
        rank_embeddings(images, texts, own, block=block).i2t.tolist() == rank_scores(scores, own).i2t.tolist()
    )
    assert (
        rank_embeddings(images, texts, own, block=block).t2i.tolist() == rank_scores(scores, own).t2i.tolist()
    )


def test_exact_scores_do_not_depend_on_their_company():
    rng = np.random.default_rng(1)
    for few in (1, 40, 700):  # distinct vectors: looked up in a table, deduplicated, or all computed
        images = rng.standard_normal((few, 33)).astype(np.float32)[rng.integers(few, size=1000)]
        texts = rng.standard_normal((few, 33)).astype(np.float32)[rng.integers(few, size=1000)]
        pairs = Embeddings(images, texts)
        i, j = rng.integers(1000, size=(2, MANY + 5))
        together = pairs.exact(i, j)
        apart = np.array([(images[a].astype(float) * texts[b]).sum() for a, b in zip(i, j, strict=True)])
        assert np.array_equal(together, apart)


def test_tiles_stay_within_their_error_bound():
    rng = np.random.default_rng(2)
    for d in (1, 7, 64, 700):
        scale = 10.0 ** rng.uniform(-20, 15, size=(50, 1))
        images = (rng.standard_normal((50, d)) * scale).astype(np.float32)
        texts = rng.standard_normal((60, d)).astype(np.float32)
        pairs = Embeddings(images, texts)
        rows, columns = slice(3, 50), np.arange(60)
        exact = (images[rows, None].astype(float) * texts).sum(-1)
        for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
            off = np.abs(pairs.tile(rows, columns, dtype, np.empty((47, 60), dtype)) - exact)
            by_row, by_column = pairs.error(rows, columns, dtype)
            assert (off <= by_row[:, None]).all()
            assert (off <= by_column).all()


def test_huge_embeddings_do_not_overflow():
    images = np.float32(1e30) * np.eye(3, dtype=np.float32)
    found = rank_embeddings(images, images, np.arange(3))
    assert found.i2t.tolist() == found.t2i.tolist() == [1, 1, 1]
    with pytest.raises(RanksError, match="too long"):
        rank_embeddings(1e200 * np.eye(3), np.eye(3), np.arange(3))


@pytest.mark.parametrize(
    ("ties", "i2t", "t2i"), [("pessimistic", 0, 0), ("optimistic", 100, 100), ("expected", None, None)]
)
def test_constant_scores_give_no_credit(ties, i2t, t2i):
    own = np.repeat(np.arange(40), 5)
    for found in (
        rank_scores(np.full((40, 200), 0.3, np.float32), own, ties=ties),
        rank_embeddings(np.ones((40, 8), np.float16), np.ones((200, 8), np.float16), own, ties=ties),
    ):
        values = recall(found)
        if ties == "expected":  # chance: a random order of the gallery
            i2t, t2i = 100 * hit_probability(0, 195, 5, 10), 100 * 10 / 40
        assert values["i2t_R@10"] == pytest.approx(i2t)
        assert values["t2i_R@10"] == pytest.approx(t2i)


def test_expected_hits_are_exact_probabilities():
    scores = np.array([[3, 2, 2, 2, 2, 2, 1]], np.float32)
    relevant = np.array([[0, 1, 1, 0, 0, 0, 1]])
    counts = rank_scores(scores, relevant, empty="exclude").i2t_counts
    assert (counts.better[0], counts.tied[0], counts.tied_positives[0]) == (1, 3, 2)
    for k in range(1, 8):
        assert counts.hits(k, "expected")[0] == pytest.approx(hit_probability(1, 3, 2, k))
    assert counts.ranks("expected")[0] == pytest.approx(2 + 3 / 3)


def test_positives_do_not_compete_with_each_other():
    # Six and seven captions an image, two of them the same, all above every other caption.
    own = np.repeat([0, 1], [6, 7])
    scores = np.where(own == np.array([[0], [1]]), 0.9, 0.1).astype(np.float32)
    found = rank_scores(scores, own)
    assert found.i2t.tolist() == [1, 1]
    assert found.t2i.tolist() == [1] * 13


def test_equal_captions_of_different_images_tie():
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((40, 19)).astype(np.float32)
    texts[17] = texts[3]  # the same caption of images 3 and 17
    images = texts.copy()
    for block in (1, 3, 40):
        found = rank_embeddings(images, texts, np.arange(40), block=block)
        assert found.t2i[[3, 17]].tolist() == found.i2t[[3, 17]].tolist() == [2, 2]
        best = rank_embeddings(images, texts, np.arange(40), block=block, ties="optimistic")
        assert best.t2i[[3, 17]].tolist() == [1, 1]


def test_queries_without_positives():
    scores = np.random.default_rng(0).random((4, 6))
    with pytest.raises(RanksError, match="1 of 4 image queries have no positive, the first at image 3"):
        rank_scores(scores, OWN)
    found = rank_scores(scores, OWN, empty="exclude")
    assert found.excluded == {"i2t": 1, "t2i": 0}
    assert found.i2t_counts.query.tolist() == [0, 1, 2]
    assert "1 query without a positive excluded" in repr(found)
    with pytest.raises(RanksError, match="no image query"):
        rank_scores(scores, np.zeros((4, 6)), empty="exclude")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 1), (2, 0)])  # a positive and a negative
def test_scores_that_are_not_finite_are_refused(bad, place):
    scores = np.random.default_rng(0).random((3, 6)).astype(np.float32)
    scores[place] = bad
    with pytest.raises(RanksError, match=f"image {place[0]} and caption {place[1]} is {bad}"):
        rank_scores(scores, OWN)
    with pytest.raises(RanksError, match=rf"image_embeds\[{place[0]}, {place[1]}\] is {bad}"):
        rank_embeddings(scores, np.ones((6, 6), np.float32), OWN)


def test_a_score_that_no_query_needs_may_be_missing():
    scores = np.random.default_rng(0).random((3, 6))
    scores[2, 5] = np.nan
    relevant = np.zeros((3, 6))
    relevant[[0, 1], [0, 1]] = 1
    assert len(rank_scores(scores, relevant, empty="exclude").i2t) == 2


@pytest.mark.parametrize(
    ("scores", "positives", "message"),
    [
        (np.ones((6, 3)), OWN, "the scores for 6 x 3"),
        (np.ones((3, 6), int), OWN, "int64, expected float"),
        (np.ones((3, 6), bool), OWN, "bool, expected float"),
        (np.ones((3, 6), object), OWN, "object, expected float"),
        (np.ones(6), OWN, "2-d"),
        ([[1.0]], OWN, "2-d"),
        (np.ones((0, 6)), OWN, "empty"),
        (np.ones((3, 6)), OWN + 1, "names image 3"),
        (np.ones((3, 6)), OWN.astype(float), "must be integers"),
        (np.ones((3, 6)), np.ones((6, 3)), "the scores for 3 x 6"),
    ],
)
def test_bad_input_is_refused(scores, positives, message):
    with pytest.raises(RanksError, match=message):
        rank_scores(scores, positives)


def test_bad_options_are_refused():
    good = np.random.default_rng(0).random((3, 6))
    for options, message in (({"ties": "lucky"}, "ties='lucky'"), ({"empty": "drop"}, "empty='drop'")):
        with pytest.raises(RanksError, match=message):
            rank_scores(good, OWN, **options)
    with pytest.raises(RanksError, match="block=0"):
        rank_embeddings(good, np.ones((6, 6)), OWN, block=0)
    with pytest.raises(RanksError, match="image_embeds have width 6, text_embeds 5"):
        rank_embeddings(good, np.ones((6, 5)), OWN)


def test_counts_know_the_image_of_each_query():
    found = rank_scores(np.random.default_rng(0).random((3, 6)), OWN)
    assert found.t2i_counts.image.tolist() == OWN.tolist()
    assert found.i2t_counts.image.tolist() == [0, 1, 2]
    judged = Positives.pairs([0, 2, 1], [0, 0, 1], (3, 2))
    assert rank_scores(np.random.default_rng(0).random((3, 2)), judged).t2i_counts.image.tolist() == [0, 1]


def test_memory_maps_and_streaming_memory(tmp_path):
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(2000), 4)
    for name, n in (("a", 2000), ("b", 8000)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((n, 16)).astype(np.float16))
    images, texts = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ab")
    tracemalloc.start()
    streamed = rank_embeddings(images, texts, own, block=512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 8000 * 4 / 8
    whole = rank_scores(np.asarray(images, float) @ np.asarray(texts, float).T, own)
    assert np.array_equal(streamed.i2t, whole.i2t)


def small_run(scores: np.ndarray) -> tuple[Run, Dataset]:
    data = Dataset(
        "small", "test", list("abcdefghij"), [f"c{i}" for i in range(20)], ["x"] * 20, np.arange(20) % 10
    )
    return Run(RunInfo.about(data, "small", "m"), scores=scores), data


def test_run_with_a_matrix_whose_captions_are_not_in_image_order():
    rng = np.random.default_rng(0)
    scores = rng.random((10, 20)).astype(np.float32)
    run, data = small_run(scores)
    found, plain = rank_run(run, data), rank_scores(scores, data.caption_image)
    assert np.array_equal(found.i2t, plain.i2t)
    assert np.array_equal(found.t2i, plain.t2i)


def test_run_of_another_data_set_is_refused():
    run, data = small_run(np.eye(10, 20, dtype=np.float32))
    other = data.subset(range(9))
    with pytest.raises(RunError, match="fingerprint"):
        rank_run(run, other)


def test_a_part_of_a_run_equals_the_part_ranked_alone():
    from tiir.data.protocols import resolve

    rng = np.random.default_rng(0)
    run, data = small_run(rng.random((10, 20)).astype(np.float32))
    vectors = rng.standard_normal((30, 5)).astype(np.float32)
    dense = Run(run.info, image_embeds=vectors[:10], text_embeds=vectors[10:])
    for keys, cut in ((["c", "a", "j"], None), (list("abcd"), 1), (None, 1)):
        galleries = resolve("own", data, keys=keys, captions_per_image=cut)
        (gallery,) = galleries
        for one in (run, dense):
            found = rank_run(one, data, galleries)
            part = np.asarray(one.block(gallery.images, gallery.captions), np.float64)
            place = {image: i for i, image in enumerate(gallery.images.tolist())}
            own = np.array([place[i] for i in data.caption_image[gallery.captions].tolist()])
            assert np.array_equal(found.i2t, rank_scores(part, own).i2t)
            assert np.array_equal(found.t2i, rank_scores(part, own).t2i)
            assert found.i2t_counts.query.tolist() == gallery.images.tolist()
            assert found.t2i_counts.image.tolist() == data.caption_image[gallery.captions].tolist()
