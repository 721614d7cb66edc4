from __future__ import annotations

from pathlib import Path

import pytest

from tiir.errors import RunError
from tiir.lock import locked


def test_a_link_in_the_lock_s_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(RunError, match="lock is a link"), locked(tmp_path / "lock", tmp_path, error=RunError):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
