"""The recall table, for people and for Markdown files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiir.metrics.evaluate import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["evaluation_tables", "markdown_table", "title"]


def title(evaluation: Evaluation) -> str:
    """What was measured: a number is never shown without its protocol.

    Returns:
        such as "flickr8k: 1,000 images x 5,000 captions, own captions are positives; ties pessimistic".
    """
    e = evaluation
    text = f"{e.protocol}: {e.n_images:,} images x {e.n_captions:,} captions, {e.description}; ties {e.ties}"
    excluded = {side: n for side, n in e.excluded.items() if n}
    if excluded:
        text += "; excluded queries without a positive: " + ", ".join(
            f"{n:,} {side}" for side, n in excluded.items()
        )
    return text


def _sections(evaluations: Sequence[Evaluation]) -> list[tuple[str, list[str]]]:
    names = list(dict.fromkeys(name for e in evaluations for name in e.values))
    recall = [name for name in names if ("R@" in name and "mAP" not in name) or name == "rsum"]
    graded = [name for name in names if "mAP" in name or "R-Precision" in name]
    ranks = [name for name in names if name not in recall and name not in graded]
    sections = [
        ("Recall, percent", recall),
        ("Ranks", ranks),
        ("Over all positives, percent", graded),
    ]
    return [(heading, columns) for heading, columns in sections if columns]


def _label(name: str) -> str:
    return name.replace("_", " ", 1).replace("_", " ")


def evaluation_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Rich tables, one row a Run: each value with its 95% interval below it.

    Args:
        evaluations: of Runs under one protocol (same gallery, same tie rule).
    """
    from rich.table import Table

    tables = []
    for number, (heading, columns) in enumerate(_sections(evaluations)):
        above = f"{title(evaluations[0])}\n{heading}" if number == 0 else heading
        table = Table(title=above, title_justify="left", title_style="bold", show_lines=len(evaluations) > 1)
        table.add_column("run", overflow="fold")
        for name in columns:
            table.add_column(_label(name), justify="right", no_wrap=True)
        for e in evaluations:
            cells = []
            for name in columns:
                if name not in e.values:
                    cells.append("")
                    continue
                interval = e.intervals.get(name)
                below = f"\n[dim]{_number(interval[0])}-{_number(interval[1])}[/dim]" if interval else ""
                cells.append(f"{_number(e.values[name], name)}{below}")
            table.add_row(e.run, *cells)
        tables.append(table)
    return tables


def _number(value: float, name: str = "") -> str:
    if "MRR" in name:
        return f"{value:.3f}"
    return f"{value:.2f}" if name and value < 1000 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def markdown_table(evaluations: Sequence[Evaluation]) -> str:
    """The recall section as a Markdown table, title above, intervals in brackets."""
    _, columns = _sections(evaluations)[0]
    lines = [
        title(evaluations[0]),
        "",
        "| run | " + " | ".join(map(_label, columns)) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for e in evaluations:
        cells = []
        for name in columns:
            low, high = e.intervals[name]
            cells.append(f"{_number(e.values[name], name)} [{_number(low)}, {_number(high)}]")
        lines.append(f"| {e.run} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
