"""Photos and names as people have them: each bad one is named, nothing is written, and the others can go on without it."""

from __future__ import annotations

import csv
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tiir.data.dataset import Dataset

Tiir = Callable[..., tuple[int, str, str]]
DRAW = np.random.default_rng(0)


def photo(path: Path, size: tuple[int, int] = (60, 40)) -> None:
    Image.fromarray(DRAW.integers(0, 256, (*size, 3), np.uint8)).save(path)


def truncated(path: Path) -> None:
    photo(path)
    path.write_bytes(path.read_bytes()[:900])


def corrupted(path: Path) -> None:
    photo(path)
    data = bytearray(path.read_bytes())
    data[2:300] = bytes(298)  # its tables are gone
    path.write_bytes(bytes(data))


def zero_bytes(path: Path) -> None:
    path.touch()


def text_file(path: Path) -> None:
    path.write_text("<html>404</html>")


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def link_out(path: Path) -> None:
    outside = Path(tempfile.mkdtemp(dir=path.parent.parent)) / "secret.jpg"
    photo(outside)
    path.symlink_to(outside)


def bomb(path: Path) -> None:
    """A PNG of a few bytes that claims 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def gone(path: Path) -> None:
    """It is not there."""


BAD = [truncated, corrupted, zero_bytes, text_file, folder, loop, link_out, bomb, gone]
NAMES = ["../secret.jpg", "/etc/passwd", "a\x00b.jpg", "x" * 300 + ".jpg", "good/../../secret.jpg"]


def album(root: Path, bad: str, make: Callable[[Path], None] | None = None) -> Path:
    """Two good photos and a bad one between them."""
    images = root / "photos"
    images.mkdir()
    photo(root / "secret.jpg")
    for name in ("a.jpg", "c.jpg"):
        photo(images / name)
    if make is not None:
        make(images / bad)
    with open(images / "captions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), ("a.jpg", "one"), (bad, "two"), ("c.jpg", "three")])
    return images


def check(tiir: Tiir, images: Path, out: Path, bad: str) -> None:
    before = sorted(path.name for path in out.parent.iterdir())
    code, _, err = tiir("prepare", "folder", images, "-o", out)
    assert code == 1
    assert bad.replace("\0", "\\x00")[:40] in err
    assert "Traceback" not in err
    assert sorted(path.name for path in out.parent.iterdir()) == before  # nothing was written
    code, shown, err = tiir("prepare", "folder", images, "-o", out, "--on-bad", "skip")
    assert (code, err) == (0, "")
    assert "left out" in shown
    assert list(Dataset.load(out).captions) == ["one", "three"]
    assert bad in " ".join(pd.read_parquet(out / "skipped.parquet").astype(str).to_numpy().ravel())


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_photo_is_named(tiir: Tiir, tmp_path: Path, make: Callable[[Path], None]) -> None:
    check(tiir, album(tmp_path, "bad.jpg", make), tmp_path / "data", "bad.jpg")


@pytest.mark.parametrize(
    "name", NAMES, ids=["parent", "absolute", "nul", "300 characters", "through a folder"]
)
def test_a_name_never_leads_out(tiir: Tiir, tmp_path: Path, name: str) -> None:
    check(tiir, album(tmp_path, name), tmp_path / "data", name)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_photo_that_may_not_be_read(tiir: Tiir) -> None:
    with tempfile.TemporaryDirectory() as where:  # pytest's own folder is closed to other users
        root = Path(where)
        images = album(root, "bad.jpg", photo)
        (images / "bad.jpg").chmod(0)
        root.chmod(0o777)
        user = os.geteuid()
        if user == 0:  # root reads everything: be somebody else meanwhile
            os.seteuid(65534)
        try:
            check(tiir, images, root / "data", "bad.jpg")
        finally:
            os.seteuid(user)
