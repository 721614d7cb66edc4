"""The only place that opens an image: upright, RGB, uint8, or an error that names the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.errors import ImageError, similar

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "MAX_PIXELS", "open_image", "to_rgb"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a GiB at three bytes a pixel
_ORIENTATION = 0x0112  # EXIF tag


def open_image(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open and fully decode an image file.

    Args:
        path: a JPEG, PNG, WebP, GIF, BMP or TIFF file, recognised by its content, whatever its name. Of an
            animation or a file of several pages, the first picture.
        max_pixels: larger pictures are refused (a small file can decode to gigabytes). Pillow itself refuses
            more than twice the default.

    Returns:
        The picture in RGB, 8 bits a channel, with the EXIF orientation applied. Transparent parts are white.

    Raises:
        ImageError: missing, not a file, empty, damaged, cut off, too large, or of another format.

    Example:
        >>> open_image("no/such.jpg")
        Traceback (most recent call last):
        ...
        tiir.errors.ImageError: no such image: no/such.jpg
          -> put it back; if the photos moved, prepare the data set again
    """
    from PIL import Image, UnidentifiedImageError

    if not os.path.exists(path):
        raise ImageError(
            f"no such image: {path}{similar(path)}",
            hint="put it back; if the photos moved, prepare the data set again",
        )
    if not os.path.isfile(path):
        raise ImageError(f"{path} is not a file", hint="give the path of one image")
    if os.path.getsize(path) == 0:
        raise ImageError(f"{path} is empty (0 bytes)", hint="copy or download it again")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{path} has {width} x {height} pixels, more than the limit of {max_pixels:,}",
                    hint="make it smaller",
                )
            return to_rgb(image)
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file",
            hint="convert it to JPEG or PNG, or copy it again if it is one",
        ) from None
    except ImageError as problem:
        if str(path) in problem.message:
            raise
        raise ImageError(f"{path}: {problem.message}", hint=problem.hint) from None
    except PermissionError as problem:
        raise ImageError(f"cannot read {path}: {problem.strerror}") from None
    except Exception as problem:  # Pillow's decoders raise nearly every type on damaged input
        raise ImageError(
            f"{path} cannot be decoded: {problem}", hint="the file is damaged or cut off: copy it again"
        ) from problem


def to_rgb(image: Image.Image | npt.NDArray[Any]) -> Image.Image:
    """Bring a picture in memory under the image contract: upright, RGB, uint8.

    Args:
        image: a PIL image of any usual mode (its EXIF orientation is applied), or an array, uint8 or uint16 (scaled by
            1/257), of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with alpha last. Transparent parts become white.

    Raises:
        ImageError: float or other values whose range is unknown, or a shape that is not a picture's.

    Example:
        >>> to_rgb(np.full((1, 1), 200, np.uint8)).getpixel((0, 0))
        (200, 200, 200)
        >>> to_rgb(np.zeros((2, 2, 3), np.float32))
        Traceback (most recent call last):
        ...
        tiir.errors.ImageError: float32 pixels: images must be uint8, 0 to 255
        ...
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        return _from_array(np.asarray(image))
    image.load()  # for TIFF this applies the orientation too, and forgets it
    upright = _upright(image)
    rgb = _convert(image)
    if upright is None:
        return rgb
    rgb = rgb.transpose(upright)
    rgb.info.clear()  # so that nobody turns it a second time
    return rgb


def _upright(image: Image.Image) -> Image.Transpose | None:
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    try:
        return turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable EXIF is common and says nothing about the pixels
        return None


def _convert(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise _float_error("float32")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _from_array(np.asarray(image).astype(np.uint16))
    if image.mode == "I":
        raise ImageError("32-bit integer pixels, whose range is unknown", hint="save the image with 8 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError:
        raise ImageError(f"colour mode {image.mode}", hint="save the image as RGB") from None


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    from PIL import Image

    if array.dtype.kind == "f":
        raise _float_error(str(array.dtype))
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"{array.dtype} pixels: images must be uint8", hint="array.astype(np.uint8)")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            f"an array of shape {array.shape} is not a picture: expected (H, W), (H, W, 3) or (H, W, 4)",
            hint="channels come last: array.transpose(1, 2, 0)",
        )
    return _convert(Image.fromarray(np.ascontiguousarray(array)))


def _float_error(dtype: str) -> ImageError:
    return ImageError(
        f"{dtype} pixels: images must be uint8, 0 to 255",
        hint="image processors multiply floats by 255; 0..255 floats then wrap around to a photographic negative, and "
        "the model scores far too low. Use array.round().astype(np.uint8), after * 255 where values are 0 to 1",
    )
