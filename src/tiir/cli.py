"""The command line: one thin function per verb; the work is done in the packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiir import __version__
from tiir.errors import ConfigError, TiirError

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset
    from tiir.scoring.run import Run

__all__ = ["app", "main"]

app = typer.Typer(
    help="Text-image retrieval: recall you can trust, and the reasons behind it.\n\n"
    "prepare a data set -> score it with a model (or import scores) -> evaluate.  Try: tiir demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prepare_app = typer.Typer(help="Make a data set directory from photos and captions.", no_args_is_help=True)
train_app = typer.Typer(help="Fine-tune a model, or train a small one.", no_args_is_help=True)
import_app = typer.Typer(help="Make a Run of embeddings or scores from elsewhere.", no_args_is_help=True)
app.add_typer(prepare_app, name="prepare")
app.add_typer(train_app, name="train")
app.add_typer(import_app, name="import")


OnBad = Literal["error", "skip"]
Ties = Literal["pessimistic", "optimistic", "expected"]
Empty = Literal["error", "exclude"]
Format = Literal["trec", "npz", "csv", "parquet"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

Out = Annotated[Path, typer.Option("--out", "-o", help="Directory to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out already holds.")]
Bad = Annotated[OnBad, typer.Option(help="Bad records: stop with a report, or leave them out and record it.")]
Images = Annotated[
    str, typer.Option(help="Folder the images lie in, or 'none' for captions only.", show_default=False)
]
Split = Annotated[str, typer.Option(help="Which split.")]
DatasetDir = Annotated[Path, typer.Argument(help="Directory made by `tiir prepare`.", show_default=False)]
RunDataset = Annotated[
    Path | None,
    typer.Option("--dataset", "-d", help="Where the data set lies now, if it moved since the scoring."),
]
FirstCaptions = Annotated[
    int | None,
    typer.Option(
        "--captions-per-image", min=1, help="Keep the first captions of each image only (some tools: 5)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _print(*parts: Any) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part, soft_wrap=False)


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _folder(images: str) -> Path | None:
    return None if images.lower() == "none" else Path(images)


def _save(dataset: Dataset, out: Path, overwrite: bool, captions_per_image: int | None = None) -> None:
    if captions_per_image is not None:
        dataset = dataset.first_captions(captions_per_image)
    dataset.save(out, overwrite=overwrite)
    _print(f"{dataset!r} -> {out}")
    if dataset.skipped:
        from tiir.data.build import Problems

        _print(f"left out, listed in {out / 'skipped.parquet'}:", str(Problems(dataset.skipped)))


def _free(out: Path, overwrite: bool, holds: str = "dataset.json") -> None:
    # Said before the long work, not after it.
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", hint="name a directory")
    other = {"dataset.json": "run.json", "run.json": "dataset.json"}[holds]
    if (out / other).exists():
        raise ConfigError(f"{out} holds a {other.removesuffix('.json')}", hint="choose another --out")
    if not overwrite and (out / holds).exists():
        raise ConfigError(
            f"{out} already holds a {holds.removesuffix('.json')}",
            hint="choose another --out, or --overwrite",
        )


@prepare_app.command("karpathy")
def prepare_karpathy(
    json_file: Annotated[
        Path, typer.Argument(help="dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json.")
    ],
    images: Images,
    out: Out,
    split: Split = "test",
    captions_per_image: FirstCaptions = None,
    on_bad: Bad = "error",
    overwrite: Overwrite = False,
) -> None:
    """COCO, Flickr30k or Flickr8k by Karpathy's split. COCO images lie under train2014/ and val2014/."""
    from tiir.data.sources.karpathy import prepare

    _free(out, overwrite)
    data = prepare(json_file, split=split, images=_folder(images), on_bad=on_bad)
    _save(data, out, overwrite, captions_per_image)


@prepare_app.command("oscar")
def prepare_oscar(
    folder: Annotated[
        Path, typer.Argument(help="The coco_ir folder: {split}_captions.pt, {split}_img_keys.tsv.")
    ],
    images: Images,
    out: Out,
    split: Split = "test",
    keys: Annotated[
        Path | None, typer.Option(help="Keep these image keys only, such as test_img_keys_1k.tsv.")
    ] = None,
    captions_per_image: FirstCaptions = None,
    on_bad: Bad = "error",
    overwrite: Overwrite = False,
) -> None:
    """COCO as Oscar and the original LXMERT/CLIP study laid it out."""
    from tiir.data.sources.oscar import prepare

    _free(out, overwrite)
    data = prepare(folder, split=split, images=_folder(images), keys=keys, on_bad=on_bad)
    _save(data, out, overwrite, captions_per_image)


