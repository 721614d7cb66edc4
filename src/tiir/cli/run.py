"""`tiir run` and `tiir reproduce`: recipes, from the data to the table beside the published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiir.cli.coco import RATES, Sources, step_facts, step_table
from tiir.cli.options import AsJson, Device, Resamples, note, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiir.recipes import Outcome

__all__ = ["reproduce_app", "run_command"]

reproduce_app = typer.Typer(help="Whole tables, beside the published ones.", no_args_is_help=True)

STUDY = ("study-clip-b32", "study-lxmert")
To = Annotated[Path, typer.Option("--to", help="Folder for everything: data, and a folder for each recipe.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def run_command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Name of a recipe that comes with tiir, or your own .yaml; none: list them.",
            show_default=False,
        ),
    ] = None,
    to: To = Path("results"),
    device: Device = "auto",
    sources: Sources = None,
    resamples: Resamples = 1000,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: data, features, training, scoring, report, and a table beside the published numbers.

    What is there and valid is skipped, so a killed run is simply run again.

    Example: tiir run clip-b32 --to results --dry-run
    """
    if recipe is None:
        _list(as_json)
        return
    _run([recipe], to, device, sources, resamples, dry_run, as_json)


@reproduce_app.command("study")
def reproduce_study_command(
    to: To = Path("results"),
    device: Device = "auto",
    sources: Sources = None,
    resamples: Resamples = 1000,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """The original study's whole table: CLIP zero-shot and LXMERT fine-tuned, on COCO's 1K and 5K test images.

    Example: tiir reproduce study --to results --dry-run
    """
    _run(STUDY, to, device, sources, resamples, dry_run, as_json)


def _run(
    names: Sequence[str],
    to: Path,
    device: str,
    sources: Path | None,
    resamples: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    from tiir.data.coco import read_sources
    from tiir.recipes import find_recipe, recipe_steps, run_recipe
    from tiir.recipes.steps import check_extras

    recipes, parts = [find_recipe(name) for name in names], read_sources(sources)
    if dry_run:
        planned = [(recipe, recipe_steps(recipe, to, device=device, sources=parts)) for recipe in recipes]
        if as_json:
            plans = [{"recipe": r.name, "title": r.title, "steps": step_facts(steps)} for r, steps in planned]
            typer.echo(json.dumps(plans, indent=2, ensure_ascii=False))
            return
        for recipe, steps in planned:
            show(step_table(f"{recipe.title}, in {to}", steps))
        note(
            f"{RATES}; ?: not known beforehand; models are fetched from the hub where they are not on this machine"
        )
        return
    for recipe in recipes:
        check_extras(recipe)
    outcomes: list[Outcome] = []
    try:
        for recipe in recipes:
            outcomes.append(
                run_recipe(recipe, to, device=device, sources=parts, resamples=resamples, say=note)
            )
    finally:  # what is finished is shown, also where a later recipe fails
        if outcomes and as_json:
            typer.echo(json.dumps([outcome.to_dict() for outcome in outcomes], indent=2, ensure_ascii=False))
        elif outcomes:
            _show(outcomes, resamples)


def _show(outcomes: Sequence[Outcome], resamples: int) -> None:
    from tiir.recipes.outcome import comparison_tables

    for heading in dict.fromkeys(e.title for outcome in outcomes for e in outcome.evaluations):
        show(heading)
    show(*comparison_tables(outcomes))
    if resamples:
        show(f"95%: {resamples:,} bootstrap resamples of the images")
    for outcome in outcomes:
        show(*outcome.verdicts(), f"  what was retrieved, and why it failed: {outcome.page}")
        if outcome.recipe.note:
            show(outcome.recipe.note)


def _list(as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from tiir.recipes import read_recipe, shipped

    recipes = [read_recipe(path) for path in shipped().values()]
    if as_json:
        facts = [
            {"name": r.name, "title": r.title, "data": r.data, "protocols": r.protocols} for r in recipes
        ]
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table("recipe", "what", "data", "protocols")
    for r in recipes:
        table.add_row(r.name, escape(r.title), r.data, ", ".join(r.protocols))
    show(table, "next: tiir run RECIPE --to results --dry-run")
