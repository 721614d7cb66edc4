"""`tiir features`: region features of images, for LXMERT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tiir.cli.options import AsJson, DatasetDir, Overwrite, note, show
from tiir.errors import ConfigError

__all__ = ["features_app"]

features_app = typer.Typer(
    help="Region features of images, for LXMERT: make them, or convert those of other programs.\n\n"
    "A feature store is one HDF5 file: for each image R regions (a vector and a box each), checksums, and where "
    "they come from.",
    no_args_is_help=True,
)

DType = Literal["float16", "float32"]
Kind = Literal["h5", "npz", "tsv"]
Colour = Literal["rgb", "bgr"]

Store = Annotated[Path, typer.Argument(help="A feature store (.h5).", show_default=False)]
StoreOut = Annotated[
    Path, typer.Option("--out", "-o", help="The feature store to write, a .h5 file.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue after a kill with what is missing.")]


@features_app.command("extract")
def extract_command(
    dataset: DatasetDir,
    extractor: Annotated[
        str,
        typer.Option(
            "--extractor",
            "-e",
            help="grid:MODEL (hub id or directory of a vision backbone: ResNet, ConvNeXt, ViT, DINOv2, Swin, CLIP), or "
            "scenes (what Scenes has drawn, with noise; no model).",
            show_default=False,
        ),
    ],
    out: StoreOut,
    cells: Annotated[
        int | None, typer.Option(min=1, help="grid: cells a side; 6 gives 36 regions.", show_default="6")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=16, help="grid: pixels a side of the model's input; by default its processor's own."
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            min=0, help="scenes: standard deviation of the noise on the features.", show_default="0.2"
        ),
    ] = None,
    dtype: Annotated[
        DType,
        typer.Option(help="float16 halves the file and keeps three digits: enough for features made here."),
    ] = "float16",
    device: Annotated[
        str | None, typer.Option(help="grid: auto, cpu, cuda, cuda:1, mps.", show_default="auto")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="grid: commit, tag or branch of a hub model.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="grid: pictures a forward pass.", show_default="32")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Make region features of every image of a data set.

    `grid:MODEL` cuts the last feature map of a vision backbone into cells, so no detector is needed: the whole
    picture is resized to a square (no crop), each cell is one region and its box.

    Example: tiir features extract data/flickr8k-test --extractor grid:microsoft/resnet-50 --out resnet50.h5
    """
    _check_out(out, resume or overwrite)
    what, _, model = extractor.partition(":")
    if what not in ("grid", "scenes") or (what == "grid") != bool(model):
        raise ConfigError(f"no extractor {extractor!r}", hint="grid:MODEL, or scenes")
    of_grid = {"--cells": cells, "--size": size, "--device": device, "--revision": revision,
               "--batch-size": batch_size}  # fmt: skip
    for option, value in ({"--noise": noise} if what == "grid" else of_grid).items():
        if value is not None:
            raise ConfigError(f"{option} does nothing with --extractor {what}", hint="leave it out")
    from tiir.data.dataset import Dataset

    data = Dataset.load(dataset)
    if what == "scenes":
        from tiir.features.scenes import scenes_features

        store = scenes_features(
            data,
            out,
            noise=0.2 if noise is None else noise,
            dtype=dtype,
            resume=resume,
            overwrite=overwrite,
        )
    else:
        from tiir.features.grid import grid_features
        from tiir.models.backbone import VisionBackbone

        backbone = VisionBackbone(model, device=device or "auto", size=size, revision=revision)
        store = grid_features(
            backbone,
            data,
            out,
            cells=cells or 6,
            dtype=dtype,
            batch_size=batch_size or 32,
            resume=resume,
            overwrite=overwrite,
        )
    show(f"{store!r} -> {out}")


@features_app.command("convert")
def convert_command(
    source: Annotated[
        Path, typer.Argument(help="HDF5 of per-image groups, folder of .npz, or TSV.", show_default=False)
    ],
    out: StoreOut,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Keep the images of this data set, in its order and under its ids: "
            "COCO_val2014_000000391895 is found as 391895. By default all images, under the source's ids.",
        ),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="What SOURCE is; found out by itself.")] = None,
    extractor: Annotated[
        str | None, typer.Option(help="What made the features, for the record, such as frcnn-vg.")
    ] = None,
    colour: Annotated[
        Colour | None,
        typer.Option(help="Channel order that the extractor was given, for the record."),
    ] = None,
    dtype: Annotated[
        DType,
        typer.Option(
            help="float32 keeps the source's numbers as they are; float16 halves the file, keeps three digits."
        ),
    ] = "float32",
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert region features of another program.

    \b
    h5   a group for each image id: visual_feats (R, D), visual_pos (R, 4) in [0, 1]
    npz  a folder of ID.npz with the same two arrays
    tsv  bottom-up-attention's lines; boxes in pixels are divided by the picture's size

    Example: tiir features convert train2014_obj36.tsv --dataset data/coco-train --out train.h5
    """
    _check_out(out, resume or overwrite)
    from tiir.data.dataset import Dataset
    from tiir.features.readers import convert

    data = None if dataset is None else Dataset.load(dataset)
    store = convert(
        source,
        out,
        kind=kind,
        dataset=data,
        extractor=extractor,
        colour=colour,
        dtype=dtype,
        resume=resume,
        overwrite=overwrite,
    )
    show(f"{store!r} -> {out}")
    if data is not None:
        there = store.info.notes["images_in_source"]
        note(f"note: {len(store):,} of the source's {there:,} images; ids are {store.info.notes['ids']}")


@features_app.command("verify")
def verify_command(
    store: Store,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Also check that it has every image of this data set, of the same pictures.",
        ),
    ] = None,
) -> None:
    """Read everything and compare it with its checksums; exit code 1 where an image is damaged or missing."""
    from tiir.features import FeatureStore

    features = FeatureStore.open(store)
    problems = features.verify()
    for problem in problems[:20]:
        show(problem)
    if problems:
        show(
            f"{len(problems):,} of {len(features):,} images are damaged: make the store again, or copy it again"
        )
        raise typer.Exit(1)
    if dataset is not None:
        from tiir.data.dataset import Dataset

        data = Dataset.load(dataset)
        if unknown := data.n_images - features.check(data):
            note(
                f"note: {unknown:,} of {data.n_images:,} pictures could not be compared: the store or the data set "
                "has no hash of them"
            )
    show(f"{features!r}: every image matches its checksum")


@features_app.command("info")
def info_command(store: Store, as_json: AsJson = False) -> None:
    """Say what a feature store holds and where it comes from."""
    import json

    from tiir.features import FeatureStore

    features = FeatureStore.open(store)
    facts = {
        "images": len(features),
        "regions": features.n_regions,
        "width": features.width,
        "dtype": features.dtype,
        "bytes": store.stat().st_size,
        "fingerprint": features.fingerprint,
        "first_image_ids": list(features.image_ids[:3]),
        **features.info.model_dump(),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        show(f"{key:<20} {text}")


def _check_out(out: Path, replaces: bool) -> None:
    # Said before the long work, not after it.
    if out.is_dir():
        raise ConfigError(f"--out {out} is a directory", hint="name a file, such as features.h5")
    if out.exists() and not replaces:
        raise ConfigError(f"{out} already exists", hint="choose another --out, or --overwrite")