@prepare_app.command("flickr8k")
def prepare_flickr8k(
    folder: Annotated[
        Path, typer.Argument(help="Folder with Flickr8k.token.txt, the split lists and the judgements.")
    ],
    images: Images,
    out: Out,
    split: Split = "test",
    on_bad: Bad = "error",
    overwrite: Overwrite = False,
) -> None:
    """Flickr8k with its official split and people's judgements (train, val, test, all)."""
    from tiir.data.sources.flickr8k import prepare

    _free(out, overwrite)
    _save(prepare(folder, split=split, images=_folder(images), on_bad=on_bad), out, overwrite)


@prepare_app.command("folder")
def prepare_folder(
    folder: Annotated[Path, typer.Argument(help="Your folder of images (sub-folders too).")],
    out: Out,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="CSV or .jsonl with an image and a caption column; captions.csv or .jsonl in the folder by default."
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="'none' for captions only, or another image folder.")
    ] = None,
    split: Annotated[str, typer.Option(help="Name of the split.")] = "test",
    encoding: Annotated[str, typer.Option(help="Text encoding of the captions file.")] = "utf-8",
    on_bad: Bad = "error",
    overwrite: Overwrite = False,
) -> None:
    """Your own photos: a folder of images and one file of captions."""
    from tiir.data.sources.folder import prepare

    _free(out, overwrite)
    where = folder if images is None else _folder(images)
    data = prepare(folder, split=split, images=where, captions=captions, encoding=encoding, on_bad=on_bad)
    _save(data, out, overwrite)


@prepare_app.command("scenes")
def prepare_scenes(
    out: Out,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which split.")] = "test",
    n: Annotated[int | None, typer.Option(help="Number of pictures; 1,000 for test by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures and captions.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Drawn pictures with five captions each, some with a known fault: demo data that needs no download."""
    from tiir.data.sources.scenes import prepare

    _free(out, overwrite)
    if (out / "images").is_dir() and any((out / "images").iterdir()) and not overwrite:
        raise ConfigError(f"{out / 'images'} is not empty", hint="choose another --out, or --overwrite")
    _save(prepare(out, split=split, n=n, seed=seed), out, overwrite)


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="Hub id or directory, such as openai/clip-vit-base-patch32.")],
    dataset: DatasetDir,
    out: Out,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is float32: the number before the speed.")
    ] = "auto",
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub model.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or captions a forward pass.")] = 64,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a killed run; ends with the same bytes.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Embed every image and every distinct caption once, and write a Run."""
    from tiir.data.dataset import Dataset
    from tiir.models import load
    from tiir.scoring.dense import score_dual

    _free(out, overwrite or resume, "run.json")
    data = Dataset.load(dataset)
    encoder = load(model, device=device, precision=precision, revision=revision)
    run = score_dual(encoder, data, dataset, out, batch_size=batch_size, resume=resume, overwrite=overwrite)
    _print(f"{run!r} -> {out}")
    if cut := run.info.notes["truncated_captions"]:
        _note(f"note: {cut:,} captions are longer than the model's {encoder.max_length} tokens and were cut")
    _print(f"next: tiir evaluate {out}")


