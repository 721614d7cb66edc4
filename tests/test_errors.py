from __future__ import annotations

from pathlib import Path

import pytest

from tiir.data import open_image
from tiir.errors import MOST, ImageError, RunError, similar
from tiir.scoring import Run


def test_a_near_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    assert similar(tmp_path / "Fotos") == f" (did you mean {tmp_path / 'photos'}?)"
    monkeypatch.setenv("HOME", str(tmp_path))  # which nothing else in tiir stands ~ for
    assert similar("~/photos") == f" (did you mean {tmp_path / 'photos'}?)"


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
