"""Protocols: which images and captions are in the gallery, which are queries, and which pairs are positives.

A recall without its protocol is not a number: "COCO 1K" alone has meant one subset, another subset, and the mean
of five folds. Every protocol here resolves a data set to galleries, by id, and refuses one that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.positives import Positives
from tiir.errors import MissingExtraError, ProtocolError, several
from tiir.io import load_npy, read_ids, read_json

__all__ = ["PROTOCOLS", "Gallery", "default_protocol", "describe", "resolve"]

IntArray = npt.NDArray[np.int64]

PROTOCOLS: Mapping[str, str] = {
    "coco-5k": "COCO Karpathy test; the positives of an image are its captions",
    "coco-1k-5fold": "COCO Karpathy test, mean of five consecutive thousands of images",
    "coco-1k-subset": "one list of 1,000 COCO images (not comparable with five folds)",
    "cxc": "COCO Karpathy test with the positives of Crisscrossed Captions",
    "eccv": "COCO Karpathy test with the positives of ECCV Caption",
    "flickr8k": "Flickr8k test; the positives of an image are its captions",
    "own": "the whole data set; the positives of an image are its captions",
}


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is ranked against what: positions in the data set, and the relevant pairs among them.

    Args:
        images: positions of the images in the data set, (n_images,).
        captions: positions of the captions, (n_captions,).
        i2t: pairs relevant to image queries, numbered within the gallery.
        t2i: pairs relevant to caption queries (the same object, except where people judged each way).
        image_queries: which of `images` are queries, numbered within the gallery.
        caption_queries: which of `captions` are queries.
    """

    images: IntArray
    captions: IntArray
    i2t: Positives
    t2i: Positives
    image_queries: IntArray
    caption_queries: IntArray

    def __repr__(self) -> str:
        return (
            f"Gallery({len(self.images):,} images x {len(self.captions):,} captions, "
            f"{len(self.image_queries):,} and {len(self.caption_queries):,} queries)"
        )


def default_protocol(dataset: Dataset) -> str:
    """The protocol that papers use for this data set, "own" where there is none.

    Example:
        >>> default_protocol(Dataset("pets", "test", ["a"], ["a0"], ["a cat"], np.array([0])))
        'own'
    """
    name, size = dataset.name.lower(), (dataset.n_images, dataset.split)
    if "coco" in name and size == (5000, "test"):
        return "coco-5k"
    if "coco" in name and size == (1000, "test"):
        return "coco-1k-subset"
    if "flickr8k" in name and size == (1000, "test") and dataset.n_captions == 5000:
        return "flickr8k"
    return "own"