@train_app.command("clip")
def train_clip_command(
    dataset: DatasetDir,
    config: Annotated[Path, typer.Option(help="YAML or JSON; see recipes/scenes-clip.yaml.")],
    out: Out,
    validation: Annotated[
        Path | None,
        typer.Option(help="Data set directory of the validation split; the best model is chosen on it."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
) -> None:
    """Fine-tune (or train a small) CLIP-type model with the contrastive loss."""
    from tiir.data.dataset import Dataset
    from tiir.train.config import read_config
    from tiir.train.trainer import train_clip

    settings = read_config(config)
    held_out = None if validation is None else Dataset.load(validation)
    path = train_clip(Dataset.load(dataset), settings, out=out, validation=held_out, resume=resume)
    _print(f"model -> {path}", f"next: tiir score {path} DATASET --out RUN")


@import_app.command("embeddings")
def import_embeddings_command(
    images: Annotated[Path, typer.Argument(help="IMAGES.npy, (n_images, d).")],
    captions: Annotated[Path, typer.Argument(help="CAPTIONS.npy, (n_captions, d).")],
    dataset: Annotated[Path, typer.Option("--dataset", "-d", help="Directory made by `tiir prepare`.")],
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
    overwrite: Overwrite = False,
) -> None:
    """Embeddings of any model; rows are joined to the data set by id."""
    _free(out, overwrite, "run.json")
    from tiir.data.dataset import Dataset
    from tiir.scoring.foreign import import_embeddings

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
        overwrite=overwrite,
    )
    _imported(run, out)


@import_app.command("scores")
def import_scores_command(
    scores: Annotated[
        Path, typer.Argument(help="MATRIX.npy (images x captions), or the original study's .npz.")
    ],
    dataset: Annotated[Path, typer.Option("--dataset", "-d", help="Directory made by `tiir prepare`.")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The matrix is captions x images.")] = False,
    image_ids: Annotated[Path | None, typer.Option(help="Id of each image row.")] = None,
    caption_ids: Annotated[Path | None, typer.Option(help="Id of each caption column.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """A score matrix of any model."""
    _free(out, overwrite, "run.json")
    from tiir.data.dataset import Dataset
    from tiir.scoring.foreign import import_scores

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
    _print(f"{run!r} -> {out}")
    for key, value in run.info.notes.items():
        _print(f"  {key}: {value}")
    _print(f"next: tiir evaluate {out}")


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, one row each.", show_default=False)],
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            "-p",
            help="coco-5k, coco-1k-5fold, coco-1k-subset, cxc, eccv, flickr8k or own; by the data set if not given.",
        ),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Image keys of coco-1k-subset.")] = None,
    captions_per_image: FirstCaptions = None,
    ties: Annotated[Ties, typer.Option(help="Who wins a tie.")] = "pessimistic",
    empty: Annotated[Empty, typer.Option(help="Queries without a positive.")] = "error",
    resamples: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples of the images; 0 for no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    dataset: RunDataset = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Recall@k both ways, ranks and 95% intervals, under a stated protocol."""
    import json
    from dataclasses import replace

    from tiir.metrics.evaluate import evaluate as run_evaluation
    from tiir.report.tables import evaluation_tables, markdown_table
    from tiir.scoring.run import Run

    evaluations = []
    for path in runs:
        run = Run.load(path)
        evaluations.append(
            run_evaluation(
                run,
                run.load_dataset(dataset),
                protocol,
                keys=keys,
                captions_per_image=captions_per_image,
                ties=ties,
                empty=empty,
                resamples=resamples,
                seed=seed,
            )
        )
    if len({e.run for e in evaluations}) < len(runs):  # a/run and b/run: told apart by their paths
        evaluations = [replace(e, run=str(path)) for e, path in zip(evaluations, runs, strict=True)]
    if as_json:
        typer.echo(json.dumps([e.to_dict() for e in evaluations], indent=2, ensure_ascii=False))
        return
    for group in _same_gallery(evaluations):
        if markdown:
            typer.echo(markdown_table(group))
        else:
            _print(*evaluation_tables(group))
    if resamples:
        place = "in brackets" if markdown else "below each value"
        _print(f"{place}: 95% interval, {resamples:,} bootstrap resamples of the images (seed {seed})")
    for e in evaluations:
        for warning in e.warnings:
            _note(f"warning: {e.run}: {warning}")


def _same_gallery(evaluations: Sequence[Any]) -> list[list[Any]]:
    # One table a protocol and data set: numbers of different galleries never stand in one column.
    from tiir.report.tables import title

    groups: dict[str, list[Any]] = {}
    for e in evaluations:
        groups.setdefault(title(e), []).append(e)
    return list(groups.values())


@app.command()
def export(
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
        _print(f"-> {path}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")] = Path("demo"),
    train: Annotated[
        bool, typer.Option("--train", help="Train the small CLIP again first (about 20 minutes on 2 cores).")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """The main job on drawn pictures, offline: prepare, score, evaluate, and look at what was retrieved."""
    from tiir.demo import run_demo
    from tiir.report.tables import evaluation_tables

    evaluation, sheet = run_demo(out, train=train, overwrite=overwrite, say=_note)
    _print(*evaluation_tables([evaluation]))
    _print(f"three hard and three easy queries, with what they retrieved: {sheet}")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"tiir {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake ends with one message and exit code 1 (2: of options), not a traceback."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its warnings are for its developers
    try:
        app(arguments, standalone_mode=True)
    except TiirError as problem:
        _note(f"error: {problem}")
        sys.exit(2 if isinstance(problem, ConfigError) else 1)
    except OSError as problem:  # no space, no permission, a file where a folder should be
        _note(f"error: {problem.strerror or problem}: {problem.filename or ''}")
        sys.exit(1)
