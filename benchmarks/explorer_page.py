"""The explorer in a browser: how soon its views stand, against a page that reads all of its data first.

    tiir report RUN ... --out SITE
    python benchmarks/explorer_page.py [SITE] [--rounds 5] [--chromium /usr/bin/chromium]

Without a site it makes one: Scenes, 1,000 pictures, the packaged CLIP. The site is opened from disk, each round in a new browser profile. The rival is the same page with every block of data
named in index.html, as one large data file would be. Times are from the start of the navigation (or the click) until the
view is drawn; medians of the rounds, which alternate.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PAINT = "performance.getEntriesByType('paint').find(e => e.name === 'first-contentful-paint')?.startTime"


def seen(page: Any, selector: str) -> None:
    page.wait_for_selector(selector, state="visible")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def looked(browser: Any, site: Path) -> dict[str, float]:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    found = {}

    def timed(name: str, act: Any, selector: str) -> None:
        start = time.perf_counter()
        act()
        seen(page, selector)
        found[name] = 1000 * (time.perf_counter() - start)

    address = (site / "index.html").resolve().as_uri()
    timed("overview complete", lambda: page.goto(address, wait_until="commit"), "main table a")
    found["first paint"] = float(page.evaluate(PAINT))
    timed(
        "queries, first time",
        lambda: page.evaluate("location.hash = '#/queries?dir=t2i'"),
        "main a[href*='#/query/']",
    )
    found["kB of JavaScript heap"] = page.evaluate("performance.memory.usedJSHeapSize") / 1000
    hard = "main a[href*='difficulty=hard'][href*='#/query/']"
    timed("a filter", lambda: page.evaluate("location.hash = '#/queries?dir=t2i&difficulty=hard'"), hard)
    timed("a query", lambda: page.click(hard), "main ol li")
    page.evaluate("document.querySelector('main h1').id = 'left'")
    timed("the next query", lambda: page.keyboard.press("j"), "main h1:not(#left)")
    page.context.close()
    return found


def scenes_site(folder: Path) -> Path:
    from tiir import models
    from tiir.data.dataset import Dataset
    from tiir.data.sources import scenes
    from tiir.report.build import build_site
    from tiir.scoring.dense import score_dual

    scenes.prepare(folder / "data", split="test").save(folder / "data")
    data = Dataset.load(folder / "data")
    model = Path(__file__).parent.parent / "src" / "tiir" / "assets" / "scenes-clip"
    run = score_dual(models.load(str(model), device="cpu"), data, folder / "data", folder / "clip")
    return build_site([run], data, folder / "site").parent


def all_at_once(site: Path, folder: Path) -> Path:
    copy = folder / "rival"
    shutil.copytree(site, copy, ignore=shutil.ignore_patterns("thumbs"), copy_function=shutil.copy)
    names = sorted(path.name for path in (copy / "data").iterdir() if path.name != "site.js")
    scripts = "\n".join(f'<script src="data/{name}"></script>' for name in names)
    html = (copy / "index.html").read_text(encoding="utf-8")
    line = '<script src="data/site.js"></script>'
    (copy / "index.html").write_text(html.replace(line, f"{line}\n{scripts}"), encoding="utf-8")
    return copy


def sizes(site: Path) -> str:
    kinds: dict[str, int] = {}
    for path in site.rglob("*"):
        if path.is_file():
            kind = re.sub(r"-?\d.*", "", path.stem) if path.parent.name == "data" else path.parent.name
            kinds[kind] = kinds.get(kind, 0) + path.stat().st_size
    parts = ", ".join(f"{kind} {size / 1e6:.1f}" for kind, size in sorted(kinds.items(), key=lambda x: -x[1]))
    return f"{sum(kinds.values()) / 1e6:.1f} MB: {parts}"


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tool:
        site = options.site or scenes_site(Path(folder))
        print(f"{site}: {sizes(site)}")
        rival = all_at_once(site, Path(folder))
        rounds: dict[Path, list[dict[str, float]]] = {site: [], rival: []}
        for _ in range(options.rounds):
            for one, found in rounds.items():
                browser = tool.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                found.append(looked(browser, one))
                browser.close()
        for name in rounds[rival][0]:
            ours, theirs = (statistics.median(found[name] for found in rounds[s]) for s in (site, rival))
            print(
                f"{name:22} {ours:10,.0f} {'' if 'kB' in name else 'ms'}   all at once {theirs:10,.0f}   {theirs / ours:6.2f}x"
            )


if __name__ == "__main__":
    main()