def resolve(
    protocol: str,
    dataset: Dataset,
    *,
    captions_per_image: int | None = None,
    keys: Path | str | Sequence[str] | None = None,
) -> tuple[Gallery, ...]:
    """The galleries of a protocol on a data set: one, or five for `coco-1k-5fold`.

    Args:
        protocol: a key of `PROTOCOLS`.
        dataset: the data set whose positions the galleries hold.
        captions_per_image: keep only the first so many captions of each image (some tools keep 5 of COCO's
            5 to 7); all where None.
        keys: for `coco-1k-subset` (and `own`): the image ids to keep, or a file with one id a line (more
            columns, separated by tabs, are ignored).

    Raises:
        ProtocolError: unknown protocol, options that it does not take, or a data set that does not fit.
        MissingExtraError: `cxc` and `eccv` read their ids from the package eccv_caption.

    Example:
        >>> data = Dataset("pets", "test", ["a", "b"], ["a0", "a1", "b0"], ["a cat", "a tabby", "a dog"],
        ...                np.array([0, 0, 1]))
        >>> resolve("own", data)
        (Gallery(2 images x 3 captions, 2 and 3 queries),)
        >>> resolve("own", data, captions_per_image=1)
        (Gallery(2 images x 2 captions, 2 and 2 queries),)
    """
    if protocol not in PROTOCOLS:
        raise ProtocolError(f"no protocol {protocol!r}", hint=f"there are: {', '.join(PROTOCOLS)}")
    _check_family(protocol, dataset)
    if protocol == "coco-1k-subset" and keys is None and dataset.n_images != 1000:
        raise ProtocolError("coco-1k-subset needs the list of its images", hint="give keys (--keys FILE)")
    if keys is not None and protocol not in ("coco-1k-subset", "own"):
        raise ProtocolError(f"{protocol} takes no list of images", hint="use coco-1k-subset, or own")
    if protocol in ("cxc", "eccv"):
        if captions_per_image is not None:
            raise ProtocolError(
                f"{protocol} has a fixed list of captions",
                hint="leave captions_per_image (--captions-per-image) out",
            )
        return (_judged(protocol, dataset),)
    images = np.arange(dataset.n_images) if keys is None else _images(dataset, keys)
    expected = {"coco-5k": 5000, "coco-1k-5fold": 5000, "coco-1k-subset": 1000, "flickr8k": 1000}
    if protocol in expected and len(images) != expected[protocol]:
        raise ProtocolError(
            f"{protocol} needs {expected[protocol]:,} images, {dataset!r}"
            + (f" has {len(images):,}" if keys is None else f" with these keys gives {len(images):,}"),
            hint="prepare the Karpathy test split" if protocol != "flickr8k" else "prepare its test split",
        )
    if protocol != "own":
        _at_least(protocol, dataset, images, 5)
    if captions_per_image is not None:
        if captions_per_image < 1:
            raise ProtocolError(f"captions_per_image={captions_per_image} must be at least 1")
        _at_least("captions_per_image", dataset, images, captions_per_image)
    folds = np.split(images, 5) if protocol == "coco-1k-5fold" else [images]
    return tuple(_own(dataset, fold, captions_per_image) for fold in folds)


def _check_family(protocol: str, dataset: Dataset) -> None:
    # Sizes alone would let another split, or another data set, pass for the literature's.
    family = "flickr8k" if protocol == "flickr8k" else "coco"
    if protocol != "own" and (family not in dataset.name.lower() or dataset.split != "test"):
        raise ProtocolError(
            f"{protocol} is of the test split of {family}, this is {dataset!r}",
            hint="evaluate it with protocol own, or prepare that split",
        )


def describe(
    protocol: str,
    galleries: Sequence[Gallery],
    *,
    captions_per_image: int | None = None,
    subset: bool = False,
) -> str:
    """One line for the title of a table: the protocol, its sizes, its positives.

    Args:
        protocol, galleries: what was asked of `resolve`, and what it gave.
        captions_per_image: the cut that was made.
        subset: a list of images was given.

    Example:
        >>> data = Dataset("pets", "test", ["a"], ["a0", "a1"], ["a cat", "a tabby"], np.array([0, 0]))
        >>> describe("own", resolve("own", data))
        'own: 1 image x 2 captions, the whole data set; the positives of an image are its captions'
    """
    n_images, n_captions = (
        [len(getattr(gallery, side)) for gallery in galleries] for side in ("images", "captions")
    )
    if len(galleries) == 1:
        size = f"{several(n_images[0], 'image')} x {several(n_captions[0], 'caption')}"
    else:
        per_fold = f"{min(n_captions):,}"
        if min(n_captions) != max(n_captions):
            per_fold += f" to {max(n_captions):,}"
        size = f"{len(galleries)} folds of {several(n_images[0], 'image')} x {per_fold} captions"
    if captions_per_image is not None:
        size += f" (the first {captions_per_image} of each image)"
    gallery = galleries[0]
    queries = len(gallery.image_queries), len(gallery.caption_queries)
    if queries != (len(gallery.images), len(gallery.captions)):
        size += f", {queries[0]:,} image and {queries[1]:,} caption queries"
    meaning = PROTOCOLS[protocol]
    if protocol == "own" and subset:
        meaning = meaning.replace("the whole data set", "a list of its images")
    return f"{protocol}: {size}, {meaning}"


def _own(dataset: Dataset, images: IntArray, limit: int | None) -> Gallery:
    if limit is None and len(images) == dataset.n_images:
        captions = np.arange(dataset.n_captions)  # the data set's own order, so that nothing is gathered
    else:
        captions = np.concatenate([dataset.captions_of(image)[:limit] for image in images])
    place = np.full(dataset.n_images, -1)
    place[images] = np.arange(len(images))
    positives = Positives.of(place[dataset.caption_image[captions]], n_images=len(images))
    return Gallery(images, captions, positives, positives, np.arange(len(images)), np.arange(len(captions)))


