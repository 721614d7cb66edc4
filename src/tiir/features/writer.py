"""Writing a FeatureStore: row by row, each with its checksum, so that a kill at any moment loses one row at most."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError
from tiir.features.layout import DTYPES, FeatureInfo, Header, allocate, checksum, mapped, part_of, read_header
from tiir.progress import track

__all__ = ["FeatureWriter", "check_plan", "check_same", "locked", "open_writer"]

IntArray = npt.NDArray[np.int64]
EDGE = 1e-3  # a box may lie so far outside [0, 1]: pixel edges, rounding; it is clipped


class FeatureWriter:
    """Fills a store that `FeatureStore.create` or `append` allocated.

    Args:
        path: of the file being written.
        file: that file, open for reading and writing; None where nothing is left to write.
    """

    def __init__(self, path: Path, file: IO[bytes] | None) -> None:
        self.path = path
        self._file = file
        self._header = read_header(path)
        self._written = self._header.written == 1
        if file is not None:
            self._recheck()

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of each row."""
        return self._header.image_ids

    @property
    def missing(self) -> IntArray:
        """Positions still to be written, int64, ascending."""
        return np.flatnonzero(~self._written)

    def put(self, rows: Sequence[int] | IntArray, regions: npt.ArrayLike, boxes: npt.ArrayLike) -> None:
        """Write images: regions (k, R, D) and boxes (k, R, 4).

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
        for row, region, box in zip(rows.tolist(), stored, clipped, strict=True):
            crc = checksum(region, box)
            self._write("regions", row * region.nbytes, region.tobytes())
            self._write("boxes", row * box.nbytes, box.tobytes())
            self._write("crc32", row * 4, crc.to_bytes(4, "little"))
            self._write("written", row, b"\1")  # last: whoever finds it can trust the rest, and checks it
            self._written[row] = True
        self._file.flush()

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

    def _recheck(self) -> None:
        # What an earlier process wrote, as far as it reached the disk.
        if not self._written.any():
            return
        regions, boxes = (np.asarray(mapped(self.path, self._header, name)) for name in ("regions", "boxes"))
        for row in track(np.flatnonzero(self._written), description="checking what is there", unit="images"):
            self._written[row] = checksum(regions[row], boxes[row]) == self._header.crc32[row]


def _refuse(bad: npt.NDArray[np.bool_], names: Sequence[str], what: str, hint: str) -> None:
    if bad.any():
        image, *place = np.argwhere(bad)[0]
        raise DataError(f"image {names[image]!r}: {what} (region {place[0]})", hint=hint)


def check_plan(
    image_ids: Sequence[str], n_regions: int, width: int, dtype: str, image_sha256: Sequence[str]
) -> None:
    """Refuse duplicate ids, empty shapes and other dtypes."""
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
) -> None:
    """Refuse to go on with a file that was begun with another plan."""
    hint = "resume with the same source and options, or start again with --overwrite"
    skip = {"created"}
    earlier, now = (
        header.info.model_dump(mode="json", exclude=skip),
        info.model_dump(mode="json", exclude=skip),
    )
    earlier |= {"shape": tuple(header.shape), "dtype": header.dtype}
    now |= {"shape": shape, "dtype": dtype}
    for key, value in now.items():
        if earlier[key] != value:
            raise DataError(f"{path} was begun with {key} {earlier[key]!r}, now it is {value!r}", hint=hint)
    if header.image_ids != tuple(image_ids):
        raise DataError(f"{path} was begun with other images", hint=hint)


@contextmanager
def open_writer(
    path: Path,
    info: FeatureInfo,
    image_ids: Sequence[str],
    image_sha256: Sequence[str],
    shape: tuple[int, int, int],
    dtype: str,
    resume: bool,
    overwrite: bool,
) -> Iterator[FeatureWriter]:
    """Start or continue the file beside `path` that replaces it when every row is written; `path` is `locked`.

    Raises:
        DataError: it was begun with another plan, or rows are missing at the end.
    """
    part = part_of(path)
    if not info.created:
        info = info.model_copy(update={"created": datetime.now(timezone.utc).isoformat(timespec="seconds")})
    if part.exists() and not resume and not overwrite:
        raise DataError(
            f"{path} is unfinished ({part.name})", hint="continue it with --resume, or --overwrite"
        )
    if part.exists() and resume:
        check_same(part, read_header(part), info, image_ids, shape, dtype)
    else:
        allocate(part, info, image_ids, image_sha256, shape, dtype)
    with open(part, "rb+") as file:
        writer = FeatureWriter(part, file)
        yield writer
        if len(writer.missing):
            raise DataError(
                f"{path}: {len(writer.missing):,} of {len(image_ids):,} images were not written, the first is "
                f"{image_ids[writer.missing[0]]!r}",
                hint="continue it with --resume",
            )
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


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
