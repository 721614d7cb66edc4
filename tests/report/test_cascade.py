from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from tiir.data.dataset import Dataset
from tiir.metrics.evaluate import Evaluation, evaluate
from tiir.report.cascade import cross_markdown, cross_table
from tiir.scoring.cascade import shortlists
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Shortlist


def cascade(run: Run, mix: float = 1.0) -> Run:
    """With a hash of the pair for a cross encoder's score, and without tiir's notes."""
    image, caption, i2t, t2i = shortlists(run, 3)
    assert run.scores is not None
    score = (image * 7919 + caption * 104729) % 101
    short = Shortlist.of(image, caption, score, run.scores[image, caption], i2t, t2i, mix)
    return replace(run, shortlist=short)


def shown(evaluations: list[Evaluation], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(cross_table(evaluations))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_cascade_without_notes_has_its_pairs_counted(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    made = cascade(run)
    assert made.shortlist is not None
    e, n = evaluate(made, data, resamples=0), len(made.shortlist)
    assert e.cross is not None
    assert (e.cross["pairs"], e.cross["share"]) == (n, 100 * n / (12 * 24))
    row = shown([e]).splitlines()[-2].split()
    assert row[:3] == ["run", str(n), f"{100 * n / (12 * 24):.3g}"]
    first = shown([evaluate(run, data, resamples=0)]).splitlines()[-2].split()
    assert first[:2] == ["run", "0"]


def test_80_columns_are_enough(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(cascade(run, 0.25), data, resamples=0)
    wide = {"pairs": 123_456_789, "share": 0.0123, "depth": 1000, "listed": {"i2t": 100.0, "t2i": 100.0}}
    e = replace(e, run="a-cascade-with-a-long-name", cross={**(e.cross or {}), **wide},
                values=dict.fromkeys(e.values, 100.0))  # fmt: skip
    text = shown([e])
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for word in ("123.5M", "0.0123", "1000", "0.25", "100.00", "listed"):
        assert word in text


def test_markdown(colours: tuple[Dataset, Run]) -> None:
    data, run = colours
    e = evaluate(cascade(run, 0.25), data, resamples=0)
    lines = cross_markdown([evaluate(run, data, resamples=0), e]).splitlines()
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert e.cross is not None
    listed = e.cross["listed"]
    assert lines[-1].endswith(f"|  | 0.25 | {listed['i2t']:.2f} | {listed['t2i']:.2f} |")
