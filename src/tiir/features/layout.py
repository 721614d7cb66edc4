"""How a FeatureStore lies on disk: an HDF5 file of contiguous arrays, allocated whole before any feature is written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError, similar
from tiir.features.info import FeatureInfo
from tiir.io import atomic_write

__all__ = [
    "DTYPES",
    "Columns",
    "Header",
    "allocate",
    "checksum",
    "mapped",
    "part_of",
    "read_header",
]

FORMAT = "tiir features 1"
DTYPES = ("float16", "float32")
HINT = "extract or convert the features again"


Columns = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> dtype, shape of one image's values


@dataclass(frozen=True)
class Header:
    """All of a store but its regions, boxes and columns."""

    info: FeatureInfo
    image_ids: tuple[str, ...]
    image_sha256: tuple[str, ...]  # of each image's file, "" where it is not known
    shape: tuple[int, int, int]  # images, regions, width
    dtype: str
    offsets: dict[str, int]  # first byte of each array in the file
    crc32: npt.NDArray[np.uint32]  # (n,) of each image's regions, boxes, columns by name, as stored
    written: npt.NDArray[np.uint8]  # (n,) 1 where the image is there
    columns: Columns

    @property
    def fingerprint(self) -> str:
        """Hash of the content: ids, shape and the checksum of every image."""
        plan = json.dumps([self.image_ids, self.shape, self.dtype])
        return hashlib.sha256(plan.encode("utf-8", "surrogatepass") + self.crc32.tobytes()).hexdigest()[:32]


def allocate(
    path: Path,
    info: FeatureInfo,
    image_ids: Sequence[str],
    image_sha256: Sequence[str],
    shape: tuple[int, int, int],
    dtype: str,
    columns: Columns,
) -> None:
    """Write a store without features, its whole size reserved on disk.

    HDF5 never opens the file for writing again, so a kill while features are written cannot hurt its structure.
    The regions come last: of a file that was cut off later, the rest can still be read.

    Raises:
        DataError: the disk has too little room.
    """
    import h5py

    n, regions, width = shape
    raw = [_encoded(name) for name in image_ids]
    hashes = [text.encode() for text in image_sha256] if any(image_sha256) else []
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as file:  # checksums its own structure
            file.attrs["format"] = FORMAT
            more_facts = (
                "names",
                "dataset_path",
                "skipped",
            )  # left out where empty: older versions know none
            file.attrs["info"] = info.model_dump_json(
                exclude={key for key in more_facts if not getattr(info, key)}
            )
            file.attrs["ids_sha256"] = _ids_hash(raw + hashes)
            for name, texts in [("image_ids", raw), ("image_sha256", hashes)]:
                if texts:
                    kind = h5py.string_dtype("utf-8", max(map(len, texts)))
                    file.create_dataset(name, data=np.array(texts, kind))
            file.create_dataset("written", data=np.zeros(n, np.uint8))
            file.create_dataset("crc32", data=np.zeros(n, "<u4"))
            little = np.dtype(dtype).newbyteorder("<")
            more = [
                (f"columns/{name}", (n, *one), np.dtype(kind).newbyteorder("<"))
                for name, (kind, one) in sorted(columns.items())
            ]
            if more:
                file.create_group("columns")
            for name, size, stored in [
                *more,
                ("boxes", (n, regions, 4), np.dtype("<f4")),
                ("regions", (n, regions, width), little),
            ]:
                plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plan.set_layout(h5py.h5d.CONTIGUOUS)
                plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                space = h5py.h5s.create_simple(size)
                h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(stored), space, plan)
        if hasattr(os, "posix_fallocate"):  # a full disk is found here, not after hours
            with open(temporary, "rb+") as handle:
                size_bytes = os.fstat(handle.fileno()).st_size
                try:
                    os.posix_fallocate(handle.fileno(), 0, size_bytes)
                except OSError as problem:
                    if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                        raise DataError(
                            f"cannot reserve {size_bytes / 1e9:.1f} GB for {path}: {problem.strerror}",
                            hint="free some space, choose another --out, or store float16",
                        ) from None  # other errors: a file system that cannot reserve


def read_header(path: Path) -> Header:
    """Read all but the features.

    Raises:
        DataError: missing, not a store, damaged, or cut off (with the first image that is lost).
    """
    import h5py

    if not path.is_file():
        raise DataError(
            f"no such feature store: {path}{similar(path)}",
            hint="make one with `tiir features extract` or `convert`",
        )
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _header(path, file)
    except OSError as problem:
        raise _explained(path, problem) from None
    except DataError:
        raise
    except Exception as problem:  # h5py raises nearly every type on a damaged file
        raise DataError(
            f"{path} is not a feature store, or is damaged: {problem}",
            hint="other layouts are read by `tiir features convert`",
        ) from None


def mapped(path: Path, header: Header, name: str) -> np.memmap[Any, Any]:
    """The "regions" (n, R, D), "boxes" (n, R, 4) or a column (n, ...) of a file, mapped, read-only."""
    n, regions, width = header.shape
    own = {"regions": (header.dtype, (regions, width)), "boxes": ("float32", (regions, 4))}
    dtype, one = own.get(name) or header.columns[name]
    try:
        return np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r", header.offsets[name], (n, *one))
    except (ValueError, TypeError, OverflowError) as problem:
        raise DataError(f"{path} is damaged: {name}: {problem}", hint=HINT) from None


def checksum(*arrays: npt.NDArray[Any]) -> int:
    """CRC-32 of an image's regions, boxes and columns (by name), as stored."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.data, crc)
    return crc


