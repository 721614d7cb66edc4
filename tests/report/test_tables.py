from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from tiir.data.dataset import Dataset
from tiir.metrics.evaluate import Evaluation, evaluate
from tiir.report.tables import csv_table, evaluation_tables, latex_table, markdown_table
from tiir.scoring.run import Run


def shown(evaluations: list[Evaluation], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in evaluation_tables(evaluations):
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_values_and_intervals_stand_under_the_protocol(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(run, data, "own", resamples=50)
    text = shown([e, e], 100)
    assert text.startswith("colours/test, own: 12 images x 24 captions")
    assert "ties pessimistic" in " ".join(text.split())
    for name in ("i2t_R@1", "t2i_R@10"):
        low, high = e.intervals[name]
        assert f"{e.values[name]:.2f}" in text
        assert f"{low:.1f}-{high:.1f}" in text
    assert f"{e.values['t2i_MRR']:.3f}" in text
    assert f"{e.values['i2t_median_rank']:.1f}" in text


def test_80_columns_are_enough(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    text = shown([evaluate(run, data, "own", resamples=50)], 80)
    assert "…" not in text
    assert "ran" in text  # of the Run's name, folded
    assert max(map(len, text.splitlines())) <= 80


def test_without_intervals(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(run, data, "own", resamples=0)
    assert f"{e.values['rsum']:.2f}" in shown([e], 100)
    assert "[" not in markdown_table([e])


def test_excluded_queries_are_in_the_title(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    lonely = Dataset("pets", "test", ["a", "b"], ["a0"], ["a cat"], np.array([0]))
    from tiir.scoring.run import RunInfo

    lonely_run = Run(RunInfo.about(lonely, "pets", "m"), scores=np.ones((2, 1), np.float32))
    e = evaluate(lonely_run, lonely, "own", resamples=0, empty="exclude")
    assert "1 i2t" in e.title
    assert "excluded" not in evaluate(run, data, "own", resamples=0).title


def test_markdown(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(run, data, "own", resamples=50)
    lines = markdown_table([e]).splitlines()
    assert lines[0] == e.title
    low, high = e.intervals["i2t_R@1"]
    assert lines[6].startswith(f"| {e.run} | {e.values['i2t_R@1']:.2f} [{low:.1f}, {high:.1f}] |")
    assert len({line.count("|") for line in lines[4:7]}) == 1
    assert "i2t median rank" in lines[10]


def test_markdown_of_names_with_bars_and_of_values_that_one_lacks(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(run, data, "own", resamples=0)
    few = replace(e, run="a|b", values={"i2t_R@1": 50.0})
    lines = markdown_table([e, few]).splitlines()
    assert lines[7].startswith(r"| a\|b | 50.00 |  |")
    assert lines[7].count("|") == lines[6].count("|") + 1


def test_latex_sets_the_best_in_bold_and_escapes_names(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    good = replace(evaluate(run, data, "own", resamples=50), run="a_good & 100%")
    bad = replace(good, run="bad", values={name: value * 0.5 for name, value in good.values.items()})
    text = latex_table([good, bad])
    assert r"a\_good \& 100\% & \textbf{" in text
    assert rf"\textbf{{{bad.values['i2t_mean_rank']:,.1f}}}" in text  # of ranks the lower is better
    assert rf"\textbf{{{good.values['i2t_R@1']:.2f}}}" in text
    low, high = good.intervals["i2t_R@1"]
    assert rf"{{\scriptsize {low:.1f}--{high:.1f}}}" in text
    for start, end in ((r"\begin{", r"\end{"), ("{", "}")):
        assert text.replace(r"\{", "").count(start) == text.replace(r"\}", "").count(end)
    assert r"\textbf" not in latex_table([good])
    assert "scriptsize" not in latex_table([evaluate(run, data, "own", resamples=0)])


def test_csv_holds_every_value_in_full(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(run, data, "own", resamples=50)
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(csv_table([e])))}
    assert {name: float(row["value"]) for name, row in rows.items()} == e.values
    assert float(rows["t2i_R@5"]["low"]) == e.intervals["t2i_R@5"][0]
    assert {row["protocol"] for row in rows.values()} == {"own"}
