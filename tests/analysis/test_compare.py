from __future__ import annotations

import io
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tiir.analysis.compare import compare
from tiir.analysis.mix import mixed
from tiir.analysis.queries import query_table
from tiir.analysis.statistics import holm, mcnemar, rbo
from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.errors import ConfigError, RunError
from tiir.metrics.ranking import rank_run
from tiir.report.analysis import comparison_tables
from tiir.scoring.run import Run, RunInfo


def three(make, n: int = 30, each: int = 2):  # type: ignore[no-untyped-def]
    owner, rng = np.repeat(np.arange(n), each), np.random.default_rng(0)
    own = owner == np.arange(n)[:, None]
    made = [make(rng.random((n, n * each)) + own * gain, owner, name=f"m{gain}") for gain in (0.2, 0.5, 0.9)]
    return [run for run, _ in made], made[0][1]


def test_counts_against_a_loop(make) -> None:  # type: ignore[no-untyped-def]
    runs, data = three(make)
    made = compare(runs, data, ks=[1, 5], resamples=200)
    tables = [query_table(run, data) for run in runs]
    assert made.runs == ["m0.2", "m0.5", "m0.9"]
    assert len(made.outcomes) == 3 * 2 * 4
    assert len(made.tests) == 3 * 2 * 2
    for row in made.outcomes.to_dict("records"):
        first, second = (tables[made.runs.index(row[side])] for side in ("a", "b"))
        wins = [0, 0, 0]
        for x, y, side in zip(first["rank"], second["rank"], first["direction"], strict=True):
            if side != row["direction"]:
                continue
            if row["rule"] == "rank":
                a, b = x < y, y < x
            elif row["rule"] == "study":
                a, b = x <= 10 and y - x >= 10, y <= 10 and x - y >= 10
            else:
                k = int(row["rule"][2:])
                a, b = x <= k < y, y <= k < x
            wins[0 if a else 1 if b else 2] += 1
        assert [row["a_wins"], row["b_wins"], row["ties"]] == wins
    for row in made.tests.to_dict("records"):
        first, second = (tables[made.runs.index(row[side])] for side in ("a", "b"))
        here = first["direction"] == row["direction"]
        difference = 100 * (
            (first["rank"] <= row["k"])[here].mean() - (second["rank"] <= row["k"])[here].mean()
        )
        assert row["difference"] == pytest.approx(difference)
        assert row["low"] <= difference <= row["high"]
        assert row["p"] <= row["p_holm"] <= 1
    for row in made.difficulty.to_dict("records"):
        assert sum(row[key] for key in ("both", "a_only", "b_only", "neither")) in (30, 60)
    for row in made.combined.to_dict("records"):
        assert row["oracle"] >= max(row["recall_a"], row["recall_b"])
    separation = made.queries["separation"]
    assert (separation.diff().dropna() <= 0).all()
    ranks = made.queries[["rank_m0.2", "rank_m0.5", "rank_m0.9"]]
    assert separation.to_numpy() == pytest.approx(np.log2(ranks.max(axis=1) / ranks.min(axis=1)))


def test_a_model_against_itself_never_wins(make) -> None:  # type: ignore[no-untyped-def]
    runs, data = three(make)
    made = compare([runs[0], runs[0]], data, names=["one", "two"], resamples=200)
    assert (made.outcomes[["a_wins", "b_wins"]] == 0).all().all()
    assert (made.tests["p_holm"] == 1).all()
    assert (made.tests["p_mcnemar"] == 1).all()
    assert made.overlap["jaccard"].tolist() == [1, 1]
    assert made.overlap["rbo"].tolist() == pytest.approx([1, 1])
    assert all("do not differ measurably" in sentence for sentence in made.sentences())


def test_sentences_name_the_better_model_first(make) -> None:  # type: ignore[no-untyped-def]
    runs, data = three(make)
    made = compare([runs[0], runs[2]], data, ks=[1], resamples=2000)
    sentence = made.sentences()[1]
    row = made.tests.iloc[1]
    assert sentence.startswith(
        f"m0.9 beats m0.2 on t2i R@1 by {-row['difference']:.1f} points (95% {-row['high']:.1f} to"
    )
    assert "p < 0.002" in sentence  # 2,000 draws and two tests can show no less
    many = compare([runs[0], runs[2]], data, ks=[1], resamples=20_000).sentences()[1]
    assert "p < 0.001" in many


