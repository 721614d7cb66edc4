"""What a cross encoder cost and brought: pairs scored, what the shortlists hold, recall before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiir.metrics.evaluate import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["cross_markdown", "cross_table", "lost"]

RECALL = ("i2t_R@1", "i2t_R@5", "i2t_R@10", "t2i_R@1", "t2i_R@5", "t2i_R@10", "rsum")
SHOWN = ("i2t_R@1", "i2t_R@10", "t2i_R@1", "t2i_R@10", "rsum")  # 80 columns hold no more
FACTS = ("pairs scored", "% of all", "depth", "mix", "i2t listed", "t2i listed")
HEADING = (
    "Pairs scored by the cross encoder; listed: percent of queries with a right candidate on their shortlist"
)


def cross_table(evaluations: Sequence[Evaluation]) -> Table:
    """A rich table, one row a Run: the pairs that a cross encoder scored, what its shortlists hold, recall.

    Args:
        evaluations: under one protocol: a first stage, cascades of it, a cross encoder over all pairs.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    heading = f"{escape(evaluations[0].title)}\n\n{HEADING}; recall in percent"
    table = Table(title=heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0)
    table.add_column("run", overflow="fold", min_width=7)
    for name in (*FACTS, *SHOWN):
        table.add_column(name.replace("_", " ").replace(" ", "\n", 1), justify="right", no_wrap=True)
    for e in evaluations:
        table.add_row(escape(e.run), *_facts(e), *(f"{e.values[name]:.2f}" for name in SHOWN))
    return table


def cross_markdown(evaluations: Sequence[Evaluation]) -> str:
    """The same without recall, in Markdown, to stand below `markdown_table`."""
    rows = [("run", *FACTS), ("---", *["---:"] * len(FACTS))]
    rows += [(e.run, *_facts(e)) for e in evaluations]
    return "\n".join([HEADING, "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _facts(e: Evaluation) -> list[str]:
    if e.cross is None:
        return ["0"] + [""] * (len(FACTS) - 1)
    listed, n = e.cross.get("listed", {}), e.cross["pairs"]
    return [
        f"{n:,}" if n < 10**7 else f"{n / 10**6:,.1f}M",
        f"{e.cross['share']:.3g}",
        *(f"{e.cross[name]:g}" if name in e.cross else "" for name in ("depth", "mix")),
        *(f"{listed[side]:.2f}" if side in listed else "" for side in ("i2t", "t2i")),
    ]


def lost(cascade: Evaluation, all_pairs: Evaluation) -> dict[str, float]:
    """How far the cascade stays below its cross encoder over all pairs, by metric; negative where it is above.

    Args:
        cascade, all_pairs: under one protocol.
    """
    return {name: all_pairs.values[name] - cascade.values[name] for name in RECALL}
