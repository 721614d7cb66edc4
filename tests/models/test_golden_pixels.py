"""The tensor that reaches a CLIP, pinned: by an independent computation, and by stored numbers."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tiir.data.images import open_image
from tiir.errors import ImageError
from tiir.models import load

SIZE = 32
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def scene(height: int = 40, width: int = 60) -> npt.NDArray[np.uint8]:
    """Nothing symmetric: a red slope to the right, green down, a blue square at the top left."""
    y, x = np.mgrid[:height, :width]
    blue = np.where((y < height // 3) & (x < width // 4), 240, 30)
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), blue], axis=2).astype(np.uint8)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def rgb(folder: Path) -> Path:
    return save(Image.fromarray(scene()), folder / "rgb.png")


def tall(folder: Path) -> Path:
    return save(Image.fromarray(scene(70, 41)), folder / "tall.png")


def grey(folder: Path) -> Path:
    return save(Image.fromarray(scene()[:, :, 0]), folder / "grey.png")


def palette(folder: Path) -> Path:
    colours = np.array([[250, 10, 20], [0, 200, 60], [30, 40, 220], [255, 255, 0]], np.uint8)
    index = (scene()[:, :, 0] // 64).astype(np.uint8)
    image = Image.fromarray(index, mode="P")
    image.putpalette(colours.tobytes())
    return save(image, folder / "palette.png")


def rgba(folder: Path) -> Path:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, 40:] = 0
    return save(Image.fromarray(np.concatenate([scene(), alpha], axis=2)), folder / "rgba.png")


def cmyk(folder: Path) -> Path:
    ink = np.concatenate([255 - scene(), np.full((40, 60, 1), 16, np.uint8)], axis=2)
    return save(Image.fromarray(ink, mode="CMYK"), folder / "cmyk.tif")


def exif_rotated(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees clockwise
    return save(Image.fromarray(scene()), folder / "turned.png", exif=exif)


def expected_rgb(make: Callable[[Path], Path]) -> npt.NDArray[np.uint8]:
    """The upright RGB pixels of each picture, from its numbers alone."""
    picture = scene()
    if make is tall:
        return scene(70, 41)
    if make is grey:
        return np.repeat(picture[:, :, :1], 3, axis=2)
    if make is palette:
        colours = np.array([[250, 10, 20], [0, 200, 60], [30, 40, 220], [255, 255, 0]], np.uint8)
        return colours[picture[:, :, 0] // 64]
    if make is rgba:
        picture[:, 40:] = 255  # what is transparent is white
    if make is cmyk:
        ink = np.rint((255 - (255 - picture.astype(int))) * (255 - 16) / 255)
        return ink.astype(np.uint8)
    if make is exif_rotated:
        return np.ascontiguousarray(picture[::-1].transpose(1, 0, 2))  # 90 degrees clockwise
    return picture


def expected_pixels(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """CLIP's preprocessing as its paper's code states it, (3, 32, 32)."""
    height, width = picture.shape[:2]
    short = min(height, width)
    new = (int(SIZE * width / short), int(SIZE * height / short))
    resized = np.asarray(Image.fromarray(picture).resize(new, Image.Resampling.BICUBIC), np.float64)
    top, left = (resized.shape[0] - SIZE) // 2, (resized.shape[1] - SIZE) // 2
    crop = resized[top : top + SIZE, left : left + SIZE]
    return ((crop / 255 - MEAN) / STD).transpose(2, 0, 1)


MAKERS = [rgb, tall, grey, palette, rgba, cmyk, exif_rotated]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_pixels_equal_an_independent_computation(
    make: Callable[[Path], Path], tiny_clip: Path, tmp_path: Path
) -> None:
    image = open_image(make(tmp_path))
    wanted = expected_rgb(make)
    # CMYK has no exact RGB: one step of 255 is rounding.
    assert np.abs(np.asarray(image).astype(int) - wanted).max() <= (1 if make is cmyk else 0)
    pixels = load(str(tiny_clip)).prepare([image])["pixel_values"].numpy()
    assert pixels.shape == (1, 3, SIZE, SIZE)
    assert pixels.dtype == np.float32
    assert np.abs(pixels[0] - expected_pixels(np.asarray(image))).max() < 2e-6


# (channel, row, column): value, of the picture `rgb`; and the mean of each channel.
GOLDEN = {
    (0, 0, 0): -1.1645302772521973,
    (1, 0, 0): -1.7370892763137817,
    (2, 0, 0): 1.932596206665039,
    (0, 0, 31): 1.2880054712295532,
    (1, 31, 0): 2.059875965118408,
    (2, 31, 31): -1.0536178350448608,
    (0, 16, 16): 0.09093456715345383,
}
GOLDEN_MEANS = [0.06173765, 0.15435839, -0.9323583]


def test_pixels_equal_stored_numbers(tiny_clip: Path, tmp_path: Path) -> None:
    pixels = load(str(tiny_clip)).prepare([open_image(rgb(tmp_path))])["pixel_values"].numpy()[0]
    assert {place: float(pixels[place]) for place in GOLDEN} == pytest.approx(GOLDEN, abs=1e-6)
    assert pixels.mean(axis=(1, 2)) == pytest.approx(GOLDEN_MEANS, abs=1e-6)


def test_the_negative_of_the_original_study_cannot_happen(tiny_clip: Path) -> None:
    """Floats of 0 to 255 were multiplied by 255 and wrapped: the model saw (256 - x) mod 256 and scored 14, not 50."""
    model = load(str(tiny_clip))
    for dtype in (np.float16, np.float32, np.float64):
        with pytest.raises(ImageError, match="pixels: images must be uint8"):
            model.encode_images([scene().astype(dtype)])  # type: ignore[list-item]
    with pytest.raises(ImageError, match="pixels: images must be uint8"):
        model.encode_images([Image.fromarray(scene()[:, :, 0].astype(np.float32))])
    right = model.prepare([scene()])["pixel_values"].numpy()  # type: ignore[list-item]
    upright = expected_pixels(scene())
    assert np.corrcoef(right.ravel(), upright.ravel())[0, 1] > 0.9999


def test_channels_of_a_jpeg_are_red_green_blue(tiny_clip: Path) -> None:
    red = np.zeros((48, 48, 3), np.uint8)
    red[:, :, 0] = 200
    buffer = io.BytesIO()
    Image.fromarray(red).save(buffer, "JPEG", quality=95)
    with Image.open(buffer) as image:
        pixels = load(str(tiny_clip)).prepare([image])["pixel_values"].numpy()[0]
    wanted = (np.array([200, 0, 0]) / 255 - MEAN) / STD
    assert np.abs(pixels.mean(axis=(1, 2)) - wanted).max() < 0.03
