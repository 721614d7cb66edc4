"""The pages of the site do what they say: their commands and their Python are taken from them and run."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_protocols_by_hand() -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    done = doctest.testfile(str(DOCS / "protocols.md"), module_relative=False, optionflags=flags)
    assert done.attempted > 25
    assert done.failed == 0
