"""The original study's photo grids: hard image retrieval, hard text retrieval, where one model beats another.

Words set bold and in colour are those that no caption of the shown image holds: of a query, those missing from the
captions of the image retrieved first; of a retrieved caption, those missing from the captions of the query image. They
are where to look first, not a proof. Positives have a blue frame and a tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tiir.analysis.words import UNCOUNTED, tokens
from tiir.data.dataset import Dataset
from tiir.errors import DataError, several
from tiir.report.figures import TEXT
from tiir.report.photo_grid import (
    PLAIN,
    RIGHT,
    draw_photo,
    flow,
    noted,
    photo_grid,
    shape_of,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "hard_image_retrieval",
    "hard_text_retrieval",
    "most_ahead",
    "sample_hard",
    "unsupported",
    "where_a_beats_b",
]

Row = dict[str, Any]
NOTE = (
    "Blue frame and \N{CHECK MARK}: positive. Bold orange: words that no caption of the {what} holds. "
    "Sampled (seed {seed}), not picked."
)


def unsupported(text: str, dataset: Dataset, image: str) -> list[tuple[str, bool]]:
    """The words of a text, each with whether it is a word of content that no caption of an image holds.

    Example:
        >>> data = Dataset("pets", "test", ["a"], ["a0"], ["a black cat"], np.array([0]))
        >>> unsupported("A white cat.", data, "a")
        [('A', False), ('white', True), ('cat.', False)]
    """
    own = dataset.captions_of(dataset.image_position[image])
    said = {word for n in own for word in tokens(dataset.captions[n])}
    return [
        (part, any(word not in said and word not in UNCOUNTED for word in tokens(part)))
        for part in _parts(text)
    ]


def _parts(text: str) -> list[str]:
    # Words with their punctuation, also where a space parts them ("snow .").
    parts: list[str] = []
    for part in text.split():
        if parts and not any(letter.isalnum() for letter in part):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def sample_hard(table: pd.DataFrame, direction: str, *, n: int = 4, seed: int = 0) -> list[Row]:
    """Hard queries of a direction, drawn at random: the hardest would be the oddest, not the typical.

    Args:
        table: from `tiir.analysis.queries.query_table`.
        direction: "i2t" or "t2i".
        n: how many; all where there are fewer.
        seed: the same seed draws the same queries.
    """
    part = table[(table["direction"] == direction) & (table["difficulty"] == "hard")]
    picked = np.random.default_rng(seed).choice(len(part), min(n, len(part)), replace=False)
    rows: list[Row] = part.iloc[np.sort(picked)].to_dict("records")
    return rows


def hard_image_retrieval(
    rows: Sequence[Row], dataset: Dataset, *, depth: int = 5, seed: int = 0, note: str = NOTE
) -> Figure:
    """Caption queries, the photo that was meant, and the photos that came first.

    Args:
        rows: t2i rows of a query table, as dicts.
        dataset: with photos.
        depth: photos shown a query.
        seed: of the sample, for the legend.
        note: the legend.

    Raises:
        DataError: no rows, or no photos.
    """
    _check(rows, dataset)
    shown = [name for row in rows for name in (row["best_positive"], *row["top"][:depth])]
    photo = TEXT / (depth + 1)
    figure, grid = photo_grid(len(rows), depth + 1, photo=photo, lines=2, shape=shape_of(dataset, shown))
    for line, row in zip(grid, rows, strict=True):
        write_words(figure, line[0], unsupported(row["text"], dataset, row["top"][0]), width=TEXT)
        draw_photo(figure, line[0], dataset, row["best_positive"], f"meant, rank {row['rank']:,}", True)
        for cell, name, hit in zip(line[1:], row["top"], row["top_positive"], strict=False):
            draw_photo(figure, cell, dataset, name, "", hit)
    return noted(figure, note.format(what="first photo", seed=seed))


def hard_text_retrieval(rows: Sequence[Row], dataset: Dataset, *, depth: int = 5, seed: int = 0) -> Figure:
    """Photo queries, the captions that came first, and one that was meant.

    Args:
        rows: i2t rows of a query table, as dicts.
        dataset: with photos.
        depth: captions shown a query.
        seed: of the sample, for the legend.

    Raises:
        DataError: no rows, or no photos.
    """
    _check(rows, dataset)
    columns = 2
    photo = TEXT / columns * 0.38
    shape = shape_of(dataset, [row["query"] for row in rows])
    figure, grid = photo_grid(
        -(-len(rows) // columns), columns, photo=photo, shape=shape, width=TEXT / columns, least=1.75
    )
    for cell, row in zip(grid.reshape(-1, 4), rows, strict=False):
        left, bottom, _, height = cell
        draw_photo(figure, np.array([left, bottom, photo, height]), dataset, row["query"], "", None)
        x, y = left + photo + 0.08, bottom + height - 0.02
        width = TEXT / columns - photo - 0.2
        for name, hit in list(zip(row["top"], row["top_positive"], strict=True))[:depth]:
            text = dataset.captions[dataset.caption_position[name]]
            words = [
                ("\N{CHECK MARK}" if hit else "\N{BULLET}", False),
                *unsupported(text, dataset, row["query"]),
            ]
            y = flow(figure, x, y, words, width, lines=2, colour=RIGHT if hit else PLAIN) - 0.03
        meant = dataset.captions[dataset.caption_position[row["best_positive"]]]
        words = [("meant", False), (f"({row['rank']:,}):", False), *((word, False) for word in _parts(meant))]
        flow(figure, x, y, words, width, lines=2, colour=RIGHT)
    return noted(figure, NOTE.format(what="photo", seed=seed))


def most_ahead(a: pd.DataFrame, b: pd.DataFrame, *, n: int = 4) -> list[tuple[Row, Row]]:
    """The caption queries on which A is furthest ahead of B: A's row and B's of each.

    Args:
        a, b: query tables of the same queries.
        n: queries at most: those A has in its top 10 with the largest ratio of ranks, one an image.
    """
    both = a.assign(other=b["rank"].to_numpy())
    both = both[(both["direction"] == "t2i") & (both["rank"] <= 10) & (both["other"] > both["rank"])]
    order = (both["other"] / both["rank"]).sort_values(ascending=False, kind="stable").index
    first = both.loc[order].drop_duplicates("image").head(n).index
    return list(zip(a.loc[first].to_dict("records"), b.loc[first].to_dict("records"), strict=True))


def where_a_beats_b(
    a: pd.DataFrame,
    b: pd.DataFrame,
    name_a: str,
    name_b: str,
    dataset: Dataset,
    *,
    n: int = 4,
    depth: int = 4,
) -> Figure:
    """The caption queries on which A is furthest ahead of B, with what each retrieved.

    Args:
        a, b: query tables of the same queries.
        name_a, name_b: of the Runs.
        dataset: with photos.
        n: queries shown, those of `most_ahead`.
        depth: photos shown a query and model.

    Raises:
        DataError: A beats B nowhere, or no photos.
    """
    pairs = most_ahead(a, b, n=n)
    _check(pairs, dataset)
    lists = [row["top"][:depth] for pair in pairs for row in pair]
    shape = shape_of(dataset, [name for names in lists for name in names])
    photo = TEXT / (2 * depth + 1)
    figure, grid = photo_grid(len(pairs), 2 * depth + 1, photo=photo, lines=3, shape=shape)
    for line, (x, y) in zip(grid, pairs, strict=True):
        write_words(figure, line[0], unsupported(x["text"], dataset, y["top"][0]), width=TEXT, above=1)
        draw_photo(figure, line[0], dataset, x["best_positive"], "meant", True)
        for start, row, name in ((1, x, name_a), (1 + depth, y, name_b)):
            flow(figure, line[start][0] + 0.05, line[start][1] + line[start][3] + 0.13,
                  [(name, False), (f"(rank {row['rank']:,})", False)], TEXT * depth, lines=1)  # fmt: skip
            for cell, image, hit in zip(line[start:], row["top"][:depth], row["top_positive"], strict=False):
                draw_photo(figure, cell, dataset, image, "", hit)
    note = (
        f"Blue frame and \N{CHECK MARK}: positive. Bold orange: words that no caption of {name_b}'s first photo holds. "
        f"The {several(len(pairs), 'query', 'queries')} with the largest ratio of ranks."
    )
    return noted(figure, note)


def _check(rows: Sequence[Any], dataset: Dataset) -> None:
    if dataset.image_root is None:
        raise DataError(f"{dataset!r} has no photos to draw", hint="prepare it with --images FOLDER")
    if not rows:
        raise DataError("there is no such query to draw", hint="sample_hard and most_ahead say what there is")
