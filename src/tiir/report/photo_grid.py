"""Photos in a grid, with words above them and labels below: what the study's figures are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiir.data.dataset import Dataset
from tiir.report.figures import COLOURS, FONT, TEXT, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_photo", "flow", "noted", "photo_grid", "shape_of", "write_words"]

RIGHT, WRONG, PLAIN = COLOURS[0], COLOURS[1], "#222222"
PHOTO = 300  # pixels of the longer side as drawn
LINE = 0.125  # inches a line of text takes


def shape_of(dataset: Dataset, names: Sequence[str]) -> float:
    """Height over width that most of these photos fill."""
    sizes = [dataset.image(dataset.image_position[name]).size for name in dict.fromkeys(names)]
    return float(np.clip(np.median([height / width for width, height in sizes]), 0.66, 1))


def photo_grid(
    rows: int,
    columns: int,
    *,
    photo: float,
    shape: float,
    lines: int = 0,
    width: float = 0,
    least: float = 0,
) -> tuple[Figure, Any]:
    """A figure, and boxes in inches from its lower left corner: (rows, columns, [left, bottom, width, height]).

    Args:
        photo: width of a photo, inches; `shape` its height over its width.
        lines: of text above each row; below each there is room for a label.
        width: of a column where it is not `photo`.
        least: height of a row, at least.
    """
    from matplotlib.figure import Figure as New

    across, down = width or photo, max(photo * shape, least)
    step = down + (lines + 1) * LINE + 0.12
    height = rows * step + 2 * LINE + 0.05
    with style():
        figure = New(figsize=(TEXT, height))
    boxes = np.empty((rows, columns, 4))
    for row in range(rows):
        for column in range(columns):
            bottom = height - (row + 1) * step + LINE + 0.06
            boxes[row, column] = [column * across, bottom, across, down]
    return figure, boxes


def draw_photo(figure: Figure, box: Any, dataset: Dataset, name: str, label: str, hit: bool | None) -> None:
    """Draw a photo in a box, with a label below; a positive has a blue frame and a tick."""
    width, height = figure.get_size_inches()
    left, bottom, across, down = box
    inset = 0.04
    axes = figure.add_axes(
        (
            (left + inset) / width,
            (bottom + inset) / height,
            (across - 2 * inset) / width,
            (down - 2 * inset) / height,
        ),
        anchor="N",
    )
    image = dataset.image(dataset.image_position[name])
    image.thumbnail((PHOTO, PHOTO))
    axes.imshow(np.asarray(image))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=RIGHT if hit else "#999999", linewidth=2.2 if hit else 0.5)
    if text := f"\N{CHECK MARK} {label}".strip() if hit else label:
        axes.set_xlabel(text, labelpad=2, color=RIGHT if hit else PLAIN, family="DejaVu Sans", fontsize=6.5)


def write_words(
    figure: Figure, box: Any, words: list[tuple[str, bool]], *, width: float, above: int = 0
) -> None:
    """Write words above a box, those that are marked bold and in colour."""
    flow(figure, 0.03, box[1] + box[3] + (2 + above) * LINE, words, width - 0.06, lines=2)


def flow(
    figure: Figure,
    x: float,
    y: float,
    words: list[tuple[str, bool]],
    width: float,
    *,
    lines: int,
    colour: str = PLAIN,
) -> float:
    """Write words from (x, y) on, wrapped at `width` inches; what does not fit in `lines` ends with an ellipsis.

    Returns:
        y below the last line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    renderer: Any = FigureCanvasAgg(figure).get_renderer()
    size = FONT
    across, down = figure.get_size_inches()
    at, line = 0.0, 0
    for word, marked in words:
        font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if marked else "normal")
        long = renderer.get_text_width_height_descent(f"{word} ", font, False)[0] / figure.dpi
        if at and at + long > width:
            if line + 1 == lines:
                figure.text((x + at) / across, (y - line * LINE) / down, "…", va="top", fontsize=size)
                break
            at, line = 0.0, line + 1
        figure.text((x + at) / across, (y - line * LINE) / down, word, va="top", fontproperties=font,
                    color=WRONG if marked else colour)  # fmt: skip
        at += long
    return y - (line + 1) * LINE


def noted(figure: Figure, text: str) -> Figure:
    """The figure, with a note at its foot."""
    flow(
        figure,
        0.03,
        2 * LINE,
        [(word, False) for word in text.split()],
        TEXT - 0.1,
        lines=2,
        colour="#555555",
    )
    return figure
