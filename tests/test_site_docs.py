"""The pages of the site do what they say: their commands and their Python are taken from them and run."""

from __future__ import annotations

import csv
import doctest
import json
import re
import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from tiir.data.sources import scenes

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_protocols_by_hand() -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    done = doctest.testfile(str(DOCS / "protocols.md"), module_relative=False, optionflags=flags)
    assert done.attempted > 25
    assert done.failed == 0


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
    drawn = scenes.prepare(tmp_path / "photos", split="test", n=40)
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
        *("prepare", "score", "evaluate", "analyze", "analyze", "report", "score", "compare"),
        *("figures", "export", "evaluate"),
    ]
    said = {}
    for command in commands:
        code, out, err = tiir(*(here.get(word, word) for word in shlex.split(command)[1:]))
        assert code == 0, f"{command}: {err}"
        said[command] = out
    assert "40 images, 200 captions" in said[commands[0]]
    assert "| clip-b32 |" in said[commands[-1]]
    (result,) = json.loads(tiir("evaluate", "runs/clip-b32", "--json")[1])
    assert result["values"]["t2i_R@10"] > 60  # of 40 pictures; by chance 25
    found = json.loads(said['tiir analyze runs/clip-b32 --search "red"'])
    assert found
    for made in ("why/samples.json", "site/index.html", "figures", "retrieved.csv"):
        assert (tmp_path / made).exists()
