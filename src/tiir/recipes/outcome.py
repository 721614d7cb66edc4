"""What a recipe came to: its numbers beside the published ones, and whether they are as near as expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiir.metrics.evaluate import Evaluation
from tiir.metrics.published import TOLERANCE, published
from tiir.metrics.recall import RSUM
from tiir.recipes.recipe import Published, Recipe

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Outcome", "comparison_tables", "expected"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A recipe's numbers.

    Args:
        recipe: the recipe.
        evaluations: one a protocol.
        page: of the report.
    """

    recipe: Recipe
    evaluations: tuple[Evaluation, ...]
    page: Path

    def verdicts(self) -> Iterator[str]:
        """A sentence for each protocol: within the band or not, and where not."""
        for e in self.evaluations:
            of = expected(self.recipe, e.protocol)
            subject = f"{self.recipe.name}, {e.protocol}"
            if of is None:
                yield f"{subject}: no published numbers to compare with"
                continue
            far = {name: e.values[name] - value for name, value in of.values.items()}
            far = {name: d for name, d in far.items() if abs(d) > of.band}
            if not far:
                yield f"{subject}: WITHIN {of.band:g} points of the published numbers ({of.source})"
                continue
            misses = ", ".join(f"{name.replace('_', ' ')} {d:+.2f}" for name, d in far.items())
            yield f"{subject}: NOT within {of.band:g} points of the published numbers ({of.source}): {misses}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: percent; `within` is None where nothing is published."""
        protocols = {}
        for e in self.evaluations:
            of = expected(self.recipe, e.protocol)
            told = {} if of is None else of.values
            metrics = {}
            for name in _metrics(self.recipe, e):
                row: dict[str, Any] = {"value": e.values[name], "interval": list(e.intervals.get(name, ()))}
                if of is not None and name in told:
                    row["published"] = told[name]
                    row["difference"] = e.values[name] - told[name]
                    row["within"] = abs(row["difference"]) <= of.band
                metrics[name] = row
            protocols[e.protocol] = {
                "description": e.description,
                "metrics": metrics,
                "published": None if of is None else {"source": of.source, "band": of.band},
                "within": None if of is None else all(row.get("within", True) for row in metrics.values()),
                "reported": [
                    {"source": r.source, "values": r.values}
                    for r in self.recipe.reported
                    if r.protocol == e.protocol
                ],
                "warnings": e.warnings,
            }
        return {
            "recipe": self.recipe.name,
            "title": self.recipe.title,
            "report": str(self.page),
            "protocols": protocols,
            "note": self.recipe.note,
        }


def expected(recipe: Recipe, protocol: str) -> Published | None:
    """The numbers that a recipe's are expected to come near: its own, else those that are known of its model.

    Example:
        >>> from tiir.recipes import find_recipe
        >>> expected(find_recipe("clip-b32"), "coco-5k").values["t2i_R@1"]
        30.44
    """
    for numbers in recipe.published:
        if numbers.protocol == protocol:
            return numbers
    known = published(recipe.model or "", protocol)
    if not known:
        return None
    source = "open_clip's results" if protocol == "coco-5k" else "README of eccv_caption"
    return Published(protocol=protocol, source=source, values=dict(known), band=TOLERANCE)


def _metrics(recipe: Recipe, e: Evaluation) -> tuple[str, ...]:
    # Recall, and where more is published than that, what is published.
    of = expected(recipe, e.protocol)
    return RSUM if of is None or of.values.keys() <= set(RSUM) else tuple(of.values)


def comparison_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Ours beside the published numbers: a table for those of the same metrics, a block of rows a recipe and protocol.

    Args:
        outcomes: of recipes.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    tables: dict[tuple[str, ...], Table] = {}
    for outcome in outcomes:
        for e in outcome.evaluations:
            names = _metrics(outcome.recipe, e)
            if names not in tables:
                tables[names] = Table(box=SIMPLE_HEAD, padding=0)
                tables[names].add_column("percent", overflow="fold")
                for name in names:
                    tables[names].add_column("\n".join(name.split("_")), justify="right", no_wrap=True)
            tables[names].add_row(f"[bold]{escape(outcome.recipe.name)}, {e.protocol}[/bold]")
            for label, cells in _rows(outcome.recipe, e, names):
                tables[names].add_row(escape(label), *cells)
            tables[names].add_section()
    return list(tables.values())


def _rows(recipe: Recipe, e: Evaluation, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    def others(values: Mapping[str, float], tell: Callable[[str, float], str]) -> list[str]:
        return [tell(name, values[name]) if name in values else "" for name in names]

    yield "ours", others(e.values, lambda name, value: f"{value:.2f}")
    if e.intervals:
        yield "  95%", ["{:.1f}-{:.1f}".format(*e.intervals[name]) for name in names]
    if (of := expected(recipe, e.protocol)) is not None:
        band = of.band

        def verdict(name: str, value: float) -> str:
            return "yes" if abs(e.values[name] - value) <= band else "NO"

        yield f"published: {of.source}", others(of.values, lambda name, value: f"{value:.2f}")
        yield "  difference", others(of.values, lambda name, value: f"{e.values[name] - value:+.2f}")
        yield f"  within {band:g}", others(of.values, verdict)
    for other in recipe.reported:
        if other.protocol == e.protocol:
            yield f"reported: {other.source}", others(other.values, lambda name, value: f"{value:.2f}")
