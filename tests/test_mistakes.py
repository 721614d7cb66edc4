"""docs/install.md: each likely mistake is made as it stands there, and tiir says what stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image

from tiir.cli import main
from tiir.data.dataset import Dataset
from tiir.features.scenes import scenes_features
from tiir.models.scratch import new_lxmert

Tiir = Callable[..., tuple[int, str, str]]
PAGE = (Path(__file__).resolve().parent.parent / "docs" / "install.md").read_text(encoding="utf-8")
# A block begins with its command and ends where the indentation ends.
MISTAKES = re.findall(r"^    \$ (tiir .*)\n((?:    .+\n)+)", PAGE, re.MULTILINE)
NAMES = ("IMG_0001.JPG", "am Strand.png", "cats/tabby.png")


@pytest.fixture(scope="module")
def desk(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder: photos, captions in several files, a data set, a Run, models, features of other images."""
    desk = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        for name in NAMES:
            Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 16), (30 * len(name), 10, 200)).save(Path("photos", name))
        rows = [(name, f"ein Bild, {n}") for n, name in enumerate(NAMES) for _ in range(2)]
        text = "Image;Caption\r\n" + "".join(f"{name};{caption}\r\n" for name, caption in rows)
        Path("photos", "captions.csv").write_bytes(text.encode("utf-8-sig"))
        Path("latin.csv").write_bytes(text.replace("ein Bild", "Gebäude").encode("cp1252"))
        Path("misspelt.csv").write_bytes(text.replace("Caption", "Captoin").encode())
        Path("lower.csv").write_bytes(text.replace("IMG_0001.JPG", "img_0001.jpg").encode())
        with zipfile.ZipFile("captions.xlsx", "w") as sheet:  # an .xlsx is a zip file of XML
            sheet.writestr("xl/workbook.xml", "<workbook/>")
        shutil.copytree(tiny_clip, "clip-b32")
        shutil.copytree("photos", "old photos")
        for command in (
            "prepare folder photos/ --out data/mine",
            "prepare folder 'old photos' --out data/moved",
            "prepare scenes --n 4 --out data/scenes",
            "score clip-b32 data/mine --out runs/clip-b32",
        ):
            with pytest.raises(SystemExit) as end:
                main(shlex.split(command))
            assert end.value.code == 0, command
        shutil.rmtree("old photos")
        scenes_features(Dataset.load("data/scenes"), Path("other.h5"))
        new_lxmert([text], Path("lx"), feature_width=64, width=32, language_layers=1, cross_layers=1)
        np.save("short.npy", np.eye(4, dtype=np.float32)[:2])
        np.save("captions.npy", np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 2]])
    return desk


def plain(text: str) -> str:
    """One line, without the frames that a terminal draws and the folder of the test."""
    return " ".join(re.sub(r"[─│╭╮╰╯]", " ", text).split())


def finished(desk: Path) -> list[Path]:
    return sorted(path for path in desk.rglob("*") if path.name in ("dataset.json", "run.json", "index.html"))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_likely_mistake(
    tiir: Tiir, desk: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    monkeypatch.chdir(desk)
    if " explore " in command:
        monkeypatch.setitem(sys.modules, "uvicorn", None)  # its import fails as if it were not installed
        monkeypatch.delitem(sys.modules, "tiir.report.explore", raising=False)  # of an earlier test
    before = finished(desk)
    code, out, err = tiir(*shlex.split(command)[1:])
    assert code in (1, 2)
    assert plain(said) in plain(err).replace(f"{desk}/", "").replace(HF_HUB_CACHE, "~/.cache/huggingface/hub")
    assert not out
    assert finished(desk) == before


def test_there_are_at_least_ten() -> None:
    assert len(MISTAKES) >= 10


@pytest.mark.slow
def test_ids_put_rows_of_any_order_right(tiir: Tiir, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    np.save("turned.npy", np.eye(4, dtype=np.float32)[[2, 0, 1]])
    Path("ids.txt").write_text("\n".join(NAMES[n] for n in (2, 0, 1)))
    arguments = ("import", "embeddings", "turned.npy", "captions.npy", "-d", "data/mine")
    assert tiir(*arguments, "--image-ids", "ids.txt", "-o", "runs/by-id")[0] == 0
    assert tiir(*arguments, "-o", "runs/by-position")[0] == 0
    recall = [
        tiir("evaluate", f"runs/{name}", "--json", "--resamples", 0)[1] for name in ("by-id", "by-position")
    ]
    assert '"rsum": 600.0' in recall[0]
    assert '"rsum": 600.0' not in recall[1]


SHEET = "Image;Caption\r\nIMG_0001.JPG;a dog\r\nam Strand.png;the sea; in front\r\n".replace(
    "the sea; in front", '"the sea; in front"'
)


@pytest.mark.parametrize(
    ("raw", "options"),
    [
        (SHEET.encode("utf-8-sig"), ()),
        (SHEET.encode("cp1252"), ("--encoding", "cp1252")),
        (SHEET.replace(";", "\t").encode("utf-16"), ("--encoding", "utf-16")),
        (("sep=;\r\n" + SHEET).encode("utf-8-sig"), ()),
        ((SHEET.replace("\r\n", ";;\r\n") + ";;;\r\n;;;\r\n").encode(), ()),
    ],
    ids=["utf-8 with a mark", "cp1252", "tabs in utf-16", "sep=", "empty rows and columns"],
)
def test_what_excel_saves(tiir: Tiir, tmp_path: Path, raw: bytes, options: tuple[str, ...]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in NAMES[:2]:
        Image.new("RGB", (20, 16)).save(photos / name)
    (photos / "captions.csv").write_bytes(raw)
    code, out, err = tiir("prepare", "folder", photos, *options, "--out", tmp_path / "data")
    assert code == 0, err
    assert "2 images, 2 captions" in out


def test_names_of_photos_that_macos_writes_otherwise(tiir: Tiir, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (20, 16)).save(photos / "Su\u0308den.png")  # u and two dots
    (photos / "captions.csv").write_text("image,caption\nS\u00fcden.png,a dog\n", encoding="utf-8")
    code, out, err = tiir("prepare", "folder", photos, "--out", tmp_path / "data")
    assert code == 0, err
    assert "1 image, 1 caption" in out
