"""`tiir features extract`: region features of the images of a data set, by a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiir.cli.options import Address, DatasetDir, EngineName, OnBad, Overwrite, Workers, note, show
from tiir.errors import ConfigError, several
from tiir.out import check_file

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["DType", "Resume", "StoreOut", "extract_command"]

DType = Literal["float16", "float32"]

_MODEL = {"device", "revision", "batch_size"}
_DETECTOR = {*_MODEL, "boxes", "keep_detections", "on_bad"}
_OPTIONS = {  # what each extractor takes
    "frcnn": {*_DETECTOR, "names"},
    "detr": _DETECTOR,
    "grid": {*_MODEL, "cells", "size"},
    "scenes": {"noise"},
}

StoreOut = Annotated[
    Path, typer.Option("--out", "-o", help="The feature store to write, a .h5 file.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue after a kill with what is missing.")]


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
    check_file(out, overwrite=resume or overwrite)
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
    from tiir.features.plan import begun_commit
    from tiir.models import load_detector
    from tiir.models.backbone import VisionBackbone
    from tiir.scoring.engines import open_engine

    with open_engine(engine, workers=workers, address=address) as crew:
        if resume and revision is None:
            of_model["revision"] = begun_commit(out, extractor)
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
        note(
            f"note: left out: {several(len(store.info.skipped), 'image')}; `tiir features info {out}` says why"
        )
