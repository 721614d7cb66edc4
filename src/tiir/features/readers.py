"""Region features from elsewhere: per-image HDF5 groups, per-image .npz files, bottom-up-attention TSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tiir import __version__
from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError
from tiir.features.ids import match_ids
from tiir.features.info import FeatureInfo
from tiir.features.layout import FORMAT
from tiir.features.store import FeatureStore
from tiir.features.tsv import FloatArray, Item, is_tsv, read_tsv, tsv_ids
from tiir.io import load_npz
from tiir.progress import track

__all__ = ["KINDS", "Kind", "convert", "detect"]

Kind = Literal["h5", "npz", "tsv"]
KINDS: tuple[str, ...] = get_args(Kind)
LARGEST = 1 << 30  # bytes; no image has as many features


@dataclass(frozen=True)
class _Reader:
    """A source: all its ids, and a pass over the images that are wanted."""

    ids: Callable[[Path], list[str]]
    read: Callable[[Path, Container[str]], Iterator[Item]]


def convert(
    source: Path | str,
    out: Path | str,
    *,
    kind: Kind | None = None,
    dataset: Dataset | None = None,
    extractor: str | None = None,
    colour: Literal["rgb", "bgr"] | None = None,
    dtype: str = "float32",
    resume: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Make a FeatureStore of features that another program wrote, image by image.

    Sources:
        h5: a group for each image id with `visual_feats` (R, D) and `visual_pos` (R, 4) in [0, 1].
        npz: a folder of ID.npz files with the same two arrays; subfolders too.
        tsv: bottom-up-attention's lines, arrays in base64; boxes in pixels, divided here by the picture's size.

    Args:
        source: the file or folder.
        out: the store to write.
        kind: of `source`; found out where it is not given.
        dataset: keep its images only, under its ids and in its order (see `tiir.features.ids`); by default all
            images under the source's ids.
        extractor: what made the features, for the provenance.
        colour: the channel order that the extractor was given, for the provenance.
        dtype: "float32" or "float16".
        resume, overwrite: as in `FeatureStore.create`.

    Raises:
        ConfigError: no such kind.
        DataError: unreadable, or an image with NaN, another shape, boxes outside [0, 1] or inverted; images that
            are missing or twice there. It names the image.
    """
    source = Path(source)
    kind = kind or detect(source)
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r}", hint=f"one of: {', '.join(KINDS)}")
    reader = _READERS[kind]
    found = reader.ids(source)
    if not found:
        raise DataError(f"{source} has no features", hint=f"it was read as {kind}; name another --kind")
    repeated, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise DataError(f"{source}: image {repeated!r} is there {times} times", hint="leave one of them")
    ids, rule = list(found), "as in the source"
    names = dict(zip(found, found, strict=True))  # from the source's id to the store's
    if dataset is not None:
        names, rule = match_ids(found, dataset.image_ids)
        lost = sorted(set(dataset.image_ids) - set(names.values()))
        if lost:
            raise DataError(
                f"{source} has no features of {len(lost):,} of {dataset.n_images:,} images of {dataset!r}: "
                f"{', '.join(map(repr, lost[:3]))}{', ...' if len(lost) > 3 else ''}",
                hint=f"its ids look like {found[0]!r}; convert the file of the same split",
            )
        ids = list(dataset.image_ids)
    if not names:
        raise DataError(f"{dataset!r} is empty", hint="there is nothing to convert")
    first, regions, boxes = next(reader.read(source, {next(name for name in found if name in names)}))
    if regions.ndim != 2 or boxes.shape != (len(regions), 4):
        raise DataError(
            f"image {first!r} of {source}: features {regions.shape} and boxes {boxes.shape}",
            hint="expected (R, D) and (R, 4)",
        )
    info = FeatureInfo(
        extractor=extractor or ("bottom-up-attention" if kind == "tsv" else "unknown"),
        colour=colour,
        source=str(source.resolve()),
        dataset_fingerprint=None if dataset is None else dataset.fingerprint,
        versions={"tiir": __version__, "numpy": np.__version__},
        notes={"kind": kind, "ids": rule, "images_in_source": len(found)},
    )
    position = {name: row for row, name in enumerate(ids)}
    with FeatureStore.create(
        out,
        info,
        ids,
        *regions.shape,
        dtype=dtype,
        image_sha256=() if dataset is None else dataset.image_columns.get("sha256", ()),
        resume=resume,
        overwrite=overwrite,
    ) as writer:
        missing = {ids[row] for row in writer.missing}
        wanted = {there for there, name in names.items() if name in missing}
        items = reader.read(source, wanted)
        for there, regions, boxes in track(items, total=len(wanted), description="converting", unit="images"):
            writer.put([position[names[there]]], regions[None], boxes[None])
    return FeatureStore.open(out)


