"""COCO's files: where they lie on the web, how large they are, and what a finished download looks like."""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from tiir.data.download import check_space, fetch, unpack
from tiir.errors import ConfigError, DataError
from tiir.io import inside, read_json, read_yaml, sha256_file, write_json

__all__ = ["DEFAULT", "PARTS", "WebFile", "download", "is_done", "read_sources", "to_fetch"]


class WebFile(BaseModel):
    """A file on the web, and where it goes.

    Args:
        url: its address.
        bytes: its size, if known.
        sha256: its hash, if known.
        folder: below the target folder; where the file goes, or a zip file's content.
        unpacked: bytes of a zip file's content; by default as many as the zip file has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://")
    bytes: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    folder: str = ""
    unpacked: int | None = Field(default=None, ge=0)

    @field_validator("url")
    @classmethod
    def _names_a_file(cls, url: str) -> str:
        if posixpath.basename(urlsplit(url).path) in ("", ".", ".."):
            raise ValueError("it must end with the name of a file")
        return url

    @property
    def name(self) -> str:
        """The file's own name."""
        return posixpath.basename(urlsplit(self.url).path)

    @property
    def is_zip(self) -> bool:
        """Whether its content is what is wanted."""
        return self.name.endswith(".zip")

    @property
    def disk(self) -> int:
        """Bytes that stay on the disk."""
        return (
            (self.unpacked if self.unpacked is not None else self.bytes or 0)
            if self.is_zip
            else self.bytes or 0
        )


_COCO = "http://images.cocodataset.org"
_OSCAR = "https://biglmdiag.blob.core.windows.net/vinvl/datasets/coco_ir"
_NAMES = (
    "https://raw.githubusercontent.com/airsplay/py-bottom-up-attention/master/demo/data/genome/1600-400-20"
)

