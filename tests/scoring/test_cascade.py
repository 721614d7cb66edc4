from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, RanksError, RunError
from tiir.features.store import FeatureStore
from tiir.scoring.cascade import check_all_pairs, remix, rerank, shortlists
from tiir.scoring.cross import score_cross
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shortlist import Shortlist


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 10), st.booleans(), st.integers(0, 2**32 - 1))
def test_shortlists_against_sorting_by_hand(n: int, m: int, depth: int, embeddings: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-2, 3, (size, 3)).astype(np.float32) for size in (n, m))
    info = RunInfo(model="m", dataset="d", split="s", dataset_path="d", fingerprint="f", images=n, captions=m)
    run = Run(info, a, b) if embeddings else Run(info, scores=a @ b.T)
    image, caption, i2t, t2i = shortlists(run, depth)
    scores = (a @ b.T).tolist()
    by_image = {(i, c) for i in range(n) for c in sorted(range(m), key=lambda c: (-scores[i][c], c))[:depth]}
    by_caption = {
        (i, c) for c in range(m) for i in sorted(range(n), key=lambda i: (-scores[i][c], i))[:depth]
    }
    pairs = list(zip(image.tolist(), caption.tolist(), strict=True))
    assert pairs == sorted(by_image | by_caption)
    assert {pair for pair, on in zip(pairs, i2t, strict=True) if on} == by_image
    assert {pair for pair, on in zip(pairs, t2i, strict=True) if on} == by_caption


@pytest.fixture
def first(pairs_data: Path, tmp_path: Path) -> Run:
    data, rng = Dataset.load(pairs_data / "data"), np.random.default_rng(1)
    a, b = (rng.normal(size=(n, 4)).astype(np.float32) for n in (data.n_images, data.n_captions))
    info = RunInfo.about(data, pairs_data / "data", "first", protocol="own")
    return Run(info, a, b).save(tmp_path / "first")


def again(folder: Path, run: Run, model: Any, out: Path, **options: Any) -> Run:
    data, store = Dataset.load(folder / "data"), FeatureStore.open(folder / "features.h5")
    return rerank(run, data, model, store, out, **({"depth": 5, "tile": 40} | options))


def test_a_cascade_holds_the_first_stage_and_each_pair_once(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path
) -> None:
    said: list[str] = []
    run = again(pairs_data, first, fake, tmp_path / "run", say=said.append)
    data, short = Dataset.load(pairs_data / "data"), run.shortlist
    assert short is not None
    expected = [
        fake.score(data.image_ids[i], data.captions[c])
        for i, c in zip(short.image, short.caption, strict=True)
    ]
    assert np.array_equal(short.score, np.array(expected, np.float32))
    assert np.array_equal(short.final, short.score)
    assert (short.i2t.sum(), short.t2i.sum()) == (30 * 5, 60 * 5)
    assert np.allclose(short.first, (first.image_embeds @ first.text_embeds.T)[short.image, short.caption])  # type: ignore[union-attr]
    distinct = {(i, data.captions[c]) for i, c in zip(short.image, short.caption, strict=True)}
    assert run.info.notes["pairs"] == len(distinct) < len(short)
    assert run.info.notes["share"] == pytest.approx(100 * len(distinct) / (30 * len(set(data.captions))))
    assert f"{len(distinct):,} pairs (" in said[0]
    assert run.info.model == "first > lxmert:fake"
    first_files = tmp_path / "first" / "image_embeds.npy", tmp_path / "run" / "image_embeds.npy"
    assert first_files[0].read_bytes() == first_files[1].read_bytes()
    with pytest.raises(RunError, match="is a cascade"):
        run.block(np.array([0]), np.array([0]))
    with pytest.raises(RunError, match="is a cascade itself"):
        again(pairs_data, run, fake, tmp_path / "run2")


def test_the_mix_is_a_weighted_sum_of_standardised_scores(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path
) -> None:
    run = again(pairs_data, first, fake, tmp_path / "run", mix=0.25)
    short = Run.load(tmp_path / "run").shortlist
    assert short is not None
    z = [(x - x.mean()) / x.std() for x in (short.first, short.score.astype(np.float64))]
    assert np.allclose(short.final, 0.75 * z[0] + 0.25 * z[1])
    assert run.info.notes["order"].startswith("0.75 z(first stage) + 0.25 z(cross encoder)")
    alone = remix(run, 1.0)
    assert np.array_equal(alone.shortlist.final, short.score)  # type: ignore[union-attr]
    assert (alone.info.notes["mix"], alone.info.notes["order"]) == (1, "cross encoder")
    n = len(fake.scored)
    again(pairs_data, first, fake, tmp_path / "run", mix=0.5, resume=True)
    assert len(fake.scored) == n  # the same scores, ordered anew
    saved = Run.load(tmp_path / "run")
    assert (saved.info.notes["mix"], saved.shortlist.mix) == (0.5, 0.5)  # type: ignore[union-attr]
    assert saved.info.notes["order"].startswith("0.5 z(first stage)")
    with pytest.raises(RunError, match="is not a cascade"):
        remix(first, 0.5)
    with pytest.raises(RunError, match="mix of 2"):
        remix(run, 2)