def detect(source: Path) -> Kind:
    """The kind of a source.

    Raises:
        DataError: missing, or none of them.
    """
    import h5py

    if source.is_dir():
        if next(source.glob("**/*.npz"), None) is None:
            raise DataError(f"{source} holds no .npz file", hint="name the folder of per-image .npz files")
        return "npz"
    if not source.is_file():
        raise DataError(f"no such file or folder: {source}")
    if h5py.is_hdf5(source):
        with _h5(source) as file:
            if str(file.attrs.get("format")) == FORMAT:
                raise DataError(f"{source} is a feature store already", hint="use it as it is")
        return "h5"
    if is_tsv(source):
        return "tsv"
    raise DataError(
        f"{source} is no layout of region features that is known here",
        hint=f"name its --kind: {', '.join(KINDS)}",
    )


def _h5_ids(path: Path) -> list[str]:
    with _h5(path) as file:
        return list(file.keys())


def _h5_read(path: Path, wanted: Container[str]) -> Iterator[Item]:
    import h5py

    with _h5(path) as file:
        for name in file:
            if name not in wanted:
                continue
            try:
                group = file[name]
                if not isinstance(group, h5py.Group):
                    raise KeyError("it is not a group")
                arrays = [_h5_array(group[key]) for key in ("visual_feats", "visual_pos")]
            except Exception as problem:  # HDF5's errors come as nearly every type
                raise DataError(
                    f"image {name!r} of {path}: {str(problem).strip(chr(34))}",
                    hint="each image is a group with visual_feats (R, D) and visual_pos (R, 4)",
                ) from None
            yield name, _numbers(name, path, arrays[0]), _numbers(name, path, arrays[1])


def _h5_array(stored: Any) -> Any:
    # A few bytes can declare terabytes of the fill value.
    if (size := stored.size * stored.dtype.itemsize) > LARGEST:
        raise ValueError(f"{stored.name} has {size:,} bytes, {LARGEST:,} are the most there can be")
    return stored[()]


@contextmanager
def _h5(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as problem:
        raise DataError(
            f"{path} cannot be read as HDF5: {problem}",
            hint="it may be cut off, or of another --kind",
        ) from None


def _npz_ids(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.glob("**/*.npz"))]


def _npz_read(folder: Path, wanted: Container[str]) -> Iterator[Item]:
    for path in sorted(folder.glob("**/*.npz")):
        if path.stem not in wanted:
            continue
        try:
            arrays = load_npz(path, ("visual_feats", "visual_pos"), most=LARGEST)
        except DataError as problem:
            raise DataError(
                f"image {path.stem!r}: {problem.message}",
                hint="each file holds visual_feats (R, D) and visual_pos (R, 4); it may be damaged",
            ) from None
        regions, boxes = (_numbers(path.stem, path, array) for array in arrays.values())
        yield path.stem, regions, boxes


def _numbers(name: str, path: Path, array: Any) -> FloatArray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise DataError(
            f"image {name!r} of {path}: {array.dtype} is not a number", hint="expected float arrays"
        )
    with np.errstate(over="ignore"):
        numbers: FloatArray = array.astype(np.float32)
    return numbers


_READERS: dict[str, _Reader] = {
    "h5": _Reader(_h5_ids, _h5_read),
    "npz": _Reader(_npz_ids, _npz_read),
    "tsv": _Reader(tsv_ids, read_tsv),
}
