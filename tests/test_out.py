from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.errors import ConfigError, DataError, RunError
from tiir.models import load
from tiir.out import begin, check_file, check_out, finish, is_begun
from tiir.scoring.dense import score_dual
from tiir.scoring.foreign import import_scores
from tiir.scoring.run import Run, RunInfo

Tiir = Callable[..., tuple[int, str, str]]


def test_a_directory_that_is_taken(tmp_path: Path) -> None:
    check_out(tmp_path / "new" / "below", "a Run")
    (tmp_path / ".hidden").touch()
    check_out(tmp_path, "a Run")
    with pytest.raises(ConfigError, match=r"already holds a Run\n  -> choose another --out, or --overwrite"):
        check_out(tmp_path, "a Run", finished=True)
    for name in ("zebra.jpg", "dataset.json", "ape.jpg"):  # what makes a directory what it is says most
        (tmp_path / name).touch()
    with pytest.raises(RunError, match=r"files that are not part of a Run, such as dataset\.json") as caught:
        check_out(tmp_path, "a Run", overwrite=True, error=RunError)
    assert caught.value.hint == "choose a new or an empty directory; nothing was changed"
    check_out(tmp_path, "a Run", finished=True, overwrite=True)
    check_out(tmp_path, "a Run", begun=True)
    check_out(tmp_path, "a Run", beside=("zebra.jpg", "dataset.json", "ape.jpg"))
    for out in (tmp_path / "ape.jpg", tmp_path / "ape.jpg" / "below"):
        with pytest.raises(ConfigError, match=r"ape\.jpg is a file"):
            check_out(out, "a Run", overwrite=True)


def test_a_file_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    check_file(tmp_path / "new" / "a.csv")
    check_file(tmp_path / "a.csv", overwrite=True)
    with pytest.raises(ConfigError, match="is there already"):
        check_file(tmp_path / "a.csv")
    with pytest.raises(RunError, match="is a directory"):
        check_file(tmp_path, overwrite=True, error=RunError)
    with pytest.raises(ConfigError, match=r"a\.csv is a file"):
        check_file(tmp_path / "a.csv" / "b.csv", overwrite=True)


def test_a_directory_is_finished_or_begun_and_never_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, seen = tmp_path / "out" / "run.json", []
    replace = os.replace

    def watched(old: Path, new: Path) -> None:
        seen.append((header.exists(), is_begun(header)))
        replace(old, new)
        seen.append((header.exists(), is_begun(header)))

    begin(header)
    monkeypatch.setattr(os, "replace", watched)
    for _ in range(2):
        finish(header, {"model": "m"})
        begin(header)
    assert set(seen) == {(True, False), (False, True)}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Two photos, saved as `data`."""
    for name in ("cat", "dog"):
        Image.new("RGB", (20, 16)).save(tmp_path / f"{name}.png")
    names = ["cat", "dog"]
    made = Dataset("pets", "test", names, ["c", "d"], ["a cat", "a dog"], np.arange(2), tmp_path, ["cat.png", "dog.png"])  # fmt: skip
    made.save(tmp_path / "data")
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_arrays_of_a_users_are_no_torn_run(
    data: Dataset, tiny_clip: Path, tiir: Tiir, tmp_path: Path
) -> None:
    """They have the names of a Run's, and nothing else of it."""
    theirs = tmp_path / "embeddings"
    theirs.mkdir()
    for name in ("image_embeds", "text_embeds", "scores"):
        np.save(theirs / f"{name}.npy", np.eye(2, dtype=np.float32))
    np.save(tmp_path / "matrix.npy", np.eye(2, dtype=np.float32))
    before = content(theirs)
    for more in ((), ("--overwrite",), ("--resume",)):
        code, _, said = tiir("score", tiny_clip, tmp_path / "data", "-o", theirs, *more)
        assert (code, "not part of a Run, such as image_embeds.npy" in said) == (2, True)
    for more in ((), ("--overwrite",)):
        where = ("-d", tmp_path / "data", "-o", theirs, *more)
        code, _, said = tiir("import", "scores", tmp_path / "matrix.npy", *where)
        assert (code, "not part of a Run, such as image_embeds.npy" in said) == (2, True)
    run = Run(RunInfo.about(data, tmp_path / "data", "m"), scores=np.eye(2, dtype=np.float32))
    with pytest.raises(RunError, match="not part of a Run"):
        run.save(theirs, overwrite=True)
    with pytest.raises(RunError, match="not part of a Run"):
        score_dual(load(str(tiny_clip)), data, tmp_path / "data", theirs, resume=True, overwrite=True)
    assert content(theirs) == before
    assert not (theirs / ".parts").exists()


def test_tables_of_a_users_are_no_torn_data_set(data: Dataset, tiir: Tiir, tmp_path: Path) -> None:
    theirs = tmp_path / "project"
    (theirs / "images").mkdir(parents=True)
    for name in ("images/test-000000.png", "images.parquet", "captions.parquet", "judgements.parquet"):
        (theirs / name).write_text("mine")
    before = content(theirs)
    (tmp_path / "captions.csv").write_text("image,caption\ncat.png,a cat\n")
    for verb in (("scenes", "--n", 2), ("folder", tmp_path)):
        for more in ((), ("--overwrite",)):
            code, _, said = tiir("prepare", *verb, "-o", theirs, *more)
            assert (code, "not part of a data set, such as captions.parquet" in said) == (2, True)
    with pytest.raises(DataError, match="not part of a data set"):
        data.save(theirs, overwrite=True)
    assert content(theirs) == before


def stops(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_torn_run_is_still_one(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import was killed, of a new Run or of one with judgements: the next one goes on."""
    np.save(tmp_path / "matrix.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "run").mkdir()

    def again() -> Run:
        return import_scores(
            tmp_path / "matrix.npy", data, tmp_path / "data", tmp_path / "run", name="m", overwrite=True
        )

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("tiir.scoring.run.finish", stops)
            with pytest.raises(KeyboardInterrupt):
                again()
        with pytest.raises(RunError, match="not a finished Run"):
            Run.load(tmp_path / "run")
        again()
        (tmp_path / "run" / "judgements.jsonl").write_text("{}\n")
    assert sorted(os.listdir(tmp_path / "run")) == ["judgements.jsonl", "run.json", "scores.npy"]


def test_a_torn_data_set_is_still_one(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir(tmp_path / "data"))
    for out in (tmp_path / "data", tmp_path / "new"):
        with monkeypatch.context() as patch:
            patch.setattr("tiir.data.dataset_files.finish", stops)
            with pytest.raises(KeyboardInterrupt):
                data.save(out, overwrite=True)
        with pytest.raises(DataError, match="is not a data set"):
            Dataset.load(out)
        data.save(out)
        assert sorted(os.listdir(out)) == before
    with monkeypatch.context() as patch:
        patch.setattr("tiir.data.sources.scenes.render", stops)
        with pytest.raises(KeyboardInterrupt):
            scenes.prepare(tmp_path / "scenes", n=2)
    scenes.prepare(tmp_path / "scenes", n=2).save(tmp_path / "scenes")


def test_photos_may_lie_in_the_data_sets_own_folder(data: Dataset, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "photos").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.png").rename(own / "photos" / f"{name}.png")
    names = ["cat", "dog"]
    moved = Dataset("pets", "test", names, ["c", "d"], ["a cat", "a dog"], np.arange(2), own / "photos", ["cat.png", "dog.png"])  # fmt: skip
    moved.save(own)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photos").touch()
    with pytest.raises(DataError, match="such as photos"):
        moved.save(tmp_path / "other")
