from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.scoring.run import Run, RunInfo

ASSETS = Path(__file__).parent.parent.parent / "src" / "tiir" / "assets"
HOSTILE = {  # position of a caption: its text
    0: "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">",
    1: "javascript:document.title='owned' \u2028 </script><b>bold</b> &amp; ${1}",
    2: "\u202egnorw \u200fa red ball \u2066 beside a tree",
    3: "a " + "very " * 2000 + "long caption",
    4: "w" * 10_000,
    5: "",
}


@pytest.fixture
def colours(tmp_path: Path) -> tuple[Dataset, Run]:
    """Twelve flat pictures, two captions each, random scores: hits and misses both occur."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(12):
        Image.new("RGB", (8, 6), tuple(int(v) for v in rng.integers(0, 256, 3))).save(folder / f"{n}.png")
    data = Dataset(
        "colours",
        "test",
        [f"{n}.png" for n in range(12)],
        [f"c{n}" for n in range(24)],
        [f"caption {n}, costs $5_{n}" for n in range(24)],
        np.repeat(np.arange(12), 2),
        folder,
        [f"{n}.png" for n in range(12)],
    )
    data.save(tmp_path / "data")
    info = RunInfo.about(data, tmp_path / "data", "random")
    scores = rng.integers(0, 40, (12, 24)).astype(np.float32)  # integers, so that ties occur
    return data, Run(info, scores=scores).save(tmp_path / "run")


@dataclass
class Explored:
    """Sixty Scenes pictures with some hostile texts and ids, two Runs, and their site."""

    data: Dataset
    folder: Path
    runs: list[Run]
    site: Path


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    from tiir import models
    from tiir.data.sources import scenes
    from tiir.report.build import build_site
    from tiir.scoring.dense import score_dual

    folder = tmp_path_factory.mktemp("explored")
    made = scenes.prepare(folder / "data", split="test", n=60)
    captions = [HOSTILE.get(n, text) for n, text in enumerate(made.captions)]
    images, ids = list(made.image_ids), list(made.caption_ids)
    images[:3] = ["../../etc/passwd", "<svg onload=document.title='owned'>", "javascript:alert(1)"]
    ids[:2] = ["\u202e<b>id</b>", "#/queries?dir=i2t"]
    data = replace(made, captions=captions, image_ids=images, caption_ids=ids)
    data.save(folder / "data")
    clip = models.load(str(ASSETS / "scenes-clip"), device="cpu")
    run = score_dual(clip, data, folder / "data", folder / "clip")
    assert run.image_embeds is not None
    assert run.text_embeds is not None
    scores = run.image_embeds @ run.text_embeds.T
    noise = np.random.default_rng(0).normal(0, 2 * scores.std(), scores.shape)
    info = RunInfo.about(data, folder / "data", "<b>noisy</b> \u202emodel")
    noisy = Run(info, scores=(scores + noise).astype(np.float32)).save(folder / "<b>noisy<b>")
    build_site([run, noisy], data, folder / "site", resamples=50)
    return Explored(data, folder, [run, noisy], folder / "site")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser, or a skip where there is none."""
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright (pip install 'tiir[dev]')")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the PATH (apt install chromium)")
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page, and all that it complained about."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def see(self, address: str, route: str = "#/") -> Any:
        """Open a route and wait until it is shown."""
        self.page.goto(address + route)
        self.until(f"document.querySelector('main').dataset.address === {json.dumps(route)}")
        return self.page

    def until(self, condition: str) -> None:
        """Wait for a condition in JavaScript; playwright's own waiting needs eval, which the page forbids."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never: {condition}")


@pytest.fixture
def tab(chromium: Any) -> Iterator[Tab]:
    """A fresh page that fails its test if anything goes wrong in it, or is fetched from elsewhere."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    made = Tab(context.new_page())
    made.page.set_default_timeout(10_000)
    made.page.on(
        "console", lambda m: made.complaints.append(m.text) if m.type in ("error", "warning") else None
    )
    made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
    made.page.on("dialog", lambda dialog: (made.complaints.append(dialog.message), dialog.dismiss()))
    made.page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))
            else made.complaints.append(r.url)
        ),
    )
    yield made
    context.close()
    assert made.complaints == []


@pytest.fixture
def axe() -> Callable[..., None]:
    """A check that axe-core finds no serious violation on a page as it stands; a skip where there is no axe-core."""
    core = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def check(page: Any, where: str, **options: Any) -> None:
        answer = core.run(page, options={"preload": False, "resultTypes": ["violations"], **options})
        found = [
            (where, each["id"], [node["html"][:200] for node in each["nodes"][:3]])
            for each in answer.response["violations"]
            if each["impact"] in ("serious", "critical")
        ]
        assert found == []

    return check
