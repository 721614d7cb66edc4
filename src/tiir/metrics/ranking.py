"""Ranking by counting: how many wrong candidates beat each query's best positive.

Nothing is sorted, the counts of gallery blocks add up, and one pass serves both directions. Positives never count
against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from tiir.data.positives import Positives
from tiir.engine import Engine
from tiir.errors import RanksError
from tiir.metrics.cascade import recount
from tiir.metrics.counting import BLOCK, count
from tiir.metrics.ranks import Counts, Empty, Ranks, Ties
from tiir.scoring.embeddings import Embeddings, Vectors
from tiir.scoring.pairs import Matrix, Pairs, pairs_of

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset
    from tiir.data.protocols import Gallery
    from tiir.scoring.run import Run
    from tiir.scoring.shortlist import Listed

__all__ = ["rank_embeddings", "rank_run", "rank_scores"]

IntArray = npt.NDArray[np.int64]


def rank_scores(
    scores: npt.NDArray[Any], positives: Any, *, ties: Ties = "pessimistic", empty: Empty = "error"
) -> Ranks:
    """Ranks from a score matrix.

    Args:
        scores: float16, float32 or float64, (n_images, n_captions); higher is better; compared exactly as
            given and not copied. May be memory-mapped.
        positives: the image position of each caption, int (n_captions,); or an images x captions matrix
            (numpy or scipy.sparse) whose non-zero entries are relevant; or a Positives.
        ties: a candidate that scores the same as the best positive counts as better ("pessimistic", which a
            constant model cannot exploit), as worse ("optimistic"), or by chance ("expected").
        empty: what to do with a query that has no positive: "error", or "exclude" (and count it).

    Raises:
        RanksError: NaN or infinite scores, integers or booleans, shapes that do not match, no positive.

    Example:
        >>> scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.3]], np.float32)
        >>> ranks = rank_scores(scores, np.array([0, 1, 1]))
        >>> ranks.i2t.tolist(), ranks.t2i.tolist()      # caption 2 ties between both images
        ([1, 1], [1, 1, 2])
        >>> ranks
        Ranks(2 image queries, 3 caption queries, 2 images x 3 captions, ties pessimistic)
    """
    return _rank(Matrix(scores), positives, ties=ties, empty=empty)


def rank_embeddings(
    image_embeds: Vectors,
    text_embeds: Vectors,
    positives: Any,
    *,
    ties: Ties = "pessimistic",
    empty: Empty = "error",
    block: int = BLOCK,
    engine: Engine | None = None,
) -> Ranks:
    """Ranks from embeddings, never holding the score matrix; equal for every block size, BLAS and machine.

    The score of a pair is the float64 dot product of its vectors (no normalisation is applied). Equal vectors
    tie exactly.

    Args:
        image_embeds: float16, float32 or float64, (n_images, d); a memory map or `Shards` is read band by band.
        text_embeds: (n_captions, d).
        positives, ties, empty: as in `rank_scores`.
        block: side of the square tiles of scores that are held at a time; memory is about 4 * block**2 bytes.
        engine: counts bands of images elsewhere, or several at a time; where None, this process counts.

    Raises:
        RanksError: NaN or infinite values, integers, widths or shapes that do not match, no positive.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> rank_embeddings(vectors, vectors[[0, 1, 1]], np.array([0, 1, 2])).t2i.tolist()
        [1, 1, 3]
    """
    pairs = Embeddings(image_embeds, text_embeds)
    return _rank(pairs, positives, ties=ties, empty=empty, block=block, engine=engine)


def rank_run(
    run: Run,
    dataset: Dataset,
    protocol: str | Sequence[Gallery] = "own",
    *,
    ties: Ties = "pessimistic",
    empty: Empty = "error",
    block: int = BLOCK,
    engine: Engine | None = None,
) -> Ranks:
    """Ranks of a Run under a protocol.

    Args:
        run: scores or embeddings of the whole data set, or a cascade: its shortlists come first, by the cross
            encoder, the rest keeps the first stage's order. In a part of the data set a shortlist is that of
            the whole, less what is outside.
        dataset: the data set that the Run was made from.
        protocol: a name (see `tiir.data.protocols`), or what `resolve` gave.
        ties, empty, block, engine: as in `rank_scores` and `rank_embeddings`.

    Raises:
        RunError: the Run belongs to another data set.
        ProtocolError: the protocol does not fit the data set.
        RanksError: as in `rank_scores`.
    """
    from tiir.data.protocols import resolve

    run.check(dataset)
    galleries = resolve(protocol, dataset) if isinstance(protocol, str) else protocol
    return _join(
        [
            _rank(
                pairs_of(run, gallery),
                gallery.i2t,
                gallery.t2i,
                ties=ties,
                empty=empty,
                block=block,
                engine=engine,
                image_queries=gallery.image_queries,
                caption_queries=gallery.caption_queries,
                images=gallery.images,
                captions=gallery.captions,
                owner=dataset.caption_image[gallery.captions],
                fold=fold,
                listed=_listed(run, gallery),
            )
            for fold, gallery in enumerate(galleries)
        ]
    )


def _rank(
    pairs: Pairs,
    i2t: Any,
    t2i: Any = None,
    *,
    ties: Ties,
    empty: Empty,
    block: int = BLOCK,
    engine: Engine | None = None,
    image_queries: IntArray | None = None,
    caption_queries: IntArray | None = None,
    images: IntArray | None = None,
    captions: IntArray | None = None,
    owner: IntArray | None = None,
    fold: int = 0,
    listed: tuple[Listed, Listed] | None = None,
) -> Ranks:
    for name, value, allowed in [("ties", ties, get_args(Ties)), ("empty", empty, get_args(Empty))]:
        if value not in allowed:
            raise RanksError(f"{name}={value!r} is not a policy", hint=f"one of: {', '.join(allowed)}")
    if block < 1:
        raise RanksError(f"block={block} must be at least 1")
    n_images, n_captions = pairs.shape
    i2t = Positives.of(i2t, n_images=n_images, n_captions=n_captions)
    t2i = i2t if t2i is None else Positives.of(t2i, n_images=n_images, n_captions=n_captions)
    images = np.arange(n_images) if images is None else images
    captions = np.arange(n_captions) if captions is None else captions
    if owner is None:  # the first image that a caption is relevant to
        owner = np.zeros(n_captions, np.int64)
        owner[t2i.caption[::-1]] = t2i.image[::-1]
    rows, no_rows = _queries(i2t.per_image, image_queries, empty, "image", images)
    columns, no_columns = _queries(t2i.per_caption, caption_queries, empty, "caption", captions)
    by_row, by_column = count(pairs, i2t, t2i, rows, columns, block, engine)
    if listed is not None:
        by_row = recount(by_row, pairs, i2t, rows, listed[0])
        by_column = recount(by_column, pairs.T, t2i.T, columns, listed[1])
    return Ranks(
        ties,
        Counts(images[rows], images[rows], np.full(len(rows), fold), *by_row, images[no_rows]),
        Counts(
            captions[columns], owner[columns], np.full(len(columns), fold), *by_column, captions[no_columns]
        ),
        n_images,
        n_captions,
    )


def _listed(run: Run, gallery: Gallery) -> tuple[Listed, Listed] | None:
    short = run.shortlist
    return None if short is None else (short.listed("i2t", gallery), short.listed("t2i", gallery))


def _queries(
    n_positives: IntArray, asked: IntArray | None, empty: Empty, side: str, positions: IntArray
) -> tuple[IntArray, IntArray]:
    queries = np.arange(len(n_positives)) if asked is None else asked
    without = queries[n_positives[queries] == 0]
    if len(without) and empty == "error":
        raise RanksError(
            f"{len(without)} of {len(queries)} {side} queries have no positive, the first at {side} "
            f"{positions[without[0]]}",
            hint='their rank is undefined: remove them, or leave them out and count them with empty="exclude" (--empty exclude)',
        )
    queries = queries[n_positives[queries] > 0]
    if not len(queries):
        raise RanksError(f"no {side} query has a positive")
    return queries, without


def _join(parts: Sequence[Ranks]) -> Ranks:
    def merge(counts: Iterable[Counts]) -> Counts:
        columns = zip(*(vars(part).values() for part in counts), strict=True)
        return Counts(*(np.concatenate(column) for column in columns))

    return Ranks(
        parts[0].ties,
        merge(part.i2t_counts for part in parts),
        merge(part.t2i_counts for part in parts),
        sum(part.n_images for part in parts),
        sum(part.n_captions for part in parts),
        len(parts),
    )
