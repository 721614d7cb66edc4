"""The FeatureStore: region features of images in one file, read straight from disk, written so that a kill loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError, several
from tiir.features.info import FeatureInfo
from tiir.features.layout import Header, checksum, mapped, part_of, read_header
from tiir.features.plan import check_plan, check_same, extend, only_writer, open_writer
from tiir.features.writer import FeatureWriter
from tiir.notebook import card
from tiir.progress import track

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset

__all__ = ["FeatureStore"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class FeatureStore:
    """Region features of many images: `regions` (n, R, D) and `boxes` (n, R, 4), and where they come from.

    The arrays are mapped from the file, so nothing is read before it is asked for, and processes share what the
    system keeps in memory. A pickled store is its path: each worker process maps the file itself.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "features.h5"
        >>> info = FeatureInfo(extractor="by hand")
        >>> with FeatureStore.create(path, info, ["a", "b"], n_regions=1, width=3) as writer:
        ...     writer.put(np.array([0, 1]), np.ones((2, 1, 3)), np.array([[[0, 0, 1, 1]]] * 2))
        >>> store = FeatureStore.open(path)
        >>> store
        FeatureStore(by hand: 2 images, 1 region x 3, float32)
        >>> regions, boxes = store.read(store.rows(["b"]))
        >>> boxes.tolist()
        [[[0.0, 0.0, 1.0, 1.0]]]
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._header = header
        # Now, not at the first read: the file may be replaced by then, and these go on showing the one that was opened.
        self._regions = mapped(path, header, "regions")
        self._boxes = mapped(path, header, "boxes")
        self._columns = {name: mapped(path, header, name) for name in header.columns}

    @classmethod
    def open(cls, path: Path | str) -> FeatureStore:
        """Open a finished store.

        Raises:
            DataError: missing, unfinished, cut off, damaged, or another kind of file.
        """
        path = Path(path).resolve()  # so that it is still found, also by other processes, after a chdir
        if not path.exists() and part_of(path).exists():
            header = read_header(part_of(path))
            raise DataError(
                f"{path} is unfinished: {int((header.written == 1).sum()):,} of {len(header.image_ids):,} images are written",
                hint="continue it with --resume",
            )
        header = read_header(path)
        missing = np.flatnonzero(header.written != 1)
        if len(missing):
            raise DataError(
                f"{path}: {len(missing):,} of {len(header.image_ids):,} images are not written, the first is "
                f"{header.image_ids[missing[0]]!r}",
                hint="it is damaged, or was copied before it was finished: make it again",
            )
        return cls(path, header)

    def __reduce__(self) -> tuple[Callable[[Path, str], FeatureStore], tuple[Path, str]]:
        return _reopen, (self.path, self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"FeatureStore({self.info.extractor}: {several(len(self), 'image')}, {several(self.n_regions, 'region')} x {self.width}, "
            f"{self.dtype})"
        )

    def _repr_html_(self) -> str:
        shown = {
            "regions an image": self.n_regions,
            "width": self.width,
            "also": ", ".join(self.columns) or None,
        }
        return card(repr(self), shown | {"file": self.path})

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def info(self) -> FeatureInfo:
        """Where the features come from."""
        return self._header.info

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of each row."""
        return self._header.image_ids

    @property
    def n_regions(self) -> int:
        """Regions an image, R."""
        return self._header.shape[1]

    @property
    def width(self) -> int:
        """Numbers a region, D."""
        return self._header.shape[2]

    @property
    def dtype(self) -> str:
        """ "float16" or "float32", as stored."""
        return self._header.dtype

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content: ids, shape and the checksum of every image."""
        return self._header.fingerprint

    @property
    def regions(self) -> np.memmap[Any, Any]:
        """(n, R, D) features as stored, mapped from the file, read-only."""
        return self._regions

    @property
    def boxes(self) -> np.memmap[Any, Any]:
        """(n, R, 4) x1 y1 x2 y2 in [0, 1], mapped from the file, read-only."""
        return self._boxes

    @property
    def columns(self) -> Mapping[str, np.memmap[Any, Any]]:
        """What else is known of each image, (n, ...), by name; such as "object_ids" (n, R)."""
        return self._columns

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.image_ids)}

    def rows(self, image_ids: Sequence[str]) -> IntArray:
        """Positions of images, int64 (k,).

        Raises:
            DataError: images that are not here (named).
        """
        position = self._position
        missing = [name for name in image_ids if name not in position]
        if missing:
            why = self.info.skipped.get(missing[0])
            if why is not None:
                raise DataError(
                    f"{self.path} has no features of {len(missing):,} of {len(image_ids):,} images: {missing[0]!r} was "
                    f"left out when they were made: {why}",
                    hint="repair the picture and extract again, or prepare the data set with --on-bad skip",
                )
            raise DataError(
                f"{self.path} has no features of {len(missing):,} of {len(image_ids):,} images: "
                f"{', '.join(map(repr, missing[:3]))}{', ...' if len(missing) > 3 else ''}",
                hint=f"its ids look like {self.image_ids[0]!r}; extract the features of this data set, or convert "
                "with --dataset",
            )
        return np.fromiter((position[name] for name in image_ids), np.int64, len(image_ids))

    def check(self, dataset: Dataset) -> int:
        """Make sure that these are features of a data set's own pictures, not of others with the same ids.

        Files are compared by their hashes, where the store and the data set both have them.

        Returns:
            How many were compared.

        Raises:
            DataError: an image is not here, or was another picture (named).
        """
        hashes = dataset.image_columns.get("sha256") or [""] * dataset.n_images
        compared = 0
        for name, row, now in zip(dataset.image_ids, self.rows(dataset.image_ids), hashes, strict=True):
            then = self._header.image_sha256[row]
            compared += bool(now and then)
            if now and then and now != then:
                raise DataError(
                    f"image {name!r} of {dataset!r} is not the picture that {self.path} has features of "
                    f"(sha256 {now[:12]}, there {then[:12]})",
                    hint="the data set was prepared anew, or the store belongs to another one: extract its features",
                )
        return compared

    def read(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Copies of rows: regions float32 (k, R, D) and boxes float32 (k, R, 4)."""
        regions = np.take(self._plain[0], rows, axis=0)  # (k, R, D)
        boxes = np.take(self._plain[1], rows, axis=0)  # (k, R, 4)
        if self.dtype == "float16":
            import torch  # converts them nine times as fast as NumPy

            regions = torch.from_numpy(regions).float().numpy()
        return regions.astype(np.float32, copy=False), boxes.astype(np.float32, copy=False)

    @cached_property
    def _plain(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        # The same memory without memmap's bookkeeping for each slice.
        return np.asarray(self.regions), np.asarray(self.boxes)

    def verify(self) -> list[str]:
        """Read everything and compare it with its checksums.

        Returns:
            A line for each image that is damaged.
        """
        arrays = [*self._plain, *(np.asarray(column) for column in self._columns.values())]
        rows = track(range(len(self)), description="verifying", unit="images")
        return [
            f"image {self.image_ids[row]!r} (row {row}) does not match its checksum"
            for row in rows
            if checksum(*(array[row : row + 1] for array in arrays)) != self._header.crc32[row]
        ]

    @classmethod
    @contextmanager
    def create(
        cls,
        path: Path | str,
        info: FeatureInfo,
        image_ids: Sequence[str],
        n_regions: int,
        width: int,
        *,
        dtype: str = "float32",
        image_sha256: Sequence[str] = (),
        columns: Mapping[str, tuple[str, tuple[int, ...]]] = {},
        resume: bool = False,
        overwrite: bool = False,
    ) -> Iterator[FeatureWriter]:
        """Make a store: every image of `writer.missing` must be `put`, then it appears under `path`.

        Until then it lies beside `path` (`.part`), and any earlier store stays. After an error or a kill,
        `resume` goes on; images whose bytes do not match their checksum are missing again.

        Args:
            path: the file to make.
            info: where the features come from.
            image_ids: the id of each row, unique.
            n_regions, width: shape of an image's features.
            dtype: "float16" halves the file, and keeps three digits.
            image_sha256: hash of each image's file, "" where it is not known; `check` compares them.
            columns: what else is kept of each image: name -> dtype and shape of one image's values.
            resume: continue what an earlier process left; a finished store of the same plan has nothing missing.
            overwrite: replace a finished or unfinished store.

        Raises:
            DataError: duplicate ids, an empty shape; `path` is taken, or was begun with another plan; another
                process is writing it; rows are still missing at the end.
        """
        path = Path(path)
        check_plan(image_ids, n_regions, width, dtype, image_sha256, columns)
        shape = (len(image_ids), n_regions, width)
        with only_writer(path):
            if path.exists() and not overwrite and not (resume and part_of(path).exists()):
                if not resume:
                    raise DataError(f"{path} already exists", hint="choose another --out, or --overwrite")
                check_same(path, read_header(path), info, image_ids, shape, dtype, columns)
                yield FeatureWriter(path, None)
                return
            with open_writer(
                path, info, image_ids, image_sha256, shape, dtype, columns, resume, overwrite
            ) as writer:
                yield writer

    @classmethod
    @contextmanager
    def append(
        cls,
        path: Path | str,
        info: FeatureInfo,
        image_ids: Sequence[str],
        *,
        image_sha256: Sequence[str] = (),
        resume: bool = False,
        overwrite: bool = False,
    ) -> Iterator[FeatureWriter]:
        """Add images to a store; `writer.missing` are the positions of the new ones, at the end.

        The longer store is written beside the old one and replaces it when it is whole. It keeps the old one's info,
        without `dataset_fingerprint` where the new images are of another data set.

        Args:
            path: a finished store.
            info: where the new features come from; extractor, weights, colour and boxes must be the store's.
            image_ids: new ids.
            image_sha256: as in `create`, of the new images.
            resume: continue an append that was killed.
            overwrite: drop what a killed append left.

        Raises:
            DataError: an id is in the store already, or the features are of another kind; and as `create`.
        """
        path = Path(path).resolve()
        with only_writer(path):
            old = cls.open(path)
            with extend(old, old._header, info, image_ids, image_sha256, resume, overwrite) as writer:
                yield writer


def _reopen(path: Path, fingerprint: str) -> FeatureStore:
    store = FeatureStore.open(path)
    if store.fingerprint != fingerprint:
        raise DataError(f"{path} was replaced while it was in use", hint="start again with the new store")
    return store
