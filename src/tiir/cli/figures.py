"""`tiir figures`: what a paper would show of one Run or several."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer

from tiir.cli.options import (
    FirstCaptions,
    Keys,
    Out,
    Overwrite,
    Protocol,
    RunDataset,
    WithoutPositive,
    show,
)
from tiir.errors import ConfigError
from tiir.out import check_out

__all__ = ["figures_command"]


def figures_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories of one data set.", show_default=False)],
    out: Out,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help="png, svg or pdf; may be given several times. All if not given."),
    ] = None,
    protocol: Protocol = None,
    keys: Keys = None,
    captions_per_image: FirstCaptions = None,
    empty: WithoutPositive = "error",
    queries: Annotated[int, typer.Option(min=1, help="Queries in each photo grid.")] = 4,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples of the bands and bars.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, and of the hard queries that are drawn.")] = 0,
    overwrite: Overwrite = False,
    dataset: RunDataset = None,
) -> None:
    """Recall curves, rank histograms, slice bars; of each two Runs a scatter; of photos the study's three grids."""
    from tiir.analysis.background import background
    from tiir.analysis.diagnose import diagnose
    from tiir.analysis.queries import galleries_of, query_table
    from tiir.report import figures, photos
    from tiir.report.analysis import setting
    from tiir.scoring.run import Run

    kinds = figures.checked(formats or figures.FORMATS)
    loaded = [Run.load(path) for path in runs]
    data = loaded[0].load_dataset(dataset)
    for other in loaded[1:]:
        other.check(data)
    by_path = len({run.name for run in loaded}) < len(runs)
    names = [path.as_posix() if by_path else run.name for path, run in zip(runs, loaded, strict=True)]
    if len(set(names)) < len(names):
        raise ConfigError("a Run is given twice", hint="name each Run once")
    check_out(out, "files", finished=out.is_dir() and any(out.iterdir()), overwrite=overwrite)
    galleries = galleries_of(data, protocol, keys=keys, captions_per_image=captions_per_image)
    tables = {
        name: query_table(run, data, galleries, empty=empty) for name, run in zip(names, loaded, strict=True)
    }
    shared = background(data)
    out.mkdir(parents=True, exist_ok=True)
    files: list[str] = []

    def draw(figure: Any, name: str) -> None:
        figures.save(figure, out / name.replace("/", "-"), kinds)
        files.append(name.replace("/", "-"))

    draw(figures.recall_curves(tables, resamples=resamples, seed=seed), "recall-at-k")
    draw(figures.rank_histograms(tables), "rank-histogram")
    for name, run in zip(names, loaded, strict=True):
        made = diagnose(
            run, data, galleries, table=tables[name], shared=shared, resamples=resamples, seed=seed
        )
        for side in ("i2t", "t2i"):
            if (made.slices["direction"] == side).any():
                draw(figures.slice_bars(made.slices, side), f"slices-{side}-{name}")
    for a, b in combinations(names, 2):
        draw(figures.rank_scatter(tables[a], tables[b], a, b), f"ranks-{a}-vs-{b}")
    if data.image_root is None:
        show("no photo grids: the data set has no photos")
    else:
        for name, table in tables.items():
            for side, grid, title in [
                ("t2i", photos.hard_image_retrieval, "hard-image-retrieval"),
                ("i2t", photos.hard_text_retrieval, "hard-text-retrieval"),
            ]:
                rows = photos.sample_hard(table, side, n=queries, seed=seed)
                if rows:
                    draw(grid(rows, data, seed=seed), f"{title}-{name}")
                else:
                    show(f"no {title} of {name}: it has no hard query of that direction")
        for a, b in combinations(names, 2):
            for first, second in ((a, b), (b, a)):
                if photos.most_ahead(tables[first], tables[second], n=1):
                    figure = photos.where_a_beats_b(
                        tables[first], tables[second], first, second, data, n=queries
                    )
                    draw(figure, f"{first}-beats-{second}")
                else:
                    show(f"no {first}-beats-{second}: it is ahead on no caption")
    show(setting(data, protocol, galleries, captions_per_image=captions_per_image, subset=keys is not None))
    show(*(f"{name}.{{{','.join(kinds)}}}" for name in files), f"-> {out}")
