"""What a cross encoder cost and brought: pairs scored, the ceiling of the shortlists, recall before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiir.metrics.evaluate import Evaluation
from tiir.report.tables import title

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["cross_table", "lost"]

RECALL = ("i2t_R@1", "i2t_R@5", "i2t_R@10", "t2i_R@1", "t2i_R@5", "t2i_R@10", "rsum")


def cross_table(evaluations: Sequence[Evaluation]) -> Table:
    """A rich table, one row a Run: pairs that a cross encoder scored, their share of all, the ceiling, recall.

    Args:
        evaluations: under one protocol: a first stage, cascades of it, a cross encoder over all pairs.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    heading = f"{escape(title(evaluations[0]))}\n\nPairs scored by the cross encoder, and recall in percent"
    table = Table(title=heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0)
    table.add_column("run", overflow="fold", min_width=7)
    for name in ("pairs\nscored", "%\nof all", "i2t\nceiling", "t2i\nceiling"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in RECALL:
        table.add_column("\n".join(name.split("_")), justify="right", no_wrap=True)
    for e in evaluations:
        table.add_row(escape(e.run), *_facts(e), *(f"{e.values[name]:.2f}" for name in RECALL))
    return table


def _facts(e: Evaluation) -> list[str]:
    if e.cross is None:
        return ["0", "", "", ""]
    ceiling = e.cross.get("ceiling", {})
    return [
        f"{e.cross['pairs']:,}",
        f"{e.cross['share']:.3g}",
        *(f"{ceiling[side]:.2f}" if side in ceiling else "" for side in ("i2t", "t2i")),
    ]


def lost(cascade: Evaluation, all_pairs: Evaluation) -> dict[str, float]:
    """How far the cascade stays below its cross encoder over all pairs, by metric; negative where it is above.

    Args:
        cascade, all_pairs: under one protocol.
    """
    return {name: all_pairs.values[name] - cascade.values[name] for name in RECALL}
