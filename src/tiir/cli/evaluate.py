"""`tiir evaluate`, `tiir export`: from a Run to numbers, and to the files of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tiir.cli.options import (
    Address,
    AsJson,
    EngineName,
    FirstCaptions,
    Format,
    Keys,
    Overwrite,
    Protocol,
    Resamples,
    RunDataset,
    Ties,
    WithoutPositive,
    Workers,
    note,
    show,
)
from tiir.errors import ConfigError

__all__ = ["evaluate_command", "export_command"]

Tables = Literal["text", "markdown", "latex", "csv"]


def evaluate_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, one row each.", show_default=False)],
    protocol: Protocol = None,
    keys: Keys = None,
    captions_per_image: FirstCaptions = None,
    ties: Annotated[Ties, typer.Option(help="Who wins a tie.")] = "pessimistic",
    empty: WithoutPositive = "error",
    resamples: Resamples = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    mix: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="Weight of the LXMERT in a cascade's order, instead of the one it was made with; nothing is scored "
            "again. May be given several times. Choose it on a validation split, not on the test split.",
            show_default=False,
        ),
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(
            help="Judgements saved by `tiir explore` or exported from a report: a second table in which pairs judged "
            "relevant count as positives too.",
            show_default=False,
        ),
    ] = None,
    dataset: RunDataset = None,
    engine: EngineName = None,
    workers: Workers = None,
    address: Address = None,
    as_json: AsJson = False,
    table: Annotated[
        Tables, typer.Option("--table", "-t", help="text, markdown, latex (booktabs, best in bold) or csv.")
    ] = "text",
) -> None:
    """Recall@k both ways, ranks and 95% intervals, under a stated protocol.

    Counting of large galleries is shared by --workers, torchrun or --engine ray; the ranks are the same.
    """
    import json
    import shlex
    from dataclasses import replace

    from tiir.data.judgements import read_judgements
    from tiir.metrics.evaluate import evaluate as run_evaluation
    from tiir.report.cascade import cross_markdown, cross_table
    from tiir.report.tables import csv_table, evaluation_tables, latex_table, markdown_table
    from tiir.scoring.cascade import remix
    from tiir.scoring.engines import open_engine
    from tiir.scoring.run import Run

    loaded = [Run.load(path) for path in runs]
    if mix and all(run.shortlist is None for run in loaded):
        raise ConfigError(
            "--mix is for cascades, of which there is none here", hint="make one with `tiir rerank`"
        )
    by_path = len({run.name for run in loaded}) < len(runs)  # a/run and b/run: told apart by their paths
    evaluations: list[Any] = []
    with open_engine(engine, workers=workers, address=address) as crew:
        for path, run in zip(runs, loaded, strict=True):
            data, name = run.load_dataset(dataset), str(path) if by_path else run.name
            judged = None if judgements is None else read_judgements(judgements, data)
            if judged is not None and judged.torn and run is loaded[0] and crew.first:
                note(f"warning: {judgements}: the last line was cut off by a crash, and does not count")
            versions = [(run, name)]
            if mix and run.shortlist is not None:
                versions = [(remix(run, weight), f"{name} mix {weight:g}") for weight in mix]
            for version, label in versions:
                for people, mark in [(None, "")] if judged is None else [(None, ""), (judged, " + judged")]:
                    evaluation = run_evaluation(
                        version,
                        data,
                        protocol,
                        keys=keys,
                        captions_per_image=captions_per_image,
                        ties=ties,
                        empty=empty,
                        resamples=resamples,
                        seed=seed,
                        judged=people,
                        engine=crew,
                    )
                    evaluations.append(replace(evaluation, run=label + mark))
    if not crew.first:
        return
    if as_json:  # with the warnings
        typer.echo(json.dumps([e.to_dict() for e in evaluations], indent=2, ensure_ascii=False))
        return
    for e in evaluations:
        for warning in e.warnings:
            note(f"warning: {e.run}: {warning}")
    if table == "csv":
        typer.echo(csv_table(evaluations), nl=False)
        return
    for group in _same_gallery(evaluations):
        if table != "text":
            typer.echo(markdown_table(group) if table == "markdown" else latex_table(group))
        else:
            show(*evaluation_tables(group))
        if any(e.cross for e in group):
            if table == "latex":
                note("what a cascade lost is in --table text, markdown and --json")
            else:
                typer.echo(cross_markdown(group)) if table == "markdown" else show(cross_table(group))
    if resamples:
        place = {"text": "below each value", "markdown": "in brackets", "latex": "% below each value"}[table]
        show(f"{place}: 95% interval, {resamples:,} bootstrap resamples of the images (seed {seed})")
    if table == "text":  # the others are pasted elsewhere
        of = loaded[0].info.fingerprint
        same = [path for path, run in zip(runs, loaded, strict=True) if run.info.fingerprint == of]
        options = {"--protocol": protocol, "--keys": keys, "--captions-per-image": captions_per_image,
                   "--dataset": dataset, "--empty": None if empty == "error" else empty}  # fmt: skip
        given = [word for name, value in options.items() if value is not None for word in (name, value)]
        show(f"next: tiir report {shlex.join(map(str, [*same, '--out', 'SITE', *given]))}")


def _same_gallery(evaluations: Sequence[Any]) -> list[list[Any]]:
    # One table a protocol and data set: numbers of different galleries never stand in one column.
    groups: dict[str, list[Any]] = {}
    for e in evaluations:
        groups.setdefault(e.title, []).append(e)
    return list(groups.values())


def export_command(
    run: Annotated[Path, typer.Argument(help="A Run directory.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write (trec: a folder).")],
    format: Annotated[
        Format, typer.Option("--format", "-f", help="trec run + qrels, the study's npz, csv or parquet.")
    ],
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="The gallery to export.")] = "own",
    depth: Annotated[int, typer.Option(min=1, help="Candidates a query (not for npz).")] = 100,
    overwrite: Overwrite = False,
    dataset: RunDataset = None,
) -> None:
    """Write what a Run retrieved in the format of another tool."""
    from tiir.report.export import export_run
    from tiir.scoring.run import Run

    loaded = Run.load(run)
    data = loaded.load_dataset(dataset)
    for path in export_run(
        loaded, data, out, format=format, protocol=protocol, depth=depth, overwrite=overwrite
    ):
        show(f"-> {path}")
