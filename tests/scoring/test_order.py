from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.positives import Positives
from tiir.errors import RanksError
from tiir.scoring import order
from tiir.scoring.embeddings import Embeddings
from tiir.scoring.order import best
from tiir.scoring.pairs import Matrix
from tiir.scoring.shortlist import Listed


def by_sorting(scores: Any, hit: Any, favour: bool, listed: dict[int, float]) -> list[int]:
    """All candidates of one query: the listed ones by their own scores, the rest by `scores`."""

    def key(score: float, candidate: int) -> tuple[float, bool, int]:
        return -score, bool(hit[candidate]) != favour, candidate

    first = sorted(listed, key=lambda c: key(listed[c], c))
    rest = sorted(set(range(len(scores))) - set(listed), key=lambda c: key(scores[c], c))
    return first + rest


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from(["gauss", "integers", "constant", "nearly constant"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(1, 1, 1), (16, 3, 5), (64, 4, 7), (1 << 22, 1024, 1 << 16)]),
    st.integers(0, 2**32 - 1),
)
def test_against_sorting(
    n: int, m: int, kind: str, exact: bool, favour: bool, cascade: bool, sizes: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, 8)), rng.standard_normal((m, 8))
    if kind == "integers":
        a, b = np.sign(a), np.sign(b)
    elif kind == "constant":
        a[:], b[:] = a[0], b[0]
    elif kind == "nearly constant":
        a, b = a[0] + 1e-7 * a, b[0] + 1e-7 * b
    a, b = (side.astype(np.float64 if kind == "nearly constant" else np.float16) for side in (a, b))
    scores = np.array([[(x * y).sum() for y in b.astype(np.float64)] for x in a.astype(np.float64)])
    relevant = rng.random((n, m)) < 0.3
    positives = Positives.of(relevant, n_images=n, n_captions=m)
    shortlist, listed = rng.random((n, m)) < 0.2, None
    if cascade:
        query, candidate = shortlist.nonzero()
        listed = Listed(query, candidate, rng.integers(3, size=len(query)).astype(np.float64))
    queries = rng.permutation(n)[: rng.integers(1, n + 1)]
    depths = rng.integers(1, m + 2, size=len(queries))
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("TILE", "QUERIES", "WIDTH"), sizes, strict=True):
            patch.setattr(order, name, size)
        pairs: Any = Matrix(scores) if exact else Embeddings(a, b)
        found = list(best(pairs, queries, depths, positives=positives, favour=favour, listed=listed))
    assert len(found) == len(queries)
    for query, depth, (candidates, values) in zip(queries, depths, found, strict=True):
        on_list = {} if listed is None else dict(zip(*(x.tolist() for x in listed.of(query)), strict=True))
        assert candidates.tolist() == by_sorting(scores[query], relevant[query], favour, on_list)[:depth]
        assert (np.diff(values) <= 0).all()
        if listed is None:
            assert values.tolist() == scores[query, candidates].tolist()


def test_equal_scores_never_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # A collapsed model: every candidate could be among the best, and is kept until there are too many.
    monkeypatch.setattr(order, "TILE", 512)
    monkeypatch.setattr(order, "WIDTH", 64)
    kept: list[int] = []
    prune = order._Near._prune

    def watched(self: Any) -> None:
        prune(self)
        kept.append(len(self.query))

    monkeypatch.setattr(order._Near, "_prune", watched)
    monkeypatch.setattr(order, "FEW", 16)
    ones = np.ones((4, 3), np.float32), np.ones((5000, 3), np.float32)
    for found, _ in best(Embeddings(*ones), np.arange(4), 3):
        assert found.tolist() == [0, 1, 2]
    assert max(kept) <= 512


def test_a_missing_score_is_named_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WIDTH", 4)
    scores = np.zeros((3, 11), np.float32)
    scores[2, 9] = np.nan
    assert len(list(best(Matrix(scores), np.array([0, 1]), 2))) == 2
    with pytest.raises(RanksError, match="query 2 has no score for candidate 9: it is nan"):
        list(best(Matrix(scores), np.array([1, 2]), 2))


def test_scores_moved_below_a_shortlist_stay_apart() -> None:
    # 1e-5 and 2e-5 are the same once float32 takes 1e4 from them.
    scores = Matrix(np.array([[5.0, 1e4, 2e-5, 1e-5]], np.float32))
    listed = Listed(np.array([0]), np.array([0]), np.array([-3.0]))
    ((found, moved),) = best(scores, np.array([0]), 4, listed=listed)
    assert found.tolist() == [0, 1, 2, 3]
    assert (np.diff(moved) < 0).all()
