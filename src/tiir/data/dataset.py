"""The Dataset: images, captions, which caption belongs to which image, and nothing a model made."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.errors import DataError, ImageError, several
from tiir.io import inside, sha256_file
from tiir.notebook import card

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Dataset", "Judgements"]


@dataclass(frozen=True, eq=False)
class Judgements:
    """People's grades of (image, caption) pairs, one row a pair and source.

    Args:
        image: position of the image in the data set, (n,).
        caption: position of the caption, (n,).
        grade: the source's own scale, (n,): Flickr8k experts 1 to 4 (mean), crowd 0 to 1 (share of yes).
        source: who graded, such as "expert" or "crowd", n strings.
        votes: the single votes behind each grade, n tuples (experts: three grades; crowd: yeses, noes).
    """

    image: npt.NDArray[np.int64]
    caption: npt.NDArray[np.int64]
    grade: npt.NDArray[np.float32]
    source: Sequence[str]
    votes: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        return f"Judgements({several(len(self), 'pair')} by {', '.join(sorted(set(self.source)))})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and captions of one split, in the order of their source.

    Ids are unique strings, never positions. `caption_image` holds positions: the image of each caption.

    Args:
        name: such as "coco", "flickr8k", "scenes".
        split: such as "test".
        image_ids: unique, n_images.
        caption_ids: unique, n_captions.
        captions: the texts, n_captions.
        caption_image: (n_captions,) position of each caption's image.
        image_root: the folder the images lie in, or None where only captions were prepared.
        image_paths: path of each image below `image_root`, or None.
        image_columns: further facts of each image, such as "sha256", "width", "height".
        caption_columns: further facts of each caption, such as the known "fault" in Scenes.
        judgements: people's grades of pairs, where the source has them.
        source: where it came from: the source's name, its options, versions.
        skipped: what `--on-bad skip` left out: dicts of "kind", "item", "detail".

    Example:
        >>> data = Dataset("pets", "test", ["a", "b"], ["a0", "a1", "b0"], ["a cat", "a tabby", "a dog"],
        ...                np.array([0, 0, 1]))
        >>> data
        Dataset(pets/test: 2 images, 3 captions, no image files)
        >>> data.captions_of(0).tolist()
        [0, 1]
    """

    name: str
    split: str
    image_ids: Sequence[str]
    caption_ids: Sequence[str]
    captions: Sequence[str]
    caption_image: npt.NDArray[np.int64]
    image_root: Path | None = None
    image_paths: Sequence[str] | None = None
    image_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    caption_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    judgements: Judgements | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    skipped: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "caption_image", np.ascontiguousarray(self.caption_image, np.int64))
        n_images, n_captions = len(self.image_ids), len(self.caption_ids)
        for what, column, expected in [
            ("captions", self.captions, n_captions),
            ("caption_image", self.caption_image, n_captions),
            ("image_paths", self.image_paths, n_images),
            *((f"image column {key}", value, n_images) for key, value in self.image_columns.items()),
            *((f"caption column {key}", value, n_captions) for key, value in self.caption_columns.items()),
        ]:
            if column is not None and len(column) != expected:
                raise DataError(f"{what} has {len(column)} entries, expected {expected}")
        for what, ids in [("image", self.image_ids), ("caption", self.caption_ids)]:
            if len(set(ids)) != len(ids):
                repeated = Counter(ids).most_common(1)[0][0]
                raise DataError(f"duplicate {what} id {repeated!r}", hint="ids must be unique")
        if n_captions and (self.caption_image.min() < 0 or self.caption_image.max() >= n_images):
            raise DataError(f"caption_image points outside the {n_images} images")

    def __repr__(self) -> str:
        extra = "" if self.image_root else ", no image files"
        if self.judgements is not None:
            extra += f", {several(len(self.judgements), 'judgement')}"
        return f"Dataset({self.name}/{self.split}: {several(self.n_images, 'image')}, {several(self.n_captions, 'caption')}{extra})"

    def _repr_html_(self) -> str:
        each = np.bincount(self.caption_image, minlength=self.n_images)
        facts = {
            "images": self.n_images,
            "captions": self.n_captions,
            "captions an image": f"{each.min()} to {each.max()}" if self.n_images else None,
            "judgements": None if self.judgements is None else len(self.judgements),
            "left out": len(self.skipped) or None,
            "images lie in": self.image_root,
        }
        rows = [
            {
                "image": self.image_ids[n],
                "captions": " / ".join(map(self.captions.__getitem__, self.captions_of(n))),
            }
            for n in range(min(3, self.n_images))
        ]
        return card(f"{self.name}/{self.split}", facts, rows)

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def n_captions(self) -> int:
        """Number of captions."""
        return len(self.caption_ids)

    @property
    def positives(self) -> Positives:
        """The `own` positives: each caption with its image."""
        return Positives.of(self.caption_image, n_images=self.n_images)

    @cached_property
    def _own_captions(self) -> list[npt.NDArray[np.int64]]:
        order = np.argsort(self.caption_image, kind="stable")
        ends = np.cumsum(np.bincount(self.caption_image, minlength=self.n_images))
        return np.split(order, ends[:-1]) if self.n_images else []

    def captions_of(self, image: int) -> npt.NDArray[np.int64]:
        """Positions of the captions of the image at a position, in order."""
        return self._own_captions[image]

    @cached_property
    def image_position(self) -> dict[str, int]:
        """From image id to position."""
        return {key: i for i, key in enumerate(self.image_ids)}

    @cached_property
    def caption_position(self) -> dict[str, int]:
        """From caption id to position."""
        return {key: i for i, key in enumerate(self.caption_ids)}

    def image_path(self, image: int) -> Path:
        """The file of the image at a position, checked to lie inside `image_root`.

        Raises:
            DataError: the data set was prepared without images.
            UnsafePathError: the path leads out of `image_root`.
        """
        if self.image_root is None or self.image_paths is None:
            raise DataError(
                f"{self.name}/{self.split} was prepared without images",
                hint="prepare it again without --images none to score or show pictures",
            )
        return inside(self.image_root, self.image_paths[image])

    def image(self, image: int) -> Image.Image:
        """The picture at a position, upright, RGB.

        Raises:
            ImageError: the file is missing, damaged or not an image.
        """
        from tiir.data.images import open_image

        return open_image(self.image_path(image))

    def prepared_image(self, image: int) -> Image.Image:
        """The picture at a position, if it is still the one that was prepared: results carry its fingerprint.

        Raises:
            ImageError: as `image`, or the file has changed since.
        """
        picture, hashes = self.image(image), self.image_columns.get("sha256")
        if hashes is not None and sha256_file(path := self.image_path(image)) != hashes[image]:
            raise ImageError(
                f"{path} (image {self.image_ids[image]!r}) has changed since the data set was prepared",
                hint="prepare the data set again",
            )
        return picture

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what a model sees: ids, captions, which belongs to which, and the images' own hashes.

        Two data sets with the same fingerprint give the same Run. Names, columns, judgements and where the
        files lie do not count.
        """
        digest = hashlib.sha256(b"tiir dataset 1")
        hashes = self.image_columns.get("sha256") if self.image_root else None
        for texts in (self.image_ids, self.caption_ids, self.captions, hashes or ()):
            digest.update(f"|{len(texts)}|".encode())
            for text in texts:
                raw = str(text).encode("utf-8", "surrogatepass")
                digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(self.caption_image.astype("<i8").tobytes())
        return digest.hexdigest()[:32]

    def subset(self, images: Iterable[int], *, name: str | None = None) -> Dataset:
        """The images at these positions with all their captions (and judgements among them)."""
        rows = np.fromiter(images, np.int64)
        columns = np.concatenate([self.captions_of(i) for i in rows]) if len(rows) else np.empty(0, np.int64)
        return replace(self._take(rows, columns), name=name or self.name)

    def _take(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Dataset:
        # These images and captions in this order; the captions' images are all among them.
        row = np.full(self.n_images, -1)
        row[rows] = np.arange(len(rows))

        def pick(values: Sequence[Any], index: npt.NDArray[np.int64]) -> list[Any]:
            return [values[i] for i in index]

        judged = self.judgements
        if judged is not None:
            column = np.full(self.n_captions, -1)
            column[columns] = np.arange(len(columns))
            keep = np.flatnonzero((row[judged.image] >= 0) & (column[judged.caption] >= 0))
            judged = Judgements(
                row[judged.image[keep]],
                column[judged.caption[keep]],
                judged.grade[keep],
                pick(judged.source, keep),
                pick(judged.votes, keep),
            )
        return Dataset(
            self.name,
            self.split,
            pick(self.image_ids, rows),
            pick(self.caption_ids, columns),
            pick(self.captions, columns),
            row[self.caption_image[columns]],
            self.image_root,
            None if self.image_paths is None else pick(self.image_paths, rows),
            {key: pick(value, rows) for key, value in self.image_columns.items()},
            {key: pick(value, columns) for key, value in self.caption_columns.items()},
            judged,
            self.source,
            self.skipped,
        )

    def first_captions(self, number: int) -> Dataset:
        """Only the first `number` captions of each image, as some tools keep five of COCO's five to seven.

        Judgements of other captions are left out.
        """
        keep = np.sort(np.concatenate([self.captions_of(i)[:number] for i in range(self.n_images)]))
        source = {**self.source, "captions_per_image": number}
        return replace(self._take(np.arange(self.n_images), keep), source=source)

    def save(self, directory: Path | str, *, overwrite: bool = False) -> None:
        """Write the data set as Parquet; `dataset.json` comes last, so a half-written one never loads.

        Raises:
            DataError: `directory` already holds a data set and `overwrite` is False, or it holds other files.
        """
        from tiir.data.dataset_files import write_dataset

        write_dataset(self, Path(directory), overwrite)

    @classmethod
    def load(cls, directory: Path | str) -> Dataset:
        """Read a data set that `save` wrote.

        Raises:
            DataError: not a data set, damaged, or changed since it was written.
        """
        from tiir.data.dataset_files import read_dataset

        return read_dataset(Path(directory))
