"""The benchmarks' own tools: no benchmark is forgotten, and a section is replaced without touching the others."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_benchmark_is_run_or_described() -> None:
    by_hand = (FOLDER / "BY_HAND.md").read_text(encoding="utf-8")
    commands = tool("run").COMMANDS
    for path in FOLDER.glob("*.py"):
        if path.stem not in ("run", "measure"):
            assert path.stem in commands or f"benchmarks/{path.name}" in by_hand
    assert all((FOLDER / f"{name}.py").exists() for name in commands)


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    ratio = tool("measure").ratio
    assert ratio([20, 30, 42], [10, 10, 10]) == "3.0x (2.0 to 4.2)"
    assert ratio([1.5], [1.0]) == "1.50x"
    assert ratio([1000, 3000], [10, 10]) == "200x (100 to 300)"


def test_ways_take_turns() -> None:
    turns: list[str] = []
    ways = {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}
    seconds, _ = tool("measure").alternate(ways, 3)
    assert turns == ["a", "b"] * 3
    assert all(len(spent) == 3 and min(spent) >= 0 for spent in seconds.values())


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tool("run")
    for name, body in {
        "one": "print('| a |')\nprint('| - |')\nprint()\nprint('| b |')\nprint('slow')",
        "two": "1 / 0",
        "three": "print(3)",
    }.items():
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / f"{name}.py").write_text(f'"""What {name} is.\n"""\n{body}\n')
    results = tmp_path / "benchmarks" / "RESULTS.md"
    results.write_text("# old\n\n## two: kept\n\nold two\n\n## three: kept\n\nold three\n")
    monkeypatch.setattr(run, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(run, "RESULTS", results)
    monkeypatch.setattr(run, "COMMANDS", {"one": "--x 1", "two": "", "three": ""})
    monkeypatch.setattr(sys, "argv", ["run.py", "one", "two"])
    assert run.main() == 1
    text = results.read_text()
    assert "## one: what one is\n\n    python benchmarks/one.py --x 1\n" in text
    assert "\n| a |\n| - |\n\n| b |\n\n```text\nslow\n```\n" in text
    assert "old two" in text
    assert "old three" in text
    assert run.main() == 1
    assert "\n\n\n" not in results.read_text()
    assert text.index("## one") < text.index("## two") < text.index("## three")


def test_the_readme_quotes_the_results() -> None:
    peers = tool("run").sections((FOLDER / "RESULTS.md").read_text(encoding="utf-8"))["peers"]
    speed = (
        (FOLDER.parent / "README.md")
        .read_text(encoding="utf-8")
        .split("## Beside other tools")[1]
        .split("\n## ")[0]
    )
    quoted = re.findall(r"\| \**(\d[\d.]*x)\** \|", speed)
    assert len(quoted) > 10
    assert quoted == re.findall(r"\| (\d[\d.]*x) \(", peers)