def test_a_failure_leaves_its_tiles_to_resume_from(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path
) -> None:
    whole = again(pairs_data, first, fake, tmp_path / "whole")
    fake.nan, n = fake.scored[-1], len(fake.scored)
    with pytest.raises(Exception, match=f"gives nan for image '{fake.nan[0]}'"):
        again(pairs_data, first, fake, tmp_path / "run")
    fake.nan, failed = None, len(fake.scored) - n
    with pytest.raises(RunError, match="depth 5, now it is 6"):
        again(pairs_data, first, fake, tmp_path / "run", depth=6, resume=True)
    n = len(fake.scored)
    again(pairs_data, first, fake, tmp_path / "run", mix=0.5, resume=True)  # scores know nothing of the mix
    assert len(fake.scored) - n < failed
    again(pairs_data, first, fake, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "shortlist.npz").read_bytes() == (
        tmp_path / "whole" / "shortlist.npz"
    ).read_bytes()
    other = replace(first, image_embeds=first.image_embeds[::-1])  # type: ignore[index]
    with pytest.raises(RunError, match="made otherwise"):
        again(pairs_data, other, fake, tmp_path / "run", resume=True)
    assert whole.info.notes["plan"] == Run.load(tmp_path / "run").info.notes["plan"]


def test_a_tile_touches_few_images(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiir.scoring.cascade.BLOCK", 8)
    touched, bind = [], fake.bind

    def counting(*arguments: Any, **options: Any) -> Any:
        bound = bind(*arguments, **options)

        def score_pairs(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
            touched.append(set((images // 8).tolist()))
            assert (np.diff(texts[images // 8 == images[0] // 8]) >= 0).all()  # by length
            return bound.score_pairs(images, texts)

        return SimpleNamespace(score_block=bound.score_block, score_pairs=score_pairs)

    monkeypatch.setattr(fake, "bind", counting, raising=False)
    short = again(pairs_data, first, fake, tmp_path / "run", tile=20).shortlist
    assert max(map(len, touched)) == 2
    assert set().union(*touched) == {0, 1, 2, 3}
    data = Dataset.load(pairs_data / "data")
    assert short is not None
    pairs = zip(short.image, short.caption, strict=True)
    expected = [fake.score(data.image_ids[i], data.captions[c]) for i, c in pairs]
    assert np.array_equal(short.score, np.array(expected, np.float32))


def test_only_the_same_model_over_all_pairs_is_compared(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path
) -> None:
    data, store = Dataset.load(pairs_data / "data"), FeatureStore.open(pairs_data / "features.h5")
    full = score_cross(fake, data, pairs_data / "data", store, tmp_path / "all")
    check_all_pairs(full, fake.info, store)

    def changed(**facts: Any) -> Run:
        return replace(full, info=full.info.model_copy(update=facts))

    cascade = again(pairs_data, first, fake, tmp_path / "cascade", depth=60)
    for run, message in (
        (first, "did not score all pairs"),
        (cascade, "did not score all pairs"),
        (changed(revision="r1"), r"lxmert:fake \(r1\), the cascade of lxmert:fake \(r0\)"),
        (changed(model="lxmert:other"), "is of lxmert:other"),
        (changed(notes=full.info.notes | {"features": {"fingerprint": "x"}}), "other features"),
    ):
        with pytest.raises(RunError, match=message):
            check_all_pairs(run, fake.info, store)


def test_a_revision_that_an_earlier_version_called_unknown_is_none(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path
) -> None:
    cascade = again(pairs_data, first, fake, tmp_path / "cascade").info.model_dump()
    cascade["revision"] = cascade["notes"]["first_stage"]["revision"] = "unknown"
    read = RunInfo.model_validate(cascade)
    assert (read.revision, read.notes["first_stage"]["revision"]) == (None, None)
    data, store = Dataset.load(pairs_data / "data"), FeatureStore.open(pairs_data / "features.h5")
    full = score_cross(fake, data, pairs_data / "data", store, tmp_path / "all")
    for name in ("lxmert:fake", "lxmert:other"):
        old = replace(full, info=full.info.model_copy(update={"revision": None, "model": name}))
        with nullcontext() if name == "lxmert:fake" else pytest.raises(RunError, match="is of lxmert:other"):
            check_all_pairs(old, fake.info, store)


def test_what_cannot_be_re_ranked(pairs_data: Path, first: Run, fake: Any, tmp_path: Path) -> None:
    for options, message in (({"depth": 0}, "depth 0"), ({"mix": 1.5}, "mix 1.5")):
        with pytest.raises(ConfigError, match=message):
            again(pairs_data, first, fake, tmp_path / "run", **options)
    with pytest.raises(RunError, match="is the first stage itself"):
        again(pairs_data, first, fake, tmp_path / "first", overwrite=True)
    scores = np.ones((30, 60), np.float32)
    scores[3, 4] = np.nan
    with pytest.raises(RanksError, match="query 3 has no score for candidate 4"):
        again(pairs_data, Run(first.info, scores=scores), fake, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_or_foreign_shortlist_is_refused(
    pairs_data: Path, first: Run, fake: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "shortlist.npz"
    again(pairs_data, first, fake, tmp_path / "run")
    good, arrays = path.read_bytes(), dict(np.load(path))
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(RunError, match=r"shortlist\.npz is not a readable"):
        Run.load(tmp_path / "run")
    for change, message in (
        ({"image": arrays["image"] + 29}, "names image positions outside"),
        ({"caption": arrays["caption"][::-1]}, "not sorted by image and caption"),
        ({"score": arrays["score"] * np.float32(np.nan)}, "NaN or infinite"),
        ({"score": arrays["score"].astype(np.float64)}, "score has another type"),
        ({"first": arrays["first"][1:]}, "first is"),
        ({"mix": np.float64(3)}, "mix of 3"),
        ({"i2t": np.array([object()])}, "not a readable"),
    ):
        np.savez(path, **(arrays | change))
        with pytest.raises(RunError, match=message):
            Run.load(tmp_path / "run")
    path.write_bytes(good)
    loaded = Run.load(tmp_path / "run").shortlist
    assert isinstance(loaded, Shortlist)
    replace(Run.load(tmp_path / "run"), shortlist=None).save(tmp_path / "run", overwrite=True)
    assert not path.exists()  # no shortlist of an earlier Run stays behind
