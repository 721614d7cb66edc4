from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tiir.data.dataset import Dataset
from tiir.errors import ProtocolError, RunError
from tiir.metrics.ranking import rank_run
from tiir.report.export import export_run
from tiir.scoring.run import Run, RunInfo


def first_hits(rows: list[dict[str, str]], side: str) -> dict[str, int]:
    """The place of each query's first positive, read from exported rows."""
    places: dict[str, int] = {}
    for row in rows:
        if row["direction"] == side and row["positive"] == "true":
            places.setdefault(row["query_id"], int(row["rank"]))
    return places


def test_csv_places_are_the_ranks(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    (path,) = export_run(run, data, tmp_path / "out.csv", format="csv", depth=24)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    ranks = rank_run(run, data, "own")
    assert len(rows) == 12 * 24 + 24 * 12
    assert first_hits(rows, "i2t") == dict(zip(data.image_ids, ranks.i2t.tolist(), strict=True))
    assert first_hits(rows, "t2i") == dict(zip(data.caption_ids, ranks.t2i.tolist(), strict=True))
    one = rows[0]
    position = data.image_position[one["query_id"]], data.caption_position[one["candidate_id"]]
    assert float(one["score"]) == run.scores[position]  # type: ignore[index]


def test_parquet_holds_the_same_rows(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    (as_csv,) = export_run(run, data, tmp_path / "out.csv", format="csv", depth=3)
    (as_parquet,) = export_run(run, data, tmp_path / "out.parquet", format="parquet", depth=3)
    table = pq.read_table(as_parquet).to_pylist()
    rows = list(csv.DictReader(as_csv.open(encoding="utf-8")))
    assert [row["candidate_id"] for row in table] == [row["candidate_id"] for row in rows]


def test_trec_run_and_qrels_give_the_same_recall(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    paths = export_run(run, data, tmp_path / "trec", format="trec", depth=24)
    assert sorted(path.name for path in paths) == ["i2t.qrels", "i2t.run", "t2i.qrels", "t2i.run"]
    ranks = rank_run(run, data, "own")
    for side, expected in [("i2t", ranks.i2t), ("t2i", ranks.t2i)]:
        relevant: dict[str, set[str]] = {}
        for line in (tmp_path / "trec" / f"{side}.qrels").read_text().splitlines():
            query, _, candidate, grade = line.split()
            assert grade == "1"
            relevant.setdefault(query, set()).add(candidate)
        places: dict[str, int] = {}
        for line in (tmp_path / "trec" / f"{side}.run").read_text().splitlines():
            query, q0, candidate, rank, _, _ = line.split()
            assert q0 == "Q0"
            if candidate in relevant[query]:
                places.setdefault(query, int(rank))
        assert sorted(places.values()) == sorted(expected.tolist())


def test_trec_refuses_ids_with_white_space(tmp_path: Path) -> None:
    data = Dataset("pets", "test", ["a cat.jpg"], ["c"], ["a cat"], np.array([0]))
    run = Run(RunInfo.about(data, "pets", "one"), scores=np.ones((1, 1), np.float32))
    with pytest.raises(RunError, match="white space"):
        export_run(run, data, tmp_path / "trec", format="trec")


def test_study_npz_round_trip(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    from tiir.scoring.foreign import import_scores

    data, run = colours
    (path,) = export_run(run, data, tmp_path / "study.npz", format="npz")
    with np.load(path, allow_pickle=False) as study:
        assert set(study) == {"i2t_ranks", "t2i_ranks", "labels", "logits"}
        ranks = rank_run(run, data, "own")
        assert (study["i2t_ranks"] == ranks.i2t - 1).all()  # the study counts from 0
        assert (study["labels"].argmax(0) == data.caption_image).all()
    back = import_scores(path, data, tmp_path / "data", tmp_path / "back", name="study")
    assert np.array_equal(np.asarray(back.scores), np.asarray(run.scores))


def test_folds_are_refused(shared: Path, tmp_path: Path) -> None:
    from tiir.data.sources import karpathy

    data = karpathy.prepare(shared / "coco" / "dataset_coco.json", split="test", images=None, on_bad="error")
    rng = np.random.default_rng(0)
    images, texts = (rng.standard_normal((n, 2), np.float32) for n in (data.n_images, data.n_captions))
    run = Run(RunInfo.about(data, "coco", "random"), images, texts)
    with pytest.raises(ProtocolError, match="galleries"):
        export_run(run, data, tmp_path / "x.csv", format="csv", protocol="coco-1k-5fold")


def test_nothing_is_overwritten_by_accident(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    target = tmp_path / "run" / "scores.npy"
    before = target.read_bytes()
    with pytest.raises(RunError, match="is there already"):
        export_run(run, data, target, format="npz")
    assert target.read_bytes() == before
    for _ in range(2):
        export_run(run, data, tmp_path / "out.csv", format="csv", overwrite=True)
    theirs = tmp_path / "trec" / "notes.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(RunError, match="trec already holds files"):
        export_run(run, data, theirs.parent, format="trec")
    export_run(run, data, theirs.parent, format="trec", overwrite=True)
    assert theirs.read_text() == "mine"


def test_npz_refuses_what_it_cannot_say(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("eccv_caption")
    from tiir.data.sources import karpathy

    data = karpathy.prepare(shared / "coco" / "dataset_coco.json", split="test", images=None)
    embeds = [np.ones((n, 1), np.float32) for n in (data.n_images, data.n_captions)]
    run = Run(RunInfo.about(data, "coco", "flat"), embeds[0], embeds[1])
    with pytest.raises(RunError, match="npz cannot hold eccv"):
        export_run(run, data, tmp_path / "x.npz", format="npz", protocol="eccv")
