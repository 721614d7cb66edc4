"""`tiir import`: from embeddings or scores made elsewhere to a Run; the original study's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiir.cli.options import Out, Overwrite, show
from tiir.errors import several

if TYPE_CHECKING:
    from tiir.scoring.run import Run

__all__ = ["import_app"]

import_app = typer.Typer(
    help="Make a Run of embeddings or scores from elsewhere; read the original study's JSON.",
    no_args_is_help=True,
)


OfDataset = Annotated[Path, typer.Option("--dataset", "-d", help="Directory made by `tiir prepare`.")]


@import_app.command("embeddings")
def import_embeddings_command(
    images: Annotated[Path, typer.Argument(help="IMAGES.npy, (n_images, d), or a folder of shards.")],
    captions: Annotated[
        Path, typer.Argument(help="CAPTIONS.npy, (n_captions, d); shards are .npy, .safetensors or .parquet.")
    ],
    dataset: OfDataset,
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    image_ids: Annotated[
        Path | None, typer.Option(help="Id of each row; image_ids.txt beside the array by default.")
    ] = None,
    caption_ids: Annotated[
        Path | None, typer.Option(help="Id of each row; caption_ids.txt beside the array by default.")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Cosine instead of dot product.")] = False,
    allow_extra: Annotated[
        bool, typer.Option("--allow-extra", help="Ignore rows that are not in the data set.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Copy nothing: the Run names the files, which must stay.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Embeddings of any model; rows are joined to the data set by id."""
    from tiir.data.dataset import Dataset
    from tiir.scoring.foreign import import_embeddings
    from tiir.scoring.run import check_run_out

    check_run_out(out, overwrite=overwrite)
    run = import_embeddings(
        images,
        captions,
        Dataset.load(dataset),
        dataset,
        out,
        name=name or images.resolve().parent.name,
        image_ids=image_ids,
        caption_ids=caption_ids,
        normalize=normalize,
        allow_extra=allow_extra,
        in_place=in_place,
        overwrite=overwrite,
    )
    _imported(run, out)


@import_app.command("scores")
def import_scores_command(
    scores: Annotated[
        Path, typer.Argument(help="MATRIX.npy (images x captions), or the original study's .npz.")
    ],
    dataset: OfDataset,
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The matrix is captions x images.")] = False,
    image_ids: Annotated[Path | None, typer.Option(help="Id of each image row.")] = None,
    caption_ids: Annotated[Path | None, typer.Option(help="Id of each caption column.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """A score matrix of any model."""
    from tiir.data.dataset import Dataset
    from tiir.scoring.foreign import import_scores
    from tiir.scoring.run import check_run_out

    check_run_out(out, overwrite=overwrite)
    run = import_scores(
        scores,
        Dataset.load(dataset),
        dataset,
        out,
        name=name or scores.stem,
        transpose=transpose,
        image_ids=image_ids,
        caption_ids=caption_ids,
        overwrite=overwrite,
    )
    _imported(run, out)


def _imported(run: Run, out: Path) -> None:
    show(f"{run!r} -> {out}")
    for key, value in run.info.notes.items():
        show(f"  {key}: {value}")
    show(f"next: tiir evaluate {out}")


@import_app.command("study-json")
def import_study_command(
    files: Annotated[
        list[Path], typer.Argument(help="The study's JSON files, or samples.json of `tiir analyze`.")
    ],
    dataset: OfDataset,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for the entries: .jsonl or .parquet.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Read the original study's sampled queries, retrievals and comparisons, and find them in a data set."""
    import pandas as pd

    from tiir.analysis.study_files import read_study
    from tiir.analysis.tables import check_table, write_table
    from tiir.data.dataset import Dataset

    if out is not None:
        check_table(out, overwrite=overwrite)
    data, parts = Dataset.load(dataset), []
    for path in files:
        part = read_study(path, data)
        part.insert(0, "file", path.name)
        parts.append(part)
        for (side, kind), entries in part.groupby(["direction", "kind"]):
            told = (entries["images"].map(len) == 1).sum()
            hits = (
                "" if kind == "comparison" else f", {entries['positive'].sum()} with a positive in the list"
            )
            show(
                f"{path.name}: {side} {kind}: {several(len(entries), 'query', 'queries')}, {told} of one image{hits}"
            )
    if out is not None:
        write_table(pd.concat(parts, ignore_index=True), out, overwrite=overwrite)
        show(f"-> {out}")
