"""Region boxes drawn on a photo, with what the detector called them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tiir.features.store import FeatureStore

__all__ = ["box_labels", "draw_boxes"]

SIDE = 1000  # pixels of the longer side of a picture that is drawn on


def draw_boxes(image: Image.Image, boxes: npt.NDArray[np.float32], labels: Sequence[str]) -> Image.Image:
    """Draw boxes and their labels on a photo, the first ones on top.

    Args:
        image: RGB; a smaller one is enlarged to 1,000 pixels, so that labels can be read.
        boxes: (k, 4) x1 y1 x2 y2 in [0, 1].
        labels: (k,) texts.

    Example:
        >>> draw_boxes(Image.new("RGB", (50, 25)), np.array([[0, 0, 1, 1]], np.float32), ["sky"]).size
        (1000, 500)
    """
    scale = max(1.0, SIDE / max(image.size))
    width, height = (round(side * scale) for side in image.size)
    drawn = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(drawn)
    line = max(2, max(width, height) // 400)
    font = ImageFont.load_default(max(11, max(width, height) // 70))
    colours = [_colour(i) for i in range(len(boxes))]
    places = [_scaled(box, width, height) for box in boxes]
    for place, colour in reversed(list(zip(places, colours, strict=True))):
        pen.rectangle(place, outline=colour, width=line)
    taken: list[tuple[float, float, float, float]] = []
    for place, colour, label in zip(places, colours, labels, strict=True):
        left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
        wide, tall = right - left + 6, bottom - top + 6
        x = min(max(place[0], 0), max(width - wide, 0))
        y = _free(x, place[1] - tall, wide, tall, height, taken)
        taken.append((x, y, x + wide, y + tall))
        pen.rectangle((x, y, x + wide, y + tall), fill=colour)
        pen.text((x + 3 - left, y + 3 - top), label, font=font, fill=_ink(colour))
    return drawn


def box_labels(store: FeatureStore, row: int) -> list[str]:
    """What each region of an image is called: "grey dog 0.93", or its number where detections were not kept."""
    columns = {name: column[row] for name, column in store.columns.items() if column.ndim == 2}
    names = store.info.names
    labels = []
    for region in range(store.n_regions):
        words = []
        for kind, plural in (("attribute", "attributes"), ("object", "objects")):
            if f"{kind}_ids" in columns:
                number = int(columns[f"{kind}_ids"][region])
                words.append(names[plural][number] if plural in names else f"{kind} {number}")
        if "object_scores" in columns:
            words.append(f"{columns['object_scores'][region]:.2f}")
        labels.append(" ".join(words) or str(region + 1))
    return labels


def _scaled(box: npt.NDArray[np.float32], width: int, height: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1 * (width - 1), y1 * (height - 1), x2 * (width - 1), y2 * (height - 1)


def _free(
    x: float,
    y: float,
    wide: float,
    tall: float,
    height: int,
    taken: Sequence[tuple[float, float, float, float]],
) -> float:
    # The first height, from the box's upper edge downwards and then from the top, at which no label stands yet.
    y = min(max(y, 0), height - tall)
    for start in (y, 0):
        at = start
        while at <= height - tall:
            under = [t for t in taken if t[0] < x + wide and x < t[2] and t[1] < at + tall and at < t[3]]
            if not under:
                return at
            at = max(t[3] for t in under) + 1
    return y


def _colour(i: int) -> tuple[int, int, int]:
    r, g, b = colorsys.hsv_to_rgb(
        i * 0.618034 % 1, 0.75, (1.0, 0.8)[i % 2]
    )  # the golden ratio keeps hues apart
    return round(r * 255), round(g * 255), round(b * 255)


def _ink(colour: tuple[int, int, int]) -> str:
    r, g, b = colour
    return "black" if 0.299 * r + 0.587 * g + 0.114 * b > 140 else "white"