def _at_least(what: str, dataset: Dataset, images: IntArray, number: int) -> None:
    counts = np.bincount(dataset.caption_image, minlength=dataset.n_images)[images]
    few = np.flatnonzero(counts < number)
    if len(few):
        raise ProtocolError(
            f"{what} needs at least {number} captions an image; {len(few)} of {len(images)} images have fewer, "
            f"the first is {dataset.image_ids[images[few[0]]]!r} with {counts[few[0]]}"
        )


def _images(dataset: Dataset, keys: Path | str | Sequence[str]) -> IntArray:
    where = "keys"
    if isinstance(keys, (str, Path)):
        where = str(keys)
        keys = [
            line.split("\t")[0].strip() for line in read_ids(Path(keys), error=ProtocolError) if line.strip()
        ]
    unknown = [key for key in keys if key not in dataset.image_position]
    if unknown:
        raise ProtocolError(
            f"{where}: {len(unknown)} of {len(keys)} images are not in {dataset!r}, the first: "
            f"{', '.join(map(repr, unknown[:5]))}",
            hint="ids must be written as in the data set, one a line",
        )
    if len(set(keys)) != len(keys) or not keys:
        raise ProtocolError(f"{where} names {len(keys)} images, {len(set(keys))} of them distinct")
    return np.array([dataset.image_position[key] for key in keys])


def _judged(protocol: str, dataset: Dataset) -> Gallery:
    """The gallery of cxc or eccv: the 5,000 images and the first five captions of each, joined by COCO ids.

    This is the gallery that the published numbers of both are computed on (eccv_caption,
    examples/clip_example_run.py). Queries and positives are those of the package's files. Two of ECCV Caption's
    22,550 positive captions are sixth captions of their images and so outside the gallery: they are left out.
    """
    captions = _places(dataset.caption_position, _ids("coco_test_ids.npy"), protocol, "caption", dataset)
    i2t, t2i = _ids(f"{protocol}_image_to_caption.json"), _ids(f"{protocol}_caption_to_image.json")
    original = _ids("original_image_to_caption.json")
    images = np.sort(_places(dataset.image_position, original, protocol, "image", dataset))
    row = {dataset.image_ids[image]: i for i, image in enumerate(images)}
    column = {dataset.caption_ids[caption]: i for i, caption in enumerate(captions)}
    shape = len(images), len(captions)

    def positives(pairs: Sequence[tuple[str, str]]) -> Positives:
        inside = [(row[image], column[caption]) for image, caption in pairs if caption in column]
        rows, columns = np.array(inside).T
        return Positives.pairs(rows, columns, shape)

    by_image = [(image, caption) for image, some in i2t.items() for caption in some]
    by_caption = [(image, caption) for caption, some in t2i.items() for image in some]
    return Gallery(
        images,
        captions,
        positives(by_image),
        positives(by_caption),
        np.sort([row[image] for image in i2t]),
        np.sort([column[caption] for caption in t2i]),
    )


def _ids(name: str) -> Any:
    # As strings: the ids of a data set are strings. The package is found, not imported: only its data is used.
    package = find_spec("eccv_caption")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("eccv_caption", "coco")
    path = Path(package.submodule_search_locations[0], "data", name)
    if path.suffix == ".npy":
        return [str(key) for key in load_npy(path, error=ProtocolError)]
    table = read_json(path, error=ProtocolError)
    return {key: [str(value) for value in some] for key, some in table.items()}


def _places(
    position: Mapping[str, int], ids: Sequence[str], protocol: str, side: str, dataset: Dataset
) -> IntArray:
    missing = [key for key in ids if key not in position]
    if missing:
        raise ProtocolError(
            f"{protocol} needs the {len(ids):,} {side}s of the COCO Karpathy test split; {len(missing):,} are not "
            f"in {dataset!r}, the first: {', '.join(missing[:5])}",
            hint="prepare the Karpathy test split: its ids are COCO's own (cocoid, sentid)",
        )
    return np.array([position[key] for key in ids])