@given(st.permutations("abcdefg"), st.permutations("abcdefg"), st.integers(1, 7), st.floats(0.1, 0.95))
def test_rbo_is_its_definition(a: list[str], b: list[str], depth: int, p: float) -> None:
    a, b = a[:depth], b[:depth]
    agreement = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, depth + 1)]
    seen = sum((1 - p) * p ** (d - 1) * agreement[d - 1] for d in range(1, depth + 1))
    assert rbo(a, b, p) == pytest.approx(seen + agreement[-1] * p**depth)
    assert rbo(a, b, p) == pytest.approx(rbo(b, a, p))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_against_the_binomial(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    made = mcnemar(a, b)
    n, low = made["a_only"] + made["b_only"], min(made["a_only"], made["b_only"])
    tail = sum(comb(n, i) for i in range(low + 1)) / 2**n
    assert made["p_mcnemar"] == pytest.approx(min(1.0, 2 * tail)) if n else made["p_mcnemar"] == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_against_its_steps(p: list[float]) -> None:
    corrected = holm(np.array(p))
    order, highest = np.argsort(p, kind="stable"), 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, p[place] * (len(p) - step)))
        assert corrected[place] == pytest.approx(highest)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_the_mix_of_embeddings_is_the_mix_of_their_scores(seed: int) -> None:
    rng, owner = np.random.default_rng(seed), np.repeat(np.arange(8), 2)
    data = Dataset("d", "test", [f"i{n}" for n in range(8)], [f"c{n}" for n in range(16)], ["x"] * 16, owner)
    vectors = [
        (rng.normal(size=(8, d)).astype(np.float32), rng.normal(size=(16, d)).astype(np.float32))
        for d in (3, 5)
    ]
    runs = [Run(RunInfo.about(data, "d", "m"), image_embeds=a, text_embeds=b) for a, b in vectors]
    dense = [
        Run(run.info, scores=(a @ b.T).astype(np.float32)) for run, (a, b) in zip(runs, vectors, strict=True)
    ]
    wide, matrix, both = mixed(*runs), mixed(*dense), mixed(runs[0], dense[1])
    assert wide is not None
    assert matrix is not None
    assert both is not None
    assert matrix.scores == pytest.approx(sum(r.scores / r.scores.std() for r in dense), abs=1e-5)
    assert wide.block(np.arange(8), np.arange(16)) == pytest.approx(matrix.scores, abs=1e-5)
    assert both.scores == pytest.approx(matrix.scores, abs=1e-5)
    assert (
        rank_run(wide, data, resolve("own", data)).t2i.tolist() == rank_run(matrix, data, "own").t2i.tolist()
    )


def test_pairs_that_no_gallery_asks_for_may_be_missing(make) -> None:  # type: ignore[no-untyped-def]
    runs, data = three(make)
    galleries = resolve("own", data, keys=data.image_ids[:20])
    whole = compare(runs[:2], data, galleries, resamples=100)
    for run in runs:
        run.scores[20:] = np.nan
    made = compare(runs[:2], data, galleries, resamples=100)
    assert made.combined["recall_a"].tolist() == whole.combined["recall_a"].tolist()
    assert made.combined["mix"].notna().all()


def test_names_with_brackets_are_printed_as_they_are(make) -> None:  # type: ignore[no-untyped-def]
    runs, data = three(make)
    made = compare(runs[:2], data, names=["m[red]", "m[/x]"], resamples=100)
    console = Console(file=io.StringIO(), width=100)
    for table in comparison_tables(made):
        console.print(table)
    assert "A is m[red], B is m[/x]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_cannot_be_compared(make) -> None:  # type: ignore[no-untyped-def]
    runs, data = three(make)
    with pytest.raises(ConfigError, match="cannot be compared"):
        compare(runs[:1], data)
    with pytest.raises(ConfigError, match="of different names"):
        compare([runs[0], runs[0]], data)
    other, _ = make(np.eye(3), [0, 1, 2])
    with pytest.raises(RunError):
        compare([runs[0], other], data)
    tables = [query_table(runs[0], data), query_table(runs[1], data).iloc[::-1]]
    with pytest.raises(RunError, match=r"queries of m0\.5 and m0\.2 differ"):
        compare(runs[:2], data, tables=tables)
