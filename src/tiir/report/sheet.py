"""Contact sheets: queries, the pictures they retrieved, hits framed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery
from tiir.errors import DataError
from tiir.io import atomic_write
from tiir.metrics.ranks import Ranks
from tiir.metrics.retrieve import retrieve
from tiir.scoring.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["contact_sheet", "sample_queries"]

HIT = "#009e73"  # green of the Okabe-Ito palette, told apart by the colour-blind
MISS = "#b0b0b0"
INK = "#222222"


def sample_queries(ranks: Ranks, *, n: int = 3, seed: int = 0) -> tuple[list[int], list[int]]:
    """Captions to look at: `n` hard ones (no positive in the top 10) and `n` easy ones (rank 1).

    The two rules are those of the study "Analyzing Low Recall Text-Image Retrieval with LXMERT and CLIP".

    Args:
        ranks: of one gallery.
        n: queries of each kind; fewer where there are fewer.
        seed: of the sample.

    Returns:
        Two sorted lists of caption positions in the gallery: hard, easy.
    """
    rng = np.random.default_rng(seed)

    def pick(candidates: Any) -> list[int]:
        return sorted(int(i) for i in rng.choice(candidates, min(n, len(candidates)), replace=False))

    return pick(np.flatnonzero(ranks.t2i > 10)), pick(np.flatnonzero(ranks.t2i == 1))


def contact_sheet(
    run: Run,
    dataset: Dataset,
    gallery: Gallery,
    ranks: Ranks,
    groups: Sequence[tuple[str, Sequence[int]]],
    out: Path | str,
    *,
    depth: int = 5,
) -> None:
    """Draw caption queries with the pictures they retrieved, best first, and the picture they belong to.

    Args:
        run: the scores.
        dataset: the pictures and captions.
        gallery: what was searched.
        ranks: the ranks of that gallery.
        groups: heading and caption positions (in the gallery) of each group of queries.
        out: file to write; the ending (.png, .pdf, .svg) chooses the format.
        depth: retrieved pictures a query.

    Raises:
        DataError: there is no query to draw.
    """
    from matplotlib.figure import Figure

    queries = np.array([query for _, group in groups for query in group], np.int64)
    if not len(queries):
        raise DataError("no query to draw", hint="there is no hard and no easy query in this gallery")
    heading_of = {group[0]: heading for heading, group in groups if len(group)}
    found, _ = retrieve(run, gallery, "t2i", queries, depth=depth)
    depth, out = found.shape[1], Path(out)
    positives_of = {int(q): gallery.t2i.image[gallery.t2i.caption == q] for q in queries}

    widths = [1.9, 1, 0.12] + [1] * depth
    figure = Figure(figsize=(1.35 * sum(widths), 1.5 * len(queries) + 0.25), dpi=120)
    axes = figure.subplots(
        len(queries),
        len(widths),
        gridspec_kw={"width_ratios": widths, "wspace": 0.06, "hspace": 0.3},
        squeeze=False,
    )
    for row, query, retrieved in zip(axes, queries, found, strict=True):
        for axis in row:
            axis.set_axis_off()
        caption = dataset.captions[gallery.captions[query]]
        rank = int(ranks.t2i[query])
        place = f"found at rank {rank:,} of {len(gallery.images):,}"
        row[0].text(0, 0.92, _wrap(caption), va="top", fontsize=9, color=INK, parse_math=False)
        row[0].text(0, 0.02, place, va="bottom", fontsize=8, color=HIT if rank <= depth else "#c04000")
        if query in heading_of:
            row[0].set_title(heading_of[query], loc="left", fontsize=10, fontweight="bold", color=INK)
        own = positives_of[int(query)]
        _draw(row[1], dataset, int(gallery.images[own[0]]), "its picture", INK, 1.0)
        for n, (axis, image) in enumerate(zip(row[3:], retrieved, strict=True), start=1):
            hit = image in own
            _draw(
                axis, dataset, int(gallery.images[image]), f"{n}", HIT if hit else MISS, 3.5 if hit else 1.0
            )
    with atomic_write(out) as temporary:
        figure.savefig(
            temporary, format=out.suffix.lstrip(".") or "png", bbox_inches="tight", pad_inches=0.12
        )


def _wrap(text: str, width: int = 27, lines: int = 4) -> str:
    wrapped = textwrap.wrap(" ".join(text.split()), width)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1] + "…"]
    return "\n".join(wrapped)


def _draw(axis: Axes, dataset: Dataset, image: int, label: str, colour: str, frame: float) -> None:
    axis.set_axis_on()
    axis.imshow(dataset.image(image))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(label, fontsize=8, color=colour if frame > 1 else INK, pad=3)
    for spine in axis.spines.values():
        spine.set_edgecolor(colour)
        spine.set_linewidth(frame)
