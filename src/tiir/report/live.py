"""The models behind Runs, loaded again to answer what nobody asked before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.analysis.counterfactual import SAME
from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError, ModelError, TiirError
from tiir.features.store import FeatureStore
from tiir.report.names import short_name
from tiir.scoring.run import Run

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Encoder", "LiveRun", "Reranker", "live_runs"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Say = Callable[[str], None]


class Encoder:
    """A dual encoder that several threads and several Runs share: one call at a time."""

    def __init__(self, model: Any) -> None:
        self.model, self._lock = model, threading.Lock()

    def texts(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of captions, float32 (n, d)."""
        with self._lock:
            vectors: FloatArray = self.model.encode_captions(texts)
            return vectors

    def photo(self, image: Image) -> FloatArray:
        """The vector of a picture, float32 (1, d)."""
        pixels = self.model.prepare([image])
        with self._lock:
            vectors: FloatArray = self.model.encode_prepared(pixels)
            return vectors


class Reranker:
    """A cross encoder with the region features of a data set's images: one call at a time.

    Args:
        model: from `tiir.models.load("lxmert:NAME")`.
        features: of the images.
        image_ids: of the data set.
    """

    def __init__(self, model: Any, features: FeatureStore, image_ids: Sequence[str]) -> None:
        self.name, self.revision = short_name(model.info.name), model.info.revision
        self._model, self._features, self._ids = model, features, image_ids
        self._lock = threading.Lock()
        model.bind(["a probe"], image_ids[:1], features)  # wrong features are refused now

    def scores(self, text: str, images: IntArray) -> FloatArray:
        """Scores of a text with the images at these positions, float32 (n,)."""
        with self._lock:
            pairs = self._model.bind([text], [self._ids[i] for i in images], self._features)
            scores: FloatArray = pairs.score_pairs(np.arange(len(images)), np.zeros(len(images), np.int64))
            return scores


@dataclass(frozen=True, eq=False)
class LiveRun:
    """A Run with the models that answer for it.

    Args:
        run: as loaded.
        encoder: of its vectors, or None.
        reranker: its cascade's cross encoder, or another one to look at beside it, or None.
    """

    run: Run
    encoder: Encoder | None = None
    reranker: Reranker | None = None

    @property
    def rescores(self) -> bool:
        """Whether an edited caption can be ranked as this Run ranks."""
        return self.encoder is not None and (self.run.shortlist is None or self.reranker is not None)


def live_runs(
    runs: Sequence[Run],
    dataset: Dataset,
    *,
    device: str = "auto",
    features: Path | None = None,
    reranker: str | None = None,
    say: Say = lambda text: None,
) -> list[LiveRun]:
    """Load the model of every Run that has one; each model once.

    Args:
        runs: of `dataset`.
        dataset: what they were made from.
        device: for the models.
        features: region features for re-ranking; where None, those that a cascade names.
        reranker: "lxmert:NAME", to re-rank what the dual encoders find (and where a cascade's own lies now).
        say: called with what could not be loaded, and why.

    Raises:
        TiirError: `features` or `reranker` were asked for and cannot be had.
    """
    if reranker is not None and features is None:
        raise ConfigError(f"--with {reranker} needs the images' region features", hint="--features FILE")
    loader = _Loader(dataset, device, None if features is None else FeatureStore.open(features))
    made = []
    for run in runs:
        encoder = ranker = None
        try:
            encoder = loader.encoder(run)
            if encoder is None:
                say(
                    f"{run.name} cannot search: its scores or vectors were made elsewhere, or by a cross encoder"
                )
        except TiirError as problem:
            say(f"{run.name} cannot search: {problem}")
        if encoder is not None and run.shortlist is not None:
            try:
                ranker = loader.own_reranker(run, reranker)
            except TiirError as problem:
                say(f"{run.name} cannot re-rank what is searched: {problem}")
        elif encoder is not None and reranker is not None:
            ranker = loader.reranker(reranker)
        made.append(LiveRun(run, encoder, ranker))
    return made


class _Loader:
    def __init__(self, dataset: Dataset, device: str, store: FeatureStore | None) -> None:
        self._dataset, self._device, self._store = dataset, device, store
        self._models: dict[tuple[str | None, ...], Any] = {}
        self._wrapped: dict[int, Any] = {}  # a lock a model: Runs of one model share it
        if store is not None:
            store.check(dataset)

    def encoder(self, run: Run) -> Encoder | None:
        """What made a Run's vectors; None where it names no model."""
        if run.text_embeds is None:
            return None
        made_by = vars(run.info) if run.shortlist is None else run.info.notes.get("first_stage", {})
        if not made_by.get("revision") and "transformers" not in made_by.get("versions", {}):
            return None  # made elsewhere
        model = self._load(made_by["model"], made_by["revision"], made_by["precision"])
        encoder: Encoder = self._wrapped.setdefault(id(model), Encoder(model))
        # The weights are the same; the libraries may not be. A few captions tell.
        some = np.unique(np.linspace(0, run.info.captions - 1, 4).astype(np.int64))
        now = encoder.texts([self._dataset.captions[i] for i in some])
        if now.shape[1] != run.text_embeds.shape[1] or np.abs(now - run.text_embeds[some]).max() > SAME:
            raise ModelError(f"{made_by['model']} gives captions other vectors than {run.name} holds")
        return encoder

    def own_reranker(self, cascade: Run, other_place: str | None) -> Reranker:
        """The cross encoder of a cascade, from where it lay or from another place."""
        info, notes = cascade.info, cascade.info.notes
        name = info.model.removeprefix(f"{notes['first_stage']['model']} > ")
        try:
            model = self._load(name, info.revision, info.precision)
        except ModelError:
            if other_place is None:
                raise
            model = self._load(other_place, info.revision, info.precision)
        store = self._store or FeatureStore.open(notes["features"]["path"])
        if store.fingerprint != notes["features"]["fingerprint"]:
            raise DataError(f"{store.path} are other features than {cascade.name} was made with")
        return self._with(model, store)

    def reranker(self, name: str) -> Reranker:
        """A cross encoder by its name."""
        if not name.startswith("lxmert:"):
            raise ConfigError(f"--with {name}: only an LXMERT can re-rank", hint=f"--with lxmert:{name}")
        assert self._store is not None
        return self._with(self._load(name, None, "auto"), self._store)

    def _with(self, model: Any, store: FeatureStore) -> Reranker:
        if id(model) not in self._wrapped:
            self._wrapped[id(model)] = Reranker(model, store, self._dataset.image_ids)
        ranker: Reranker = self._wrapped[id(model)]
        return ranker

    def _load(self, name: str, revision: str | None, precision: Any) -> Any:
        from tiir import models

        key = name, revision, precision
        if key not in self._models:
            self._models[key] = models.load(name, device=self._device, precision=precision, revision=revision)
        return self._models[key]
