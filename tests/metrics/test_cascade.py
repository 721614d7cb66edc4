from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery, resolve
from tiir.metrics.cascade import cross_facts
from tiir.metrics.evaluate import evaluate
from tiir.metrics.graded import graded_run
from tiir.metrics.ranking import rank_run
from tiir.metrics.retrieve import retrieve
from tiir.scoring.cascade import remix, shortlists
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shortlist import Shortlist


def dataset(owner: np.ndarray) -> Dataset:
    n_images, n = int(owner.max()) + 1, len(owner)
    return Dataset("d", "test", [f"i{n}" for n in range(n_images)], [f"c{n}" for n in range(n)],
                   ["x"] * n, owner)  # fmt: skip


@st.composite
def cascades(draw: Any) -> tuple[Run, Dataset]:
    """Any pairs on the shortlists, whatever the first stage thinks of them; small integers, so many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, more = draw(st.integers(2, 8)), draw(st.integers(0, 10))
    owner = rng.permutation(np.concatenate([np.arange(n), rng.integers(0, n, more)]))
    data = dataset(owner)
    a, b = (rng.integers(-2, 3, (size, 3)).astype(np.float32) for size in (n, n + more))
    i2t, t2i = (rng.random((n, n + more)) < draw(st.sampled_from([0, 0.2, 0.7, 1])) for _ in range(2))
    image, caption = np.nonzero(i2t | t2i)
    cross = rng.integers(-3, 4, len(image))
    short = Shortlist.of(image, caption, cross, (a @ b.T)[image, caption], i2t[image, caption], t2i[image, caption],
                         draw(st.sampled_from([1.0, 0.5, 0.0])))  # fmt: skip
    info = RunInfo.about(data, "d", "m")
    first = Run(info, a, b) if draw(st.booleans()) else Run(info, scores=a @ b.T)
    return replace(first, shortlist=short), data


def keys_by_hand(
    run: Run, gallery: Gallery, side: str, query: int
) -> tuple[dict[int, tuple[bool, float]], set[int]]:
    """What every candidate of a query is ordered by, smallest first; and its positives."""
    first = run.scores if run.scores is not None else run.image_embeds @ run.text_embeds.T  # type: ignore[union-attr]
    short: Any = run.shortlist
    listed = zip(short.image, short.caption, short.final, getattr(short, side), strict=True)
    final = {(i, c): score for i, c, score, on in listed if on}
    relevant = gallery.i2t if side == "i2t" else gallery.t2i
    pairs = set(zip(relevant.image.tolist(), relevant.caption.tolist(), strict=True))
    keys, hits = {}, set()
    for candidate in range(len(gallery.captions if side == "i2t" else gallery.images)):
        i, c = (query, candidate) if side == "i2t" else (candidate, query)
        place = gallery.images[i], gallery.captions[c]
        keys[candidate] = place not in final, -float(final.get(place, first[place]))
        if (i, c) in pairs:
            hits.add(candidate)
    return keys, hits


def order_by_hand(run: Run, gallery: Gallery, side: str, query: int) -> tuple[list[int], set[int]]:
    """Every candidate of a query, negatives first among equals, then by position; and its positives."""
    keys, hits = keys_by_hand(run, gallery, side, query)
    return sorted(keys, key=lambda x: (keys[x], x in hits, x)), hits


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(cascades(), st.sampled_from(["all", "first", "keys"]), st.integers(1, 5))
def test_ranks_and_order_against_sorting_by_hand(made: tuple[Run, Dataset], part: str, depth: int) -> None:
    run, data = made
    options: dict[str, Any] = {"all": {}, "first": {"captions_per_image": 1}, "keys": {"keys": ["i1", "i0"]}}[
        part
    ]
    (gallery,) = resolve("own", data, **options)
    ranks = rank_run(run, data, [gallery])
    graded = graded_run(run, data, [gallery])
    for side, counted in (("i2t", ranks.i2t), ("t2i", ranks.t2i)):
        queries = np.arange(len(counted))
        found, scores = retrieve(run, gallery, side, queries, depth=depth)  # type: ignore[arg-type]
        assert (np.diff(scores) <= 0).all()
        for q in queries:
            order, hits = order_by_hand(run, gallery, side, q)
            assert 1 + next(n for n, x in enumerate(order) if x in hits) == counted[q]
            assert found[q].tolist() == order[:depth]
            precision = 100 * len(hits & set(order[: len(hits)])) / len(hits)
            assert graded[f"{side}_R-Precision"].values[q] == pytest.approx(precision)


@settings(deadline=None, max_examples=50)
@given(cascades())
def test_ties_against_counting_by_hand(made: tuple[Run, Dataset]) -> None:
    run, data = made
    (gallery,) = resolve("own", data)
    ranks = rank_run(run, data)
    for side, counts in (("i2t", ranks.i2t_counts), ("t2i", ranks.t2i_counts)):
        for q in range(len(counts)):
            keys, hits = keys_by_hand(run, gallery, side, q)
            best = min(keys[x] for x in hits)
            wrong = [keys[x] for x in keys if x not in hits]
            assert counts.better[q] == sum(key < best for key in wrong)
            assert counts.tied[q] == wrong.count(best)
            assert counts.tied_positives[q] == sum(keys[x] == best for x in hits)


def example(depth: int, mix: float = 1.0) -> tuple[Run, Dataset, np.ndarray]:
    rng = np.random.default_rng(7)
    data = dataset(np.repeat(np.arange(20), 3))
    first = rng.normal(size=(20, 60)).astype(np.float32)
    cross = rng.normal(size=(20, 60)).astype(np.float32)
    cross[data.caption_image, np.arange(60)] += 1
    run = Run(RunInfo.about(data, "d", "m", notes={"pairs": 1, "share": 1.0}), scores=first)
    image, caption, i2t, t2i = shortlists(run, depth)
    short = Shortlist.of(image, caption, cross[image, caption], first[image, caption], i2t, t2i, mix)
    return replace(run, shortlist=short), data, cross


def test_a_shortlist_of_everything_is_the_cross_encoder_over_all_pairs() -> None:
    run, data, cross = example(60)
    full = rank_run(replace(run, scores=cross, shortlist=None), data)
    ranks = rank_run(run, data)
    assert ranks.i2t.tolist() == full.i2t.tolist()
    assert ranks.t2i.tolist() == full.t2i.tolist()
    assert cross_facts(run, resolve("own", data))["listed"] == {"i2t": 100, "t2i": 100}  # type: ignore[index]


def test_no_weight_for_the_cross_encoder_changes_nothing() -> None:
    run, data, _ = example(5, mix=0.0)
    first, ranks = rank_run(replace(run, shortlist=None), data), rank_run(run, data)
    assert ranks.i2t.tolist() == first.i2t.tolist()
    assert ranks.t2i.tolist() == first.t2i.tolist()
    assert rank_run(remix(run, 1.0), data).t2i.tolist() != first.t2i.tolist()


def test_what_is_listed_is_the_first_stages_recall_at_the_depth() -> None:
    run, data, _ = example(5)
    before = evaluate(replace(run, shortlist=None), data, resamples=0)
    after = evaluate(run, data, resamples=0)
    assert after.cross is not None
    assert after.cross["listed"] == {side: before.values[f"{side}_R@5"] for side in ("i2t", "t2i")}
    assert after.values["t2i_R@5"] == before.values["t2i_R@5"]
    assert after.values["t2i_R@1"] > before.values["t2i_R@1"]
    assert before.cross == {"pairs": 1, "share": 1.0}
