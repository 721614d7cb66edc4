"""The pages of the site do what they say: their commands and their Python are taken from them and run."""

from __future__ import annotations

import csv
import doctest
import json
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest
from typer.main import get_command

from tiir.cli.verbs import app
from tiir.data.sources import scenes
from tiir.train import LxmertTrainConfig, TrainConfig, read_config

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_protocols_by_hand() -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    done = doctest.testfile(str(DOCS / "protocols.md"), module_relative=False, optionflags=flags)
    assert done.attempted > 25
    assert done.failed == 0


@pytest.mark.slow
def test_the_quickstart_word_by_word(
    tiir: Callable[..., tuple[int, str, str]],
    tiny_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every command of the page, in its order; the two hub ids are two small models on this disk."""
    here = {
        "openai/clip-vit-base-patch32": str(files("tiir") / "assets" / "scenes-clip"),
        "google/siglip-base-patch16-224": str(tiny_clip),
    }
    monkeypatch.chdir(tmp_path)
    drawn = scenes.prepare(tmp_path / "photos", split="test", n=24)
    with (tmp_path / "photos" / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        assert drawn.image_paths is not None
        rows.writerows(
            (drawn.image_paths[i], t) for i, t in zip(drawn.caption_image, drawn.captions, strict=True)
        )
    page = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (tiir .*)$", page, re.MULTILINE)
    assert [command.split()[1] for command in commands] == [
        *(
            "prepare",
            "score",
            "evaluate",
            "analyze",
            "analyze",
            "report",
            "score",
            "compare",
            "export",
            "evaluate",
        ),
    ]
    said = {}
    for command in commands:
        code, out, err = tiir(*(here.get(word, word) for word in shlex.split(command)[1:]))
        assert code == 0, f"{command}: {err}"
        said[command] = out
    assert "24 images, 120 captions" in said[commands[0]]
    assert "| clip-b32 |" in said[commands[-1]]
    (result,) = json.loads(tiir("evaluate", "runs/clip-b32", "--json")[1])
    assert result["values"]["t2i_R@10"] > 70  # of 24 pictures; by chance 42
    found = json.loads(said['tiir analyze runs/clip-b32 --search "red"'])
    assert found
    for made in ("why/samples.json", "site/index.html", "retrieved.csv"):
        assert (tmp_path / made).exists()


def test_every_command_of_the_pages_has_such_options() -> None:
    """What the pages and the README tell people to type is understood; nothing is run."""
    app_command, wrong, seen = get_command(app), [], 0
    for page in (*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    (?:torchrun .* -m )?tiir ([a-z](?!.*\.\.\.).*)$", text, re.MULTILINE):
            command, words, seen = app_command, shlex.split(line, comments=True), seen + 1
            context = command.make_context("tiir", words[:1], resilient_parsing=True)
            try:
                while hasattr(command, "get_command"):
                    found = command.get_command(context, words[0]) if words else None
                    assert found is not None, f"no verb {words[:1]}"
                    command, words = found, words[1:]
                    context = command.context_class(command, parent=context, info_name=command.name)
                command.parse_args(context, words)
            except Exception as problem:  # typer's own click, which it hides, has the type
                wrong.append(f"{page.name}: tiir {line}: {problem}")
    assert wrong == []
    assert seen > 100


def test_the_site_has_every_public_name(tmp_path: Path) -> None:
    """It is built without a warning, and what `__all__` names is in its API reference."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "objects.inv").open("rb") as file:
        inventory = zlib.decompress(file.read().split(b"\n", 4)[4]).decode()
    there = {line.split()[0] for line in inventory.splitlines()}
    missing = [
        f"{package}.{name}"
        for package in (f"tiir.{page.stem}" for page in (DOCS / "api").glob("*.md") if page.stem != "index")
        for name in import_module(package).__all__
        if callable(getattr(import_module(package), name))
        and not {f"{package}.{name}", f"{package}.{name}.{name}"}
        & there  # the second: a module of the same name
    ]
    assert missing == []


def test_the_training_files_of_the_pages_are_understood(tmp_path: Path) -> None:
    for page, kind in (("clip.md", TrainConfig), ("lxmert.md", LxmertTrainConfig)):
        text = (DOCS / page).read_text(encoding="utf-8")
        (block,) = re.findall(r'^```yaml title="\w+\.yaml"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
        (tmp_path / "mine.yaml").write_text(block)
        assert read_config(tmp_path / "mine.yaml", kind).training["learning_rate"] == 1e-5
