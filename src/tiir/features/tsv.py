"""Region features in bottom-up-attention's TSV: a line an image, arrays in base64, boxes in pixels."""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError
from tiir.progress import track

__all__ = ["FloatArray", "Item", "is_tsv", "read_tsv", "tsv_ids"]

FloatArray = npt.NDArray[np.float32]
Item = tuple[str, FloatArray, FloatArray]  # image id, regions (R, D), boxes (R, 4) normalised
COLUMNS = {  # of a TSV, by their number
    10: ("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes",
         "boxes", "features"),  # as LXMERT published them
    6: ("img_id", "img_w", "img_h", "num_boxes", "boxes", "features"),  # as bottom-up-attention did
}  # fmt: skip
LINE = 1 << 26  # bytes; no line is as long


def is_tsv(path: Path) -> bool:
    """Whether the first line has as many columns as such a file."""
    with open(path, "rb") as lines:
        return lines.readline(LINE).count(b"\t") + 1 in COLUMNS


def tsv_ids(path: Path) -> list[str]:
    """The image id of each line.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as lines:
            total = math.ceil(os.fstat(lines.fileno()).st_size / 1e6)
            bar = track(lines, total=total, description="finding images", unit="MB", step=_megabytes)
            return [_id_of(line) for line in bar if not line.isspace()]
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}") from None


def _id_of(line: bytes) -> str:
    end = line.find(b"\t")  # not by split, which copies the half megabyte behind it
    return (line[:end] if end >= 0 else line.strip()).decode("utf-8", "replace")


def _megabytes(line: bytes) -> float:
    return len(line) / 1e6


def read_tsv(path: Path, wanted: Container[str]) -> Iterator[Item]:
    """The features of the images that are wanted, boxes divided by the picture's size.

    Raises:
        DataError: a line is cut off, or holds something else (it names the image and the line).
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            name = _id_of(line)
            if line.isspace() or name not in wanted:
                continue
            where = f"image {name!r} ({path}, line {number})"
            fields = line.rstrip(b"\r\n").split(b"\t")
            if len(fields) not in COLUMNS:
                raise DataError(
                    f"{where} has {len(fields)} columns, not {' or '.join(map(str, COLUMNS))}",
                    hint="the file may be cut off: download it again",
                )
            row = dict(zip(COLUMNS[len(fields)], fields, strict=True))
            try:
                height, width, count = (int(row[key]) for key in ("img_h", "img_w", "num_boxes"))
            except ValueError as problem:
                raise DataError(f"{where}: {problem}", hint=f"columns are {', '.join(row)}") from None
            if not all(1 <= number < 2**31 for number in (height, width, count)):
                shown = f"{str(width)[:20]} x {str(height)[:20]} pixels and {str(count)[:20]} boxes"
                raise DataError(f"{where} has {shown}", hint="each is 1 or more, and below 2 to the 31st")
            boxes = _decoded(where, "boxes", row["boxes"], count)  # (R, 4)
            if boxes.shape[1] != 4:
                raise DataError(f"{where}: boxes have {boxes.shape[1]} numbers", hint="expected x1 y1 x2 y2")
            size = np.array([width, height, width, height], np.float32)
            yield name, _decoded(where, "features", row["features"], count), boxes / size


def _decoded(where: str, key: str, text: bytes, count: int) -> FloatArray:
    # float32 (count, numbers a region)
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as problem:
        raise DataError(
            f"{where}: '{key}' is not whole base64: {problem}", hint="the file is cut off or damaged"
        ) from None
    if not raw or len(raw) % (4 * count):
        raise DataError(
            f"{where}: '{key}' has {len(raw):,} bytes, no float32 array of {count} regions",
            hint="the file is cut off or damaged",
        )
    return np.frombuffer(raw, "<f4").reshape(count, -1)
