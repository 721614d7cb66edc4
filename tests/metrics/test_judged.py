"""Pairs that people judged relevant count as positives too, in a row of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.data.judgements import Judged
from tiir.data.protocols import resolve
from tiir.metrics import evaluate, rank_scores
from tiir.report.judged import JudgementFile
from tiir.scoring.run import Run, RunInfo

PAIRS = [
    (0, 40, True),
    (1, 3, True),
    (1, 44, False),
    (7, 8, True),
    (3, 9, True),
]  # (1, 3) and (3, 9) are labels


@pytest.fixture
def made(tmp_path: Path) -> tuple[Run, Dataset, np.ndarray]:
    own = np.repeat(np.arange(20), 3)
    names = [f"c{n}" for n in range(60)]
    data = Dataset("d", "test", [f"i{n}" for n in range(20)], names, names, own)
    data.save(tmp_path / "data")
    scores = np.random.default_rng(1).normal(size=(20, 60)).astype(np.float32)
    run = Run(RunInfo.about(data, tmp_path / "data", "m"), scores=scores).save(tmp_path / "run")
    return run, data, scores


def judged() -> Judged:
    image, caption, relevant = (np.array(column) for column in zip(*PAIRS, strict=True))
    return Judged(image, caption, relevant)


def test_ranks_are_those_of_the_longer_list_of_positives(made: tuple[Run, Dataset, np.ndarray]) -> None:
    run, data, scores = made
    relevant = np.zeros((20, 60))
    relevant[data.caption_image, np.arange(60)] = 1
    for image, caption, yes in PAIRS:
        relevant[image, caption] = max(relevant[image, caption], yes)
    expected = rank_scores(scores, relevant)
    labelled, counted = evaluate(run, data, resamples=0), evaluate(run, data, resamples=0, judged=judged())
    assert counted.ranks.i2t.tolist() == expected.i2t.tolist()
    assert counted.ranks.t2i.tolist() == expected.t2i.tolist()
    assert (counted.ranks.t2i <= labelled.ranks.t2i).all()
    assert (counted.ranks.t2i < labelled.ranks.t2i).any()
    assert (labelled.judged, counted.judged) == (None, 2)
    assert "and 2 pairs judged relevant" in counted.title
    assert "judged" not in labelled.title
    assert counted.to_dict()["judged"] == 2


def test_only_pairs_in_the_gallery_count(made: tuple[Run, Dataset, np.ndarray]) -> None:
    run, data, _ = made
    some = evaluate(run, data, keys=["i1", "i2"], resamples=0, judged=judged())
    assert some.judged == 0  # caption 3 is image 1's own; the others' images or captions are outside
    more = evaluate(run, data, keys=["i0", "i13", "i7", "i2"], resamples=0, judged=judged())
    assert more.judged == 2
    assert "2 pairs judged relevant" in more.description
    none = evaluate(run, data, resamples=0, judged=Judged(*(np.empty(0, t) for t in (int, int, bool))))
    assert none.judged == 0
    assert none.values == evaluate(run, data, resamples=0).values


@pytest.mark.slow
def test_directions_that_were_judged_apart(coco: Dataset) -> None:
    """CxC has other positives each way: a judged pair joins both."""
    pytest.importorskip("eccv_caption")
    (gallery,) = resolve("cxc", coco)
    image, caption = int(gallery.images[17]), int(gallery.captions[4000])
    scores = np.random.default_rng(0).random((coco.n_images, coco.n_captions), np.float32)
    scores[image, caption] = 2
    run = Run(RunInfo.about(coco, "d", "m"), scores=scores)
    made = evaluate(
        run, coco, "cxc", resamples=0, judged=Judged(*(np.array([v]) for v in (image, caption, True)))
    )
    assert made.judged == 1
    for counts, query in ((made.ranks.i2t_counts, image), (made.ranks.t2i_counts, caption)):
        assert counts.better[counts.query == query].tolist() == [0]


def test_evaluate_judgements(made: tuple[Run, Dataset, np.ndarray], tiir: Any, tmp_path: Path) -> None:
    run, data, _ = made
    file = tmp_path / "j.jsonl"
    with JudgementFile(file, data) as saved:
        for pair in PAIRS:
            saved.add(*pair)
    code, shown, notes = tiir("evaluate", run.path, "--judgements", file, "--resamples", 0)
    assert code == 0, notes
    assert shown.count("Recall, percent") == 2  # numbers of other positives stand in another table
    assert "and 2 pairs judged relevant" in " ".join(shown.split())
    assert "run + judged" in " ".join(shown.split())
    code, shown, _ = tiir("evaluate", run.path, "--judgements", file, "--resamples", 0, "--json")
    rows = json.loads(shown)
    assert [(row["run"], row["judged"]) for row in rows] == [("run", None), ("run + judged", 2)]
    assert rows[0]["values"] == evaluate(run, data, resamples=0).values
    assert rows[1]["values"]["t2i_mean_rank"] < rows[0]["values"]["t2i_mean_rank"]
    with open(file, "ab") as end:
        end.write(b'{"image_id": "i')
    code, _, notes = tiir("evaluate", run.path, "--judgements", file, "--resamples", 0)
    assert code == 0
    assert "cut off by a crash" in notes
    file.write_text(file.read_text().replace(data.fingerprint, "another"))
    code, _, notes = tiir("evaluate", run.path, "--judgements", file)
    assert code == 1
    assert "line 1: judged on 'd/test' (fingerprint 'another')" in notes
