"""`tiir report`: Runs as a page to look at, that needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiir.cli.options import (
    FirstCaptions,
    Keys,
    Out,
    Overwrite,
    Protocol,
    Resamples,
    RunDataset,
    WithoutPositive,
    note,
    show,
)

__all__ = ["report_command"]


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories of one data set.", show_default=False)],
    out: Out,
    protocol: Protocol = None,
    keys: Keys = None,
    captions_per_image: FirstCaptions = None,
    empty: WithoutPositive = "error",
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Show a sample of so many queries each way; the numbers are still of all.",
            show_default=False,
        ),
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Captions only, where photos may not be shared.")
    ] = False,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="All in one index.html, for small reports.")
    ] = False,
    resamples: Resamples = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the sample.")] = 0,
    overwrite: Overwrite = False,
    dataset: RunDataset = None,
) -> None:
    """A page to look at what Runs retrieve and why they fail: a folder that opens from disk, without a server."""
    from tiir.report.build import build_site
    from tiir.scoring.run import Run

    loaded = [Run.load(path) for path in runs]
    page = build_site(
        loaded,
        loaded[0].load_dataset(dataset),
        out,
        protocol=protocol,
        keys=keys,
        captions_per_image=captions_per_image,
        empty=empty,
        images=not no_images,
        max_queries=max_queries,
        single_file=single_file,
        resamples=resamples,
        seed=seed,
        overwrite=overwrite,
        say=note,
    )
    show(f"-> {page}: open it in a browser")
