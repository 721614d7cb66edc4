"""The image contract, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiir.data.images import FORMATS, open_image, to_rgb
from tiir.errors import ImageError

# 2 rows x 3 columns, so that every turn and flip gives another picture.
GREY = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    array = np.asarray(image)
    assert array.dtype == np.uint8
    return array


def grey3(values: object) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),  # stored lying on its left side: turn clockwise
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
        (9, lambda a: a),  # not a value of the standard
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, turned: object, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(COLOUR).save(path, exif=exif, **options)
    image = open_image(path)
    np.testing.assert_array_equal(pixels(image), turned(COLOUR))
    np.testing.assert_array_equal(pixels(to_rgb(image)), turned(COLOUR))  # not turned twice


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = np.zeros((32, 64, 3), np.uint8)
    half[:, :32] = 255  # white on the left, so white on top once upright
    Image.fromarray(half).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = pixels(open_image(tmp_path / "a.jpg"))
    assert upright.shape == (64, 32, 3)
    assert upright[:30].min() > 240
    assert upright[34:].max() < 15


def test_unreadable_exif_is_no_orientation(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png")), COLOUR)


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png")), grey3(GREY))


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(GREY > 120).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png")), grey3((GREY > 120) * 255))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 128, 129, 257], [32768, 40000, 65406, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    expected = np.round(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(pixels(open_image(tmp_path / f"a.{suffix}")), grey3(expected))
    np.testing.assert_array_equal(pixels(to_rgb(deep)), grey3(expected))


def test_every_16_bit_value_rounds_to_the_nearest() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(pixels(to_rgb(every))[:, :, 0], np.round(every / 257))


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    image.save(tmp_path / "plain.png")
    assert pixels(open_image(tmp_path / "plain.png")).tolist() == [[red, green], [blue, green]]
    image.save(tmp_path / "clear.png", transparency=1)
    assert pixels(open_image(tmp_path / "clear.png")).tolist() == [[red, [255] * 3], [blue, [255] * 3]]
    image.save(tmp_path / "partly.png", transparency=bytes([255, 0, 51]))  # an alpha for each colour
    expected = [[red, [255] * 3], [[204, 204, 255], [255] * 3]]
    assert pixels(open_image(tmp_path / "partly.png")).tolist() == expected


def test_alpha_is_put_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    assert pixels(open_image(tmp_path / "a.png")).tolist() == expected
    assert pixels(to_rgb(rgba)).tolist() == expected


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.merge(
        "LA", [Image.fromarray(GREY), Image.fromarray(np.where(GREY > 120, 255, 0).astype(np.uint8))]
    )
    image.save(tmp_path / "a.png")
    expected = np.where(GREY > 120, GREY, 255)
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png")), grey3(expected))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_one_transparent_colour(tmp_path: Path, mode: str) -> None:
    array = COLOUR if mode == "RGB" else GREY
    key = (100, 155, 50) if mode == "RGB" else 100
    Image.fromarray(array).save(tmp_path / "a.png", transparency=key)
    expected = COLOUR.copy() if mode == "RGB" else grey3(GREY)
    expected[0, 2] = 255
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png")), expected)


def test_cmyk(tmp_path: Path) -> None:
    cmyk = np.zeros((16, 32, 4), np.uint8)
    cmyk[:, :16] = [0, 255, 255, 0]  # red ink
    cmyk[:, 16:] = [0, 0, 0, 255]  # black ink
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "a.tiff")
    exact = pixels(open_image(tmp_path / "a.tiff"))
    assert exact[0, 0].tolist() == [255, 0, 0]
    assert exact[0, 31].tolist() == [0, 0, 0]
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(pixels(open_image(tmp_path / "a.jpg")), exact, atol=4)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.tiff", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (pixels(open_image(tmp_path / name)) == [255, 0, 0]).all(), name


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.jpg")), COLOUR)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_refused_with_the_reason(dtype: type) -> None:
    with pytest.raises(ImageError, match="must be uint8") as caught:
        to_rgb(np.zeros((2, 2, 3), dtype))
    assert np.dtype(dtype).name in caught.value.message
    assert "negative" in str(caught.value.hint)


def test_float_images_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((2, 2), np.float32))
    with pytest.raises(ImageError, match="must be uint8"):
        to_rgb(image)
    image.save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match=r"a\.tiff: float32 pixels"):
        open_image(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.int64), np.zeros((2, 2), bool), np.zeros((2, 2), np.int8)]
)
def test_other_types_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=f"{array.dtype} pixels"):
        to_rgb(array)


def test_32_bit_integers_have_no_known_range() -> None:
    with pytest.raises(ImageError, match="32-bit"):
        to_rgb(Image.fromarray(np.full((2, 2), 200, np.int32)))


@pytest.mark.parametrize("shape", [(3, 8, 8), (8,), (0, 8), (1, 8, 8, 3), (8, 8, 2)])
def test_shapes_that_are_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="is not a picture"):
        to_rgb(np.zeros(shape, np.uint8))


def test_arrays_pass_through_unchanged() -> None:
    np.testing.assert_array_equal(pixels(to_rgb(COLOUR)), COLOUR)
    np.testing.assert_array_equal(pixels(to_rgb(COLOUR[:, ::-1])), COLOUR[:, ::-1])  # not contiguous
    np.testing.assert_array_equal(pixels(to_rgb(GREY[:, :, None])), grey3(GREY))


@pytest.mark.parametrize("format", FORMATS)
def test_truncated(tmp_path: Path, format: str) -> None:
    path = tmp_path / "cut"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, format=format)
    open_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="cut"):
        open_image(path)


def test_files_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>404 not found</html>")
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.fromarray(COLOUR).save(tmp_path / "a.ppm")  # a format Pillow reads and tiir does not
    for name, why in [
        ("empty.jpg", "0 bytes"),
        ("page.jpg", "is not a JPEG"),
        ("drawing.eps", "is not a JPEG"),
        ("a.ppm", "is not a JPEG"),
        ("none.jpg", "no such image"),
        (".", "is not a file"),
    ]:
        with pytest.raises(ImageError, match=why) as caught:
            open_image(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message


def test_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)  # 400 megapixels in about 50 kB
    with pytest.raises(ImageError, match=r"bomb\.png"):
        open_image(path)
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png has 3 x 2 pixels, more than the limit of 5"):
        open_image(tmp_path / "a.png", max_pixels=5)
    open_image(tmp_path / "a.png", max_pixels=6)
