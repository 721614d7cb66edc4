"""A newcomer's first hour: the built wheel, in a Python of its own, with an empty home, away from the clone."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tiir.data.sources import scenes

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow
# As cameras, messengers and people name photos.
NAMES = (
    "IMG_0001.JPG",
    "am Strand (2).png",
    "Straße nach Süden.jpeg",
    "Öffentlich/Boot #3.PNG",
    "100% Sonne; rot.png",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source distribution, by suffix."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", out], cwd=ROOT, check=True)
    return {path.suffix: path for path in out.iterdir()}


def test_what_is_in_the_wheel(built: dict[str, Path]) -> None:
    package = ROOT / "src" / "tiir"
    ours = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == ours
    assert "tiir/py.typed" in names
    assert "tiir/report/site/index.html" in names
    assert "tiir/assets/scenes-clip/model.safetensors" in names
    assert not [name for name in names if "test" in name]


def test_what_is_in_the_source_distribution(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "src/tiir/py.typed"} <= names
    assert "tests/test_first_hour.py" in names


class Desk:
    """A newcomer's machine: `run` types a line into a shell."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.python = folder / "desk", folder / "python"
        for made in (self.folder, folder / "home"):
            made.mkdir()
        venv.create(self.python, with_pip=False)
        # The libraries are those of the Python that runs this test; tiir is the wheel's.
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        site = self.python / "lib" / version / "site-packages"
        (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", self.python / "bin" / "python", "install", "-q"]
        subprocess.run([*pip, "--no-deps", "--ignore-installed", wheel], check=True)
        self.package = site / "tiir"
        self.environment = {
            "HOME": str(folder / "home"),
            "PATH": f"{self.python / 'bin'}:/usr/bin:/bin",
            "HF_HUB_OFFLINE": "1",
            "LANG": "C.UTF-8",
        }

    def run(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def desk(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    made = Desk(tmp_path_factory.mktemp("hour"), built[".whl"])
    # typer asks which shell its parent is: bash must stay there, so there is a command after it.
    assert "bash completion installed" in made.run("tiir --install-completion; true")
    return made


def test_it_is_the_wheel_and_nothing_is_broken(desk: Desk) -> None:
    import tiir

    assert desk.run("tiir --version") == f"tiir {tiir.__version__}\n"
    assert Path(desk.run("python -c 'import tiir; print(tiir.__file__)'").strip()).parent == desk.package
    report = json.loads(desk.run("tiir doctor --json"))
    assert report["ok"]
    found = {finding["name"]: finding["found"] for finding in report["findings"]}
    assert str(desk.python) in found["Python"]
    assert found["completion"] == "installed"
    assert found["cache"].startswith(str(Path(desk.environment["HOME"], ".cache")))


def test_own_photos_as_the_readme_says(desk: Desk) -> None:
    """The README's commands as they stand; for the hub id stands the small model that comes with tiir."""
    photos = desk.folder / "photos"
    drawn = scenes.prepare(desk.folder / "drawn", split="test", n=len(NAMES))
    with_header = [("Image", "Caption")]
    for image, name in enumerate(NAMES):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        drawn.image(image).save(photos / name)
        own = [drawn.captions[k] for k in range(drawn.n_captions) if drawn.caption_image[k] == image]
        with_header += [(name, text) for text in own]
    with (photos / "captions.csv").open("w", encoding="utf-8-sig", newline="") as file:  # as Excel does
        csv.writer(file, delimiter=";", lineterminator="\r\n").writerows(with_header)

    section = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own photos")[1].split("\n## ")[0]
    )
    commands = re.findall(r"^    (tiir [^#\n]*)", section, re.MULTILINE)
    assert [shlex.split(command)[1] for command in commands] == ["prepare", "score", "evaluate"]
    model = shlex.quote(str(desk.package / "assets" / "scenes-clip"))
    out = [desk.run(command.replace("openai/clip-vit-base-patch32", model)) for command in commands]
    assert f"{len(NAMES)} images, {5 * len(NAMES)} captions" in out[0]
    assert "Run(" in out[1]
    (result,) = json.loads(desk.run(f"{commands[2].strip()} --json"))
    assert result["n_captions"] == 5 * len(NAMES)
    assert f"{result['values']['rsum']:.2f}" in out[2]
    assert result["values"]["rsum"] > 300  # the model knows such pictures
    assert "site/index.html" in desk.run(f"tiir report {shlex.split(commands[2])[2]} --out site/")
    page = (desk.folder / "site" / "index.html").read_text(encoding="utf-8")
    assert "<script" in page
    assert len(list((desk.folder / "site" / "thumbs").glob("*.webp"))) == len(NAMES)


def test_the_tab_key(desk: Desk) -> None:
    press = """
        source ~/.bashrc
        tab() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            $(complete -p tiir | sed 's/.*-F \\([^ ]*\\).*/\\1/') tiir
            echo "${COMPREPLY[@]}"
        }
        tab tiir eval
        tab tiir prepare fo
        tab tiir evaluate --proto
        tab tiir evaluate --ties ""
    """
    assert desk.run(press).splitlines() == [
        "evaluate",
        "folder",
        "--protocol",
        "pessimistic optimistic expected",
    ]
