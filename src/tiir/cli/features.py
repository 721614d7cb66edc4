"""`tiir features`: region features of images, for LXMERT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiir.cli.options import (
    Address,
    AsJson,
    DatasetDir,
    EngineName,
    OnBad,
    Overwrite,
    Workers,
    note,
    show,
)
from tiir.errors import ConfigError

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

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

_MODEL = {"device", "revision", "batch_size"}
_DETECTOR = {*_MODEL, "boxes", "keep_detections", "on_bad"}
_OPTIONS = {  # what each extractor takes
    "frcnn": {*_DETECTOR, "names"},
    "detr": _DETECTOR,
    "grid": {*_MODEL, "cells", "size"},
    "scenes": {"noise"},
}

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
            help="frcnn:MODEL (bottom-up attention, LXMERT's own: unc-nlp/frcnn-vg-finetuned or a directory), detr:MODEL "
            "(any transformers object detector), grid:MODEL (a vision backbone: ResNet, ConvNeXt, ViT, DINOv2, Swin, CLIP), "
            "or scenes (what Scenes has drawn, with noise; no model).",
            show_default=False,
        ),
    ],
    out: StoreOut,
    boxes: Annotated[
        int | None, typer.Option(min=1, help="frcnn, detr: regions an image.", show_default="36")
    ] = None,
    keep_detections: Annotated[
        bool,
        typer.Option("--keep-detections", help="frcnn, detr: store object and attribute ids and scores too."),
    ] = False,
    names: Annotated[
        Path | None,
        typer.Option(
            help="frcnn: folder of objects_vocab.txt and attributes_vocab.txt, the names of the classes; by default "
            "the model's own."
        ),
    ] = None,
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
        str | None, typer.Option(help="All but scenes: auto, cpu, cuda, cuda:1, mps.", show_default="auto")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="All but scenes: commit, tag or branch of a hub model.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="All but scenes: pictures a forward pass.", show_default="32; frcnn, detr: 8"
        ),
    ] = None,
    on_bad: Annotated[
        OnBad | None,
        typer.Option(
            help="frcnn, detr: pictures that cannot be read never stop the others; in the end they are an error, or "
            "the store goes without them and records why.",
            show_default="error",
        ),
    ] = None,
    engine: EngineName = None,
    workers: Workers = None,
    address: Address = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Make region features of every image of a data set.

    \b
    frcnn:MODEL  what LXMERT was trained on: 36 regions of the Visual Genome Faster R-CNN
    detr:MODEL   the best boxes of a maintained detector, and its decoder's states
    grid:MODEL   cells of a backbone's last feature map, the whole picture resized to a square; fast, no detector

    Example: tiir features extract data/flickr8k-test -e frcnn:unc-nlp/frcnn-vg-finetuned --out test.h5
    """
    _check_out(out, resume or overwrite)
    what, _, model = extractor.partition(":")
    if what not in _OPTIONS or (what == "scenes") == bool(model):
        raise ConfigError(
            f"no extractor {extractor!r}", hint="frcnn:MODEL, detr:MODEL, grid:MODEL, or scenes"
        )
    every: dict[str, Any] = {
        "boxes": boxes, "keep_detections": keep_detections or None, "names": names, "cells": cells, "size": size,
        "noise": noise, "device": device, "revision": revision, "batch_size": batch_size, "on_bad": on_bad,
    }  # fmt: skip
    given = {option: value for option, value in every.items() if value is not None}
    for option in given:
        if option not in _OPTIONS[what]:
            raise ConfigError(
                f"--{option.replace('_', '-')} does nothing with --extractor {what}", hint="leave it out"
            )
    from tiir.data.dataset import Dataset

    data = Dataset.load(dataset)
    of_model: dict[str, Any] = {key: given.pop(key) for key in ("revision", "names", "size") if key in given}
    files: dict[str, Any] = {"dtype": dtype, "resume": resume, "overwrite": overwrite}
    if what == "scenes":
        from tiir.features.scenes import scenes_features
        from tiir.scoring.engines.torchrun import started_by_torchrun

        if engine or workers or address or started_by_torchrun():
            raise ConfigError(
                "--extractor scenes takes seconds, in one process",
                hint="leave torchrun, --engine, --workers and --address out",
            )
        _made(scenes_features(data, out, **given, **files), out)
        return
    from tiir.features.detected import detected_features
    from tiir.features.grid import grid_features
    from tiir.models import load_detector
    from tiir.models.backbone import VisionBackbone
    from tiir.scoring.engines import open_engine

    with open_engine(engine, workers=workers, address=address) as crew:
        of_model["device"], files["engine"] = crew.place(given.pop("device", "auto")), crew
        if what == "grid":
            store = grid_features(VisionBackbone(model, **of_model), data, out, **given, **files)
        else:
            detector = load_detector(extractor, **of_model)
            store = detected_features(detector, data, out, dataset_path=dataset, **given, **files)
        if crew.first:
            _made(store, out)


def _made(store: FeatureStore, out: Path) -> None:
    show(f"{store!r} -> {out}")
    if store.info.skipped:
        note(f"note: {len(store.info.skipped):,} images were left out; `tiir features info {out}` says why")


@features_app.command("show")
def show_command(
    store: Store,
    image_id: Annotated[str, typer.Argument(help="The image's id.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG file to write.", show_default=False)],
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Where the photos' data set lies; by default where it lay at the extraction.",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only the best so many.", show_default="all")] = None,
) -> None:
    """Draw the regions of an image on its photo, with their names where --keep-detections stored them."""
    from tiir.data.dataset import Dataset
    from tiir.features import FeatureStore
    from tiir.io import atomic_write
    from tiir.report.boxes import box_labels, draw_boxes

    features = FeatureStore.open(store)
    where = dataset or (Path(features.info.dataset_path) if features.info.dataset_path else None)
    if where is None or not where.is_dir():
        raise ConfigError(
            f"{store} says of its photos: {features.info.dataset_path or 'nothing'}"
            + (", which is not there now" if features.info.dataset_path else ""),
            hint="say where the data set lies: --dataset DIR",
        )
    data = Dataset.load(where)
    row = int(features.rows([image_id])[0])
    if image_id not in data.image_position:
        raise ConfigError(
            f"{where} has no image {image_id!r}", hint="give the data set it is of: --dataset DIR"
        )
    one = data.subset([data.image_position[image_id]])
    features.check(one)
    labels = box_labels(features, row)[:top]
    drawn = draw_boxes(one.prepared_image(0), features.boxes[row][:top], labels)
    with atomic_write(out) as temporary:
        drawn.save(temporary, format="PNG")
    show(f"{len(labels)} regions of {image_id} -> {out}")
    for label in labels:
        show(f"  {label}")


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

    import numpy as np

    from tiir.features import FeatureStore

    features = FeatureStore.open(store)
    facts: dict[str, Any] = {
        "images": len(features),
        "regions": features.n_regions,
        "width": features.width,
        "dtype": features.dtype,
        "bytes": store.stat().st_size,
        "fingerprint": features.fingerprint,
        "first_image_ids": list(features.image_ids[:3]),
        "columns": sorted(features.columns),
        **features.info.model_dump(),
        "names": {kind: len(names) for kind, names in features.info.names.items()},
    }
    if "nms_threshold" in features.columns:
        used, counts = np.unique(features.columns["nms_threshold"], return_counts=True)
        facts["nms_thresholds"] = {f"{value:.2f}": int(n) for value, n in zip(used, counts, strict=True)}
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
