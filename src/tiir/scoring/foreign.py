"""Other people's numbers as a Run: embeddings, score matrices, the original study's npz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol
from tiir.errors import RunError, several
from tiir.io import load_npy, read_ids
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shards import ROWS, Shards
from tiir.scoring.study_npz import study_logits

__all__ = ["import_embeddings", "import_scores"]

Array = npt.NDArray[Any]
Side = tuple[str, Sequence[str]]  # "image" or "caption", and the data set's ids


def import_embeddings(
    images: Path | str,
    captions: Path | str,
    dataset: Dataset,
    dataset_path: Path | str,
    out: Path | str,
    *,
    name: str,
    image_ids: Path | str | None = None,
    caption_ids: Path | str | None = None,
    normalize: bool = False,
    allow_extra: bool = False,
    in_place: bool = False,
    overwrite: bool = False,
) -> Run:
    """Make a Run of embeddings from anywhere; score = dot product of the vectors as they are kept.

    Rows are joined to the data set by id. Without id files (given, or `image_ids.txt` and `caption_ids.txt`
    beside the arrays, or in the folder of their shards) the rows must be in the data set's order. float16 is kept,
    anything else becomes float32. Rows are read and written a block at a time.

    Args:
        images: .npy, .safetensors or .parquet, float (n_images, d), or a folder of such shards (see `Shards.open`).
        captions: the same of the captions, (n_captions, d).
        dataset: what they are of.
        dataset_path: where it lies.
        out: directory of the Run.
        name: of the model.
        image_ids, caption_ids: text files, the id of each row on a line.
        normalize: scale every vector to length 1 (cosine), in float32.
        allow_extra: leave out rows that are not in the data set instead of refusing them.
        in_place: copy nothing; the Run names the files, which must stay as they are. Their values are first looked
            at when they are ranked.
        overwrite: replace a Run in `out`.

    Raises:
        RunError: ids that do not line up, widths that differ, NaN or infinite values, Python objects; in place,
            anything that would have to be changed; arrays that lie in `out`.
    """
    _check_apart(out, images, captions)
    notes: dict[str, Any] = {"imported": [str(images), str(captions)], "normalized": normalize}
    sides: list[Any] = []
    for kind, path, ids_path, ids in [
        ("image", Path(images), image_ids, dataset.image_ids),
        ("caption", Path(captions), caption_ids, dataset.caption_ids),
    ]:
        shards = Shards.open(path)
        rows = _rows((kind, ids), len(shards), path, ids_path, allow_extra, notes)
        if in_place:
            _check_in_place(shards, path, rows, normalize)
            sides.append(shards)
        else:
            side = _Converted(shards if rows is None else shards.select(rows), normalize)
            _check_values(side, path, kind, ids)
            sides.append(side)
    info = RunInfo.about(dataset, dataset_path, name, protocol=default_protocol(dataset), notes=notes)
    if in_place:
        info = info.model_copy(update={"embeddings": {"image": sides[0].place(), "text": sides[1].place()}})
    return Run(info, sides[0], sides[1]).save(out, overwrite=overwrite)


def _check_apart(out: Path | str, *sources: Path | str) -> None:
    # The Run's own files may have the names of what it is made of.
    place = Path(out).resolve()
    for source in sources:
        lies = Path(source).resolve()
        if lies.parent == place or lies in (place, *place.parents):
            raise RunError(f"--out {out} is where {source} lies", hint="choose another --out")


class _Converted:
    # Shards as a Run keeps them, block by block: float16 or float32, normalised if asked for.
    ndim = 2

    def __init__(self, shards: Shards, normalize: bool) -> None:
        self.shards, self.normalize, self.shape = shards, normalize, shards.shape
        self.dtype = np.dtype(np.float16 if shards.dtype.itemsize == 2 and not normalize else np.float32)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, rows: slice) -> Array:
        with np.errstate(over="ignore"):  # infinite then, which is refused
            block = self.shards[rows].astype(self.dtype)
        if self.normalize:
            length = np.linalg.norm(block, axis=1, keepdims=True)
            block /= np.where(length > 0, length, 1)
        return block


def _check_values(side: _Converted, path: Path, kind: str, ids: Sequence[str]) -> None:
    bad, first = 0, 0
    for start in range(0, len(side), ROWS):
        block = side[start : start + ROWS]
        found = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(found):
            first = first if bad else start + int(found[0])
            bad += len(found)
        elif side.normalize and len(zero := np.flatnonzero(~block.any(axis=1))):
            raise RunError(f"{path}: the row of {kind} {ids[start + int(zero[0])]!r} is all zero")
    if bad:
        raise RunError(
            f"{path}: {several(bad, 'row')} with NaN or infinite values, the first of {kind} {ids[first]!r}",
            hint="half precision may have overflowed: compute the embeddings in float32",
        )


def _check_in_place(shards: Shards, path: Path, rows: npt.NDArray[np.int64] | None, normalize: bool) -> None:
    problem = None
    if normalize:
        problem = "vectors cannot be normalised"
    elif shards.dtype not in (np.float16, np.float32):
        problem = f"{path} cannot be used: it is {shards.dtype}, a Run holds float16 or float32"
    elif rows is not None and not (len(rows) == len(shards) and np.array_equal(rows, np.arange(len(rows)))):
        problem = f"{path} cannot be used: its rows are not those of the data set, in its order"
    if problem:
        raise RunError(f"in place, {problem}", hint="without --in-place they are copied")


def import_scores(
    path: Path | str,
    dataset: Dataset,
    dataset_path: Path | str,
    out: Path | str,
    *,
    name: str,
    transpose: bool = False,
    image_ids: Path | str | None = None,
    caption_ids: Path | str | None = None,
    overwrite: bool = False,
) -> Run:
    """Make a Run of a score matrix, or of the original study's npz.

    The npz holds `logits` and `labels` in one of two layouts (images x captions, or captions x images, flat or
    not). `labels` must mark exactly the data set's own pairs in one of them; that one is taken. Its `i2t_ranks`
    and `t2i_ranks` are not read: ranks are counted anew.

    Args:
        path: .npy, float (n_images, n_captions), higher is better, NaN = not scored; or the study's .npz.
        dataset: what they are of.
        dataset_path: where it lies.
        out: directory of the Run.
        name: of the model.
        transpose: the .npy matrix is captions x images.
        image_ids, caption_ids: text files, the id of each row and column on a line; by default `image_ids.txt` and
            `caption_ids.txt` beside the file, else the data set's order.
        overwrite: replace a Run in `out`.

    Raises:
        RunError: shapes or ids that do not line up, labels that mark other pairs, infinite scores, no score at all,
            Python objects; a file that lies in `out`.
    """
    path = Path(path)
    _check_apart(out, path)
    notes: dict[str, Any] = {"imported": str(path)}
    sides = [
        _order(("image", dataset.image_ids), path, image_ids, notes),
        _order(("caption", dataset.caption_ids), path, caption_ids, notes),
    ]
    rows, columns = (slice(None) if side is None else side for side in sides)  # a view where nothing moves
    if path.suffix == ".npz":
        if transpose:
            raise RunError(
                f"{path}: --transpose is for .npy", hint="the layout of an .npz is found by its labels"
            )
        notes["layout"], scores = study_logits(path, dataset, rows, columns)
    else:
        scores = _matrix(path, (dataset.n_images, dataset.n_captions), transpose, notes)[rows][:, columns]
    infinite = np.argwhere(np.isinf(scores) | (np.abs(scores) > np.finfo(np.float32).max))
    if len(infinite):
        image, caption = infinite[0]
        raise RunError(
            f"{path}: {several(len(infinite), 'infinite score')} (or beyond float32), the first of image {dataset.image_ids[image]!r} "
            f"and caption {dataset.caption_ids[caption]!r}",
            hint="mark pairs that were not scored with NaN",
        )
    values = np.asarray(scores, np.float32)
    for row, kept in zip(scores, values, strict=True) if scores.dtype == np.float64 else ():
        if len(np.unique(kept)) < 0.9 * len(np.unique(row)):
            raise RunError(
                f"{path}: scores differ by less than float32, in which a Run is stored, can hold",
                hint="subtract their mean and scale them up: ranks do not change",
            )
    unscored = int(np.isnan(values).sum())
    if unscored == values.size:
        raise RunError(f"{path} holds no score: every value is NaN")
    if unscored:
        notes["not_scored"] = unscored
    info = RunInfo.about(dataset, dataset_path, name, protocol=default_protocol(dataset), notes=notes)
    return Run(info, scores=values).save(out, overwrite=overwrite)


def _floats(array: Array, path: Path) -> Array:
    if array.ndim != 2 or array.dtype.kind != "f":
        raise RunError(f"{path} holds {array.dtype} {array.shape}, expected a float matrix")
    return array


def _matrix(path: Path, shape: tuple[int, int], transpose: bool, notes: dict[str, Any]) -> Array:
    given = _floats(load_npy(path, mmap=True, error=RunError), path)
    scores = given.T if transpose else given
    if scores.shape != shape:
        hint = f"the data set has {shape[0]} images and {shape[1]} captions"
        if given.shape == (shape if transpose else shape[::-1]):
            hint += "; " + (
                "leave out --transpose" if transpose else "it is captions x images: add --transpose"
            )
        raise RunError(f"{path} is {given.shape[0]} x {given.shape[1]}", hint=hint)
    notes["layout"] = "captions x images" if transpose else "images x captions"
    if shape[0] == shape[1]:
        notes["layout"] += ", as stated by the user: a square matrix does not show it"
    return scores


def _order(
    side: Side, path: Path, ids_path: Path | str | None, notes: dict[str, Any]
) -> npt.NDArray[np.int64] | None:
    # The row (column) of each of the data set's ids in a matrix of exactly its size.
    return _rows(side, len(side[1]), path, ids_path, False, notes)


def _rows(
    side: Side, n_rows: int, path: Path, ids_path: Path | str | None, allow_extra: bool, notes: dict[str, Any]
) -> npt.NDArray[np.int64] | None:
    # The row of each of the data set's ids; None where the rows are in its order already.
    kind, wanted = side
    neighbour = path / f"{kind}_ids.txt" if path.is_dir() else path.with_name(f"{kind}_ids.txt")
    if ids_path is None and neighbour.is_file():
        ids_path = neighbour
    if ids_path is None:
        if n_rows != len(wanted):
            raise RunError(
                f"{path} has {n_rows} {kind}s, the data set {len(wanted)}",
                hint=f"give the id of each row with --{kind}-ids FILE, or the data set it was made from",
            )
        notes[f"{kind}s_joined_by"] = "position"
        return None
    ids = read_ids(Path(ids_path), error=RunError)
    if len(ids) != n_rows:
        raise RunError(f"{ids_path} has {several(len(ids), 'line')}, {path} {several(n_rows, kind)}")
    row_of = {key: row for row, key in enumerate(ids)}
    if len(row_of) != len(ids):
        repeated = sorted({key for row, key in enumerate(ids) if row_of[key] != row})
        raise RunError(
            f"{ids_path} repeats {several(len(repeated), f'{kind} id')}: {', '.join(map(repr, repeated[:5]))}",
            hint="one row an id",
        )
    missing = [key for key in wanted if key not in row_of]
    if missing:
        raise RunError(
            f"{ids_path} lacks {len(missing)} of the data set's {len(wanted)} {kind}s: {', '.join(map(repr, missing[:5]))}",
            hint=f"ids must be written as in the data set, such as {wanted[0]!r}",
        )
    if len(ids) > len(wanted):
        known = set(wanted)
        extra = [key for key in ids if key not in known]
        if not allow_extra:
            raise RunError(
                f"{ids_path} has {several(len(extra), kind)} not in the data set: {', '.join(map(repr, extra[:5]))}",
                hint="another split? --allow-extra leaves them out",
            )
        notes[f"{kind}s_left_out"] = len(extra)
    notes[f"{kind}s_joined_by"] = str(ids_path)
    return np.array([row_of[key] for key in wanted], np.int64)
