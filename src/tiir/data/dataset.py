"""The Dataset: images, captions, which caption belongs to which image, and nothing a model made."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from tiir.data.positives import Positives
from tiir.errors import DataError, ImageError
from tiir.io import atomic_write, inside, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Dataset", "Judgements"]

FORMAT = 1
HINT = "prepare the data set again"


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


class Header(BaseModel):
    """The contents of `dataset.json`."""

    model_config = ConfigDict(extra="forbid")

    format: int
    name: str
    split: str
    images: int
    captions: int
    judgements: int
    skipped: int
    fingerprint: str
    files: dict[str, str]  # sha256 of each Parquet file
    image_root: str | None
    source: dict[str, Any]


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
            extra += f", {len(self.judgements):,} judgements"
        return f"Dataset({self.name}/{self.split}: {self.n_images:,} images, {self.n_captions:,} captions{extra})"

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
                hint=HINT,
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

    def save(self, directory: Path, *, overwrite: bool = False) -> None:
        """Write the data set as Parquet; `dataset.json` comes last, so a half-written one never loads.

        Raises:
            DataError: `directory` already holds a data set and `overwrite` is False.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        directory = Path(directory)
        header_path = directory / "dataset.json"
        if header_path.exists():
            if not overwrite:
                raise DataError(
                    f"{directory} already holds a data set", hint="choose another --out, or --overwrite"
                )
            header_path.unlink()
        images: dict[str, Any] = {"image_id": list(self.image_ids), **self.image_columns}
        if self.image_paths is not None:
            images["path"] = list(self.image_paths)
        tables = {
            "images": images,
            "captions": {
                "caption_id": list(self.caption_ids),
                "image": self.caption_image,
                "caption": list(self.captions),
                **self.caption_columns,
            },
            "judgements": _judgement_columns(self.judgements),
            "skipped": {key: [row[key] for row in self.skipped] for key in ("kind", "item", "detail")}
            if self.skipped
            else None,
        }
        directory.mkdir(parents=True, exist_ok=True)
        files: dict[str, str] = {}
        for stem, columns in tables.items():
            path = directory / f"{stem}.parquet"
            if columns is None:
                path.unlink(missing_ok=True)
                continue
            with atomic_write(path) as temporary:
                pq.write_table(pa.table(dict(columns)), temporary, compression="zstd")
            files[stem] = sha256_file(path)
        header = Header(
            format=FORMAT,
            name=self.name,
            split=self.split,
            images=self.n_images,
            captions=self.n_captions,
            judgements=0 if self.judgements is None else len(self.judgements),
            skipped=len(self.skipped),
            fingerprint=self.fingerprint,
            files=files,
            image_root=_portable_root(self.image_root, directory),
            source=dict(self.source),
        )
        write_json(header_path, header.model_dump())

    @classmethod
    def load(cls, directory: Path | str) -> Dataset:
        """Read a data set that `save` wrote.

        Raises:
            DataError: not a data set, damaged, or changed since it was written.
        """
        directory = Path(directory)
        header_path = directory / "dataset.json"
        if not header_path.is_file():
            raise DataError(
                f"{directory} is not a data set (no dataset.json)", hint="make one with `tiir prepare`"
            )
        try:
            header = Header.model_validate(read_json(header_path))
        except ValidationError as problem:
            first = problem.errors()[0]
            raise DataError(
                f"{header_path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                hint=HINT,
            ) from None
        if header.format != FORMAT:
            raise DataError(
                f"{directory} has data set format {header.format}, this tiir reads {FORMAT}",
                hint="prepare it again, or use the tiir version that wrote it",
            )
        for stem, digest in header.files.items():
            path = directory / f"{stem}.parquet"
            if not path.is_file() or sha256_file(path) != digest:
                what = "was changed or damaged after it was written" if path.is_file() else "is missing"
                raise DataError(f"{path} {what}", hint=HINT)
        images = _read_table(directory / "images.parquet", header.images, {"image_id": "string"})
        captions = _read_table(
            directory / "captions.parquet",
            header.captions,
            {"caption_id": "string", "image": "int64", "caption": "string"},
        )
        judged = None
        if header.judgements:
            columns = {
                "image": "int64",
                "caption": "int64",
                "grade": "float32",
                "source": "string",
                "votes": "",
            }
            table = _read_table(directory / "judgements.parquet", header.judgements, columns)
            judged = Judgements(
                np.array(table["image"], np.int64),
                np.array(table["caption"], np.int64),
                np.array(table["grade"], np.float32),
                table["source"],
                table["votes"],
            )
            for side, n in (("image", header.images), ("caption", header.captions)):
                places = getattr(judged, side)
                if len(places) and not 0 <= places.min() <= places.max() < n:
                    raise DataError(f"{directory}: judgements of {side}s that are not there", hint=HINT)
        skipped: list[Mapping[str, str]] = []
        if header.skipped:
            texts = dict.fromkeys(("kind", "item", "detail"), "string")
            rows = _read_table(directory / "skipped.parquet", header.skipped, texts)
            skipped = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        data = cls(
            header.name,
            header.split,
            images.pop("image_id"),
            captions.pop("caption_id"),
            captions.pop("caption"),
            np.array(captions.pop("image"), np.int64),
            None if header.image_root is None else Path(os.path.normpath(directory / header.image_root)),
            images.pop("path", None),
            images,
            captions,
            judged,
            header.source,
            skipped,
        )
        if data.fingerprint != header.fingerprint:
            raise DataError(
                f"{directory} was changed after it was written (fingerprint {data.fingerprint}, "
                f"dataset.json says {header.fingerprint})",
                hint="prepare it again",
            )
        return data


def _judgement_columns(judged: Judgements | None) -> dict[str, Any] | None:
    if judged is None:
        return None
    return {
        "image": judged.image,
        "caption": judged.caption,
        "grade": judged.grade,
        "source": list(judged.source),
        "votes": [list(votes) for votes in judged.votes],
    }


def _portable_root(root: Path | None, directory: Path) -> str | None:
    # Images inside the data set's own folder move with it; others are named by their absolute path.
    if root is None:
        return None
    real, home = os.path.realpath(root), os.path.realpath(directory)
    if real == home or real.startswith(home + os.sep):
        return os.path.relpath(real, home)
    return real


def _read_table(path: Path, rows: int, required: Mapping[str, str]) -> dict[str, list[Any]]:
    # All columns; those whose type is known (of `required`, and of images) have it, and no gaps.
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if (found := file.metadata.num_rows) != rows:
                raise DataError(f"{path} has {found} rows, dataset.json says {rows}", hint=HINT)
            table = file.read()
            if missing := [key for key in required if key not in table.column_names]:
                raise DataError(f"{path} has no column {missing[0]!r}", hint=HINT)
            columns = {}
            for key in table.column_names:
                kind = required.get(key) or {"path": "string", "sha256": "string"}.get(key)
                columns[key] = (table[key] if not kind else table[key].cast(kind)).to_pylist()
                if kind and None in columns[key]:
                    raise DataError(f"{path}: column {key!r} has a gap", hint=HINT)
            return columns
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"no such file: {path}", hint=HINT) from None
    except Exception as problem:  # Arrow's own, and those of values that Python cannot hold
        raise DataError(f"{path} is damaged: {problem}", hint=HINT) from None
