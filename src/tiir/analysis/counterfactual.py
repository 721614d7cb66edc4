"""What a misspelling costs: the corrected caption is scored by the same model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.analysis.typos import Typo, correct, find_typos
from tiir.analysis.words import Words
from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery
from tiir.errors import RunError
from tiir.metrics.ranking import rank_embeddings
from tiir.scoring.run import Run

__all__ = ["rescore_typos"]

SAME = 1e-3
"""Largest difference of a caption's vector from the Run's: above, another model made the Run."""


def rescore_typos(
    run: Run,
    dataset: Dataset,
    galleries: Sequence[Gallery],
    encode: Callable[[Sequence[str]], npt.NDArray[np.float32]],
) -> pd.DataFrame:
    """The rank of each misspelt caption query as it stands, and with its typos corrected.

    Args:
        run: of a dual encoder (its image vectors are used again).
        dataset: its data set.
        galleries: of the protocol.
        encode: the text side of the model that made the Run: texts to vectors (n, d).

    Returns:
        A row a misspelt query: fold, query (caption id), text, corrected, rank, corrected_rank, gain (places won).

    Raises:
        RunError: the Run has no vectors, or `encode` is of another model.
    """
    if run.image_embeds is None or run.text_embeds is None or run.shortlist is not None:
        raise RunError(
            f"{run.name} holds no vectors to score corrected captions with",
            hint="only Runs of dual encoders (CLIP-type models) can be rescored",
        )
    typos: dict[int, list[Typo]] = {}
    for typo in find_typos(Words(dataset.captions, dataset.caption_image, dataset.n_images)):
        typos.setdefault(typo.caption, []).append(typo)
    captions = np.array(sorted(typos), np.int64)
    texts = [dataset.captions[n] for n in captions]
    corrected = [correct(text, typos[n]) for n, text in zip(captions.tolist(), texts, strict=True)]
    vectors = encode([*texts, *corrected]) if len(captions) else np.empty((0, run.text_embeds.shape[1]))
    before, after = vectors[: len(captions)], vectors[len(captions) :]
    if len(captions):
        if before.shape[1] != run.text_embeds.shape[1]:
            raise RunError(f"the model's vectors have width {before.shape[1]}, those of {run.name} another")
        apart = float(np.abs(before - run.text_embeds[captions]).max())
        if apart > SAME:
            raise RunError(
                f"the model gives captions of {run.name} other vectors than the Run holds (up to {apart:.2g} apart)",
                hint=f"name the model that made the Run, {run.info.model} ({run.info.revision or 'its revision is not known'})",
            )
    rows = []
    for fold, gallery in enumerate(galleries):
        ranked = gallery.caption_queries[gallery.t2i.per_caption[gallery.caption_queries] > 0]
        ranked = ranked[np.isin(gallery.captions[ranked], captions)]
        if not len(ranked):
            continue
        asked = gallery.captions[ranked]
        here = np.searchsorted(captions, asked)
        positives = gallery.t2i.select(np.arange(len(gallery.images)), ranked)
        images = run.image_embeds[gallery.images]
        old, new = (
            rank_embeddings(images, vectors_of, positives, empty="exclude").t2i
            for vectors_of in (run.text_embeds[asked], after[here])
        )
        rows += [
            (fold, dataset.caption_ids[n], texts[m], corrected[m], int(was), int(now), int(was - now))
            for n, m, was, now in zip(asked, here, old, new, strict=True)
        ]
    columns = ["fold", "query", "text", "corrected", "rank", "corrected_rank", "gain"]
    return pd.DataFrame(rows, columns=columns)
