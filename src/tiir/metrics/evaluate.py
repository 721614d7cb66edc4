"""From a Run and a data set to numbers with a protocol, intervals and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiir.data.positives import Positives
from tiir.data.protocols import Gallery, default_protocol, describe, resolve
from tiir.engine import Engine
from tiir.errors import several
from tiir.metrics.cascade import cross_facts
from tiir.metrics.counting import BLOCK
from tiir.metrics.graded import graded_run
from tiir.metrics.intervals import bootstrap
from tiir.metrics.published import check
from tiir.metrics.ranking import rank_run
from tiir.metrics.ranks import Empty, Ranks, Ties
from tiir.metrics.recall import by_direction, metrics_of, recall, rsum
from tiir.notebook import card

if TYPE_CHECKING:
    from tiir.data.dataset import Dataset
    from tiir.data.judgements import Judged
    from tiir.scoring.run import Run

__all__ = ["Evaluation", "evaluate"]

GRADED = ("cxc", "eccv")  # protocols of so many positives that their order counts, too


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One row of a results table, and what stands behind it.

    Args:
        run: short name of the Run.
        model: hub id or directory of the model.
        dataset, split, fingerprint: what it was evaluated on.
        protocol: its name; `description` is one line for a table's title.
        n_images, n_captions: gallery sizes (of all folds together).
        n_image_queries, n_caption_queries: number of queries ranked.
        captions_per_image: the cut, or None for all captions.
        ties, resamples, seed: as asked for.
        values: by name: "i2t_R@1" ... "t2i_R@10" and "rsum" in percent, "i2t_median_rank", "i2t_mean_rank",
            "i2t_MRR" ...; for cxc and eccv also "i2t_mAP@R", "i2t_R-Precision" ... in percent.
        intervals: (low, high) by the same names, 95%, resampling images; empty where resamples is 0.
        excluded: queries without a positive that were left out, by direction.
        warnings: what a reader must know before quoting the numbers.
        ranks: of every query.
        cross: what a cross encoder scored (see `tiir.metrics.cascade.cross_facts`), None where there was none.
        judged: pairs that count as positives because people judged them relevant; None where only the protocol's
            positives count.
    """

    run: str
    model: str
    dataset: str
    split: str
    fingerprint: str
    protocol: str
    description: str
    n_images: int
    n_captions: int
    n_image_queries: int
    n_caption_queries: int
    captions_per_image: int | None
    ties: Ties
    resamples: int
    seed: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    excluded: dict[str, int]
    warnings: list[str]
    ranks: Ranks
    cross: dict[str, Any] | None = None
    judged: int | None = None

    @property
    def title(self) -> str:
        """What was measured, such as "pets/test, own: 4 images x 8 captions, the whole data set; ...; ties pessimistic".

        A number is never shown without it.
        """
        excluded = [f"{n:,} {side}" for side, n in self.excluded.items() if n]
        text = f"{self.dataset}/{self.split}, {self.description}; ties {self.ties}"
        return text + (f"; excluded for want of a positive: {', '.join(excluded)}" if excluded else "")

    def __repr__(self) -> str:
        names = [name for name in ("i2t_R@1", "t2i_R@1", "rsum") if name in self.values]
        numbers = ", ".join(f"{name.replace('_', ' ')} {self.values[name]:.2f}" for name in names)
        return f"Evaluation({self.run} on {self.dataset}/{self.split}, {self.protocol}: {numbers})"

    def _repr_html_(self) -> str:
        facts = {"run": self.run, "model": self.model, "rsum": f"{self.values['rsum']:.2f}"}
        return card(self.title, facts, by_direction(self.values, self.intervals), *self.warnings)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the ranks, ready for JSON."""
        fields = {name: value for name, value in vars(self).items() if name != "ranks"}
        return fields | {"intervals": {name: list(edges) for name, edges in self.intervals.items()}}


def evaluate(
    run: Run,
    dataset: Dataset,
    protocol: str | None = None,
    *,
    ties: Ties = "pessimistic",
    captions_per_image: int | None = None,
    keys: Path | str | Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    empty: Empty = "error",
    block: int = BLOCK,
    judged: Judged | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Recall, rank statistics and their intervals of a Run under a protocol.

    Args:
        run: scores or embeddings of the whole data set.
        dataset: the data set it was made from.
        protocol: a key of `tiir.data.protocols.PROTOCOLS`; where None, the Run's, else the data set's usual one.
        ties, empty, block: see `tiir.metrics.rank_scores` and `rank_embeddings`.
        captions_per_image, keys: see `tiir.data.protocols.resolve`.
        seed, resamples: of the bootstrap; no intervals where resamples is 0.
        judged: pairs that people judged (see `tiir.data.judgements`): those judged relevant count as positives too.
        engine: counts bands of the gallery elsewhere, or several at a time; where None, this process counts.

    Raises:
        ProtocolError, RunError, RanksError: the data set, Run or scores do not allow an honest number.

    Example:
        >>> import numpy as np
        >>> from tiir.data.dataset import Dataset
        >>> from tiir.scoring.run import Run, RunInfo
        >>> data = Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))
        >>> run = Run(RunInfo.about(data, "pets", "by hand"), scores=np.eye(2, dtype=np.float32))
        >>> result = evaluate(run, data)
        >>> result.protocol, result.values["rsum"], result.intervals["rsum"]
        ('own', 600.0, (600.0, 600.0))
    """
    protocol = protocol or run.info.protocol or default_protocol(dataset)
    galleries = resolve(protocol, dataset, captions_per_image=captions_per_image, keys=keys)
    added = None
    if judged is not None:
        galleries, added = _with_judged(galleries, judged, dataset)
    ranks = rank_run(run, dataset, galleries, ties=ties, empty=empty, block=block, engine=engine)
    metrics = metrics_of(ranks)
    if protocol in GRADED and ties != "expected":
        metrics |= graded_run(run, dataset, galleries, ties=ties)
    values = {name: metric.value for name, metric in metrics.items()}
    values |= rsum(values)
    return Evaluation(
        run=run.name,
        model=run.info.model,
        dataset=dataset.name,
        split=dataset.split,
        fingerprint=dataset.fingerprint,
        protocol=protocol,
        description=describe(
            protocol, galleries, captions_per_image=captions_per_image, subset=keys is not None
        )
        + ("" if added is None else f", and {added:,} pair{'' if added == 1 else 's'} judged relevant"),
        n_images=ranks.n_images,
        n_captions=ranks.n_captions,
        n_image_queries=len(ranks.i2t_counts),
        n_caption_queries=len(ranks.t2i_counts),
        captions_per_image=captions_per_image,
        ties=ties,
        resamples=resamples,
        seed=seed,
        values=values,
        intervals=bootstrap(metrics, resamples=resamples, seed=seed) if resamples else {},
        excluded=ranks.excluded,
        warnings=[
            *_about_ties(ranks),
            *_about_excluded(ranks),
            *_about_graded(protocol, ties),
            *(check(run.info.model, protocol, values) if added is None else ()),
        ],
        ranks=ranks,
        cross=cross_facts(run, galleries),
        judged=added,
    )


