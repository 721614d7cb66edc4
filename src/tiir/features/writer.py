"""Writing a FeatureStore: row by row, each with its checksum, so that a kill at any moment loses one row at most."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError
from tiir.features.layout import (
    DTYPES,
    Columns,
    FeatureInfo,
    Header,
    allocate,
    checksum,
    mapped,
    part_of,
    read_header,
)
from tiir.io import remove_leftovers
from tiir.progress import track

__all__ = ["FeatureWriter", "check_plan", "check_same", "locked", "open_writer"]

IntArray = npt.NDArray[np.int64]
RESERVED = ("regions", "boxes", "crc32", "written")
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
    def beside(cls, path: Path) -> Iterator[FeatureWriter]:
        """A second writer of a file that another process has begun; they must not write the same rows."""
        with open(part_of(path), "rb+") as file:
            yield cls(part_of(path), file, check=False)

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
        """Write images: regions (k, R, D), boxes (k, R, 4), and the store's columns (k, ...).

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


def check_plan(
    image_ids: Sequence[str],
    n_regions: int,
    width: int,
    dtype: str,
    image_sha256: Sequence[str],
    columns: Columns,
) -> None:
    """Refuse duplicate ids, empty shapes, other dtypes, and columns that cannot be kept."""
    for name, (kind, _) in columns.items():
        if not name.isidentifier() or name in RESERVED or np.dtype(kind).kind not in "iuf":
            raise DataError(
                f"a column {name!r} of {kind} cannot be stored",
                hint=f"a plain name, none of {', '.join(RESERVED)}, with numbers",
            )
    if not image_ids or n_regions < 1 or width < 1:
        raise DataError(
            f"a store of {len(image_ids)} images, {n_regions} regions, width {width} holds nothing"
        )
    if dtype not in DTYPES:
        raise DataError(f"no dtype {dtype!r}", hint=f"one of: {', '.join(DTYPES)}")
    if len(set(image_ids)) < len(image_ids):
        raise DataError(
            f"duplicate image id {Counter(image_ids).most_common(1)[0][0]!r}", hint="ids must be unique"
        )
    if image_sha256 and len(image_sha256) != len(image_ids):
        raise DataError(
            f"{len(image_sha256)} hashes of {len(image_ids)} images", hint='give one an image, "" if unknown'
        )


def check_same(
    path: Path,
    header: Header,
    info: FeatureInfo,
    image_ids: Sequence[str],
    shape: tuple[int, int, int],
    dtype: str,
    columns: Columns,
) -> None:
    """Refuse to go on with a file that was begun with another plan."""
    hint = "resume with the same source and options, or start again with --overwrite"
    skip = {"created", "dataset_path", "skipped"}
    left = [name for name in image_ids if name not in header.info.skipped]
    earlier, now = (
        header.info.model_dump(mode="json", exclude=skip),
        info.model_dump(mode="json", exclude=skip),
    )
    earlier |= {"shape": tuple(header.shape), "dtype": header.dtype, "columns": dict(header.columns)}
    planned = {name: (np.dtype(kind).name, tuple(one)) for name, (kind, one) in columns.items()}
    now |= {"shape": (len(left), *shape[1:]), "dtype": dtype, "columns": planned}
    for key, value in now.items():
        if earlier[key] != value:
            raise DataError(f"{path} was begun with {key} {earlier[key]!r}, now it is {value!r}", hint=hint)
    if header.image_ids != tuple(left):
        raise DataError(f"{path} was begun with other images", hint=hint)


@contextmanager
def open_writer(
    path: Path,
    info: FeatureInfo,
    image_ids: Sequence[str],
    image_sha256: Sequence[str],
    shape: tuple[int, int, int],
    dtype: str,
    columns: Columns,
    resume: bool,
    overwrite: bool,
) -> Iterator[FeatureWriter]:
    """Start or continue the file beside `path` that replaces it when every row is written; `path` is `locked`.

    Raises:
        DataError: it was begun with another plan, or rows are missing at the end.
    """
    part = part_of(path)
    remove_leftovers(path.parent, part.name)
    if not info.created:
        info = info.model_copy(update={"created": datetime.now(timezone.utc).isoformat(timespec="seconds")})
    if part.exists() and not resume and not overwrite:
        raise DataError(
            f"{path} is unfinished ({part.name})", hint="continue it with --resume, or --overwrite"
        )
    if part.exists() and resume:
        check_same(part, read_header(part), info, image_ids, shape, dtype, columns)
    else:
        allocate(part, info, image_ids, image_sha256, shape, dtype, columns)
    with open(part, "rb+") as file:
        writer = FeatureWriter(part, file)
        yield writer
        left = [row for row in writer.missing.tolist() if row not in writer.skipped]
        if left:
            raise DataError(
                f"{path}: {len(left):,} of {len(image_ids):,} images were not written, the first is "
                f"{image_ids[left[0]]!r}",
                hint="continue it with --resume",
            )
        file.flush()
        os.fsync(file.fileno())
    if len(
        writer.missing
    ):  # skipped ones; a kill between the two steps leaves both files, and resuming does them again
        _leave_out(part, path, writer)
        part.unlink()
    else:
        os.replace(part, path)


def _leave_out(part: Path, path: Path, filled: FeatureWriter) -> None:
    # Write the finished store without the rows of skipped images.
    old = read_header(part)
    rows = np.setdiff1d(np.arange(len(old.image_ids)), filled.missing)
    skipped = {old.image_ids[row]: filled.skipped[row] for row in filled.missing.tolist()}
    if not len(rows):
        reason = next(iter(skipped.values()))
        raise DataError(
            f"none of the {len(skipped):,} images can be read: {reason}", hint="check the image folder"
        )
    smaller = part.with_name(part.name + ".smaller")
    ids, hashes = ([values[row] for row in rows] for values in (old.image_ids, old.image_sha256))
    info = old.info.model_copy(update={"skipped": old.info.skipped | skipped})
    allocate(smaller, info, ids, hashes, (len(rows), *old.shape[1:]), old.dtype, old.columns)
    arrays = {name: np.asarray(mapped(part, old, name)) for name in ("regions", "boxes", *old.columns)}
    with open(smaller, "rb+") as file:
        writer = FeatureWriter(smaller, file)
        for to, row in enumerate(rows):
            values = {name: array[row : row + 1] for name, array in arrays.items()}
            writer.put([to], values.pop("regions"), values.pop("boxes"), values)
        os.fsync(file.fileno())
    os.replace(smaller, path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers from `path`, by a lock on a file beside it. The system drops it when its process dies.

    Raises:
        DataError: another one is at work.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.lock")
    with open(beside, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.fstat(file.fileno()).st_nlink > 0  # else its holder has just removed it
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks: better unguarded than no store at all
            free = True
        if not free:
            raise DataError(
                f"another process is writing {path}", hint="wait for it, stop it, or choose another --out"
            )
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)
