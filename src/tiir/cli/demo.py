"""`tiir demo`: the main job on drawn pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiir.cli.options import Overwrite, note, show

__all__ = ["demo_command"]


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=100, help="How many pictures; 200 take seconds.")] = 1000,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train both small models again first (about half an hour on 2 cores)."),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """The main job on drawn pictures, offline: prepare, score, re-rank, evaluate, and a page to look at it."""
    from tiir.demo import run_demo
    from tiir.report.cascade import cross_table
    from tiir.report.tables import evaluation_tables

    evaluations, sheet, page = run_demo(out, images=images, train=train, overwrite=overwrite, say=note)
    show(*evaluation_tables(evaluations), cross_table(evaluations))
    show(f"three hard and three easy queries, with what CLIP retrieved: {sheet}")
    show(
        f"to look at what each model retrieves and why it fails, open {page.resolve().as_uri()} in a browser"
    )
