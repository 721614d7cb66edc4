"""`tiir features`: region features of images, for LXMERT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tiir.cli.extract import DType, Resume, StoreOut, extract_command
from tiir.cli.options import AsJson, Overwrite, note, show
from tiir.errors import ConfigError, several
from tiir.out import check_file

__all__ = ["features_app"]

features_app = typer.Typer(
    help="Region features of images, for LXMERT: make them, or convert those of other programs.\n\n"
    "A feature store is one HDF5 file: for each image R regions (a vector and a box each), checksums, and where "
    "they come from.",
    no_args_is_help=True,
)

Kind = Literal["h5", "npz", "tsv"]
Colour = Literal["rgb", "bgr"]

Store = Annotated[Path, typer.Argument(help="A feature store (.h5).", show_default=False)]

features_app.command("extract")(extract_command)


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
    show(f"{several(len(labels), 'region')} of {image_id} -> {out}")
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
    check_file(out, overwrite=resume or overwrite)
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
        note(
            f"note: {len(store):,} of the source's {several(there, 'image')}; ids are {store.info.notes['ids']}"
        )


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
            f"damaged: {len(problems):,} of {several(len(features), 'image')}; make the store again, or copy it again"
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
