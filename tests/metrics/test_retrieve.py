from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.errors import RanksError
from tiir.metrics.ranking import rank_run
from tiir.metrics.retrieve import retrieve
from tiir.scoring.run import Run, RunInfo


def dataset(n_images: int, n_captions: int) -> Dataset:
    owner = np.arange(n_captions) % n_images
    return Dataset("d", "test", [f"i{n}" for n in range(n_images)], [f"c{n}" for n in range(n_captions)],
                   ["x"] * n_captions, owner)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(0, 12), st.integers(1, 6), st.booleans(), st.integers(0, 2**32 - 1))
def test_against_sorting_the_whole_matrix(n: int, more: int, depth: int, embeddings: bool, seed: int) -> None:
    data = dataset(n, n + more)
    rng = np.random.default_rng(seed)
    a = rng.integers(-2, 3, (n, 3)).astype(np.float32)  # small integers: exact products, many ties
    b = rng.integers(-2, 3, (n + more, 3)).astype(np.float32)
    info = RunInfo.about(data, "d", "m")
    run = Run(info, a, b) if embeddings else Run(info, scores=a @ b.T)
    gallery, matrix = resolve("own", data)[0], (a @ b.T).astype(np.float64)
    relevant = data.caption_image[None] == np.arange(n)[:, None]
    ranks = rank_run(run, data, "own")
    for side, m, hits, expected in [
        ("i2t", matrix, relevant, ranks.i2t),
        ("t2i", matrix.T, relevant.T, ranks.t2i),
    ]:
        queries = np.arange(len(m))
        found, scores = retrieve(run, gallery, side, queries, depth=depth)  # type: ignore[arg-type]
        for q in queries:
            order = sorted(range(m.shape[1]), key=lambda c: (-m[q, c], hits[q, c], c))[:depth]
            assert found[q].tolist() == order
            assert scores[q].tolist() == m[q, order].tolist()
        full, _ = retrieve(run, gallery, side, queries, depth=m.shape[1])  # type: ignore[arg-type]
        first_hit = [1 + int(np.argmax(hits[q, full[q]])) for q in queries]
        assert first_hit == expected.tolist()


def test_pairs_that_were_not_scored_are_refused() -> None:
    data = dataset(2, 2)
    scores = np.array([[1, np.nan], [0, 1]], np.float32)
    run = Run(RunInfo.about(data, "d", "m"), scores=scores)
    with pytest.raises(RanksError, match="query 0 has no score for candidate 1"):
        retrieve(run, resolve("own", data)[0], "i2t", np.array([1, 0]), depth=1)
