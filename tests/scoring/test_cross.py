from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tiir.data.dataset import Dataset
from tiir.errors import DataError, ModelError, RunError
from tiir.features import FeatureInfo, FeatureStore
from tiir.models import load
from tiir.scoring.cross import score_cross
from tiir.scoring.run import Run
from tiir.scoring.work import _duration


def score(folder: Path, model: Any, out: Path, **options: Any) -> Run:
    data = Dataset.load(folder / "data")
    store = FeatureStore.open(folder / "features.h5")
    return score_cross(model, data, folder / "data", store, out, tile=(7, 11), **options)


def test_every_pair_once_and_in_its_place(pairs_data: Path, fake: Any, tmp_path: Path) -> None:
    said: list[str] = []
    run = score(pairs_data, fake, tmp_path / "run", say=said.append)
    data = Dataset.load(pairs_data / "data")
    distinct = len(set(data.captions))
    assert distinct < data.n_captions
    expected = [[fake.score(image, text) for text in data.captions] for image in data.image_ids]
    assert np.array_equal(run.scores, np.array(expected, np.float32))  # type: ignore[arg-type]
    assert (
        f"{30 * distinct:,} pairs (100% of all: 30 images x {distinct} distinct captions), about" in said[0]
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json", "scores.npy"]
    notes = run.info.notes
    assert (notes["pairs"], notes["share"], notes["features"]["extractor"]) == (30 * distinct, 100, "noise")
    assert notes["truncated_captions"] == sum(len(text.split()) > 6 for text in set(data.captions)) > 0
    probed = 2 * 4 * 16  # the first block makes ready
    assert len(fake.scored) == 30 * distinct + probed
    run.check(data)


def test_what_is_in_the_way_stays(pairs_data: Path, fake: Any, tmp_path: Path) -> None:
    score(pairs_data, fake, tmp_path / "run")
    with pytest.raises(RunError, match="already holds a Run"):
        score(pairs_data, fake, tmp_path / "run")
    n = len(fake.scored)
    score(pairs_data, fake, tmp_path / "run", resume=True)
    assert len(fake.scored) == n  # finished already
    with pytest.raises(RunError, match="made otherwise"):
        score(pairs_data, fake, tmp_path / "run", resume=True, memory=1000)
    np.save(tmp_path / "run" / "image_embeds.npy", np.ones((30, 2), np.float32))  # of an earlier Run
    assert score(pairs_data, fake, tmp_path / "run", overwrite=True).image_embeds is None


def test_a_failure_leaves_its_tiles_to_resume_from(pairs_data: Path, fake: Any, tmp_path: Path) -> None:
    data = Dataset.load(pairs_data / "data")
    fake.nan = (data.image_ids[20], data.captions[3])
    with pytest.raises(ModelError, match="gives nan for image 'i20' and caption '" + data.captions[3]):
        score(pairs_data, fake, tmp_path / "run")
    with pytest.raises(RunError, match="not a finished Run"):
        Run.load(tmp_path / "run")
    fake.nan, n, said = None, len(fake.scored), []
    with pytest.raises(RunError, match="unfinished run"):
        score(pairs_data, fake, tmp_path / "run")
    run = score(pairs_data, fake, tmp_path / "run", resume=True, say=said.append)
    assert " left, about" in said[0]
    assert 0 < len(fake.scored) - n < run.info.notes["pairs"]
    whole = score(pairs_data, fake, tmp_path / "whole")
    assert (tmp_path / "run" / "scores.npy").read_bytes() == (tmp_path / "whole" / "scores.npy").read_bytes()
    assert np.isfinite(whole.scores).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [7.0, 1000.0])
