"""The explorer's Overview: numbers, curves, histograms, slices and comparisons of Runs, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.analysis.compare import Comparison
from tiir.analysis.missing import SUSPECT
from tiir.report.names import short_name
from tiir.report.site_data import CHUNK, DEPTH, HARD_AFTER, SIDES, RunView

__all__ = ["overview"]


def overview(
    views: Sequence[RunView],
    comparison: Comparison | None,
    tags: Sequence[str],
    *,
    n_folds: int,
) -> dict[str, Any]:
    """What block `site` says of the Runs: numbers, curves, histograms, slices, comparisons."""
    ks, edges = _ks(views[0]), _edges(views)
    return {
        "depth": DEPTH,
        "hard_after": HARD_AFTER,
        "suspect": SUSPECT,
        "chunk": CHUNK,
        "folds": n_folds,
        "runs": [_run(view) for view in views],
        "curves": {"ks": ks} | {side: [_curve(view, side, ks) for view in views] for side in SIDES},
        "histogram": {"from": edges}
        | {side: [_counts(view, side, edges) for view in views] for side in SIDES},
        "tags": list(tags),
        "slices": [row for n, view in enumerate(views) for row in _records(view.diagnosis.slices, n, SHARES)],
        "counted": [row for n, view in enumerate(views) for row in _records(view.diagnosis.recall, n)],
        "comparisons": [] if comparison is None else _comparisons(comparison),
    }


SHARES = ("share", "lift")  # not in percent


def _records(frame: pd.DataFrame, run: int, ratios: Sequence[str] = ()) -> list[dict[str, Any]]:
    made = []
    for record in frame.to_dict("records"):
        row: dict[str, Any] = {"run": run}
        for name, value in record.items():
            if isinstance(value, float):
                row[name] = None if not np.isfinite(value) else round(value, 4 if name in ratios else 2)
            else:
                row[name] = value
        made.append(row)
    return made


def _run(view: RunView) -> dict[str, Any]:
    run, e = view.run, view.evaluation
    kind = "cascade" if run.shortlist is not None else "scores" if run.image_embeds is None else "embeddings"
    return {
        "name": view.name,
        "model": short_name(run.info.model),
        "kind": kind,
        "values": {name: _round(name, value) for name, value in e.values.items()},
        "intervals": {name: [_round(name, edge) for edge in edges] for name, edges in e.intervals.items()},
        "warnings": list(e.warnings),
        "notes": list(view.diagnosis.notes),
        "hub_skew": {side: round(skew, 2) for side, skew in view.diagnosis.skew.items()},
    }


def _round(name: str, value: float) -> float | None:
    return round(value, 4 if "MRR" in name else 2) if np.isfinite(value) else None


def _ranks(view: RunView, side: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    here = view.table[view.table["direction"] == side]
    return here["rank"].to_numpy(), here["fold"].to_numpy()


def _ks(view: RunView) -> list[int]:
    e = view.evaluation
    steps = [*range(1, 11), *(m * 10**p for p in range(1, 7) for m in (1.5, 2, 3, 5, 7, 10))]
    return [int(k) for k in steps if k <= max(e.n_images, e.n_captions)]


def _edges(views: Sequence[RunView]) -> list[int]:
    deepest = max(int(view.table["rank"].max()) for view in views)
    return [1 << power for power in range(deepest.bit_length())]


def _curve(view: RunView, side: str, ks: Sequence[int]) -> list[float]:
    # The mean of the folds' recall, as in the table.
    rank, fold = _ranks(view, side)
    found = [[100 * np.mean(rank[fold == f] <= k) for k in ks] for f in np.unique(fold)]
    return [round(float(value), 2) for value in np.mean(found, axis=0)]


def _counts(view: RunView, side: str, edges: Sequence[int]) -> list[int]:
    rank, _ = _ranks(view, side)
    counts: list[int] = np.histogram(rank, [*edges, np.inf])[0].tolist()
    return counts


def _comparisons(made: Comparison) -> list[dict[str, Any]]:
    sentences = pd.Series(made.sentences())
    comparisons = []
    for (a, b), rows in made.outcomes.groupby(["a", "b"], sort=False):
        tested = (made.tests["a"] == a) & (made.tests["b"] == b)
        columns = ["direction", "rule", "a_wins", "b_wins", "ties"]
        comparisons.append(
            {
                "a": made.runs.index(a),
                "b": made.runs.index(b),
                "sentences": sentences[tested.to_numpy()].tolist(),
                "outcomes": rows[columns].to_dict("records"),
            }
        )
    return comparisons
