"""What `tiir analyze` and `tiir compare` print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.markup import escape

from tiir.analysis.compare import Comparison
from tiir.analysis.diagnose import Diagnosis
from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery, default_protocol, describe

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["comparison_tables", "diagnosis_tables", "difficulty_table", "setting"]

COUNTED = {
    "labelled": "labelled",
    "judged": "+ judged right",
    "suspected": "+ suspected",
}


def setting(
    dataset: Dataset,
    protocol: str | None,
    galleries: Sequence[Gallery],
    *,
    captions_per_image: int | None = None,
    subset: bool = False,
) -> str:
    """On what, and by which protocol: no number is shown without it.

    Args:
        dataset: that the Runs are of.
        protocol: its name; by the data set where None.
        galleries, captions_per_image, subset: as of `tiir.data.protocols.describe`.
    """
    name = protocol or default_protocol(dataset)
    text = describe(name, galleries, captions_per_image=captions_per_image, subset=subset)
    return f"{dataset.name}/{dataset.split}, {text}; ties pessimistic"


def difficulty_table(table: pd.DataFrame) -> Table:
    """Hard, medium and easy queries of both directions, and the median margin."""
    rows = []
    for direction, part in table.groupby("direction", sort=True):
        counts = part["difficulty"].value_counts()
        shares = [
            f"{counts.get(name, 0):,} ({counts.get(name, 0) / len(part):.0%})"
            for name in ("easy", "medium", "hard")
        ]
        rows.append(
            [
                direction,
                f"{len(part):,}",
                *shares,
                f"{part['rank'].median():,.0f}",
                f"{part['margin'].median():.3f}",
            ]
        )
    columns = ["", "queries", "easy", "medium", "hard", "median rank", "median margin"]
    return _table("Difficulty", columns, rows)


def diagnosis_tables(diagnosis: Diagnosis, k: int = 10) -> list[Table]:
    """Recall counted three ways, the tags' slices at one k, and the hubs."""
    recall = diagnosis.recall
    ks = sorted(recall["k"].unique())
    rows = []
    for (direction, counting), part in recall.groupby(["direction", "counting"], sort=False):
        by_k = part.set_index("k")
        cells = [f"{by_k.loc[n, 'recall']:.2f}{_interval(by_k.loc[n])}" for n in ks]
        rows.append([direction, COUNTED[counting], *cells])
    counted = _table("Recall by what counts as a positive, percent", ["", "", *(f"R@{n}" for n in ks)], rows)
    rows = [
        [
            row["direction"],
            row["tag"],
            f"{row['n']:,}",
            f"{row['share']:.1%}",
            f"{row['recall']:.1f}{_interval(row)}",
            f"{row['difference']:+.1f}{_range(row['difference_low'], row['difference_high'])}",
            f"{row['lift']:.2f}",
        ]
        for row in diagnosis.slices[diagnosis.slices["k"] == k].to_dict("records")
    ]
    columns = ["", "tag", "queries", "share", f"R@{k}", "less the rest", "lift"]
    tagged = _table(
        "Recall on the queries with a tag, percent; difference to the rest, points", columns, rows
    )
    rows = []
    for direction, part in diagnosis.hubs.groupby("direction", sort=True):
        top = part.iloc[0]
        rows.append(
            [
                direction,
                f"{len(part):,}",
                f"{diagnosis.skew[direction]:.2f}",
                f"{part['hub'].sum():,}",
                f"{part['anti_hub'].sum():,}",
                escape(f"{top['candidate']} ({top['wrong']})"),
            ]
        )
    columns = ["", "candidates", "skew", "hubs", "never wrong", "worst (wrong lists)"]
    return [counted, tagged, _table("Hubs", columns, rows)]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Outcomes, difficulty, recall of an oracle and a mix, tests, shifts, overlap: a row a pair and direction."""
    several = len(comparison.runs) > 2
    tables = []
    for number, (a, b) in enumerate(
        comparison.outcomes[["a", "b"]].drop_duplicates().itertuples(index=False)
    ):
        letter = f" {number + 1}" if several else ""
        pair = {
            name: _pair(getattr(comparison, name), a, b)
            for name in ("outcomes", "difficulty", "combined", "tests")
        }
        shifts, overlap = _pair(comparison.shifts, a, b), _pair(comparison.overlap, a, b)
        heading = escape(f"Pair{letter}: A is {a}, B is {b}")
        rows = [
            [r["direction"], r["rule"], f"{r['a_wins']:,}", f"{r['b_wins']:,}", f"{r['ties']:,}"]
            for r in pair["outcomes"]
        ]
        tables.append(_table(f"{heading}\n\nQueries that one wins", ["", "by", "A", "B", "neither"], rows))
        rows = [
            [r["direction"], r["difficulty"], *(f"{r[c]:,}" for c in ("both", "a_only", "b_only", "neither"))]
            for r in pair["difficulty"]
        ]
        tables.append(_table("Hard and easy queries", ["", "", "both", "A only", "B only", "neither"], rows))
        rows = [
            [r["direction"], str(r["k"]), *(_number(r[c]) for c in ("recall_a", "recall_b", "oracle", "mix"))]
            for r in pair["combined"]
        ]
        tables.append(_table("R@k, percent", ["", "k", "A", "B", "oracle", "mean of scores"], rows))
        rows = [
            [
                r["direction"],
                str(r["k"]),
                f"{r['difference']:+.2f}{_range(r['low'], r['high'])}",
                *(_chance(r[p]) for p in ("p", "p_holm")),
                *(f"{r[c]:,}" for c in ("a_only", "b_only")),
                _chance(r["p_mcnemar"]),
            ]
            for r in pair["tests"]
        ]
        columns = ["", "k", "points", "p", "p (Holm)", "A only", "B only", "p (McNemar)"]
        tables.append(_table("R@k of A less B's", columns, rows))
        rows = [
            [
                r["direction"],
                *(f"{r[q]:+,.0f}" for q in ("q05", "q25", "q50", "q75", "q95")),
                *(f"{o[name]:.2f}" for name in ("jaccard", "rbo", "spearman", "kendall")),
            ]
            for r, o in zip(shifts, overlap, strict=True)
        ]
        columns = ["", "5%", "25%", "50%", "75%", "95%", "Jaccard", "RBO", "Spearman", "Kendall"]
        heading = "Quantiles of B's rank less A's; overlap of their lists; correlation of their ranks"
        tables.append(_table(heading, columns, rows))
    return tables


def _pair(table: pd.DataFrame, a: str, b: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table[(table["a"] == a) & (table["b"] == b)].to_dict("records")
    return rows


def _chance(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.2f}"


def _range(low: float, high: float) -> str:
    return "" if pd.isna(low) else f" [dim]{low:+.1f}..{high:+.1f}[/dim]"


def _interval(row: Any) -> str:
    return "" if pd.isna(row["low"]) else f" [dim]{row['low']:.1f}-{row['high']:.1f}[/dim]"


def _table(heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, column in enumerate(columns):
        text = number == 0 or column in ("", "tag", "by")
        table.add_column(column, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
