"""Thumbnails: right, small, made once, and never of another photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.errors import DataError, ImageError
from tiir.io import sha256_file
from tiir.report.thumbs import SIDE, make_thumbs


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """Six flat pictures of several shapes; one stands on its side, as EXIF says."""
    folder = tmp_path / "photos"
    folder.mkdir()
    sizes, names = [(640, 480), (300, 900), (256, 256), (40, 30), (1000, 10), (640, 480)], []
    for n, size in enumerate(sizes):
        picture = Image.new("RGB", size, (40 * n, 250 - 40 * n, 90))
        exif = picture.getexif()
        exif[0x0112] = 6 if n == 5 else 1
        names.append(f"photo {n}.jpg")
        picture.save(folder / names[-1], exif=exif, quality=95)
    hashes = [sha256_file(folder / name) for name in names]
    return Dataset(
        "photos", "test", names, [f"c{n}" for n in range(6)], ["a photo"] * 6, np.arange(6),
        folder, names, {"sha256": hashes},
    )  # fmt: skip


def test_thumbnails_show_the_photos(photos: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "thumbs"
    assert make_thumbs(photos, out, workers=3) == 6
    for n in range(6):
        with Image.open(out / f"{n}.webp") as thumb, photos.image(n) as photo:
            assert thumb.format == "WEBP"
            assert max(thumb.size) == min(SIDE, max(photo.size))
            assert thumb.width * photo.height == pytest.approx(thumb.height * photo.width, rel=0.3)
            middle = thumb.convert("RGB").getpixel((thumb.width // 2, thumb.height // 2))
            assert np.abs(np.subtract(middle, (40 * n, 250 - 40 * n, 90))).max() <= 12
    with Image.open(out / "5.webp") as turned:
        assert turned.size == (192, 256)
    assert {path.name for path in out.iterdir()} == {"source.json", *(f"{n}.webp" for n in range(6))}


def test_they_are_made_once(photos: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "thumbs"
    assert make_thumbs(photos, out, [0, 3]) == 2
    before = (out / "0.webp").stat().st_mtime_ns
    assert make_thumbs(photos, out) == 4
    assert make_thumbs(photos, out) == 0
    assert (out / "0.webp").stat().st_mtime_ns == before
    assert make_thumbs(photos, out, [0, 2]) == 0  # of a sample no photo stays that it does not show
    assert {path.name for path in out.iterdir()} == {"source.json", "0.webp", "2.webp"}
    assert (out / "0.webp").stat().st_mtime_ns == before


def test_other_photos_replace_them(photos: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "thumbs"
    make_thumbs(photos, out)
    (out / "mine.txt").write_text("a user's")
    fewer = photos.subset([4, 1])
    assert make_thumbs(fewer, out) == 2
    assert {path.name for path in out.iterdir()} == {"source.json", "0.webp", "1.webp", "mine.txt"}
    with Image.open(out / "1.webp") as thumb:
        assert thumb.size == (85, 256)
    without = replace(
        photos, image_columns={}
    )  # of photos without a hash nobody knows whether they are the same
    assert make_thumbs(without, out) == make_thumbs(without, out) == 6


def test_a_photo_that_changed_is_refused_and_the_rest_goes_on_later(photos: Dataset, tmp_path: Path) -> None:
    out, path = tmp_path / "thumbs", photos.image_path(4)
    kept = path.read_bytes()
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(ImageError, match=r"photo 4.*has changed"):
        make_thumbs(photos, out, workers=1)
    path.write_bytes(kept)
    stayed = {path.name for path in out.glob("*.webp")}  # a worker may be ahead of the refused one
    assert {"0.webp", "1.webp", "2.webp", "3.webp"} <= stayed
    assert "4.webp" not in stayed
    assert make_thumbs(photos, out) == 6 - len(stayed)


def test_without_photos_there_are_none(photos: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no photos"):
        make_thumbs(replace(photos, image_root=None), tmp_path / "thumbs")
    assert not (tmp_path / "thumbs").exists()
