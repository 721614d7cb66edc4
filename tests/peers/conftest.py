"""What the comparisons with other tools share: a reason where a tool is absent, and rows that docs/peers.md must have."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import pytest

DOC = Path(__file__).resolve().parents[2] / "docs" / "peers.md"
MODULES = {
    "clip-benchmark": "clip_benchmark",
    "open-clip-torch": "open_clip_train",
    "mteb": "mteb",
    "ranx": "ranx",
    "ir-measures": "ir_measures",
    "torchmetrics": "torchmetrics",
    "eccv-caption": "eccv_caption",
}


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """The name and version of another tool, or a skip that says how to get it."""

    def find(name: str) -> str:
        if name in MODULES and importlib.util.find_spec(MODULES[name]) is None:
            pytest.skip(f"{name} is not installed (make peers)")
        return f"{name} {version(name)}"

    return find


@pytest.fixture(scope="session")
def documented() -> Callable[..., None]:
    """That docs/peers.md has a row as it was measured, below the title `section`; the cells of `key` find it.

    With TIIR_WRITE_DOCS=1 the row is put in place of the one that is there.
    """

    def check(section: str, key: Sequence[str], *values: object) -> None:
        start, row = f"| {' | '.join(key)} |", f"| {' | '.join([*key, *map(str, values)])} |"
        lines = DOC.read_text(encoding="utf-8").splitlines()
        titles = list(accumulate(lines, lambda title, line: line if line.startswith("## ") else title))
        at = [n for n, line in enumerate(lines) if line.startswith(start) and titles[n] == f"## {section}"]
        assert len(at) == 1, (
            f"docs/peers.md has {len(at)} rows {start} in {section}; it should have one: {row}"
        )
        if os.environ.get("TIIR_WRITE_DOCS"):
            lines[at[0]] = row
            DOC.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert lines[at[0]] == row, f"docs/peers.md says otherwise than was measured: {row}"

    return check
