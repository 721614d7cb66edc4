"""The explorer's page in a real browser, opened from disk as `tiir report` writes it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.analysis.queries import query_table
from tiir.data.protocols import resolve
from tiir.metrics.ranking import rank_run

pytestmark = pytest.mark.slow
VIEWS = [
    "#/",
    "#/queries?dir=t2i&difficulty=hard",
    "#/query/61",
    "#/query/3",
    "#/compare?xlo=1&xhi=5&ylo=6",
    "#/image/0",
    "#/queries?words=nothinglikethis",
]


@pytest.fixture(scope="module")
def ranks(explored: Any) -> Any:
    return [rank_run(run, explored.data, run.info.protocol or "own") for run in explored.runs]


@pytest.fixture
def address(explored: Any) -> str:
    return (explored.site / "index.html").as_uri()


def number(text: str) -> int:
    """The first number of a text such as "1,204 queries of 6,000"."""
    found = re.search(r"\d[\d,]*", text)
    assert found, text
    return int(found[0].replace(",", ""))


def test_a_number_of_the_overview_leads_to_its_queries(tab: Any, address: str, ranks: Any) -> None:
    page = tab.see(address)
    assert "scenes" in page.locator("h1").inner_text()
    assert "ties pessimistic" in page.locator(".protocol").inner_text()
    cell = page.locator("section", has_text="How well").locator(".panel").nth(1).locator("tbody tr").nth(0)
    links = cell.locator("td a.number")
    for at, k in enumerate((1, 5, 10)):
        hits = int((ranks[0].t2i <= k).sum())
        assert float(links.nth(at).inner_text()) == pytest.approx(100 * hits / 300, abs=0.051)
    links.nth(2).click()
    page.wait_for_selector(".count")
    assert number(page.locator(".count").inner_text()) == (ranks[0].t2i <= 10).sum()
    page.go_back()
    page.wait_for_selector(".cards")
    numbers = page.locator("main a.number").all()
    assert len(numbers) > 60
    assert all((each.get_attribute("href") or "").startswith("#/") for each in numbers)
    wrong = page.evaluate(
        """() => [...document.querySelectorAll("main td")].filter(
            (cell) => /\\d/.test(cell.textContent) && !cell.classList.contains("plot") && !cell.querySelector("a, .chip")
        ).map((cell) => cell.textContent)"""
    )
    assert wrong == []  # no number of a table without its queries


def test_every_count_of_the_overview_is_that_of_its_list(tab: Any, address: str) -> None:
    page = tab.see(address)
    links = page.eval_on_selector_all(
        "main a.number",
        """(all) => Promise.all(all.map(async (each) => {
            const { view, params } = tiir.parse(each.getAttribute("href"));
            const t = await tiir.rows.load();
            return [each.closest("section")?.getAttribute("aria-labelledby"), each.textContent, view,
                tiir.rows.select(t, tiir.rows.filter(params)).length];
        }))""",
    )
    counts = [link for link in links if link[0] != "how" and re.fullmatch(r"[\d,]+", link[1])]
    assert {section for section, *_ in counts} >= {"ranks", "why", "better"}
    for section, text, view, listed in counts:
        assert (view, listed) == ("queries", number(text)), section


def test_filters_are_in_the_address_and_the_back_button_takes_them_back(
    tab: Any, address: str, ranks: Any, explored: Any
) -> None:
    page = tab.see(address, "#/queries")
    assert number(page.locator(".count").inner_text()) == 360
    page.get_by_label("Direction").select_option("t2i")
    page.get_by_label("Difficulty").select_option("hard")
    hard = int((ranks[0].t2i > 10).sum())
    tab.until(f"document.querySelector('.count').textContent.startsWith('{hard} ')")
    page.get_by_label("Sort by").select_option("gap")
    page.get_by_label("Order").select_option("desc")
    tab.until("location.hash.includes('order=desc')")
    gap = np.abs(ranks[0].t2i - ranks[1].t2i)[ranks[0].t2i > 10]
    first = [int(text.replace(",", "")) for text in page.locator(".line").first.locator(".ranks li").evaluate_all(
        "all => all.map(each => each.lastChild.textContent)")]  # fmt: skip
    assert abs(first[0] - first[1]) == gap.max()
    page.get_by_role("searchbox", name="Words").fill("tree")
    tab.until("location.hash.includes('words=tree')")
    words = [n for n in range(300) if "tree" in explored.data.captions[n].lower() and ranks[0].t2i[n] > 10]
    tab.until(f"document.querySelector('.count').textContent.startsWith('{len(words)} ')")
    there = page.url
    page.reload()
    page.wait_for_selector(".line")
    assert page.url == there
    assert page.get_by_role("searchbox", name="Words").input_value() == "tree"
    assert number(page.locator(".count").inner_text()) == len(words)
    page.go_back()  # typing is no step of its own
    tab.until("!location.hash.includes('order') && !location.hash.includes('words')")
    assert page.get_by_label("Order").input_value() == ""
    page.get_by_role("link", name="Clear all").click()
    tab.until("document.querySelector('.count').textContent.startsWith('360 ')")
    page.get_by_role("link", name="Next").click()
    tab.until("document.querySelector('.pager').textContent.includes('Page 2 of 8')")


def test_every_filter_finds_what_numpy_finds(tab: Any, address: str, ranks: Any) -> None:
    page = tab.see(address, "#/queries")
    a, b = (np.concatenate([r.i2t, r.t2i]) for r in ranks)
    for route, expected in [
        ("winner=0", (a < b).sum()),
        ("winner=1", (b < a).sum()),
        ("winner=tie", (a == b).sum()),
        ("run=1&lo=3&hi=40", ((b >= 3) & (b <= 40)).sum()),
        ("difficulty=medium&run=1", ((b > 1) & (b <= 10)).sum()),
        ("a=0&b=1&xhi=10&ylo=11", ((a <= 10) & (b > 10)).sum()),
        ("a=1&b=0&xhi=10&ylo=11", ((b <= 10) & (a > 10)).sum()),
        ("a=0&b=1&xhi=10&winner=0&gap=10", ((a <= 10) & (b - a >= 10)).sum()),
        ("a=0&b=1&rule=R@5&winner=1", ((b <= 5) & (a > 5)).sum()),
        ("a=0&b=1&rule=R@5&winner=tie", ((a <= 5) == (b <= 5)).sum()),
        ("a=1&b=0&rule=study&winner=1", ((b <= 10) & (a - b >= 10)).sum()),
        ("rule=R@5&winner=0", (a < b).sum()),  # a rule is of two runs
        ("lo=nonsense&hi=-4&winner=99&tag=none&sort=__proto__", 360),
    ]:
        page.goto(f"{address}#/queries?{route}")
        tab.until(f"location.hash.endsWith('{route}')")
        assert page.locator(".count").inner_text().startswith(f"{expected} quer"), route


def test_a_query_shows_what_each_run_retrieved_and_keys_walk_on(
    tab: Any, address: str, explored: Any, ranks: Any
) -> None:
    row = int(60 + np.flatnonzero((ranks[0].t2i > 10) & (np.arange(300) > 20))[0])
    page = tab.see(address, f"#/query/{row}?dir=t2i&difficulty=hard")
    data = explored.data
    tables = [query_table(run, data, resolve("own", data), depth=10) for run in explored.runs]
    position = {name: n for n, name in enumerate(data.image_ids)}
    for run, table in enumerate(tables):
        column = page.locator(".column").nth(run)
        top = [position[name] for name in table["top"].iloc[row]]
        listed = column.locator(".items").first.locator(".item")
        assert listed.evaluate_all("all => all.map(each => Number(each.dataset.candidate))") == top
        framed = listed.evaluate_all("all => all.map(each => each.classList.contains('is-positive'))")
        assert framed == list(table["top_positive"].iloc[row])
        place = table["rank"].iloc[row]
        assert f"rank {place}" in column.locator("header").inner_text()
        own = column.locator(".item.is-positive .place").last.evaluate("each => each.lastChild.textContent")
        assert int(own) == place  # in the list, or added below it
    shown = [set(page.locator(".column").nth(n).locator(".item").evaluate_all(
        "all => all.map(each => each.dataset.candidate)")) for n in (0, 1)]  # fmt: skip
    tab.until(f"document.querySelectorAll('.wire').length === {len(shown[0] & shown[1])}")
    page.keyboard.press("j")
    tab.until(f"!location.hash.startsWith('#/query/{row}?')")
    assert "difficulty=hard" in page.url
    following = int(60 + np.flatnonzero((ranks[0].t2i > 10) & (np.arange(300) + 60 > row))[0])
    assert f"#/query/{following}?" in page.url
    page.wait_for_selector("h1:focus, main:focus")
    page.keyboard.press("ArrowLeft")
    tab.until(f"location.hash.startsWith('#/query/{row}?')")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_selector(".line")
    assert number(page.locator(".count").inner_text()) == (ranks[0].t2i > 10).sum()


def test_the_scatter_is_brushed_by_mouse_and_by_numbers(tab: Any, address: str, ranks: Any) -> None:
    page = tab.see(address, "#/compare?dir=t2i")
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    tab.until("location.hash.includes('xlo')")
    low, high, below, above = (int(page.evaluate(
        f"new URLSearchParams(location.hash.split('?')[1]).get('{name}')")) for name in ("xlo", "xhi", "ylo", "yhi"))  # fmt: skip
    assert 1 < low < high
    assert 1 < below < above
    a, b = ranks[0].t2i, ranks[1].t2i
    inside = int(((a >= low) & (a <= high) & (b >= below) & (b <= above)).sum())
    assert inside > 0
    assert number(page.locator(".chosen .count").inner_text()) == inside
    page.get_by_role("link", name="Open these as a list").click()
    page.wait_for_selector(".results .count")
    assert number(page.locator(".results .count").inner_text()) == inside
    page.go_back()
    page.wait_for_selector("canvas")
    page.keyboard.press("Escape")  # clears the brush
    tab.until("!location.hash.includes('xlo')")
    page.get_by_label("Rank by A from").fill("11")
    page.get_by_label("Rank by B to").fill("10")
    page.keyboard.press("Enter")
    tab.until("location.hash.includes('yhi=10') && location.hash.includes('xlo=11')")
    only = int(((a > 10) & (b <= 10)).sum())
    tab.until(f"document.querySelector('.chosen .count').textContent.startsWith('{only} ')")


def test_judgements_are_kept_exported_and_read_again(
    tab: Any, address: str, explored: Any, chromium: Any, tmp_path: Path
) -> None:
    page = tab.see(address, "#/query/75")
    first = page.locator(".column").first.locator(".item").first
    candidate = int(first.get_attribute("data-candidate"))
    first.get_by_role("button", name="Relevant", exact=False).first.click()
    second = page.locator(".column").nth(1).locator(".item").nth(4)
    second.get_by_role("button", name="Not relevant").click()
    page.reload()
    page.wait_for_selector(".item")
    assert page.locator(".badge").inner_text() == "2"
    assert page.locator(".column").first.locator(".item").first.locator(".judge.yes").get_attribute("aria-pressed") == "true"  # fmt: skip
    page.get_by_role("button", name="Judged").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export JSONL").click()
    download.value.save_as(tmp_path / "judged.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 2
    data = explored.data
    assert lines[0].items() >= {
        "image_id": data.image_ids[candidate], "caption_id": data.caption_ids[15], "relevant": True,
        "dataset": "scenes/test", "fingerprint": data.fingerprint, "run": explored.runs[0].name,
    }.items()  # fmt: skip
    assert lines[1]["relevant"] is False
    page.get_by_role("button", name="Close").click()
    page.goto(f"{address}#/queries?judged=1&dir=t2i")
    page.wait_for_selector(".results .line")
    assert page.locator(".results .line a").first.get_attribute("href").startswith("#/query/75")
    other = chromium.new_context().new_page()
    other.goto(address)
    other.get_by_role("button", name="Judged").click()
    other.get_by_label("File of judgements").set_input_files(tmp_path / "judged.jsonl")
    other.wait_for_selector(".badge:text-is('2')")
    other.context.close()
    page.goto(f"{address}#/query/75")
    page.wait_for_selector(".item")
    page.locator(".column").first.locator(".item").first.locator(".judge.yes").click()  # takes it back
    tab.until("document.querySelector('.badge').textContent === '1'")
    page.get_by_role("button", name="Judged").click()
    page.get_by_label("File of judgements").set_input_files(tmp_path / "judged.jsonl")
    page.wait_for_selector("#status:has-text('2 read')")
    assert page.locator(".badge").inner_text() == "1"  # what was said after the export holds


def test_hostile_texts_stay_texts(tab: Any, address: str, explored: Any) -> None:
    data = explored.data
    for n in range(6):
        page = tab.see(address, f"#/query/{60 + n}")
        shown = page.locator("h1 .words").inner_text()
        assert shown.replace("\u2028", " ")[:30].strip() in data.captions[n] or n == 5
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page = tab.see(address, "#/query/64")
    assert len(page.locator("h1 .words").inner_text()) < 400
    page.get_by_role("button", name="more").first.click()
    assert len(page.locator("h1 .words").inner_text()) == 10_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for route in ["#/image/0", "#/image/1", "#/image/2", "#/queries?words=%3Cscript%3E", "#/compare", "#/"]:
        page = tab.see(address, route)
        assert "owned" not in page.title()
        assert page.locator("main script, main b:not(.count b, .protocol b), main svg[onload]").count() == 0
    page = tab.see(address, "#/image/0")
    assert page.locator("h1").inner_text() == "../../etc/passwd"
    for route in [
        "#/query/99999",
        "#/image/-1",
        "#/nowhere",
        "#/search?text=a",
        "#/constructor",
        "#/query/__proto__",
    ]:
        page = tab.see(address, route)
        assert page.locator("h1").inner_text() == "This did not work"
        assert page.locator(".notice").is_visible()


def test_axe_finds_nothing_serious(tab: Any, address: str, axe: Any) -> None:
    tab.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    for route in VIEWS:
        page = tab.see(address, route)
        if route == "#/query/61":
            page.locator(".judge").first.click()
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        page.emulate_media(color_scheme="light")
        axe(page, route)
        page.emulate_media(color_scheme="dark")
        axe(page, f"{route} dark", runOnly=["color-contrast"])
    page.get_by_role("button", name="Judged").click()
    axe(page, "judgements")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    axe(page, "help")


def test_a_phone_never_scrolls_sideways_and_nothing_jumps(tab: Any, address: str) -> None:
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.page.add_init_script(
        """window.shift = 0;
        new PerformanceObserver((list) => { for (const each of list.getEntries()) window.shift += each.value; })
            .observe({type: "layout-shift", buffered: true});"""
    )
    for route in VIEWS:
        page = tab.see(address, route)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), route
    assert page.evaluate("window.shift") < 0.1


def test_light_and_dark_are_chosen_once(tab: Any, address: str) -> None:
    tab.page.emulate_media(color_scheme="light")
    page = tab.see(address)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="light and dark").click()
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    page.wait_for_selector("h1")
    assert page.evaluate(paper) == dark


def test_a_missing_file_is_named(tab: Any, explored: Any, tmp_path: Path) -> None:
    shutil.copytree(explored.site, tmp_path / "site")
    (tmp_path / "site" / "data" / "lists-1-0.js").unlink()
    page = tab.see((tmp_path / "site" / "index.html").as_uri(), "#/query/70")
    assert "data/lists-1-0.js could not be read" in page.locator(".notice").inner_text()
    tab.complaints.clear()  # the browser names the missing file too


def test_a_single_file_of_a_sample_says_so(tab: Any, explored: Any, tmp_path: Path) -> None:
    from tiir.report.build import build_site

    out = build_site(
        explored.runs[:1], explored.data, tmp_path / "one", single_file=True, max_queries=40, resamples=0
    )
    assert [file.name for file in out.parent.glob("*.html")] == ["index.html"]
    alone = tmp_path / "alone.html"
    shutil.move(out, alone)
    page = tab.see(alone.as_uri())
    assert "a sample" in page.locator(".hero .notice").inner_text()
    assert page.get_by_role("link", name="Compare", exact=True).count() == 0
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Queries").click()
    page.wait_for_selector(".line")
    assert "a sample" in page.locator(".results").inner_text()
    page.locator(".line-link").last.click()
    page.wait_for_selector(".item img")
    tab.until("[...document.querySelectorAll('.item img')].some((each) => each.naturalWidth > 0)")
    tab.see(alone.as_uri(), "#/queries?sort=margin&order=desc")
    assert page.locator(".line").count() > 0
