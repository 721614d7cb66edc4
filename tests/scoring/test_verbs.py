"""`tiir score` and `tiir rerank` with an LXMERT, as a user types them, and what other verbs make of the Runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.cli.options import memory_of
from tiir.data.dataset import Dataset
from tiir.errors import ConfigError
from tiir.scoring.run import Run, RunInfo

Tiir = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_all_pairs_and_cascades_from_scoring_to_export(
    tiir: Tiir, pairs_data: Path, tiny_lxmert: Path, tmp_path: Path
) -> None:
    data, rng = Dataset.load(pairs_data / "data"), np.random.default_rng(1)
    a = rng.normal(size=(data.n_images, 4)).astype(np.float32)
    b = a[data.caption_image]  # a first stage that finds what random weights cannot
    Run(RunInfo.about(data, pairs_data / "data", "first", protocol="own"), a, b).save(tmp_path / "first")
    model, features = f"lxmert:{tiny_lxmert}", ("--features", pairs_data / "features.h5", "--device", "cpu")

    code, out, err = tiir("score", model, pairs_data / "data", *features, "-o", tmp_path / "all")
    assert code == 0, err
    distinct = len(set(data.captions))
    assert f"{30 * distinct:,} pairs (100% of all: 30 images x {distinct} distinct captions), about" in err
    assert "score matrix" in out
    cascade = ("rerank", tmp_path / "first", "--with", model, *features, "--depth")
    code, out, err = tiir(*cascade, 60, "-o", tmp_path / "whole", "--compare", tmp_path / "all", "--json")
    assert code == 0, err
    result = json.loads(out)
    before, after, full = result["runs"]
    # A shortlist of everything is the LXMERT over all pairs; rounding may turn one query of 30.
    one = 100 / 30 + 1e-9
    assert after["values"]["rsum"] == pytest.approx(full["values"]["rsum"], abs=one)
    assert before["values"]["rsum"] != pytest.approx(full["values"]["rsum"], abs=one)
    assert all(abs(value) <= one for value in result["lost_against_all_pairs"].values())
    assert after["cross"] == {
        "pairs": 30 * distinct, "share": 100, "depth": 60, "mix": 1, "listed": {"i2t": 100, "t2i": 100}
    }  # fmt: skip
    code, out, err = tiir(*cascade, 5, "-o", tmp_path / "five", "--compare", tmp_path / "all", "--mix", 0.5)
    assert code == 0, err
    assert "listed" in out
    assert "cut to the model's" not in err
    assert "lost against all pairs" in out
    code, out, _ = tiir("evaluate", tmp_path / "first", tmp_path / "five", "--json", "--resamples", 0)
    first, five = json.loads(out)
    assert code == 0
    assert five["cross"]["listed"]["t2i"] == first["values"]["t2i_R@5"] == five["values"]["t2i_R@5"]
    assert tiir("export", tmp_path / "five", "-f", "trec", "-o", tmp_path / "trec")[0] == 0
    lines = (tmp_path / "trec" / "t2i.run").read_text().splitlines()
    scores = [float(line.split()[4]) for line in lines if line.startswith("c0 ")]
    assert len(scores) == 30
    assert scores == sorted(scores, reverse=True)
    code, _, err = tiir("export", tmp_path / "five", "-f", "npz", "-o", tmp_path / "out.npz")
    assert code == 1
    assert "export it as trec" in err


@pytest.fixture
def first(pairs_data: Path, tmp_path: Path) -> Path:
    data, rng = Dataset.load(pairs_data / "data"), np.random.default_rng(1)
    a, b = (rng.normal(size=(n, 4)).astype(np.float32) for n in (data.n_images, data.n_captions))
    info = RunInfo.about(data, pairs_data / "data", "first", protocol="own")
    Run(info, a, b).save(tmp_path / "first")
    return tmp_path / "first"


def test_a_cascade_is_explored_without_scoring(
    tiir: Tiir, pairs_data: Path, first: Path, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiir.models.load", lambda name, **options: fake)
    out = tmp_path / "cascade"
    rerank = ("rerank", first, "--with", "lxmert:fake", "--features", pairs_data / "features.h5", "-o", out)
    for options, words in (
        (("-p", "nonsense"), "no protocol 'nonsense'"),
        (("-p", "coco-5k"), "coco"),
        (("--compare", out), "is --out itself"),
        (("--compare", first), "did not score all pairs"),
    ):
        code, _, err = tiir(*rerank, *options)
        assert code in (1, 2)
        assert words in err
        assert not out.exists()
        assert not fake.scored
    code, shown, err = tiir(*rerank, "--depth", 5, "--mix", 0.25)
    assert code == 0, err
    cut = Run.load(out).info.notes["truncated_captions"]
    assert f"note: {cut} captions cut to the model's 6 tokens" in err
    n = len(fake.scored)

    evaluate = ("evaluate", first, out, "--resamples", 0)
    code, shown, err = tiir(*evaluate, "--mix", 0, "--mix", 1)
    assert code == 0, err
    assert "on their shortlist" in " ".join(shown.split())
    code, shown, _ = tiir(*evaluate, "--mix", 0, "--mix", 1, "--json")
    before, zero, one = json.loads(shown)
    assert [row["run"] for row in (before, zero, one)] == ["first", "cascade mix 0", "cascade mix 1"]
    assert (before["cross"], zero["cross"]["mix"], one["cross"]["mix"]) == (None, 0, 1)
    assert zero["values"] == before["values"] != one["values"]
    code, shown, _ = tiir(*evaluate, "--table", "markdown")
    assert "| run | pairs scored | % of all | depth | mix | i2t listed | t2i listed |" in shown
    assert f"| cascade | {Run.load(out).info.notes['pairs']:,} |" in shown
    assert len(fake.scored) == n
    code, _, err = tiir("evaluate", first, "--mix", 0.5)
    assert code == 2
    assert "--mix is for cascades" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "torchrun"], "torchrun did not start this process"),
        (["--address", "auto"], "does nothing with engine local"),
        (["--workers", 2, "--device", "cuda"], "device cuda with 2 local workers"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_engines_refuse_what_they_cannot_do(
    tiir: Tiir, pairs_data: Path, tmp_path: Path, options: list[Any], words: str
) -> None:
    code, _, err = tiir("score", "clip", pairs_data / "data", "-o", tmp_path / "run", *options)
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("score", "lxmert:m", "data", "-o", "x"),
            ("lxmert:m needs the region features", "--features STORE"),
        ),
        (("score", "m", "data", "--features", "f.h5", "-o", "x"), ("--features is for lxmert:DIR",)),
        (("score", "lxmert:m", "data", "--features", "f", "-o", "x", "--memory", "big"), ("--memory big",)),
        (
            ("score", "lxmert:m", "data", "--features", "f", "-o", "x", "--batch-size", "8"),
            ("--batch-size does nothing with lxmert:m", "use --memory"),
        ),
        (
            ("score", "m", "data", "-o", "x", "--memory", "1GB"),
            ("--memory does nothing with m", "use --batch-size"),
        ),
        (("rerank", "run", "--with", "m", "--features", "f", "-o", "x"), ("--with lxmert:m",)),
        (
            ("rerank", "run", "--with", "lxmert:m", "--features", "f", "-o", "x"),
            ("run is not a finished Run",),
        ),
    ],
)
def test_mistakes_are_told_before_the_work(
    tiir: Tiir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = tiir(*arguments)
    assert code in (1, 2)
    assert all(word in err for word in words), err
    assert not list(tmp_path.iterdir())


def test_sizes() -> None:
    assert [memory_of(text) for text in ("1", "2k", "1.5 MiB", "2GB")] == [1, 2048, 1572864, 2**31]
    for text in ("", "0", "-1", "2XB", "GB", "nan"):
        with pytest.raises(ConfigError, match="--memory"):
            memory_of(text)
