"""The mean of two models' scores, as a Run."""

from __future__ import annotations

import numpy as np

from tiir.scoring.run import Run

__all__ = ["mixed"]

SAMPLE = 1000  # images and captions whose pairs tell how widely a Run's scores spread


def mixed(a: Run, b: Run) -> Run | None:
    """A Run whose scores are those of `a` and `b`, each divided by its standard deviation, added up.

    The weight is fixed, not chosen on the queries, so recall with it is as honest as that of either Run.

    Returns:
        For two Runs of embeddings their scaled vectors side by side, for others a matrix; None where one is a cascade.
    """
    if a.shortlist is not None or b.shortlist is not None:
        return None
    scale_a, scale_b = 1 / _spread(a), 1 / _spread(b)
    info = a.info.model_copy(update={"model": f"{a.name} + {b.name}", "notes": {"mix": [a.name, b.name]}})
    if a.image_embeds is not None and b.image_embeds is not None:
        assert a.text_embeds is not None
        assert b.text_embeds is not None
        one, other = (np.asarray(run.image_embeds, np.float32) for run in (a, b))
        images = np.concatenate([one * scale_a, other * scale_b], axis=1)
        texts = np.concatenate([a.text_embeds, b.text_embeds], axis=1)
        return Run(info, images.astype(np.float32), texts.astype(np.float32))
    everything = np.arange(a.info.images), np.arange(a.info.captions)
    return Run(
        info, scores=(a.block(*everything) * scale_a + b.block(*everything) * scale_b).astype(np.float32)
    )


def _spread(run: Run) -> float:
    images, captions = (
        np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
        for n in (run.info.images, run.info.captions)
    )
    spread = np.nanstd(
        run.block(images, captions), dtype=np.float64
    )  # pairs that no gallery asks for may be NaN
    return float(spread) or 1.0
