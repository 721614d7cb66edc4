"""Two or more models on the same queries: who wins where, by how much, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from tiir.analysis.mix import mixed
from tiir.analysis.queries import galleries_of, query_table
from tiir.analysis.statistics import holm, mcnemar, rbo
from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery
from tiir.errors import ConfigError, RunError
from tiir.metrics.intervals import resample
from tiir.metrics.ranking import rank_run
from tiir.metrics.ranks import Empty
from tiir.metrics.recall import Metric
from tiir.notebook import card
from tiir.scoring.run import Run

__all__ = ["STUDY", "Comparison", "compare"]

STUDY = (10, 10)
"""The original study's rule: a model wins a query when it is in the top 10 and at least 10 places better."""
LEVEL = 0.05
STEPS = (1, 10, 100, 1000)
"""Places by which a query's ranks differ, counted in these steps."""
KEYS = ["direction", "fold", "query"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What comparing Runs gave. A row of each table is a pair of Runs (a, b) and a direction, and:

    Args:
        runs: their names.
        outcomes: rule ("rank", "R@k", "study"), a_wins, b_wins, ties: queries on which one model meets the rule
            and the other does not ("rank": has the better rank).
        difficulty: queries hard for both, a only, b only, neither; and so for easy.
        shifts: quantiles of rank_b - rank_a (positive: a is better), and how many queries moved by how much.
        overlap: mean Jaccard and rank-biased overlap of the two lists, Spearman's and Kendall's correlation of
            the ranks.
        combined: k, R@k in percent of a, of b, of an oracle that picks the better model for each query, and of the mean
            of both models' scores (each divided by its standard deviation; NaN where a Run is a cascade).
        tests: k, difference (points, a less b), low, high (95%, bootstrap over images), p (of the bootstrap,
            two-sided), p_holm (corrected for all rows of this table), a_only, b_only (queries only one finds),
            p_mcnemar (exact; takes queries for independent, which captions of one image are not).
        queries: a row a query: direction, fold, query, image, text, rank_NAME of each Run, separation (log2 of the
            worst over the best rank), most separating first.
        resamples: of the bootstrap.
    """

    runs: list[str]
    outcomes: pd.DataFrame
    difficulty: pd.DataFrame
    shifts: pd.DataFrame
    overlap: pd.DataFrame
    combined: pd.DataFrame
    tests: pd.DataFrame
    queries: pd.DataFrame
    resamples: int

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.runs)}: {len(self.queries):,} queries)"

    def _repr_html_(self) -> str:
        columns = ["a", "b", "direction", "k", "recall_a", "recall_b", "mix", "oracle"]
        return card(repr(self), {}, self.combined[columns].to_dict("records"), *self.sentences())

    def sentences(self) -> list[str]:
        """The tests in words, one a row; the verdict is that of the corrected p."""
        least = len(self.tests) * 2 / (self.resamples + 1)  # smallest p that so many draws can show
        return [_sentence(row, least) for row in self.tests.to_dict("records")]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single queries, ready for JSON."""
        names = ("outcomes", "difficulty", "shifts", "overlap", "combined", "tests")
        tables = {name: getattr(self, name).astype(object) for name in names}
        made = {name: table.where(table.notna(), None).to_dict("records") for name, table in tables.items()}
        return {"runs": self.runs, "resamples": self.resamples, **made, "sentences": self.sentences()}


def compare(
    runs: Sequence[Run],
    dataset: Dataset,
    protocol: str | Sequence[Gallery] | None = None,
    *,
    names: Sequence[str] | None = None,
    tables: Sequence[pd.DataFrame] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    depth: int = 10,
    hard_after: int = 10,
    rule: tuple[int, int] = STUDY,
    empty: Empty = "error",
    resamples: int = 20_000,
    seed: int = 0,
) -> Comparison:
    """Compare Runs on the queries of a protocol, pair by pair.

    Args:
        runs: two or more, of one data set.
        dataset: it.
        protocol: a name or galleries; by the data set where None.
        names: of the Runs; their own where None.
        tables: their query tables, where they are made already (same protocol and `empty`).
        ks: of R@k.
        depth: of the lists whose overlap is taken.
        hard_after: a query is hard when no positive is in the first so many.
        rule: (k, places): who is in the first k and at least so many places better wins the "study" outcome.
        empty: what to do about queries without a positive: an error, or leave them out.
        resamples, seed: of the bootstrap over images.

    Raises:
        ConfigError: fewer than two Runs, or two of one name.
        RunError: a Run is of another data set.

    Example:
        >>> from tiir.scoring.run import RunInfo
        >>> data = Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))
        >>> good, bad = (Run(RunInfo.about(data, "pets", name), scores=np.array(scores, np.float32))
        ...              for name, scores in [("good", [[9, 1], [2, 8]]), ("bad", [[1, 9], [8, 2]])])
        >>> made = compare([good, bad], data, resamples=100)
        >>> made.outcomes.query("rule == 'rank'")[["direction", "a_wins", "b_wins", "ties"]].values.tolist()
        [['i2t', 2, 0, 0], ['t2i', 2, 0, 0]]
    """
    names = [run.name for run in runs] if names is None else list(names)
    if len(runs) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"{len(runs)} Runs named {', '.join(names)} cannot be compared",
            hint="give two or more, of different names",
        )
    galleries = galleries_of(dataset, protocol)
    if tables is None:
        tables = [
            query_table(run, dataset, galleries, depth=depth, hard_after=hard_after, empty=empty)
            for run in runs
        ]
    first = tables[0]
    for name, table in zip(names, tables, strict=True):
        if not table[KEYS].equals(first[KEYS]):
            raise RunError(
                f"the queries of {name} and {names[0]} differ", hint="use one data set and protocol"
            )
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("outcomes", "difficulty", "shifts", "overlap", "combined", "tests")
    }
    metrics: dict[tuple[str, str, str, int], Metric] = {}
    codes = pd.factorize(first["image"])[0].astype(np.int64)
    for (a, run_a, table_a), (b, run_b, table_b) in combinations(zip(names, runs, tables, strict=True), 2):
        mix = mixed(run_a, run_b)
        mix_ranks = None if mix is None else rank_run(mix, dataset, galleries, empty=empty)
        for direction in ("i2t", "t2i"):
            here = (first["direction"] == direction).to_numpy()
            head = {"a": a, "b": b, "direction": direction}
            ra, rb = table_a["rank"].to_numpy()[here], table_b["rank"].to_numpy()[here]
            rows["outcomes"] += [head | row for row in _outcomes(ra, rb, ks, rule)]
            rows["difficulty"] += [head | row for row in _difficulty(ra, rb, hard_after)]
            rows["shifts"].append(head | _shifts(ra, rb))
            rows["overlap"].append(head | _overlap(table_a[here], table_b[here], ra, rb))
            other = None if mix_ranks is None else (mix_ranks.i2t if direction == "i2t" else mix_ranks.t2i)
            fold = first["fold"].to_numpy()[here]
            for k in ks:
                ways = {"recall_a": ra, "recall_b": rb, "oracle": np.minimum(ra, rb), "mix": other}
                rows["combined"].append(
                    head | {"k": k} | {way: _recall(rank, k, fold) for way, rank in ways.items()}
                )
                hits = 100.0 * (ra <= k) - 100.0 * (rb <= k)
                metrics[a, b, direction, k] = Metric(hits.astype(np.float64), codes[here], fold)
                rows["tests"].append(head | {"k": k} | mcnemar(ra <= k, rb <= k))
    frames = {name: pd.DataFrame(part) for name, part in rows.items()}
    return Comparison(
        runs=list(names),
        queries=_queries(names, tables),
        resamples=resamples,
        **frames | {"tests": _tested(frames["tests"], metrics, resamples, seed)},
    )


