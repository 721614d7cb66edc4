"""How a Dataset lies on disk: Parquet files, and `dataset.json`, which is written last and holds their hashes."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from tiir.data.dataset import Dataset, Judgements
from tiir.errors import ConfigError, DataError, TiirError, not_that
from tiir.io import atomic_write, read_json, sha256_file
from tiir.out import begin, check_out, finish, is_begun

__all__ = ["HEADER", "check_dataset_out", "read_dataset", "source_of", "write_dataset"]

FORMAT = 1
HEADER = "dataset.json"
HINT = "prepare the data set again"


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


def check_dataset_out(
    out: Path, *, overwrite: bool, beside: Container[str] = (), error: type[TiirError] = ConfigError
) -> None:
    """Refuse an --out that holds a data set (without `overwrite`), or other people's files; see `check_out`.

    Raises:
        error: what it holds.
    """
    finished, begun = (out / HEADER).exists(), is_begun(out / HEADER)
    check_out(
        out, "a data set", finished=finished, begun=begun, overwrite=overwrite, beside=beside, error=error
    )


def source_of(directory: Path) -> str | None:
    """What a data set says it was made from, also a damaged one; None where there is none, or it cannot say."""
    try:
        return str(read_json(directory / HEADER)["source"].get("source", "elsewhere"))
    except (DataError, AttributeError, KeyError, TypeError):
        return None


def write_dataset(dataset: Dataset, directory: Path, overwrite: bool) -> None:
    """As `Dataset.save`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = _portable_root(dataset.image_root, directory)
    check_dataset_out(directory, overwrite=overwrite, beside=Path(root or "").parts[:1], error=DataError)
    images: dict[str, Any] = {"image_id": list(dataset.image_ids), **dataset.image_columns}
    if dataset.image_paths is not None:
        images["path"] = list(dataset.image_paths)
    tables = {
        "images": images,
        "captions": {
            "caption_id": list(dataset.caption_ids),
            "image": dataset.caption_image,
            "caption": list(dataset.captions),
            **dataset.caption_columns,
        },
        "judgements": _judgement_columns(dataset.judgements),
        "skipped": {key: [row[key] for row in dataset.skipped] for key in ("kind", "item", "detail")}
        if dataset.skipped
        else None,
    }
    begin(directory / HEADER)
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
        name=dataset.name,
        split=dataset.split,
        images=dataset.n_images,
        captions=dataset.n_captions,
        judgements=0 if dataset.judgements is None else len(dataset.judgements),
        skipped=len(dataset.skipped),
        fingerprint=dataset.fingerprint,
        files=files,
        image_root=root,
        source=dict(dataset.source),
    )
    finish(directory / HEADER, header.model_dump())


def read_dataset(directory: Path) -> Dataset:
    """As `Dataset.load`."""
    header_path = directory / HEADER
    if not header_path.is_file():
        raise DataError(
            f"{directory} is not a data set: {not_that(directory, header_path.name)}",
            hint="make one with `tiir prepare`",
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
    data = Dataset(
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
