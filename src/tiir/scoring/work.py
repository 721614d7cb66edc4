"""One plan of scoring pairs with a cross encoder: from the first check, by tiles, to the finished Run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol
from tiir.errors import DataError, ModelError
from tiir.models.base import PairModel
from tiir.scoring.engines.local import run_tiles, team
from tiir.scoring.run import Run, RunInfo, finished_run
from tiir.scoring.tiles import Tiles, plan_hash

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["MEMORY", "Say", "Texts", "Work"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Say = Callable[[str], None]

MEMORY = 2 * 1024**3


class Texts:
    """The distinct captions of a data set, sorted by length, so that a tile holds few lengths.

    Args:
        dataset: whose captions.
        model: that counts their tokens.
    """

    def __init__(self, dataset: Dataset, model: PairModel) -> None:
        texts = list(dict.fromkeys(dataset.captions))
        lengths = model.caption_lengths(texts)
        order = np.argsort(lengths, kind="stable")
        self.texts = [texts[i] for i in order]
        place = {text: i for i, text in enumerate(self.texts)}
        self.of_caption = np.fromiter(
            (place[text] for text in dataset.captions), np.int64, dataset.n_captions
        )
        self.truncated = int((lengths > model.max_length).sum())

    def __len__(self) -> int:
        return len(self.texts)


class Work:
    """One plan of scoring pairs, from the first check to the finished Run.

    Args:
        model, dataset, features, memory: see `score_cross`.
        dataset_path: where the data set lies.
        out: directory of the Run.
        kind: what is scored, part of the plan.

    Raises:
        DataError: the data set is empty, or `features` lack an image of it or show other pictures.
    """

    def __init__(
        self,
        model: PairModel,
        dataset: Dataset,
        dataset_path: Path | str,
        features: FeatureStore,
        out: Path | str,
        memory: int,
        kind: str,
    ) -> None:
        if not dataset.n_images or not dataset.n_captions:
            raise DataError(f"{dataset!r} is empty", hint="there is nothing to score")
        features.check(dataset)
        self.started, self.out, self.model = time.monotonic(), Path(out), model
        self.dataset, self.dataset_path, self.features = dataset, dataset_path, features
        self.texts = Texts(dataset, model)
        self.encoder = model.bind(self.texts.texts, dataset.image_ids, features, memory=memory)
        self.n_all = dataset.n_images * len(self.texts)
        self.first = True  # of the processes at work
        info = model.info
        self.plan: dict[str, Any] = {
            "kind": kind,
            "model": info.name,
            "revision": info.revision,
            "dataset": dataset.fingerprint,
            "features": features.fingerprint,
            "precision": info.precision,
            "device": info.device.split(":")[0],
            "captions": info.captions,
            "memory": memory,
            "versions": info.versions,
        }

    def run(
        self,
        keys: Sequence[str],
        sizes: Sequence[int],
        compute: Callable[[int], FloatArray],
        finish: Callable[[Tiles, dict[str, Any]], None],
        *,
        resume: bool,
        overwrite: bool,
        say: Say,
    ) -> Run:
        """Compute the tiles, here or with the other processes of torchrun, and let process 0 write the Run.

        Args:
            keys, sizes: name and pairs of each tile.
            compute: gives the scores of tile n.
            finish: writes the Run but for `run.json`, given the tiles and the notes to extend.
            resume, overwrite, say: see `score_cross`.

        Raises:
            RunError: `out` is taken, was begun with another plan, or another process failed.
        """
        out = self.out
        with team() as crew:
            first = self.first = crew.rank == 0
            if (out / "run.json").exists() and not overwrite:
                if first:
                    finished_run(out, self.plan, resume=resume, overwrite=False)
                crew.wait()
                return Run.load(out)
            parts = out / ".parts"
            opened = Tiles.open(parts, self.plan, resume=resume, overwrite=overwrite) if first else None
            with opened or nullcontext(Tiles(parts, self.plan)) as tiles:
                missing, left = np.ones(len(keys), bool), 0
                if first:
                    (out / "run.json").unlink(missing_ok=True)  # no earlier Run to mistake for this one
                    there = tiles.keys()
                    missing = np.array([key not in there for key in keys])
                    left = int(np.sum(np.asarray(sizes)[missing]))
                    say(self._announce(sum(sizes), left, crew.size))
                missing = crew.told(missing)
                started = time.monotonic()
                run_tiles(tiles, keys, np.flatnonzero(missing), compute, weights=sizes, team=crew)
                crew.wait()
                seconds = time.monotonic() - started
                if first:
                    notes = self._notes(sum(sizes))
                    if left:
                        notes["pairs_per_second"] = round(left / seconds, 1)
                    finish(tiles, notes)
                    tiles.remove()
                crew.wait()
            return Run.load(out)

    def tile(self, tiles: Tiles, key: str, n: int, compute: Callable[[int], FloatArray]) -> FloatArray:
        """A finished tile; one that was damaged since is computed again."""
        tile = tiles.get(key)
        return compute(n) if tile is None else tile

    def check(self, scores: FloatArray, images: IntArray, texts: IntArray) -> FloatArray:
        """The scores, once none is NaN or infinite.

        Args:
            scores: any shape.
            images, texts: positions, to be broadcast to it.

        Raises:
            ModelError: one is (named by its image and caption).
        """
        bad = ~np.isfinite(scores)
        if bad.any():
            image, text = (int(np.broadcast_to(index, scores.shape)[bad][0]) for index in (images, texts))
            raise ModelError(
                f"{self.model.info.name} gives {scores[bad][0]} for image {self.dataset.image_ids[image]!r} and "
                f"caption {self.texts.texts[text]!r}",
                hint="use --precision float32; check the features with `tiir features verify`",
            )
        return np.asarray(scores, np.float32)

    def info(self, name: str, notes: dict[str, Any]) -> RunInfo:
        """The facts of the Run."""
        model = self.model.info
        return RunInfo.about(
            self.dataset,
            self.dataset_path,
            name,
            revision=model.revision,
            precision=model.precision,
            protocol=default_protocol(self.dataset),
            seconds=round(time.monotonic() - self.started, 3),
            versions=model.versions,
            notes=notes,
        )

    def _notes(self, n_pairs: int) -> dict[str, Any]:
        features = self.features
        return {
            "plan": plan_hash(self.plan),
            "pairs": n_pairs,
            "share": 100 * n_pairs / self.n_all,
            "device": self.model.info.device,
            "captions": self.model.info.captions,
            "memory": self.plan["memory"],
            "distinct_captions": len(self.texts),
            "truncated_captions": self.texts.truncated,
            "features": {
                "path": str(features.path),
                "fingerprint": features.fingerprint,
                "extractor": features.info.extractor,
            },
        }

    def _announce(self, n_pairs: int, left: int, processes: int) -> str:
        d = self.dataset
        text = (
            f"{n_pairs:,} pairs ({100 * n_pairs / self.n_all:.3g}% of all: {d.n_images:,} images x "
            f"{len(self.texts):,} distinct captions)"
        )
        if left < n_pairs:
            text += f", {left:,} left"
        if not left:
            return text
        rate = self._rate(left) * processes
        many = f" by {processes} processes" if processes > 1 else ""
        return f"{text}, about {rate:,.3g} pairs a second{many}: {_duration(left / rate)}"

    def _rate(self, left: int) -> float:
        # Pairs a second of a small block with captions of all lengths; a larger one where that was too quick to tell.
        # The first one is not timed: it makes the libraries ready.
        side, warm = 4, False
        while True:
            images = np.arange(min(side, self.dataset.n_images))
            texts = np.unique(np.linspace(0, len(self.texts) - 1, 4 * side).astype(np.int64))
            started = time.monotonic()
            self.encoder.score_block(images, texts)
            seconds, n_pairs = time.monotonic() - started, len(images) * len(texts)
            if not warm:
                warm = True
                continue
            side *= 2
            if seconds > 0.5 or 16 * side * side > left // 20:
                return n_pairs / max(seconds, 1e-9)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, round(seconds))} s"
