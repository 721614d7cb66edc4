"""Options that several verbs share, and how they talk to the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiir.errors import ConfigError

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset

__all__ = [
    "Address",
    "AsJson",
    "Bad",
    "DatasetDir",
    "Device",
    "Empty",
    "EngineName",
    "Features",
    "FirstCaptions",
    "Format",
    "Images",
    "Keys",
    "Memory",
    "ModelPrecision",
    "OnBad",
    "Out",
    "Overwrite",
    "Precision",
    "Protocol",
    "Resamples",
    "Resume",
    "Revision",
    "RunDataset",
    "Split",
    "Ties",
    "WithoutPositive",
    "Workers",
    "folder_of",
    "memory_of",
    "note",
    "save_dataset",
    "show",
]

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
Protocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        "-p",
        help="coco-5k, coco-1k-5fold, coco-1k-subset, cxc, eccv, flickr8k or own; by the data set if not given.",
    ),
]
Keys = Annotated[Path | None, typer.Option(help="Image keys of coco-1k-subset.")]
WithoutPositive = Annotated[Empty, typer.Option(help="Queries without a positive.")]
Resamples = Annotated[int, typer.Option(min=0, help="Bootstrap resamples of the images; 0 for no intervals.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Features = Annotated[
    Path | None, typer.Option(help="Region features of the images, for LXMERT.", show_default=False)
]
Memory = Annotated[
    str, typer.Option(help="What the LXMERT may take besides its weights, such as 500MB or 2GB.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
ModelPrecision = Annotated[Precision, typer.Option(help="auto is float32: the number before the speed.")]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub model.")]
EngineName = Annotated[
    Literal["local", "torchrun", "ray"] | None,
    typer.Option(
        "--engine",
        help="Where the work is done: local (this machine), torchrun (the processes it started), ray (a cluster; needs "
        "tiir\\[ray]). The same bytes everywhere.",
        show_default="torchrun if it started tiir, else local",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="local: processes on the CPU; ray: tasks at a time.",
        show_default="1; ray: all cores or GPUs",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="ray: of a running cluster, such as auto or HOST:6379.",
        show_default="a new one on this machine",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a killed run; ends with the same bytes.")]


def show(*parts: Any) -> None:
    """Print text as it is, and rich tables, on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part, soft_wrap=False)


def note(text: str) -> None:
    """Print text on stderr, beside the results."""
    typer.echo(text, err=True)


def folder_of(images: str) -> Path | None:
    """The image folder that --images names, None for "none"."""
    return None if images.lower() == "none" else Path(images)


def save_dataset(dataset: Dataset, out: Path, overwrite: bool, captions_per_image: int | None = None) -> None:
    """Write a data set and say what it holds and what was left out."""
    if captions_per_image is not None:
        dataset = dataset.first_captions(captions_per_image)
    dataset.save(out, overwrite=overwrite)
    show(f"{dataset!r} -> {out}")
    if dataset.skipped:
        from tiir.data.problems import Problems

        show(f"left out, listed in {out / 'skipped.parquet'}:", str(Problems(dataset.skipped)))
    show(f"next: tiir score MODEL {out} --out RUN")


def memory_of(text: str) -> int:
    """Bytes of a size such as "2GB" or "500 MB" (powers of 1,024).

    Raises:
        ConfigError: it is no size.

    Example:
        >>> memory_of("2GB"), memory_of("0.5 MB")
        (2147483648, 524288)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = 0 if found is None else int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))
    if size < 1:
        raise ConfigError(f"--memory {text} is not a size", hint="such as 500MB or 2GB")
    return size
