"""`tiir prepare`: from photos and captions to a data set directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tiir.cli.options import (
    Bad,
    FirstCaptions,
    Images,
    Out,
    Overwrite,
    Split,
    folder_of,
    save_dataset,
)

__all__ = ["prepare_app"]

prepare_app = typer.Typer(help="Make a data set directory from photos and captions.", no_args_is_help=True)


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
    from tiir.data.dataset_files import check_dataset_out
    from tiir.data.sources.karpathy import prepare

    check_dataset_out(out, overwrite=overwrite)
    data = prepare(json_file, split=split, images=folder_of(images), on_bad=on_bad)
    save_dataset(data, out, overwrite, captions_per_image)


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
    from tiir.data.dataset_files import check_dataset_out
    from tiir.data.sources.oscar import prepare

    check_dataset_out(out, overwrite=overwrite)
    data = prepare(folder, split=split, images=folder_of(images), keys=keys, on_bad=on_bad)
    save_dataset(data, out, overwrite, captions_per_image)


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
    from tiir.data.dataset_files import check_dataset_out
    from tiir.data.sources.flickr8k import prepare

    check_dataset_out(out, overwrite=overwrite)
    save_dataset(prepare(folder, split=split, images=folder_of(images), on_bad=on_bad), out, overwrite)


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
    from tiir.data.dataset_files import check_dataset_out
    from tiir.data.sources.folder import prepare

    check_dataset_out(out, overwrite=overwrite)
    where = folder if images is None else folder_of(images)
    data = prepare(folder, split=split, images=where, captions=captions, encoding=encoding, on_bad=on_bad)
    save_dataset(data, out, overwrite)


@prepare_app.command("scenes")
def prepare_scenes(
    out: Out,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which split.")] = "test",
    n: Annotated[int | None, typer.Option(help="Number of pictures; 1,000 for test by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures and captions.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Drawn pictures with five captions each, some with a known fault: demo data that needs no download."""
    from tiir.data.dataset_files import check_dataset_out
    from tiir.data.sources.scenes import prepare

    check_dataset_out(out, overwrite=overwrite)
    save_dataset(prepare(out, split=split, n=n, seed=seed), out, overwrite)
