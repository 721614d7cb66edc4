"""From a source's raw records to a Dataset: every check in one place, one report of everything found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiir.data.dataset import Dataset, Judgements
from tiir.data.images import open_image
from tiir.data.problems import OnBad, Problems
from tiir.errors import ConfigError, DataError, ImageError, UnsafePathError, several, similar
from tiir.io import inside, sha256_file
from tiir.progress import track

__all__ = [
    "CaptionRecord",
    "ImageRecord",
    "JudgementRecord",
    "build_dataset",
]


class ImageRecord(NamedTuple):
    """An image as a source names it: `path` below the image folder, `columns` further facts."""

    id: str
    path: str
    columns: Mapping[str, Any] = {}


class CaptionRecord(NamedTuple):
    """A caption as a source gives it: `image` is the id of its image, `columns` further facts."""

    id: str
    image: str
    text: str
    columns: Mapping[str, Any] = {}


class JudgementRecord(NamedTuple):
    """A grade of one pair, by ids; the fields of `tiir.data.dataset.Judgements`."""

    image: str
    caption: str
    grade: float
    source: str
    votes: tuple[int, ...]


def build_dataset(
    name: str,
    split: str,
    images: Iterable[ImageRecord],
    captions: Iterable[CaptionRecord],
    *,
    image_root: Path | str | None,
    judgements: Iterable[JudgementRecord] = (),
    on_bad: OnBad = "error",
    source: Mapping[str, Any] | None = None,
    found: Problems | None = None,
    left_out: Sequence[Mapping[str, str]] = (),
) -> Dataset:
    """Check a source's records and make the data set, in their order.

    With an image folder every file is decoded once, in threads, and the image columns "sha256" (of the file),
    "width" and "height" (upright, in pixels) are added.

    Args:
        name: of the data set, such as "coco".
        split: such as "test".
        images: one record an image.
        captions: one record a caption. Texts are kept as they are.
        image_root: the folder of the image files, or None for captions only.
        judgements: people's grades of pairs.
        on_bad: "error" reports all problems and stops; "skip" leaves the bad records out, with what depends on
            them, and lists all of it in `Dataset.skipped`.
        source: provenance, JSON values only.
        found: problems that the source met while reading; they count like those found here.
        left_out: rows for `Dataset.skipped` that are known and no problem.

    Raises:
        DataError: there are problems and `on_bad` is "error", or nothing is left.
        ConfigError: `on_bad` is neither.

    Example:
        >>> build_dataset("pets", "test", [ImageRecord("a", "a.jpg")], [CaptionRecord("a#0", "a", "a cat")],
        ...               image_root=None)
        Dataset(pets/test: 1 image, 1 caption, no image files)
    """
    if on_bad not in ("error", "skip"):
        raise ConfigError(f"on_bad is {on_bad!r}", hint="choose 'error' or 'skip'")
    root = None if image_root is None else Path(image_root)
    if root is not None and not root.is_dir():
        raise DataError(
            f"no such image folder: {root}{similar(root)}",
            hint="give the folder, or --images none",
        )
    for text in map(str, [name, split, root, *(source or {}).values()]):
        if not _is_unicode(text):
            raise DataError(f"{text!a} is not valid Unicode", hint="rename the file or folder")
    problems = Problems(found.rows if found else ())
    cascade = Problems()  # what goes only because something else went

    declared: dict[str, ImageRecord] = {}
    for image in images:
        if image.id in declared:
            problems.add("duplicate image id", image.id, f"{declared[image.id].path} and {image.path}")
        else:
            declared[image.id] = image
    facts = _check_images(list(declared.values()), root, problems)

    captioned: set[str] = set()
    good: dict[str, CaptionRecord] = {}
    caption_ids: set[str] = set()
    for caption in captions:
        caption_ids.add(caption.id)
        captioned.add(caption.image)
        if caption.image not in declared:
            problems.add("caption of an unknown image", caption.id, f"image {caption.image}")
        elif not caption.text.strip():
            problems.add("empty caption", caption.id, f"of image {caption.image}")
        elif not (_is_unicode(caption.text) and _is_unicode(caption.id)):
            problems.add("broken text", ascii(caption.id), "lone surrogates, which no file can hold")
        elif caption.id in good:
            problems.add(
                "duplicate caption id", caption.id, f"of images {good[caption.id].image}, {caption.image}"
            )
        else:
            good[caption.id] = caption
    for key in facts:
        if key not in captioned:
            problems.add("image without captions", key, "")
    for key, caption in list(good.items()):
        if caption.image not in facts:
            cascade.add("caption of a skipped image", key, f"image {caption.image}")
            del good[key]
    left = {caption.image for caption in good.values()}
    for key in [key for key in facts if key not in left]:
        if key in captioned:
            cascade.add("image whose captions were skipped", key, "")
        del facts[key]

    row = {key: i for i, key in enumerate(facts)}
    column = {key: i for i, key in enumerate(good)}
    grades = []
    for grade in judgements:
        pair = f"{grade.image} with {grade.caption}"
        if grade.image in row and grade.caption in column:
            grades.append(grade)
        elif grade.image in declared and grade.caption in caption_ids:
            cascade.add("judgement of a skipped image or caption", pair, grade.source)
        else:
            problems.add("judgement of an unknown image or caption", pair, grade.source)

    if problems and on_bad == "error":
        raise DataError(
            f"{name}/{split}: {several(len(problems), 'problem')} in the source\n{problems}",
            hint=_advice(problems, captioned, root),
        )
    if not good:
        raise DataError(f"{name}/{split}: no image with a caption is left\n{problems}".rstrip())
    kept = list(good.values())
    return Dataset(
        name,
        split,
        list(facts),
        list(good),
        [caption.text for caption in kept],
        np.array([row[caption.image] for caption in kept], np.int64),
        root,
        None if root is None else [declared[key].path for key in facts],
        _columns(list(facts.values())),
        _columns([caption.columns for caption in kept]),
        _judgements(grades, row, column),
        dict(source or {}),
        [*left_out, *problems.rows, *cascade.rows],
    )


def _check_images(
    records: Sequence[ImageRecord], root: Path | None, problems: Problems
) -> dict[str, Mapping[str, Any]]:
    # The columns of each good image, by id.
    @cache
    def names(folder: Path) -> dict[str, str]:
        there = os.listdir(folder) if folder.is_dir() else []
        return {Path(name).stem.casefold(): name for name in there} | {
            name.casefold(): name for name in there
        }

    def other_spelling(path: Path) -> str:
        there = names(path.parent)
        near = there.get(path.name.casefold(), there.get(path.stem.casefold()))
        return f" (there is {near})" if near else ""

    def check(image: ImageRecord) -> Mapping[str, Any] | tuple[str, str]:
        if not (_is_unicode(image.id) and _is_unicode(image.path)):
            return "broken text", "an id or path that is not valid Unicode: rename the file"
        if root is None:
            return image.columns
        try:
            path = inside(root, image.path)
            if not os.path.exists(path):
                return "missing image", f"no such file: {path}{other_spelling(path)}"
            width, height = open_image(path).size
            return {**image.columns, "sha256": sha256_file(path), "width": width, "height": height}
        except UnsafePathError as problem:
            return "unsafe path", problem.message
        except ImageError as problem:
            return "unreadable image", problem.message
        except OSError as problem:
            return "unreadable image", str(problem)

    if root is None:
        results: Iterable[Mapping[str, Any] | tuple[str, str]] = map(check, records)
        return _sort_out(records, results, problems)
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        checked = pool.imap(check, records, chunksize=8)
        results = track(checked, total=len(records), description="checking images", unit="images")
        return _sort_out(records, results, problems)


def _sort_out(
    records: Sequence[ImageRecord],
    results: Iterable[Mapping[str, Any] | tuple[str, str]],
    problems: Problems,
) -> dict[str, Mapping[str, Any]]:
    good: dict[str, Mapping[str, Any]] = {}
    for image, result in zip(records, results, strict=True):
        if isinstance(result, tuple):
            kind, detail = result
            problems.add(kind, image.id if _is_unicode(image.id) else ascii(image.id), detail)
        else:
            good[image.id] = result
    return good


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def _judgements(
    grades: Sequence[JudgementRecord], row: Mapping[str, int], column: Mapping[str, int]
) -> Judgements | None:
    if not grades:
        return None
    return Judgements(
        np.array([row[grade.image] for grade in grades], np.int64),
        np.array([column[grade.caption] for grade in grades], np.int64),
        np.array([grade.grade for grade in grades], np.float32),
        [grade.source for grade in grades],
        [grade.votes for grade in grades],
    )


def _advice(problems: Problems, named: set[str], root: Path | None) -> str:
    lost = [row["item"] for row in problems.rows if row["kind"] in ("missing image", "unsafe path")]
    if lost and set(lost) == named:
        return (
            f"none of the images was found: is {root} the right image folder? Their names are relative to it, "
            "and their capitals and endings count"
        )
    return "repair the source, or leave these out with --on-bad skip"