# Sizes and hashes of the zip files as TensorFlow Datasets records them.
PARTS: Mapping[str, tuple[WebFile, ...]] = {
    "train2014": (
        WebFile(
            url=f"{_COCO}/zips/train2014.zip",
            bytes=13510573713,
            sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        ),
    ),
    "val2014": (
        WebFile(
            url=f"{_COCO}/zips/val2014.zip",
            bytes=6645013297,
            sha256="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        ),
    ),
    "annotations": (
        WebFile(
            url=f"{_COCO}/annotations/annotations_trainval2014.zip",
            bytes=252872794,
            sha256="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            unpacked=900_000_000,
        ),
    ),
    "karpathy": (
        WebFile(
            url="https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
            folder="karpathy",
            unpacked=250_000_000,
        ),
    ),
    "oscar": tuple(
        WebFile(url=f"{_OSCAR}/{name}", folder="coco_ir")
        for name in ("train_captions.pt", "minival_captions.pt", "test_captions.pt", "test_img_keys_1k.tsv")
    ),
    "vg-names": tuple(
        WebFile(url=f"{_NAMES}/{name}", folder="vg-names")
        for name in ("objects_vocab.txt", "attributes_vocab.txt")
    ),
}
DEFAULT = ("train2014", "val2014", "annotations", "karpathy")


def read_sources(path: Path | None) -> Mapping[str, tuple[WebFile, ...]]:
    """The table of parts, with those replaced that a YAML file has other addresses of.

    Args:
        path: a mapping from part to a list of files, each with the fields of `WebFile`; None for the public addresses.

    Raises:
        ConfigError: it is no such file.
    """
    if path is None:
        return PARTS
    try:
        values = read_yaml(path, error=ConfigError)
        other = TypeAdapter(dict[str, tuple[WebFile, ...]]).validate_python(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ConfigError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="it maps a part to a list of files with url, bytes, sha256, folder, unpacked",
        ) from None
    if unknown := sorted(set(other) - set(PARTS)):
        raise ConfigError(f"{path}: no part {unknown[0]!r}", hint=f"one of: {', '.join(PARTS)}")
    table = {**PARTS, **other}
    counts = Counter(file.name for files in table.values() for file in files)
    name, n = counts.most_common(1)[0]
    if n > 1:
        raise ConfigError(f"{path}: {n} files are called {name!r}", hint="give each another name")
    return table


def is_done(to: Path, file: WebFile) -> bool:
    """Whether a file was fetched (and unpacked), and everything of it is still there, of the right size."""
    try:
        record = read_json(_record(to, file))
        sizes = record["files"]
        same = record["url"] == file.url or (file.sha256 or "").lower() == record["sha256"]  # another mirror
        return same and all(os.path.getsize(to / file.folder / name) == size for name, size in sizes.items())
    except (DataError, OSError, KeyError, TypeError, AttributeError):
        return False


def to_fetch(to: Path, files: Sequence[WebFile]) -> tuple[int, int]:
    """Bytes to fetch, and bytes of disk to take, of files that are not there yet (as far as sizes are known).

    One file is fetched after another and a zip file is deleted when it is unpacked, so the disk is that of the fullest moment.
    """
    fetch = kept = peak = 0
    for file in files:
        if is_done(to, file):
            continue
        here = next((p.stat().st_size for p in (to / file.name, _part(to, file)) if p.is_file()), 0)
        rest = max((file.bytes or 0) - here, 0)
        fetch += rest
        content = _content_left(to, file) if file.is_zip else 0
        peak = max(peak, kept + rest + content)
        kept += content if file.is_zip else rest
    return fetch, peak


def _content_left(to: Path, file: WebFile) -> int:
    """Bytes of a zip file's content that are not there: a killed extraction, or a few files lost, takes little."""
    try:
        if (to / file.name).exists():
            with zipfile.ZipFile(to / file.name) as archive:
                sizes = {member.filename: member.file_size for member in archive.infolist()}
        else:
            sizes = read_json(_record(to, file))["files"]
        return sum(size for name, size in sizes.items() if not (to / file.folder / name).exists())
    except (DataError, OSError, zipfile.BadZipFile, KeyError, TypeError, AttributeError):
        return file.disk


def download(
    to: Path, parts: Sequence[str] = DEFAULT, sources: Mapping[str, tuple[WebFile, ...]] = PARTS, **how: Any
) -> list[str]:
    """Fetch and unpack parts of COCO; what is there already is left as it is. One process at a time for a folder.

    Args:
        to: the folder; pictures go to `train2014/` and `val2014/`, Karpathy's JSON to `karpathy/`.
        parts: keys of `sources`.
        sources: from `read_sources`.
        how: `tries` and `wait` of `fetch`.

    Returns:
        The names of the files that were fetched.

    Raises:
        ConfigError: no such part.
        DataError: too little disk, or as `fetch` and `unpack`.
    """
    if unknown := [part for part in parts if part not in sources]:
        raise ConfigError(f"no part {unknown[0]!r}", hint=f"one of: {', '.join(sources)}")
    files = [file for part in parts for file in sources[part]]
    check_space(to, to_fetch(to, files)[1], "the download")
    fetched = []
    for file in files:
        if is_done(to, file):
            continue
        folder = inside(to, file.folder) if file.folder else to
        if file.is_zip:
            archive = to / file.name
            if archive.exists():
                _check_own(archive, file)
            else:
                fetch(file.url, archive, n_bytes=file.bytes, sha256=file.sha256, **how)
            sizes = unpack(archive, folder)
        else:
            archive = None
            path = _fetch_beside_own(folder / file.name, file, how)
            sizes = {file.name: path.stat().st_size}
        came = archive or path
        record = {
            "url": file.url,
            "bytes": came.stat().st_size,
            "sha256": (file.sha256 or sha256_file(came)).lower(),
            "files": sizes,
        }
        if hasattr(os, "sync"):
            os.sync()  # the record says that everything is on the disk
        write_json(_record(to, file), record)
        if archive is not None:
            archive.unlink()
        fetched.append(file.name)
    return fetched


def _fetch_beside_own(path: Path, file: WebFile, how: Mapping[str, Any]) -> Path:
    # A file of that name that no record knows, or that was changed, is not overwritten.
    new = path.with_name(f"{path.name}.new") if path.exists() else path
    fetch(file.url, new, n_bytes=file.bytes, sha256=file.sha256, **how)
    if new != path:
        same = sha256_file(new) == sha256_file(path)
        new.unlink()
        if not same:
            raise DataError(
                f"{path} is in the way: it is not the file that {file.url} holds",
                hint="move or delete it, and run the command again",
            )
    return path


def _check_own(archive: Path, file: WebFile) -> None:
    # Fetched by a run that was killed while it unpacked, or put there by hand.
    if file.bytes not in (None, archive.stat().st_size) or (
        file.sha256 is not None and sha256_file(archive) != file.sha256.lower()
    ):
        raise DataError(
            f"{archive} is not the file that {file.url} is known to be",
            hint="move or delete it, and run again",
        )


def _record(to: Path, file: WebFile) -> Path:
    return to / ".tiir" / f"{file.name}.json"


def _part(to: Path, file: WebFile) -> Path:
    return (to if file.is_zip else to / file.folder) / f"{file.name}.part"
