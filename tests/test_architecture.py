"""The house's own rules: imports go one way, and the light entrances stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tiir"

# Each may import what stands before it; those on one line may not import each other.
LAYERS = [
    ["errors", "lazy", "revisions"],
    ["io", "lock", "notebook", "probe", "progress"],
    ["engine", "out"],
    ["data"],
    ["features"],
    ["models"],
    ["scoring"],
    ["metrics"],
    ["train", "analysis"],
    ["report"],
    ["demo", "doctor", "setup"],
    ["recipes"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported_parts(path: Path) -> set[str]:
    """Top-level parts of tiir that a module imports anywhere, functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("tiir.")}


MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__main__":
        own = "cli"
    for part in imported_parts(path):
        if part in ("__version__", own):
            continue
        assert part in LEVEL, f"{path.name} imports tiir.{part}, which has no place in LAYERS"
        assert LEVEL[part] < LEVEL[own], f"tiir.{own} imports tiir.{part}, which comes after it"


HEAVY = {"torch", "transformers", "pandas", "matplotlib", "pyarrow", "ray", "PIL", "scipy"}


@pytest.mark.parametrize("command", ["import tiir", "from tiir.cli import main; main(['--help'])"])
def test_light_entrances(command: str) -> None:
    """Counted as imports, not as seconds: what makes a start slow is not even loaded."""
    script = (
        f"import sys\ntry:\n    {command}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


def test_public_definitions_have_docstrings() -> None:
    missing = []
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{path.name}:{node.lineno} {node.name}")
    assert not missing
