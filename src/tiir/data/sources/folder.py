"""People's own photos: a folder of images with a `captions.csv` or `captions.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tiir.data.build import CaptionRecord, ImageRecord, build_dataset
from tiir.data.dataset import Dataset
from tiir.data.problems import OnBad, Problems, check_split
from tiir.errors import DataError, similar
from tiir.io import read_text

__all__ = ["prepare"]

IMAGE = ("image", "file", "filename", "file_name", "filepath", "image_path")
CAPTION = ("caption", "captions", "text", "title", "sentence")
CAPTION_ID = ("caption_id", "id")
FILES = ("captions.csv", "captions.tsv", "captions.jsonl")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def prepare(
    folder: Path | str,
    *,
    split: str,
    images: Path | str | None,
    captions: Path | str | None = None,
    encoding: str = "utf-8",
    on_bad: OnBad = "error",
) -> Dataset:
    """Read a captions file and the images it names.

    The image id is its path relative to the image folder, with "/"; the caption id is the column `caption_id` or
    `id`, else `IMAGE#N`. Each row is one caption; several rows may name the same image. In JSON lines `captions`
    (or `caption`) may be a list. Columns for the image: image, file, filename, file_name, filepath, image_path; for
    the text: caption, text, title, sentence. CSV may use commas, semicolons or tabs.

    Args:
        folder: holds `captions.csv`, `.tsv` or `.jsonl`. Its name becomes the data set's.
        split: where the file has a column "split", the rows to take; else a label of your choice.
        images: the image folder (often `folder` itself), or None for captions only. Its images (not hidden
            ones) must all be in the captions file.
        captions: the captions file, where it has another name or place.
        encoding: of the captions file, such as "utf-8", "cp1252" or "utf-16".
        on_bad: see `build_dataset`.

    Raises:
        DataError: no captions file, wrong encoding, no such columns, no such split, or bad records.
    """
    folder = Path(folder)
    file = _captions_file(folder) if captions is None else Path(captions)
    text = read_text(file, encoding=encoding)
    problems = Problems()
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        rows = list(_jsonl(text, file, problems))
    elif text.startswith(("[", "{")):
        raise DataError(f"{file} is JSON", hint="write JSON lines (.jsonl), an object a line, or CSV")
    else:
        rows = list(_csv(text, file, problems))
    mentioned = dict.fromkeys(row["image"] for row in rows)
    if any("split" in row for row in rows):
        members = {row["image"]: row.get("split", "") for row in rows}
        check_split(split, Counter(members.values()), file)
        rows = [row for row in rows if row.get("split", "") == split]
    used = dict.fromkeys(row["image"] for row in rows)
    files = dict.fromkeys([] if images is None else _walk(Path(images)))
    composed = {_composed(path): path for path in files}
    paths = {image: image if image in files else composed.get(_composed(image), image) for image in mentioned}
    unmentioned = files.keys() - set(paths.values())
    return build_dataset(
        folder.resolve().name,
        split,
        [
            *(ImageRecord(image, paths[image]) for image in used),
            *(ImageRecord(path, path) for path in sorted(unmentioned)),
        ],
        list(_number(rows)),
        image_root=images,
        on_bad=on_bad,
        source={"source": "folder", "file": file.name},
        found=problems,
    )


def _captions_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}{similar(folder)}")
    present = [folder / name for name in FILES if (folder / name).is_file()]
    if len(present) == 1:
        return present[0]
    what = f"{len(present)} captions files" if present else f"no captions file{similar(folder / FILES[0])}"
    raise DataError(
        f"{folder} has {what}: expected one of {', '.join(FILES)}", hint="name the file with --captions"
    )


def _number(rows: Sequence[Mapping[str, Any]]) -> Iterator[CaptionRecord]:
    count: Counter[str] = Counter()
    for row in rows:
        image = row["image"]
        yield CaptionRecord(row.get("caption_id") or f"{image}#{count[image]}", image, row["caption"])
        count[image] += 1


def _columns(names: Sequence[str]) -> dict[str, str]:
    # From our name of a column to the file's; the first of several candidates is taken.
    known = {name.strip().lower(): name for name in reversed(names)}
    wanted = {"image": IMAGE, "caption": CAPTION, "caption_id": CAPTION_ID, "split": ("split",)}
    found = {key: next((known[c] for c in options if c in known), None) for key, options in wanted.items()}
    return {key: name for key, name in found.items() if name is not None}


def _no_columns(file: Path, names: Sequence[str]) -> DataError:
    return DataError(
        f"{file} has no column for the {'caption' if 'image' in _columns(names) else 'image'}; "
        f"it has: {', '.join(repr(name[:40]) for name in names[:10])}",
        hint=f"name the columns in the first line: image ({', '.join(IMAGE)}) and caption ({', '.join(CAPTION)})",
    )


def _image_id(name: str) -> str:
    return str(PurePosixPath(name.strip().replace("\\", "/")))


def _composed(name: str) -> str:
    # macOS writes "ü" in a file's name as two characters, a spreadsheet as one.
    return unicodedata.normalize("NFC", name)


def _csv(text: str, file: Path, problems: Problems) -> Iterator[dict[str, str]]:
    if not text.strip():
        raise DataError(f"{file} is empty")
    first = 1  # the line of the header
    if re.match(r"sep=.\r?\n", text):  # Excel's own note of the delimiter
        text, first = text.partition("\n")[2], 2
    headers = [(_header(text, delimiter), delimiter) for delimiter in ",;\t"]
    header, delimiter = max(headers, key=lambda pair: (len(_columns(pair[0])), len(pair[0])))
    columns = _columns(header)
    if not {"image", "caption"} <= columns.keys():
        raise _no_columns(file, header)
    if twice := [name for name in columns.values() if header.count(name) > 1]:
        raise DataError(
            f"{file} has several columns {twice[0]!r}",
            hint="several captions of an image stand in several rows",
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = first  # where the current row begins
    try:
        for cells in reader:
            number, line = line, reader.line_num + first
            if number == first or not any(cell.strip() for cell in cells):  # Excel saves empty rows too
                continue
            if len(cells) != len(header):
                detail = f"{len(cells)} fields, the header has {len(header)} (a field with {delimiter!r} needs quotes)"
                problems.add("malformed row", f"{file.name}, line {number}", detail)
                continue
            row = {key: cells[header.index(name)] for key, name in columns.items()}
            if not row["image"].strip():
                problems.add("malformed row", f"{file.name}, line {number}", "names no image")
                continue
            yield {**row, "image": _image_id(row["image"])}
    except csv.Error as problem:
        raise DataError(
            f"{file}: {problem}, in the row that begins at line {line}",
            hint='a field with quotes must be quoted, its quotes doubled: "she said ""hi"""; is a closing quote missing?',
        ) from None


