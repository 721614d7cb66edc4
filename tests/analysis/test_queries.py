from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.analysis.queries import query_table
from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, ProtocolError
from tiir.metrics.ranking import rank_run
from tiir.scoring.run import Run, RunInfo


def make(scores: np.ndarray, owner: np.ndarray) -> tuple[Run, Dataset]:
    n_images, n_captions = scores.shape
    data = Dataset(
        "made",
        "test",
        [f"i{n}" for n in range(n_images)],
        [f"c{n}" for n in range(n_captions)],
        [f"caption {n}" for n in range(n_captions)],
        owner,
    )
    return Run(RunInfo.about(data, "made", "by hand"), scores=scores), data


@st.composite
def runs(draw: st.DrawFn) -> tuple[Run, Dataset]:
    owner = np.repeat(np.arange(draw(st.integers(2, 6))), draw(st.integers(1, 3)))
    shape = (int(owner[-1]) + 1, len(owner))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return make(rng.integers(0, draw(st.integers(1, 9)), shape).astype(np.float32), owner)  # with many ties


def slow(run: Run, data: Dataset, depth: int) -> list[dict]:
    rows = []
    for direction, scores in (("i2t", run.scores), ("t2i", run.scores.T)):
        own = data.image_ids if direction == "i2t" else data.caption_ids
        other = data.caption_ids if direction == "i2t" else data.image_ids
        for n, row in enumerate(scores):
            relevant = [
                data.caption_image[m] == n if direction == "i2t" else data.caption_image[n] == m
                for m in range(len(row))
            ]
            order = sorted(range(len(row)), key=lambda m: (-row[m], relevant[m], m))
            rank = 1 + min(order.index(m) for m in order if relevant[m])
            best, wrong = order[rank - 1], next((m for m in order if not relevant[m]), None)
            rows.append(
                {
                    "direction": direction,
                    "query": own[n],
                    "image": data.image_ids[n if direction == "i2t" else data.caption_image[n]],
                    "rank": rank,
                    "best_positive": other[best],
                    "best_positive_score": row[best],
                    "best_negative_score": np.nan if wrong is None else row[wrong],
                    "top": [other[m] for m in order[:depth]],
                    "top_scores": [float(row[m]) for m in order[:depth]],
                    "top_positive": [bool(relevant[m]) for m in order[:depth]],
                }
            )
    return rows


@settings(max_examples=60)
@given(runs(), st.integers(1, 5))
def test_the_table_is_what_a_loop_over_the_matrix_gives(made: tuple[Run, Dataset], depth: int) -> None:
    run, data = made
    # A pessimistic rank counts tied negatives, not other positives: positives above the best are none.
    table, expected = query_table(run, data, depth=depth), pd.DataFrame(slow(run, data, depth))
    pd.testing.assert_frame_equal(
        table[list(expected.columns)], expected, check_dtype=False, check_exact=True
    )
    ranks = rank_run(run, data)
    assert table["rank"].tolist() == [*ranks.i2t, *ranks.t2i]
    assert (table["margin"].dropna() > 0).tolist() == (
        table.loc[table["margin"].notna(), "rank"] == 1
    ).tolist()


def test_difficulty_follows_the_thresholds() -> None:
    scores = np.tile(np.arange(30, dtype=np.float32), (30, 1))  # each image prefers the last caption
    run, data = make(scores, np.arange(30))
    images = query_table(run, data).query("direction == 'i2t'").set_index("query")
    assert images.loc["i29", "difficulty"] == "easy"
    assert images.loc["i20", ["rank", "difficulty"]].tolist() == [10, "medium"]
    assert images.loc["i19", ["rank", "difficulty"]].tolist() == [11, "hard"]
    wider = (
        query_table(run, data, hard_after=11, easy_within=5).query("direction == 'i2t'").set_index("query")
    )
    assert wider.loc["i19", "difficulty"] == "medium"
    assert wider.loc["i25", "difficulty"] == "easy"
    with pytest.raises(ConfigError, match="contradict"):
        query_table(run, data, hard_after=2, easy_within=3)


def test_captions_left_out_by_the_protocol_are_neither_queries_nor_candidates() -> None:
    run, data = make(np.random.default_rng(0).random((4, 12)).astype(np.float32), np.repeat(np.arange(4), 3))
    table = query_table(run, data, captions_per_image=2)
    kept = {f"c{n}" for n in range(12) if n % 3 < 2}
    assert set(table.query("direction == 't2i'")["query"]) == kept
    assert {c for top in table.query("direction == 'i2t'")["top"] for c in top} <= kept
    with pytest.raises(ProtocolError):
        query_table(run, data, "coco-5k")
