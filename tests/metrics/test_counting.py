"""Bands as the pieces of a job; that the counts are right is checked in test_ranks."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.data.positives import Positives
from tiir.engine import Engine
from tiir.errors import RanksError
from tiir.metrics import rank_embeddings, rank_scores
from tiir.metrics.counting import count
from tiir.scoring.pairs import Matrix
from tiir.scoring.shards import Shards

rng = np.random.default_rng(0)


class Watched(Engine):
    """Keeps the job and how many bands there were."""

    def run(self, job: Any, numbers: Any, put: Any, *, weights: Any, unit: str, description: str) -> None:
        self.job, self.bands, self.weights = pickle.dumps(job), len(numbers), weights
        super().run(job, numbers, put, weights=weights, unit=unit, description=description)


def gallery(folder: Path, n: int, d: int = 8) -> tuple[Any, Any, Any]:
    """Images in two shards, of which every hundredth owns a caption."""
    images = rng.integers(-3, 4, (n, d)).astype(np.float16)  # small integers: exact products, many ties
    folder.mkdir()
    for k, part in enumerate(np.split(images, [n // 3])):
        np.save(folder / f"part-{k}.npy", part)
    own = np.arange(0, n, 100)
    return Shards.open(folder), images[own].astype(np.float32), own


def by_hand(images: Any, texts: Any, own: Any) -> tuple[list[int], list[int]]:
    scores = np.asarray(images, np.float64) @ texts.T.astype(np.float64)
    best = scores[own, np.arange(len(own))]
    return (scores[own] >= best[:, None]).sum(1).tolist(), (scores >= best).sum(0).tolist()


def test_distractors_are_candidates_and_no_queries(tmp_path: Path) -> None:
    images, texts, own = gallery(tmp_path / "images", 5000)
    engine = Watched()
    found = rank_embeddings(images, texts, own, empty="exclude", block=30, engine=engine)
    assert (found.i2t.tolist(), found.t2i.tolist()) == by_hand(images, texts, own)
    assert found.excluded == {"i2t": 4950, "t2i": 0}
    assert found.i2t_counts.query.tolist() == own.tolist()
    assert engine.bands == -(-5000 // (5 * 30))  # of 5 tiles: 32 times that many rows there are
    assert sum(engine.weights) == 5000 * 50


def test_a_job_is_as_small_as_its_queries(tmp_path: Path) -> None:
    # Neither vectors nor anything for each image travels: ten times the gallery, the same captions.
    sizes = []
    for n in (2_000, 20_000):
        images, texts, own = gallery(tmp_path / str(n), n)
        engine = Watched()
        rank_embeddings(images, texts[:20], own[:20], empty="exclude", engine=engine)
        sizes.append(len(engine.job))
    assert sizes[1] < sizes[0] + 200


def test_a_band_takes_no_more_in_a_larger_gallery(tmp_path: Path) -> None:
    peaks = []
    for n in (20_000, 100_000):
        images, texts, own = gallery(tmp_path / str(n), n)
        engine = Watched()
        rank_embeddings(images, texts[:100], own[:100], empty="exclude", block=100, engine=engine)
        job = pickle.loads(engine.job)
        tracemalloc.start()
        list(job.results(range(5)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_band_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts, own = gallery(tmp_path / "images", 3000)
    read: list[int] = []
    span = Shards._span
    monkeypatch.setattr(Shards, "_span", lambda self, a, b: (read.append(b - a), span(self, a, b))[1])
    rank_embeddings(images, texts, own, empty="exclude", block=8)
    assert sum(read) == 3000  # positives are gathered, one by one


@pytest.mark.parametrize("engine", [None, Watched()])
def test_a_bad_vector_is_named_wherever_it_lies(tmp_path: Path, engine: Engine | None) -> None:
    _, texts, own = gallery(tmp_path / "images", 900)
    part = np.load(tmp_path / "images" / "part-1.npy")
    for place, value in ((0, np.nan), (321, np.inf)):  # an image with a caption, a distractor
        broken = part.copy()
        broken[place, 5] = value
        np.save(tmp_path / "images" / "part-1.npy", broken)
        with pytest.raises(RanksError, match=rf"image_embeds\[{300 + place}, 5\] is {value}"):
            rank_embeddings(
                Shards.open(tmp_path / "images"), texts, own, empty="exclude", block=40, engine=engine
            )
    captions = texts.copy()
    captions[2, 1] = np.nan
    with pytest.raises(RanksError, match=r"text_embeds\[2, 1\] is nan"):
        rank_embeddings(part[:400], captions[:4], own[:4], empty="exclude", engine=engine)
    huge = np.float64(1e200) * part[:400].astype(np.float64)
    with pytest.raises(RanksError, match="too long"):
        rank_embeddings(huge, texts[:4].astype(np.float64), own[:4], empty="exclude", engine=engine)


def test_matrices_go_as_the_names_of_their_files(tmp_path: Path) -> None:
    scores = rng.standard_normal((300, 40)).astype(np.float32)
    own = rng.permutation(300)[:40]
    np.save(tmp_path / "scores.npy", scores)
    pairs = Matrix(np.load(tmp_path / "scores.npy", mmap_mode="r"))
    positives, engine = Positives.of(own, n_images=300), Watched()
    _, by_column = count(pairs, positives, positives, np.sort(own), np.arange(40), 16, engine)
    want = rank_scores(scores, own, empty="exclude")
    assert by_column[0].tolist() == want.t2i_counts.better.tolist()
    assert len(engine.job) < scores.nbytes / 4
    assert np.array_equal(pickle.loads(engine.job).pairs.scores, scores)


@pytest.mark.parametrize("place", [(2, 9), (9, 2), (8, 9), (10, 3), (3, 10), (10, 10)])
def test_an_unscored_pair_is_found_in_every_tile(place: tuple[int, int]) -> None:
    scores = np.eye(11, dtype=np.float32)  # the last row and column are tiles of one
    scores[place] = np.nan
    own = Positives.of(np.arange(11), n_images=11)
    with pytest.raises(RanksError, match=f"image {place[0]} and caption {place[1]} is nan"):
        count(Matrix(scores), own, own, np.arange(11), np.arange(11), block=5)