def _recall(rank: npt.NDArray[Any] | None, k: int, fold: npt.NDArray[Any]) -> float:
    if rank is None:
        return float("nan")
    hits = np.where(rank <= k, 100.0, 0.0)
    return Metric(hits, np.zeros(len(rank), np.int64), fold).value


def _outcomes(
    ra: npt.NDArray[Any], rb: npt.NDArray[Any], ks: Sequence[int], rule: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    k, places = rule
    wins = {"rank": (ra < rb, rb < ra)}
    wins |= {f"R@{k}": ((ra <= k) & (rb > k), (rb <= k) & (ra > k)) for k in ks}
    wins["study"] = (ra <= k) & (rb - ra >= places), (rb <= k) & (ra - rb >= places)
    for name, (a, b) in wins.items():
        yield {"rule": name, "a_wins": int(a.sum()), "b_wins": int(b.sum()), "ties": int((~a & ~b).sum())}


def _difficulty(ra: npt.NDArray[Any], rb: npt.NDArray[Any], hard_after: int) -> Iterator[dict[str, Any]]:
    for name, a, b in [("hard", ra > hard_after, rb > hard_after), ("easy", ra <= 1, rb <= 1)]:
        counts = {"both": a & b, "a_only": a & ~b, "b_only": b & ~a, "neither": ~a & ~b}
        yield {"difficulty": name} | {key: int(mask.sum()) for key, mask in counts.items()}


def _shifts(ra: npt.NDArray[Any], rb: npt.NDArray[Any]) -> dict[str, Any]:
    shift = rb.astype(np.int64) - ra
    made: dict[str, Any] = {f"q{q:02d}": float(np.quantile(shift, q / 100)) for q in (5, 25, 50, 75, 95)}
    made["same"] = int((shift == 0).sum())
    for low, high in zip(STEPS, [*STEPS[1:], np.inf], strict=True):
        text = f"{low}+" if high == np.inf else f"{low}-{int(high) - 1}"
        made[f"a by {text}"] = int(((shift >= low) & (shift < high)).sum())
        made[f"b by {text}"] = int(((-shift >= low) & (-shift < high)).sum())
    return made


def _overlap(a: pd.DataFrame, b: pd.DataFrame, ra: npt.NDArray[Any], rb: npt.NDArray[Any]) -> dict[str, Any]:
    pairs = list(zip(a["top"], b["top"], strict=True))
    shared = np.array([len(set(x) & set(y)) for x, y in pairs])
    either = np.array([len(set(x) | set(y)) for x, y in pairs])
    constant = len(np.unique(ra)) < 2 or len(np.unique(rb)) < 2  # no correlation then
    return {
        "jaccard": float((shared / either).mean()),
        "rbo": float(np.mean([rbo(x, y) for x, y in pairs])),
        "spearman": np.nan if constant else float(spearmanr(ra, rb).statistic),
        "kendall": np.nan if constant else float(kendalltau(ra, rb).statistic),
    }


def _tested(
    table: pd.DataFrame, metrics: dict[tuple[str, str, str, int], Metric], resamples: int, seed: int
) -> pd.DataFrame:
    named = {" ".join(map(str, key)): metric for key, metric in metrics.items()}
    draws = resample(named, resamples=resamples, seed=seed)
    found = []
    for name, metric in named.items():
        drawn = draws[name]
        low, high = np.quantile(drawn, [0.025, 0.975])
        # Add one: a p of 0 cannot be had from finitely many draws (Davison and Hinkley, 1997).
        tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p = min(1.0, 2 * (tail + 1) / (resamples + 1))
        found.append({"difference": metric.value, "low": float(low), "high": float(high), "p": float(p)})
    made = pd.DataFrame(found)
    made["p_holm"] = holm(made["p"].to_numpy())
    order = ["difference", "low", "high", "p", "p_holm"]
    return pd.concat(
        [table[["a", "b", "direction", "k"]], made[order], table[["a_only", "b_only", "p_mcnemar"]]], axis=1
    )


def _sentence(row: dict[str, Any], least: float) -> str:
    a, b, points = row["a"], row["b"], row["difference"]
    low, high, p = row["low"], row["high"], row["p_holm"]
    chance = f"p < {max(0.001, np.ceil(1000 * p) / 1000):.3f}" if p <= max(least, 0.001) else f"p = {p:.3f}"
    on = f"on {row['direction']} R@{row['k']}"
    if p >= LEVEL:
        return f"{a} and {b} do not differ measurably {on} ({points:+.1f} points, 95% {low:.1f} to {high:.1f}, {chance})"
    if points < 0:
        a, b, low, high = b, a, -high, -low
    return f"{a} beats {b} {on} by {abs(points):.1f} points (95% {low:.1f} to {high:.1f}, {chance})"


def _queries(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    made = tables[0][[*KEYS, "image", "text"]].copy()
    ranks = np.stack([table["rank"].to_numpy() for table in tables])
    for name, rank in zip(names, ranks, strict=True):
        made[f"rank_{name}"] = rank
    # A place counts more near the top: from 1 to 10 is as far as from 100 to 1,000.
    made["separation"] = np.log2(ranks.max(0) / ranks.min(0))
    return made.sort_values("separation", ascending=False, kind="stable", ignore_index=True)
