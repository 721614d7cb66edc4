"""The approximate index: what it finds, what it says of itself, and that no rank comes from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tiir.data.protocols import resolve
from tiir.errors import ConfigError, MissingExtraError, RanksError
from tiir.metrics.ranking import rank_run
from tiir.report import index as module
from tiir.report.index import Index
from tiir.report.judged import JudgementFile
from tiir.report.live import live_runs
from tiir.report.search import Search
from tiir.report.serve import make_app
from tiir.report.sides import Sides
from tiir.scoring.embeddings import Embeddings
from tiir.scoring.shortlist import Listed

pytest.importorskip("faiss")


def pairs(n: int, *, queries: int = 100, spread: float = 0.6) -> Embeddings:
    """Vectors around forty centres, and queries near some of them."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(40, 16))
    columns = centres[random.integers(0, 40, n)] + spread * random.normal(size=(n, 16))
    rows = columns[random.integers(0, n, queries)] + spread * random.normal(size=(queries, 16))
    return Embeddings(rows.astype(np.float32), columns.astype(np.float32))


def test_its_recall_is_the_share_of_the_exact_best_that_it_finds() -> None:
    both = pairs(4000)
    index = Index(both)
    scores = np.asarray(both.rows, np.float64) @ np.asarray(both.columns, np.float64).T
    exact = np.argsort(-scores, axis=1)[:, :10]
    hits = [len(np.intersect1d(index.near(both.rows[n], 10), exact[n])) for n in range(100)]
    assert index.queries == 100  # all of them: fewer than are sampled
    assert index.recall == pytest.approx(np.mean(hits) / 10)
    assert index.recall >= 0.95
    assert 1 <= index.probes < index.lists  # or it would be no index
    index.probes = index.lists
    assert sorted(index.near(both.rows[0], 10)) == sorted(exact[0])
    index.probes = 1
    assert np.mean([len(np.intersect1d(index.near(both.rows[n], 10), exact[n])) for n in range(100)]) < 9.5


@pytest.mark.parametrize("n", [1, 5, 39, 400])
def test_it_finds_as_many_as_are_asked_for(n: int) -> None:
    both = pairs(n)
    index = Index(both)
    for depth in (1, 10, 300, 1000):
        found = index.near(both.rows[0], depth)
        assert len(set(found.tolist())) == min(depth, n)
        assert found.min() >= 0


def test_equal_vectors_are_as_good_as_each_other() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), 300, axis=0)
    assert Index(Embeddings(vectors[::50], vectors)).recall == 1


def test_what_is_no_number_is_refused() -> None:
    both = pairs(100)
    both.columns[7, 3] = np.nan
    with pytest.raises(RanksError, match=r"text_embeds.*7"):
        Index(both)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch, tiir: Any) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"tiir\[faiss\]"):
        Index(pairs(50))
    code, _, said = tiir("explore", "run", "--index", "faiss")
    assert code != 0
    assert "pip install 'tiir[faiss]'" in said


def test_an_unknown_index_is_refused() -> None:
    with pytest.raises(ConfigError, match="exact or faiss"):
        Search([], (), index="hnsw")  # type: ignore[arg-type]


def test_what_it_suggests_is_ordered_as_everything_would_be(explored: Any) -> None:
    """With all lists looked at, the same candidates and scores as without an index; shortlists too."""
    exact, sides = Sides(explored.runs[0]), Sides(explored.runs[0])
    sides.build(print)
    listed = Listed(np.zeros(3, np.int64), np.array([4, 17, 59]), np.array([0.5, 2.0, 1.0]))
    for caption in (0, 77, 250):
        vector = np.asarray(explored.runs[0].text_embeds[caption : caption + 1])
        for depth in (1, 10, 60):
            for some in (None, listed):
                one = exact.images(vector, depth, listed=some)
                other = sides.images(vector, depth, listed=some)
                assert [each.tolist() for each in one] == [each.tolist() for each in other]


def test_the_server_says_that_it_is_approximate(
    explored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PER_LIST", (15, 64))  # several lists, though there are few pictures
    said: list[str] = []
    data, run = explored.data, explored.runs[0]
    live = live_runs([run, run], data, device="cpu")
    search = Search(live, resolve("own", data), index="faiss", say=said.append)
    assert len(said) == 2  # images and captions, of both Runs: they hold the same vectors
    assert "of the exact best 10" in said[0]
    assert search._sides[0] is search._sides[1] is not None
    index = search._sides[0]._indexes["images"]
    index.probes = 1  # so that it misses more
    ranks, missed = rank_run(run, data).t2i, 0
    with JudgementFile(tmp_path / "judged.jsonl", data) as judged:
        app = make_app(explored.site, data, search, judged)
        headers = {"X-Tiir": "1", "Origin": "http://127.0.0.1"}
        with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
            for caption in range(100, 130):
                text = data.captions[caption]
                first, second = client.post("/api/search/text", json={"text": text}).json()["results"]
                assert first["approximate"] == {"recall": round(index.recall, 4), "queries": 200}
                assert first | {"run": 1} == second
                scores = run.image_embeds @ run.text_embeds[caption]
                assert first["scores"] == pytest.approx(scores[first["candidates"]].tolist(), rel=1e-4)
                missed += 10 - len(np.intersect1d(np.argsort(-scores)[:10], first["candidates"]))
                body = {"caption": caption, "text": text}
                edited = client.post("/api/rescore", json=body).json()["results"][0]
                assert edited["rank_before"] == edited["rank_after"] == ranks[caption]
            photo = {"photo": data.image_path(7).read_bytes()}
            (found, _) = client.post("/api/search/photo", files=photo).json()["results"]
            assert found["approximate"]["queries"] == 60
    assert missed > 0
