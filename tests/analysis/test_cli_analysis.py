from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiir import analysis
from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.scoring.dense import score_dual
from tiir.scoring.run import Run, RunInfo

pytestmark = pytest.mark.slow

ASSETS = Path(__file__).parent.parent.parent / "src" / "tiir" / "assets" / "scenes-clip"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sixty Scenes pictures scored by the embedded model, and the same scores with noise."""
    from tiir import models

    folder = tmp_path_factory.mktemp("runs")
    data = scenes.prepare(folder / "data", split="test", n=60)
    data.save(folder / "data")
    run = score_dual(models.load(str(ASSETS), device="cpu"), data, folder / "data", folder / "good")
    assert run.image_embeds is not None
    assert run.text_embeds is not None
    scores = run.image_embeds @ run.text_embeds.T
    noise = np.random.default_rng(0).normal(0, 3 * scores.std(), scores.shape)
    noisy = Run(RunInfo.about(data, folder / "data", "noisy"), scores=(scores + noise).astype(np.float32))
    noisy.save(folder / "noisy")
    return folder / "good", folder / "noisy"


def test_analyze_writes_tables_that_belong_together(
    runs: tuple[Path, Path], tiir: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, shown, notes = tiir("analyze", runs[0], "--out", out, "--resamples", 50, "--rescore", ASSETS)
    assert code == 0, notes
    for text in (
        "good: scenes/test, own: 60 images x 300 captions",
        "Difficulty",
        "labelled",
        "+ suspected",
        "typo",
        "colour",
        "Hubs",
        "scored again",
    ):
        assert text in shown
    queries, tags = pd.read_parquet(out / "queries.parquet"), pd.read_parquet(out / "tags.parquet")
    assert len(queries) == 60 + 300
    assert (queries.loc[tags["row"], "query"].to_numpy() == tags["query"]).all()
    rescored = pd.read_parquet(out / "rescored.parquet").set_index("query")
    ranks = queries[queries["direction"] == "t2i"].set_index("query")["rank"]
    assert len(rescored) == (tags["tag"] == "typo").sum() > 3
    assert (rescored["rank"] == ranks[rescored.index]).all()
    assert set(json.loads((out / "samples.json").read_text())) == {"i2t", "t2i"}
    code, _, notes = tiir("analyze", runs[0], "--out", out)
    assert code == 2
    assert "is there already" in notes


@pytest.mark.parametrize("name", ["", "below"])
def test_where_tables_cannot_go_is_said_before_the_analysis(
    runs: tuple[Path, Path], tiir: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "why").write_text("mine")
    monkeypatch.setattr("tiir.analysis.queries.query_table", None)  # the long work, which is not begun
    code, _, notes = tiir("analyze", runs[0], "--out", tmp_path / "why" / name)
    assert (code, f"{tmp_path / 'why'} is a file" in notes) == (2, True)
    assert (tmp_path / "why").read_text() == "mine"


def test_analyze_in_json_says_what_the_tables_say(runs: tuple[Path, Path], tiir: Any) -> None:
    code, shown, _ = tiir("analyze", runs[1], "--json", "--resamples", 0)
    made = json.loads(shown)
    assert code == 0
    assert made["protocol"].endswith("ties pessimistic")
    assert sum(made["difficulty"].values()) == 360
    _, evaluated, _ = tiir("evaluate", runs[1], "--json", "--resamples", 0)
    values = json.loads(evaluated)[0]["values"]
    for row in made["recall"]:
        if row["counting"] == "labelled":
            assert row["recall"] == pytest.approx(values[f"{row['direction']}_R@{row['k']}"])
    assert {row["low"] for row in made["recall"]} == {None}


def test_chosen_queries(runs: tuple[Path, Path], tiir: Any) -> None:
    code, shown, _ = tiir("analyze", runs[0], "--query", "test-000003", "--search", "sea", "--depth", 3)
    made = json.loads(shown)
    assert code == 0
    assert [entry["query"] for entry in made["i2t"]] == ["test-000003"]
    assert made["t2i"]
    assert all("sea" in entry["query"] for entry in made["t2i"])
    assert all(len(entry["retrieved"]) == 3 for entry in made["t2i"])
    assert tiir("analyze", runs[0], "--query", "nobody")[0] == 2
    code, _, notes = tiir("analyze", runs[0], "--query", "test-000003", "--out", "x")
    assert code == 2
    assert "write no tables" in notes


def test_the_runs_own_text_vectors_are_evidence_and_scores_have_none(
    runs: tuple[Path, Path], tiir: Any
) -> None:
    assert tiir("analyze", runs[0], "--text-encoder", "run", "--resamples", 0)[0] == 0
    code, _, notes = tiir("analyze", runs[1], "--text-encoder", "run")
    assert code == 2
    assert "no text vectors" in notes
    code, _, notes = tiir("analyze", runs[1], "--rescore", ASSETS, "--resamples", 0)
    assert code == 1
    assert "no vectors" in notes


def test_compare(runs: tuple[Path, Path], tiir: Any, tmp_path: Path) -> None:
    out = tmp_path / "queries.csv"
    code, shown, _ = tiir("compare", *runs, "--resamples", 500, "--out", out)
    assert code == 0
    assert "good beats noisy on t2i R@10" in shown
    assert "Holm's correction over 6 tests" in shown
    assert shown.startswith("scenes/test, own: 60 images x 300 captions")
    assert "McNemar" in shown
    table = pd.read_csv(out)
    assert len(table) == 360
    assert {"rank_good", "rank_noisy", "separation"} <= set(table.columns)
    code, text, _ = tiir("compare", *runs, "--resamples", 500, "--json")
    made = json.loads(text)
    assert made["sentences"][-1] in shown
    assert len(made["tests"]) == 6
    assert tiir("compare", runs[0])[0] == 2


def test_figures(runs: tuple[Path, Path], tiir: Any, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    code, _, notes = tiir("figures", *runs, "--out", out, "-f", "svg", "--resamples", 50, "--queries", 2)
    assert code == 0, notes
    names = {path.name for path in out.iterdir()}
    assert {
        "recall-at-k.svg",
        "rank-histogram.svg",
        "ranks-good-vs-noisy.svg",
        "good-beats-noisy.svg",
    } <= names
    assert {"hard-image-retrieval-noisy.svg", "hard-text-retrieval-noisy.svg", "slices-t2i-good.svg"} <= names
    assert "noisy" in (out / "recall-at-k.svg").read_text()  # text stays text
    assert tiir("figures", runs[0], "--out", out)[0] == 2
    assert tiir("figures", runs[0], "--out", tmp_path / "other", "-f", "bmp")[0] == 2


def test_a_run_that_is_nowhere_ahead_and_a_list_of_images(
    runs: tuple[Path, Path], tiir: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.load(runs[0])
    data = run.load_dataset(None)
    perfect = (data.caption_image == np.arange(60)[:, None]).astype(np.float32)
    Run(RunInfo.about(data, runs[0].parent / "data", "perfect"), scores=perfect).save(tmp_path / "perfect")
    (tmp_path / "keys").write_text("\n".join(data.image_ids[:20]) + "\n")
    made, background = [], analysis.background
    home = import_module("tiir.analysis.background")  # the package has the function under this name
    monkeypatch.setattr(home, "background", lambda *of: made.append(of) or background(*of))
    code, shown, notes = tiir(
        "figures", runs[1], tmp_path / "perfect", "--out", tmp_path / "figures", "-f", "svg",
        "--keys", tmp_path / "keys", "-p", "own", "--resamples", 0,
    )  # fmt: skip
    assert code == 0, notes
    assert "own: 20 images x 100 captions" in shown
    assert "no noisy-beats-perfect: it is ahead on no caption" in shown
    assert (tmp_path / "figures" / "perfect-beats-noisy.svg").exists()
    assert len(made) == 1  # photos are looked at once, not once a Run


def test_queries_without_a_positive_can_be_left_out_everywhere(tiir: Any, tmp_path: Path) -> None:
    texts = ["a cat", "two cats", "a dog", "a dog runs"]
    data = Dataset("d", "test", ["a", "b", "lonely"], list("klmn"), texts, np.array([0, 0, 1, 1]))
    data.save(tmp_path / "data")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        scores = rng.random((3, 4)).astype(np.float32)
        Run(RunInfo.about(data, tmp_path / "data", name), scores=scores).save(tmp_path / name)
    both = [tmp_path / "one", tmp_path / "two"]
    for verb in (["analyze", both[0]], ["compare", *both], ["figures", *both, "--out", tmp_path / "f"]):
        code, _, notes = tiir(*verb, "--resamples", 100)
        assert code == 1
        assert "exclude" in notes
        assert tiir(*verb, "--resamples", 100, "--empty", "exclude")[0] == 0


def test_import_study_json(runs: tuple[Path, Path], tiir: Any, tmp_path: Path) -> None:
    tiir("analyze", runs[1], "--out", tmp_path / "an", "--resamples", 0, "--samples", 5)
    code, shown, notes = tiir(
        "import",
        "study-json",
        tmp_path / "an" / "samples.json",
        "-d",
        runs[0].parent / "data",
        "-o",
        tmp_path / "s.jsonl",
    )
    assert code == 0, notes
    assert "i2t easy: 5 queries, 5 of one image, 5 with a positive in the list" in shown
    assert "t2i hard: 5 queries, 5 of one image, 0 with a positive in the list" in shown
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 20
