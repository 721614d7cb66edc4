"""One plan of scoring pairs with a cross encoder: from the first check, by tiles, to the finished Run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.data.protocols import default_protocol
from tiir.engine import Engine
from tiir.errors import DataError, ModelError, several
from tiir.models.base import CrossEncoder, PairModel
from tiir.scoring.plan import carry_out
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.texts import Texts
from tiir.scoring.tiles import Tiles, plan_hash

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["MEMORY", "PairTiles", "Say", "Work"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Say = Callable[[str], None]

MEMORY = 2 * 1024**3


class PairTiles:
    """A job (see `tiir.engine`): the scores of tiles.

    Args:
        encoder: bound to captions and images.
        tiles: positions of the images and captions of each: blocks, images (h, 1) and captions (w,), or lists of pairs,
            (p,) each.
    """

    chunk = 1

    def __init__(self, encoder: CrossEncoder, tiles: Sequence[tuple[IntArray, IntArray]]) -> None:
        self.encoder, self.tiles = encoder, tiles

    def results(self, numbers: Sequence[int]) -> Iterator[tuple[int, FloatArray]]:
        """Scores, float32 (h, w) or (p,)."""
        for n in numbers:
            images, captions = self.tiles[n]
            if images.ndim == 2:
                yield n, self.encoder.score_block(images[:, 0], captions)
            else:
                yield n, self.encoder.score_pairs(images, captions)

    def to(self, device: str) -> None:
        """Move the model."""
        self.encoder.to(device)


class Work:
    """One plan of scoring pairs, from the first check to the finished Run.

    Args:
        model, dataset, features, memory: see `score_cross`.
        dataset_path: where the data set lies.
        out: directory of the Run.
        kind: what is scored, part of the plan.
        engine: its workers may have another device than this process.

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
        engine: Engine | None,
    ) -> None:
        if not dataset.n_images or not dataset.n_captions:
            raise DataError(f"{dataset!r} is empty", hint="there is nothing to score")
        features.check(dataset)
        self.started, self.out, self.model = time.monotonic(), Path(out), model
        self.dataset, self.dataset_path, self.features = dataset, dataset_path, features
        self.texts = Texts(dataset, model)
        self.encoder = model.bind(self.texts.texts, dataset.image_ids, features, memory=memory)
        self.n_all = dataset.n_images * len(self.texts)
        info = model.info
        self.device = (engine and engine.device) or info.device
        self.plan: dict[str, Any] = {
            "kind": kind,
            "model": info.name,
            "revision": info.revision,
            "dataset": dataset.fingerprint,
            "features": features.fingerprint,
            "precision": info.precision,
            "device": self.device.split(":")[0],
            "captions": info.captions,
            "memory": memory,
            "versions": info.versions,
        }

    def run(
        self,
        keys: Sequence[str],
        tiles: Sequence[tuple[IntArray, IntArray]],
        finish: Callable[[Tiles, dict[str, Any]], None],
        *,
        engine: Engine | None,
        resume: bool,
        overwrite: bool,
        say: Say,
    ) -> Run:
        """Compute the tiles, and write the Run.

        Args:
            keys, tiles: name of each tile, and what it scores (see `PairTiles`).
            finish: writes the Run but for `run.json`, given the tiles and the notes to extend.
            engine, resume, overwrite, say: see `score_cross`.

        Raises:
            RunError: `out` is taken, was begun with another plan, or another process failed.
        """
        sizes = [np.broadcast(*pairs).size for pairs in tiles]

        def done(parts: Tiles, left: int, seconds: float) -> None:
            notes = self._notes(sum(sizes))
            if left:
                notes["pairs_per_second"] = round(left / seconds, 1)
            finish(parts, notes)

        return carry_out(
            self.out,
            self.plan,
            PairTiles(self.encoder, tiles),
            keys,
            sizes,
            done,
            unit="pairs",
            description="scoring",
            engine=engine,
            resume=resume,
            overwrite=overwrite,
            check=lambda n, scores: self.check(scores, *tiles[n]),
            announce=lambda left, engine: say(self._announce(sum(sizes), left, engine)),
        )

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
            "device": self.device,
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

    def _announce(self, n_pairs: int, left: int, engine: Engine) -> str:
        d = self.dataset
        text = (
            f"{n_pairs:,} pairs ({100 * n_pairs / self.n_all:.3g}% of all: {several(d.n_images, 'image')} x "
            f"{several(len(self.texts), 'distinct caption')})"
        )
        if left < n_pairs:
            text += f", {left:,} left"
        workers = engine.workers
        many = f" by {workers} workers" if workers > 1 else ""
        if not left or engine.device is not None:  # nothing to say of a device that this process has not
            return text + (many if left else "")
        rate = self._rate(left) * workers
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
