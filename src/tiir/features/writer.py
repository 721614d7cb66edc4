"""Writing a FeatureStore: row by row, each with its checksum, so that a kill at any moment loses one row at most."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError
from tiir.features.layout import checksum, mapped, part_of, read_header
from tiir.progress import track

__all__ = ["FeatureWriter"]

IntArray = npt.NDArray[np.int64]
EDGE = 1e-3  # a box may lie so far outside [0, 1]: pixel edges, rounding; it is clipped


class FeatureWriter:
    """Fills a store that `FeatureStore.create` or `append` allocated.

    Args:
        path: of the file being written.
        file: that file, open for reading and writing; None where nothing is left to write.
        check: compare what is there with its checksums.
    """

    def __init__(self, path: Path, file: IO[bytes] | None, *, check: bool = True) -> None:
        self.path = path
        self._file = file
        self._header = read_header(path)
        self._written = self._header.written == 1
        self.skipped: dict[int, str] = {}
        if file is not None and check:
            self._recheck()

    @classmethod
    @contextmanager
    def beside(cls, path: Path | str) -> Iterator[FeatureWriter]:
        """A second writer of a file that another process has begun; they must not write the same rows."""
        with open(part_of(Path(path)), "rb+") as file:
            yield cls(part_of(Path(path)), file, check=False)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of each row."""
        return self._header.image_ids

    @property
    def missing(self) -> IntArray:
        """Positions still to be written, int64, ascending."""
        return np.flatnonzero(~self._written)

    def skip(self, row: int, reason: str) -> None:
        """Leave out an image that cannot be read; the finished store has no row of it, but its reason."""
        self.skipped[int(row)] = reason

    def put(
        self,
        rows: Sequence[int] | IntArray,
        regions: npt.ArrayLike,
        boxes: npt.ArrayLike,
        columns: Mapping[str, npt.ArrayLike] = {},
    ) -> None:
        """Write the images of some rows of the store: regions (k, R, D), boxes (k, R, 4), and the store's columns (k, ...).

        Raises:
            DataError: wrong shape, NaN or infinite values, boxes outside [0, 1] or inverted; names the image.
        """
        rows = np.atleast_1d(np.asarray(rows, np.int64))
        if self._file is None:
            raise DataError(
                f"{self.path} is finished: every image is there",
                hint="put `missing` only, or make it again with overwrite",
            )
        stored, clipped = self._checked(rows, np.asarray(regions), np.asarray(boxes))
        arrays = {"regions": stored, "boxes": clipped} | self._checked_columns(rows, columns)
        for i, row in enumerate(rows.tolist()):
            parts = {name: array[i : i + 1] for name, array in arrays.items()}  # (1, ...) each
            crc = checksum(*parts.values())
            for name, part in parts.items():
                self._write(name, row * part.nbytes, part.tobytes())
            self._write("crc32", row * 4, crc.to_bytes(4, "little"))
            self._write("written", row, b"\1")  # last: whoever finds it can trust the rest, and checks it
            self._written[row] = True
        self._file.flush()

    def sync(self) -> None:
        """Flush everything to disk."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())

    def refresh(self) -> None:
        """Look at the file again: other processes wrote, too."""
        self._header = read_header(self.path)
        self._written = self._header.written == 1
        self._recheck()

    def _write(self, name: str, at: int, raw: bytes) -> None:
        assert self._file is not None
        self._file.seek(self._header.offsets[name] + at)
        self._file.write(raw)

    def _checked(
        self, rows: IntArray, regions: npt.NDArray[Any], boxes: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        n, n_regions, width = self._header.shape
        if len(rows) and (rows.min() < 0 or rows.max() >= n):
            raise DataError(
                f"row {int(rows.max())} of a store of {n:,} images", hint="rows are positions, from 0"
            )
        names = [self.image_ids[row] for row in rows]
        for what, array, shape in [
            ("regions", regions, (n_regions, width)),
            ("boxes", boxes, (n_regions, 4)),
        ]:
            if array.shape != (len(rows), *shape):
                first = repr(names[0]) if names else "none"
                raise DataError(
                    f"{what} of image {first}: shape {array.shape[1:]}, the store has {shape}"
                    if array.shape[:1] == (len(rows),)
                    else f"{what} of {len(rows)} images (the first is {first}) have shape {array.shape}",
                    hint="every image of a store has the same number and width of regions",
                )
            _refuse(~np.isfinite(array), names, f"{what} have NaN or infinite values", "extract them again")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(regions, np.dtype(self._header.dtype).newbyteorder("<"))
        _refuse(
            ~np.isfinite(stored), names, f"regions are too large for {stored.dtype}", "store them as float32"
        )
        _refuse((boxes < -EDGE) | (boxes > 1 + EDGE), names, "boxes lie outside [0, 1]",
                "boxes are x1 y1 x2 y2, divided by the image's width and height")  # fmt: skip
        clipped = np.ascontiguousarray(np.clip(boxes, 0, 1), "<f4")
        _refuse(
            clipped[..., 2:] < clipped[..., :2],
            names,
            "boxes are inverted",
            "boxes are x1 y1 x2 y2, not x y w h",
        )
        return stored, clipped

    def _checked_columns(
        self, rows: IntArray, columns: Mapping[str, npt.ArrayLike]
    ) -> dict[str, npt.NDArray[Any]]:
        planned = self._header.columns
        if set(columns) != set(planned):
            raise DataError(
                f"columns {sorted(columns)} for a store with {sorted(planned)}",
                hint="give every column of the store, for every image",
            )
        checked = {}
        for name, (dtype, one) in planned.items():
            values = np.asarray(columns[name])
            if values.shape != (len(rows), *one):
                raise DataError(
                    f"column {name!r} has shape {values.shape}, not {(len(rows), *one)}",
                    hint="the first axis is images",
                )
            checked[name] = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))
            broken = ~np.isfinite(checked[name]).reshape(len(rows), -1).all(1)  # (k,)
            if broken.any():
                raise DataError(
                    f"image {self.image_ids[rows[broken.argmax()]]!r}: column {name!r} has NaN or infinite values",
                    hint="extract them again",
                )
        return checked

    def _recheck(self) -> None:
        # What an earlier process wrote, as far as it reached the disk.
        if not self._written.any():
            return
        arrays = [
            np.asarray(mapped(self.path, self._header, name))
            for name in ("regions", "boxes", *self._header.columns)
        ]
        for row in track(np.flatnonzero(self._written), description="checking what is there", unit="images"):
            now = checksum(*(array[row : row + 1] for array in arrays))
            self._written[row] = now == self._header.crc32[row]


def _refuse(bad: npt.NDArray[np.bool_], names: Sequence[str], what: str, hint: str) -> None:
    if bad.any():
        image, *place = np.argwhere(bad)[0]
        raise DataError(f"image {names[image]!r}: {what} (region {place[0]})", hint=hint)
