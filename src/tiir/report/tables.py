"""The recall table, for people, Markdown files, papers and spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tiir.metrics.evaluate import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["csv_table", "evaluation_tables", "latex_table", "markdown_table"]


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
    return name.replace("_", " ")


def evaluation_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Rich tables, one row a Run: each value with its 95% interval below it.

    Args:
        evaluations: of Runs under one protocol (same gallery, same tie rule).
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    tables = []
    for number, (heading, columns) in enumerate(_sections(evaluations)):
        above = f"{escape(evaluations[0].title)}\n\n{heading}" if number == 0 else heading
        table = Table(title=above, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0)
        table.add_column("run", overflow="fold", min_width=7)
        for name in columns:
            head = "\n".join(name.split("_"))
            table.add_column(head, justify="right", vertical="top", no_wrap=True)
        for e in evaluations:
            table.add_row(escape(e.run), *(_cell(e, name) for name in columns))
        tables.append(table)
    return tables


def _cell(e: Evaluation, name: str) -> str:
    if name not in e.values:
        return ""
    value = _number(e.values[name], name)
    if name not in e.intervals:
        return value
    low, high = (_number(edge, name, of_interval=True) for edge in e.intervals[name])
    return f"{value}\n[dim]{low}-{high}[/dim]"


def _number(value: float, name: str, *, of_interval: bool = False) -> str:
    if "MRR" in name:
        return f"{value:.3f}"
    if "rank" in name:
        return f"{value:,.1f}"
    return f"{value:.2f}" if not of_interval else f"{value:.0f}" if name == "rsum" else f"{value:.1f}"


def markdown_table(evaluations: Sequence[Evaluation]) -> str:
    """Markdown tables under their title, intervals in brackets."""
    lines = [evaluations[0].title]
    for heading, columns in _sections(evaluations):
        lines += ["", heading, "", "| run | " + " | ".join(map(_label, columns)) + " |"]
        lines += ["| --- |" + " ---: |" * len(columns), *_markdown_rows(evaluations, columns)]
    return "\n".join(lines) + "\n"


def _markdown_rows(evaluations: Sequence[Evaluation], columns: Sequence[str]) -> Iterator[str]:
    for e in evaluations:
        cells = []
        for name in columns:
            cell = _number(e.values[name], name) if name in e.values else ""
            if name in e.intervals:
                low, high = (_number(edge, name, of_interval=True) for edge in e.intervals[name])
                cell += f" [{low}, {high}]"
            cells.append(cell)
        name = e.run.replace("|", "\\|")
        yield f"| {name} | " + " | ".join(cells) + " |"


def latex_table(evaluations: Sequence[Evaluation]) -> str:
    """A LaTeX table for the package booktabs: best value of each column in bold, intervals small below it.

    Evaluations without intervals give a table without them; the title is the caption. Of one Run nothing is bold.

    Args:
        evaluations: of Runs under one protocol (same gallery, same tie rule).
    """
    parts = []
    for number, (heading, columns) in enumerate(_sections(evaluations)):
        best = {name: _best(evaluations, name) for name in columns}
        lines = [
            r"\begin{table}",
            r"  \centering",
            rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"    \toprule",
        ]
        lines.append("    Run & " + " & ".join(_escape(_label(name)) for name in columns) + r" \\")
        lines.append(r"    \midrule")
        for e in evaluations:
            values = [_latex_value(e, name, best[name]) for name in columns]
            lines.append(f"    {_escape(e.run)} & " + " & ".join(values) + r" \\")
            if e.intervals:
                edges = [_latex_interval(e, name) for name in columns]
                lines.append("     & " + " & ".join(edges) + r" \\")
        text = f"{evaluations[0].title}. {heading}." if number == 0 else f"{heading}."
        lines += [r"    \bottomrule", r"  \end{tabular}", rf"  \caption{{{_escape(text)}}}", r"\end{table}"]
        parts.append("\n".join(lines) + "\n")
    return "% needs \\usepackage{booktabs}\n" + "\n".join(parts)


def _best(evaluations: Sequence[Evaluation], name: str) -> str | None:
    # As printed: two values that read the same are both best.
    values = [e.values[name] for e in evaluations if name in e.values]
    if len(values) < 2:
        return None
    return _number(min(values) if name.endswith("rank") else max(values), name)


def _latex_value(e: Evaluation, name: str, best: str | None) -> str:
    if name not in e.values:
        return ""
    value = _number(e.values[name], name)
    return rf"\textbf{{{value}}}" if value == best else value


def _latex_interval(e: Evaluation, name: str) -> str:
    if name not in e.intervals:
        return ""
    low, high = (_number(edge, name, of_interval=True) for edge in e.intervals[name])
    return rf"{{\scriptsize {low}--{high}}}"


ESCAPES = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _escape(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def csv_table(evaluations: Sequence[Evaluation]) -> str:
    """A row a Run and metric: run, dataset, split, protocol, ties, metric, value, low, high; in full precision.

    Args:
        evaluations: of any Runs and protocols.
    """
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "dataset", "split", "protocol", "ties", "metric", "value", "low", "high"])
    for e in evaluations:
        for name, value in e.values.items():
            edges = e.intervals.get(name, ("", ""))
            writer.writerow([e.run, e.dataset, e.split, e.protocol, e.ties, name, value, *edges])
    return text.getvalue()
