"""A FeatureStore from the first check of its plan to the finished file, by one writer at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiir.errors import DataError
from tiir.features.info import FeatureInfo
from tiir.features.layout import DTYPES, Columns, Header, allocate, mapped, part_of, read_header
from tiir.features.writer import FeatureWriter
from tiir.io import remove_leftovers
from tiir.lock import locked
from tiir.revisions import commit, pinned

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["begun_commit", "check_plan", "check_same", "extend", "only_writer", "open_writer"]

RESERVED = ("regions", "boxes", "crc32", "written")


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
            raise DataError(
                f"{path} was begun with {key} {earlier[key]!r}, now it is {value!r}",
                hint=f"resume with the same source{pinned(earlier[key])} and options, or start again with --overwrite",
            )
    if header.image_ids != tuple(left):
        raise DataError(
            f"{path} was begun with other images",
            hint="resume with the same data set, or start again with --overwrite",
        )


def begun_commit(path: Path, extractor: str) -> str | None:
    """The commit with which an unfinished store goes on; None where there is none, or of another extractor.

    Args:
        path: the store.
        extractor: such as "grid:microsoft/resnet-50".
    """
    try:
        begun = read_header(part_of(path)).info
    except DataError:  # there is none, or it is damaged: said when it is continued
        return None
    return commit(extractor, begun.weights) if begun.extractor == extractor else None


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


@contextmanager
def extend(
    old: FeatureStore,
    header: Header,
    info: FeatureInfo,
    image_ids: Sequence[str],
    image_sha256: Sequence[str],
    resume: bool,
    overwrite: bool,
) -> Iterator[FeatureWriter]:
    """As `FeatureStore.append`; the store is locked.

    Args:
        old: the store.
        header: of its file.
        info, image_ids, image_sha256, resume, overwrite: see there.

    Raises:
        DataError: an id is in the store already, or the features are of another kind; and as `open_writer`.
    """
    path, new = old.path, list(image_ids)
    for key in ("extractor", "weights", "colour", "boxes"):
        if (then := getattr(old.info, key)) != (now := getattr(info, key)):
            raise DataError(
                f"{path} has features with {key} {then!r}, those to append have {now!r}",
                hint="write them to a store of their own",
            )
    kept_new = tuple(name for name in new if name not in old.info.skipped)
    if resume and kept_new and kept_new == old.image_ids[-len(kept_new) :]:  # killed after the last step
        yield FeatureWriter(path, None)
        return
    both = sorted(set(new) & set(old.image_ids))
    if both:
        raise DataError(
            f"{path} already has {len(both):,} of the {len(new):,} images, such as {both[0]!r}",
            hint="append new images only",
        )
    everything = [*old.image_ids, *new]
    hashes = [*header.image_sha256, *(image_sha256 or [""] * len(new))]
    check_plan(everything, old.n_regions, old.width, old.dtype, hashes, header.columns)
    shape = (len(everything), old.n_regions, old.width)
    same = info.dataset_fingerprint == old.info.dataset_fingerprint
    skipped = {
        name: why for name, why in old.info.skipped.items() if name not in new
    }  # not the repaired ones
    whole = old.info.model_copy(update={"skipped": skipped} | ({} if same else {"dataset_fingerprint": None}))
    with open_writer(
        path, whole, everything, hashes, shape, old.dtype, header.columns, resume, overwrite
    ) as writer:
        kept = writer.missing[writer.missing < len(old)]
        for start in range(0, len(kept), 64):
            rows = kept[start : start + 64]
            writer.put(rows, *old.read(rows), {name: column[rows] for name, column in old.columns.items()})
        yield writer


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
def only_writer(path: Path) -> Iterator[None]:
    """Keep other writers from `path`, by a lock on a file beside it.

    Raises:
        DataError: another one is at work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.lock")
    with locked(beside, path, error=DataError):
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)
