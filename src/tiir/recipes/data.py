"""The data of a recipe: COCO from the web, drawn Scenes, Flickr8k as the user copied it, or a directory of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiir.data.coco import WebFile, download
from tiir.data.dataset import Dataset
from tiir.data.sources.scenes import SIZES
from tiir.errors import ConfigError, DataError
from tiir.io import read_ids
from tiir.recipes.made import with_check
from tiir.recipes.place import Place
from tiir.recipes.recipe import SOURCES, Recipe
from tiir.setup import IMAGES, Step, check_source, coco_steps, valid_dataset

__all__ = ["Sources", "data_steps", "keys_of", "size_of"]

KEYS = "test_img_keys_1k.tsv"
FLICKR8K = {"train": 6000, "val": 1000, "test": 1000}
Sources = Mapping[str, tuple[WebFile, ...]]


def size_of(recipe: Recipe, split: str, where: Path) -> int:
    """Images of a split, `where` it lies or will lie."""
    if recipe.data == "coco":
        return IMAGES[split]
    if recipe.data == "scenes":
        return recipe.images.get(split, SIZES[split])  # type: ignore[call-overload, no-any-return]
    return FLICKR8K[split] if recipe.data == "flickr8k" else Dataset.load(where).n_images


def data_steps(recipe: Recipe, to: Path, sources: Sources, how: Mapping[str, Any]) -> list[Step]:
    """What it takes to have the data sets of a recipe.

    Args:
        recipe, to, sources, how: see `tiir.recipes.run_recipe`.

    Raises:
        DataError: a directory of the user's is no data set.
    """
    place, keys = Place(recipe, to), []
    if "coco-1k-subset" in recipe.protocols:
        keys = [_keys_step(to, sources, how)]  # first, because its address is the least sure
    if recipe.data == "coco":
        return keys + coco_steps(to / "coco", "clip", splits=recipe.splits, sources=sources, how=how)
    if recipe.data in SOURCES:
        return [_prepare_step(recipe, place.data(split), split, to) for split in recipe.splits]
    own = {split: Dataset.load(place.data(split)) for split in recipe.splits}
    return keys if own["test"].n_images != 1000 else []


def _keys_file(to: Path) -> Path:
    return to / "coco" / "coco_ir" / KEYS


def keys_of(protocol: str, data: Dataset, to: Path) -> Path | None:
    """The list of images that a protocol takes of a data set, if any."""
    return _keys_file(to) if protocol == "coco-1k-subset" and data.n_images != 1000 else None


def _keys_step(to: Path, sources: Sources, how: Mapping[str, Any]) -> Step:
    path = _keys_file(to)
    wanted = tuple(file for file in sources["oscar"] if file.name == KEYS)

    def valid() -> bool:
        n = len({line.split("\t")[0].strip() for line in read_ids(path)})
        if n != 1000:
            hint = "copy the study's list to it, or delete it"
            raise DataError(f"{path} names {n:,} images, not 1,000", hint=hint)
        return True

    def run() -> None:
        if path.is_file():
            valid()
        try:
            download(to / "coco", ["keys"], {"keys": wanted}, **how)
        except DataError as problem:
            raise DataError(
                f"{problem.message}\nThe list of the 1,000 images of coco-1k-subset is missing",
                hint=f"copy it to {path} (an image id a line), or take coco-1k-subset out of the recipe",
            ) from problem
        if not path.is_file():
            raise ConfigError(f"--sources name no {KEYS} in the part oscar", hint=f"copy it to {path}")
        valid()

    return with_check("download the list of 1,000 images", valid, run)


def _prepare_step(recipe: Recipe, out: Path, split: Any, to: Path) -> Step:
    n = size_of(recipe, split, out)
    check_source(out, recipe.data)

    def run() -> None:
        check_source(out, recipe.data)
        if recipe.data == "scenes":
            from tiir.data.sources import scenes

            data = scenes.prepare(out, split=split, n=n)
        else:
            from tiir.data.sources import flickr8k

            folder = to / "flickr8k"
            if not folder.is_dir():
                raise DataError(
                    f"{folder} is not there",
                    hint="copy the distribution to it: its text files, and its photos in Images/",
                )
            data = flickr8k.prepare(folder, split=split, images=folder / "Images")
        data.save(out, overwrite=True)

    def check() -> bool:
        return valid_dataset(out, recipe.data) is not None

    return with_check(f"prepare {recipe.data} {split}", check, run)
