from __future__ import annotations

from pathlib import Path

import pytest

from tiir.data import open_image
from tiir.data.sources.folder import prepare
from tiir.errors import MOST, DataError, ImageError, RunError, similar
from tiir.features import FeatureStore
from tiir.scoring import Run


def test_a_near_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    assert similar(tmp_path / "Fotos") == f" (did you mean {tmp_path / 'photos'}?)"
    monkeypatch.setenv("HOME", str(tmp_path))  # which nothing else in tiir takes ~ for
    (tmp_path / "photos" / "a.csv").touch()
    for name in ("photos", "photos/a.csv"):
        assert similar(f"~/{name}") == f" (did you mean {tmp_path / name}?)"


def test_a_directory_in_the_place_of_a_file_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such feature store: .* \(it is a directory\)"):
        FeatureStore.open(tmp_path)


def test_of_too_many_names_none(tmp_path: Path) -> None:
    """As many pictures may be missing as there are: each would take seconds."""
    for n in range(MOST + 1):
        (tmp_path / f"{n}.jpg").touch()
    assert similar(tmp_path / "7.jpeg") == ""
    (tmp_path / "0.jpg").unlink()
    assert similar(tmp_path / "7.jpeg") == f" (did you mean {tmp_path / '7.jpg'}?)"


def test_the_search_for_names_is_no_error_of_its_own() -> None:
    with pytest.raises(RunError, match="no such directory"):
        Run.load("~no-such-user/runs/b32")
    with pytest.raises(ImageError, match="no such image"):
        open_image("~no-such-user/a.jpg")


def test_a_file_where_a_directory_is_asked_for_is_not_told_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert similar(tmp_path / "run.json") == " (it is a file)"
    with pytest.raises(RunError, match=r"no such directory \(it is a file\)"):
        Run.load(tmp_path / "run.json")
    with pytest.raises(DataError, match=r"no such folder: .*run.json \(it is a file\)"):
        prepare(tmp_path / "run.json", split="test", images=None)


def test_the_folder_of_runs_is_not_one_of_them(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"it has no run.json$|it has no run.json\n"):
        Run.load(tmp_path)
    (tmp_path / "b32").mkdir()
    (tmp_path / "b32" / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"it has no run.json \(did you mean .*b32\?\)"):
        Run.load(tmp_path)