def part_of(path: Path) -> Path:
    """Where a store lies while it is written."""
    return path.with_name(path.name + ".part")


def _header(path: Path, file: Any) -> Header:
    if file.attrs.get("format") != FORMAT:
        raise DataError(
            f"{path} is HDF5, but not a feature store of this tiir (format {file.attrs.get('format')!r})",
            hint="per-image groups are read by `tiir features convert`",
        )
    size = path.stat().st_size
    for name in ("image_ids", "image_sha256", "crc32", "written"):
        if name in file and file[name].size * file[name].dtype.itemsize > size:
            raise ValueError(f"{name} is larger than the file")
    raw = [bytes(name) for name in file["image_ids"][:]]
    hashes = [bytes(text) for text in file["image_sha256"][:]] if "image_sha256" in file else []
    if _ids_hash(raw + hashes) != file.attrs["ids_sha256"]:
        raise DataError(f"{path}: its image ids are damaged", hint=HINT)
    regions = file["regions"]
    more = {name: file["columns"][name] for name in sorted(file["columns"])} if "columns" in file else {}
    arrays = {name: file[name] for name in ("regions", "boxes", "crc32", "written")} | more
    offsets = {name: array.id.get_offset() for name, array in arrays.items()}
    if None in offsets.values():
        raise DataError(
            f"{path} was rewritten: its arrays are not contiguous",
            hint="copy a store as it is: h5repack and its like change what lies where",
        )
    shapes = {"boxes": (len(raw), regions.shape[1], 4), "crc32": (len(raw),), "written": (len(raw),)}
    for name, array in arrays.items():
        if array.shape[:1] != (len(raw),) or array.shape != shapes.get(name, array.shape):
            raise ValueError(f"{name} has the shape {array.shape}")
    if regions.ndim != 3 or regions.dtype.name not in DTYPES:
        raise ValueError(f"regions are {regions.dtype} {regions.shape}")
    return Header(
        info=FeatureInfo.model_validate_json(file.attrs["info"]),
        image_ids=tuple(name.decode("utf-8", "surrogatepass") for name in raw),
        image_sha256=tuple(text.decode() for text in hashes) or ("",) * len(raw),
        shape=regions.shape,
        dtype=regions.dtype.name,
        offsets=offsets,
        crc32=file["crc32"][:],
        written=file["written"][:],
        columns={name: (array.dtype.name, array.shape[1:]) for name, array in more.items()},
    )


def _encoded(name: str) -> bytes:
    if not name or "\0" in name:
        raise DataError(
            f"image id {name!r} is empty or holds a NUL byte", hint="give every image a printable id"
        )
    return name.encode("utf-8", "surrogatepass")


def _ids_hash(raw: Sequence[bytes]) -> str:
    return hashlib.sha256(b"\0".join(raw)).hexdigest()


class _Padded(io.RawIOBase):
    """A file that pretends to go on in zeros, so that HDF5 opens what is left of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: 1 << 50}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._at)
        raw = self._file.read(len(buffer))
        buffer[:] = raw.ljust(len(buffer), b"\0")
        self._at += len(buffer)
        return len(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _explained(path: Path, problem: OSError) -> DataError:
    import h5py

    try:
        with _Padded(path) as padded, h5py.File(padded, "r") as file:
            header = _header(path, file)
    except Exception:  # nothing of it can be read: say what HDF5 said
        return DataError(
            f"{path} cannot be read as HDF5: {problem}",
            hint="it may be cut off, damaged or another kind of file",
        )
    n, regions, width = header.shape
    size, row = path.stat().st_size, regions * width * np.dtype(header.dtype).itemsize
    kept = min(max(0, (size - header.offsets["regions"]) // row), n)
    needed = header.offsets["regions"] + n * row
    if kept == n:
        return DataError(f"{path} cannot be read as HDF5: {problem}", hint=HINT)
    return DataError(
        f"{path} is cut off: it has {size:,} of {needed:,} bytes; image {header.image_ids[kept]!r} and "
        f"{n - kept - 1:,} after it are lost",
        hint="copy it again, or make it again",
    )