def _header(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (csv.Error, StopIteration):
        return []


def _jsonl(text: str, file: Path, problems: Problems) -> Iterator[dict[str, str]]:
    seen = False
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{file.name}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as problem:
            problems.add("malformed row", where, f"not valid JSON: {problem}")
            continue
        if not isinstance(record, dict):
            problems.add("malformed row", where, "not a JSON object")
            continue
        columns = _columns(list(record))
        if not {"image", "caption"} <= columns.keys():
            if not seen:
                raise _no_columns(file, list(record))
            problems.add("malformed row", where, f"no image or no caption among {', '.join(record)}")
            continue
        seen = True
        image, value = record[columns["image"]], record[columns["caption"]]
        texts = value if isinstance(value, list) else [value]
        if (
            not isinstance(image, str)
            or not image.strip()
            or not all(isinstance(text, str) for text in texts)
        ):
            problems.add("malformed row", where, "the image and the captions must be texts")
            continue
        row = {"image": _image_id(image)}
        if "split" in columns:
            row["split"] = str(record[columns["split"]])
        if (
            "caption_id" in columns
            and not isinstance(value, list)
            and record[columns["caption_id"]] is not None
        ):
            row["caption_id"] = str(record[columns["caption_id"]])
        for text in texts:
            yield {**row, "caption": text}


def _walk(root: Path) -> Iterator[str]:
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(directory, name).relative_to(root).as_posix()
