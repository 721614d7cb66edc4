"""docs/reliability.md names real tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
DOCUMENT = TESTS.parent / "docs" / "reliability.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and "::" in line
]


def test_there_are_many_cases_and_none_twice() -> None:
    assert len(ROWS) >= 40
    assert len({case for case, *_ in ROWS}) == len({test for *_, test in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_case_names_a_test(row: list[str]) -> None:
    assert len(row) == 4
    file, _, name = row[3].partition("::")
    function, _, case = name.rstrip("]").partition("[")
    text = (TESTS / file).read_text(encoding="utf-8")
    defined = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    assert function in defined
    assert case in text