def _with_judged(
    galleries: Sequence[Gallery], judged: Judged, dataset: Dataset
) -> tuple[tuple[Gallery, ...], int]:
    # Pairs judged relevant become positives of both directions; how many were not positives of both already.
    shape = dataset.n_images, dataset.n_captions
    relevant = Positives.pairs(judged.image[judged.relevant], judged.caption[judged.relevant], shape)
    extended, added = [], 0
    for gallery in galleries:
        here = relevant.select(gallery.images, gallery.captions)
        known = set(zip(gallery.i2t.image.tolist(), gallery.i2t.caption.tolist(), strict=True))
        if gallery.t2i is not gallery.i2t:
            known &= set(zip(gallery.t2i.image.tolist(), gallery.t2i.caption.tolist(), strict=True))
        added += sum(
            pair not in known for pair in zip(here.image.tolist(), here.caption.tolist(), strict=True)
        )
        i2t = _union(gallery.i2t, here)
        t2i = i2t if gallery.t2i is gallery.i2t else _union(gallery.t2i, here)
        extended.append(replace(gallery, i2t=i2t, t2i=t2i))
    return tuple(extended), added


def _union(one: Positives, other: Positives) -> Positives:
    images = np.concatenate([one.image, other.image])
    return Positives.pairs(images, np.concatenate([one.caption, other.caption]), one.shape)


def _about_ties(ranks: Ranks) -> list[str]:
    worst, best = (recall(replace(ranks, ties=ties)) for ties in ("pessimistic", "optimistic"))
    name = max(worst, key=lambda key: (best[key] - worst[key]) * (key != "rsum"))
    if best[name] - worst[name] <= 0.1:
        return []
    return [
        f"tied scores decide: {name} is {worst[name]:.2f} with pessimistic and {best[name]:.2f} with optimistic "
        f"ties (these numbers: {ranks.ties}). Constant or half-precision scores and equal captions tie."
    ]


def _about_graded(protocol: str, ties: Ties) -> list[str]:
    # Chance places of many positives are not defined.
    if protocol not in GRADED or ties != "expected":
        return []
    return ["mAP@R and R-Precision are left out: they are not defined for expected ties"]


def _about_excluded(ranks: Ranks) -> list[str]:
    names = {"i2t": "image", "t2i": "caption"}
    return [
        f"left out: {several(number, f'{names[side]} query', f'{names[side]} queries')} without a positive"
        for side, number in ranks.excluded.items()
        if number
    ]
