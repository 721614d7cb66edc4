"""All that a site says: the blocks that its data files hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.analysis.compare import Comparison
from tiir.analysis.typos import Typo
from tiir.data.dataset import Dataset
from tiir.report import site_data as data
from tiir.report.overview import overview

__all__ = ["SiteContent"]


@dataclass(frozen=True, eq=False)
class SiteContent:
    """What a site says, before it is written.

    Args:
        dataset: that it shows.
        plan: what it is made from; see `tiir.report.build`.
        views: of the Runs.
        compared: them, pair by pair; None of one Run.
        typos: in the captions.
        photos: whether it shows them.
        n_folds: of the protocol.
        max_queries: a sample of so many in each direction, drawn with `seed`; all where None.
    """

    dataset: Dataset
    plan: dict[str, Any]
    views: list[data.RunView]
    compared: Comparison | None
    typos: Sequence[Typo]
    photos: bool
    n_folds: int
    max_queries: int | None = None
    seed: int = 0

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of the query tables that are shown."""
        return data.sample_rows(self.views[0].table, self.max_queries, self.seed)

    def images(self) -> list[int]:
        """Positions of the photos that are shown: of a sample no more than it needs."""
        if data.sampled(self.views[0].table, self.rows) is None:
            return list(range(self.dataset.n_images))
        return data.shown_images(self.views, self.dataset, self.rows)

    def blocks(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each data file, one after the other; `site` is the last."""
        dataset, rows, tags = self.dataset, self.rows, data.tags_of(self.views)
        typos: dict[int, list[Typo]] = {}
        for typo in self.typos:
            typos.setdefault(typo.caption, []).append(typo)
        yield "images", data.images_data(dataset, photos=self.photos)
        yield "captions", data.captions_data(dataset)
        yield "queries", data.queries_data(self.views, dataset, rows, tags)
        for r, view in enumerate(self.views):
            for c, block in enumerate(data.lists_data(view, dataset, rows, tags, typos)):
                yield f"lists-{r}-{c}", block
            for c, block in enumerate(data.wrong_data(view, dataset, rows)):
                yield f"wrong-{r}-{c}", block
        yield "site", self._front() | overview(self.views, self.compared, tags, n_folds=self.n_folds)

    def _front(self) -> dict[str, Any]:
        dataset, first = self.dataset, self.views[0]
        return {
            **{key: self.plan[key] for key in ("format", "tiir", "created")},
            "live": False,
            "photos": self.photos,
            "single": self.plan["options"]["single_file"],
            "sampled": data.sampled(first.table, self.rows),
            "dataset": {
                "name": dataset.name,
                "split": dataset.split,
                "fingerprint": dataset.fingerprint,
                "images": dataset.n_images,
                "captions": dataset.n_captions,
            },
            "protocol": {"name": first.evaluation.protocol, "title": first.evaluation.title},
        }