def test_the_rate_is_measured_when_all_is_ready(
    pairs_data: Path, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    now, bind = [0.0], fake.bind

    def slow(*arguments: Any, **options: Any) -> Any:
        bound, first = bind(*arguments, **options), [30.0]  # seconds

        def score_block(images: Any, texts: Any) -> Any:
            now[0] += len(images) * len(texts) / rate + (first.pop() if first else 0)
            return bound.score_block(images, texts)

        return SimpleNamespace(score_block=score_block)

    monkeypatch.setattr(fake, "bind", slow, raising=False)
    for module in ("work", "plan"):
        monkeypatch.setattr(f"tiir.scoring.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    said: list[str] = []
    run = score(pairs_data, fake, tmp_path / "run", say=said.append)
    pairs = run.info.notes["pairs"]
    assert said[0].endswith(f"about {rate:,.3g} pairs a second: {_duration(pairs / rate)}")
    assert run.info.notes["pairs_per_second"] == pytest.approx(rate, rel=0.1)


def test_durations() -> None:
    given = (0.1, 59, 89, 91, 5000, 6000, 200_000)
    said = ["1 s", "59 s", "89 s", "1.5 minutes", "83.3 minutes", "1.7 hours", "2.3 days"]
    assert [_duration(seconds) for seconds in given] == said


def test_features_of_other_pictures_are_refused(pairs_data: Path, fake: Any, tmp_path: Path) -> None:
    ids, info = [f"i{n}" for n in range(30)], FeatureInfo(extractor="noise")
    hashes = [f"{n:064x}" for n in range(30)]
    with FeatureStore.create(tmp_path / "f.h5", info, ids, 1, 8, image_sha256=hashes) as writer:
        writer.put(np.arange(30), np.ones((30, 1, 8)), np.tile([0, 0, 1, 1], (30, 1, 1)))
    hashes[3] = "f" * 64
    data = replace(Dataset.load(pairs_data / "data"), image_columns={"sha256": hashes})
    with pytest.raises(DataError, match=r"image 'i3' .* is not the picture"):
        score_cross(fake, data, "data", FeatureStore.open(tmp_path / "f.h5"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_features_of_other_images_are_refused_by_name(
    pairs_data: Path, tiny_lxmert: Path, tmp_path: Path
) -> None:
    ids = [f"i{n}" for n in range(29)]
    with FeatureStore.create(tmp_path / "few.h5", FeatureInfo(extractor="noise"), ids, 1, 8) as writer:
        writer.put(np.arange(29), np.ones((29, 1, 8)), np.tile([0, 0, 1, 1], (29, 1, 1)))
    model, data = load(f"lxmert:{tiny_lxmert}", device="cpu"), Dataset.load(pairs_data / "data")
    with pytest.raises(DataError, match="i29"):
        score_cross(
            model, data, pairs_data / "data", FeatureStore.open(tmp_path / "few.h5"), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


SCORE = """
import sys
from pathlib import Path
from tiir.data.dataset import Dataset
from tiir.features.store import FeatureStore
from tiir.models import load
from tiir.scoring.cross import score_cross
folder, model, out = map(Path, sys.argv[1:4])
score_cross(load(f"lxmert:{model}", device="cpu"), Dataset.load(folder / "data"), folder / "data",
            FeatureStore.open(folder / "features.h5"), out, tile=(3, 5), memory=1 << 24, resume="--resume" in sys.argv)
"""
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def test_scores_are_those_of_the_model_itself(pairs_data: Path, tiny_lxmert: Path, tmp_path: Path) -> None:
    data, features = Dataset.load(pairs_data / "data"), FeatureStore.open(pairs_data / "features.h5")
    model = load(f"lxmert:{tiny_lxmert}", device="cpu")
    run = score_cross(
        model, data, pairs_data / "data", features, tmp_path / "run", tile=(3, 5), memory=1 << 24
    )
    bound = model.bind(data.captions, data.image_ids, features)
    plain = bound.score_block(np.arange(data.n_images), np.arange(data.n_captions))
    assert np.abs(run.scores - plain).max() < 0.01 * np.std(plain)  # type: ignore[operator]


FAILING = SCORE.replace(
    "score_cross(load(",
    """import os, time
from tiir.models.pairs import PairScorer
if os.environ["RANK"] == os.environ["FAILS"]:
    def fail(self, images, captions):
        time.sleep(1)
        os._exit(3) if os.environ["HOW"] == "dies" else 1 / 0
    PairScorer.score_block = fail
score_cross(load(""",
    1,
)


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "how"), [("1", "dies"), ("0", "raises")])
def test_a_failing_process_leaves_nobody_waiting(
    pairs_data: Path, tiny_lxmert: Path, tmp_path: Path, fails: str, how: str
) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = tmp_path / "score.py"
    script.write_text(FAILING)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(pairs_data), str(tiny_lxmert), str(tmp_path / "run")],
            env=ONE_THREAD | {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "FAILS": fails, "HOW": how,
                              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] != [0, 0]
    other = 1 - int(fails)
    assert processes[other].returncode == 1
    assert f"process {other} of 2 stops: another one failed" in errors[other]
    assert not (tmp_path / "run" / "run.json").exists()
