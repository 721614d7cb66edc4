"""`tiir analyze`, `tiir compare`: from Runs to reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tiir.cli.options import (
    AsJson,
    Device,
    FirstCaptions,
    Keys,
    Overwrite,
    Protocol,
    Resamples,
    RunDataset,
    WithoutPositive,
    note,
    show,
)
from tiir.errors import ConfigError, several
from tiir.out import check_file

__all__ = ["analyze_command", "compare_command"]

TableFormat = Literal["parquet", "jsonl", "csv"]
Depth = Annotated[int, typer.Option(min=1, help="Candidates a query that are listed.")]
HardAfter = Annotated[int, typer.Option(min=1, help="A query is hard with no positive in the first so many.")]
Seed = Annotated[int, typer.Option(help="Of samples and bootstrap.")]


def analyze_command(
    run: Annotated[Path, typer.Argument(help="A Run directory.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the tables and samples.", show_default=False),
    ] = None,
    format: Annotated[TableFormat, typer.Option("--format", "-f", help="Of the tables.")] = "parquet",
    protocol: Protocol = None,
    keys: Keys = None,
    captions_per_image: FirstCaptions = None,
    depth: Depth = 10,
    hard_after: HardAfter = 10,
    easy_within: Annotated[
        int, typer.Option(min=1, help="A query is easy with a positive in the first so many.")
    ] = 1,
    empty: WithoutPositive = "error",
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="More evidence of missing labels: a sentence encoder (directory or hub id), or 'run' for the Run's "
            "own text vectors.",
            show_default=False,
        ),
    ] = None,
    suspicion: Annotated[
        float, typer.Option(min=0, max=1, help="From which a candidate counts as a suspected positive.")
    ] = 0.6,
    rescore: Annotated[
        str | None,
        typer.Option(help="Score captions with typos again, corrected, with this model (that made the Run)."),
    ] = None,
    device: Device = "auto",
    samples: Annotated[int, typer.Option(min=0, help="Hard and easy queries to draw for samples.json.")] = 40,
    query: Annotated[
        list[str] | None, typer.Option(help="Show what this image or caption id retrieves. Several times.")
    ] = None,
    search: Annotated[
        list[str] | None, typer.Option(help="Show what captions with all these words retrieve.")
    ] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    dataset: RunDataset = None,
    as_json: AsJson = False,
) -> None:
    """Why queries fail: difficulty, tags with evidence, missing labels, hubs; recall on each tag's queries.

    With --query or --search: only what those queries retrieve, as JSON.
    """
    import json

    from tiir.analysis.counterfactual import rescore_typos
    from tiir.analysis.diagnose import diagnose
    from tiir.analysis.queries import galleries_of, query_table
    from tiir.analysis.study import chosen
    from tiir.analysis.study import samples as draw
    from tiir.analysis.tables import write_table
    from tiir.io import write_json
    from tiir.report.analysis import diagnosis_tables, difficulty_table, setting
    from tiir.scoring.run import Run

    if (query or search) and out is not None:
        raise ConfigError(
            "--query and --search write no tables", hint="leave --out out; the JSON is on stdout"
        )
    loaded = Run.load(run)
    data = loaded.load_dataset(dataset)
    galleries = galleries_of(data, protocol, keys=keys, captions_per_image=captions_per_image)
    if query or search:
        found = chosen(loaded, data, galleries, ids=query or (), search=search or (), depth=depth)
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    names = ["queries", "tags", "slices", "recall", "suspects", "typos", "concreteness", "hubs"]
    names += ["rescored"] if rescore else []
    if out is not None:
        for name in (*(f"{name}.{format}" for name in names), "samples.json"):
            check_file(out / name, overwrite=overwrite)
    encoder: Any = None
    if rescore:  # before the long work
        from tiir import models

        made_by: Any = loaded.info
        revision = made_by.revision if rescore == made_by.model else None
        encoder = models.load(rescore, device=device, precision=made_by.precision, revision=revision)
        if not hasattr(encoder, "encode_captions"):
            raise ConfigError(
                f"--rescore {rescore} has no text side of its own", hint="name a CLIP-type model"
            )
    table = query_table(
        loaded, data, galleries, depth=depth, hard_after=hard_after, easy_within=easy_within, empty=empty
    )
    made = diagnose(
        loaded,
        data,
        galleries,
        table=table,
        text_vectors=_text_vectors(text_encoder, loaded, data, device),
        suspicion=suspicion,
        resamples=resamples,
        seed=seed,
    )
    tables = {
        name: getattr(made, "table" if name == "queries" else name) for name in names if name != "rescored"
    }
    if rescore:
        tables["rescored"] = rescore_typos(loaded, data, galleries, encoder.encode_captions)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            write_table(frame, out / f"{name}.{format}", overwrite=overwrite)
        write_json(out / "samples.json", draw(table, data, number=samples, seed=seed))
    where = setting(data, protocol, galleries, captions_per_image=captions_per_image, subset=keys is not None)
    if as_json:
        summary = _summary(loaded.name, where, made, tables.get("rescored"))
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    show(f"{loaded.name}: {where}\n")
    show(difficulty_table(table), *diagnosis_tables(made, k=max(made.recall["k"])))
    if resamples:
        show(
            f"95%: bootstrap of the images, {resamples:,} resamples (seed {seed}); not corrected for the number of tags"
        )
    show("A suspected positive is a guess from what people wrote about the image: look before you count it.")
    if rescore:
        show(_rescored(tables["rescored"]))
    for text in made.notes:
        note(f"note: {text}")
    if out is not None:
        show(f"-> {out}: {', '.join(f'{name}.{format}' for name in tables)}, samples.json")


def _text_vectors(name: str | None, run: Any, data: Any, device: str) -> Any:
    if name is None:
        return None
    if name == "run":
        if run.text_embeds is None:
            raise ConfigError(f"{run.name} holds scores, no text vectors", hint="name a sentence encoder")
        return run.text_embeds
    from tiir.models.sentence import SentenceEncoder

    return SentenceEncoder(name, device=device).encode(data.captions)


def _rescored(table: Any) -> str:
    if not len(table):
        return "No caption with a typo was found to score again."
    before, after = 100 * (table["rank"] <= 10).mean(), 100 * (table["corrected_rank"] <= 10).mean()
    better, worse = (table["gain"] > 0).sum(), (table["gain"] < 0).sum()
    return (
        f"Typos corrected and scored again: R@10 of {several(len(table), 'query', 'queries')} goes from {before:.1f} to {after:.1f}; "
        f"{better:,} rank better, {worse:,} worse."
    )


def _summary(name: str, where: str, made: Any, rescored: Any) -> dict[str, Any]:
    def records(frame: Any) -> list[dict[str, Any]]:
        values = frame.astype(object)
        return list(values.where(values.notna(), None).to_dict("records"))

    counts = made.table.groupby(["direction", "difficulty"]).size()
    summary = {
        "run": name,
        "protocol": where,
        "difficulty": {f"{side} {word}": int(n) for (side, word), n in counts.items()},
        "recall": records(made.recall),
        "slices": records(made.slices),
        "hub_skew": made.skew,
        "notes": made.notes,
    }
    return summary if rescored is None else summary | {"rescored": records(rescored)}


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Two or more Run directories.", show_default=False)],
    protocol: Protocol = None,
    keys: Keys = None,
    captions_per_image: FirstCaptions = None,
    depth: Depth = 10,
    hard_after: HardAfter = 10,
    empty: WithoutPositive = "error",
    first: Annotated[int, typer.Option(min=0, help="How many of the most separating queries to print.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File for the queries: .parquet, .jsonl or .csv.", show_default=False
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of the images.")] = 20_000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    dataset: RunDataset = None,
    as_json: AsJson = False,
) -> None:
    """Who wins which queries, by how much, and whether it could be chance: pair by pair, both ways."""
    import json

    from tiir.analysis.compare import compare
    from tiir.analysis.queries import galleries_of
    from tiir.analysis.tables import check_table, write_table
    from tiir.report.analysis import comparison_tables, setting
    from tiir.scoring.run import Run

    if out is not None:
        check_table(out, overwrite=overwrite)
    loaded = [Run.load(path) for path in runs]
    data = loaded[0].load_dataset(dataset)
    for other in loaded[1:]:
        other.check(data)
    by_path = len({run.name for run in loaded}) < len(runs)
    galleries = galleries_of(data, protocol, keys=keys, captions_per_image=captions_per_image)
    where = setting(data, protocol, galleries, captions_per_image=captions_per_image, subset=keys is not None)
    made = compare(
        loaded,
        data,
        galleries,
        names=[str(path) if by_path else run.name for path, run in zip(runs, loaded, strict=True)],
        depth=depth,
        hard_after=hard_after,
        empty=empty,
        resamples=resamples,
        seed=seed,
    )
    if out is not None:
        write_table(made.queries, out, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"protocol": where} | made.to_dict(), indent=2, ensure_ascii=False))
        return
    show(f"{where}\n")
    show(*comparison_tables(made))
    show("'study': in the top 10 and at least 10 places better (the original study's rule)\n")
    show(*made.sentences())
    show(
        f"\np: two-sided, {resamples:,} bootstrap resamples of the images (seed {seed}), Holm's correction over "
        f"{len(made.tests)} tests; intervals are not corrected"
    )
    if first:
        show("", f"The {first} queries that separate them most (rank of {', '.join(made.runs)}):")
        for row in made.queries.head(first).to_dict("records"):
            ranks = " ".join(f"{row[f'rank_{name}']:>6,}" for name in made.runs)
            show(f"  {row['direction']} {ranks}  {row['query']}  {row['text']}")
    if out is not None:
        show(f"-> {out}")
