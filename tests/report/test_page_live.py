"""The explorer's page with its server, in a real browser: search, edited captions, judgements, the token."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiir.data.judgements import read_judgements
from tiir.data.protocols import resolve
from tiir.metrics.ranking import rank_run
from tiir.report.build import build_site
from tiir.report.explore import listen
from tiir.report.judged import JudgementFile
from tiir.report.live import live_runs
from tiir.report.search import Search
from tiir.report.serve import make_app

pytestmark = pytest.mark.slow


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an app that answers on loopback."""
    import uvicorn

    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.fixture(scope="module")
def search(explored: Any) -> Search:
    return Search(live_runs(explored.runs, explored.data, device="cpu"), resolve("own", explored.data))


@pytest.fixture
def serve(explored: Any, search: Search, tmp_path: Path) -> Iterator[Callable[..., str]]:
    with ExitStack() as stack:
        judged = stack.enter_context(JudgementFile(tmp_path / "judged.jsonl", explored.data))

        def start(token: str | None = None) -> str:
            app = make_app(explored.site, explored.data, search, judged, token=token)
            return stack.enter_context(served(app))

        yield start


def test_search_by_words_and_by_photo(tab: Any, serve: Any, explored: Any) -> None:
    page = tab.see(serve(), "#/search")
    run = explored.runs[0]
    page.get_by_role("searchbox").fill(explored.data.captions[100])
    page.keyboard.press("Enter")
    page.wait_for_selector(".item")
    listed = "all => all.map(each => Number(each.dataset.candidate))"
    best = np.argsort(-(run.image_embeds @ run.text_embeds[100]), kind="stable")[:10]
    assert page.locator(".item").evaluate_all(listed) == best.tolist()
    assert "text=" in page.url
    page.reload()
    page.wait_for_selector(".item")
    assert page.locator(".item").evaluate_all(listed) == best.tolist()
    photo = io.BytesIO()
    explored.data.image(7).save(photo, "PNG")
    upload = {"name": "<b>photo</b>.png", "mimeType": "image/png", "buffer": photo.getvalue()}
    page.locator("#photo-file").set_input_files(upload)
    page.wait_for_selector(".item-caption")
    best = np.argsort(-(run.text_embeds @ run.image_embeds[7]), kind="stable")[:10]
    found = page.locator(".item").evaluate_all(listed)
    assert found[:5] == best.tolist()[:5]
    page.locator("#photo-file").set_input_files({**upload, "buffer": b"no photo at all"})
    page.wait_for_selector(".answer [role=alert]")
    assert len(page.locator(".answer [role=alert]").inner_text()) > 10
    tab.complaints.clear()  # the browser notes the refusal


def test_an_edited_caption_moves_its_photo(tab: Any, serve: Any, explored: Any) -> None:
    ranks = rank_run(explored.runs[0], explored.data, "own").t2i
    caption = int(np.flatnonzero((ranks > 3) & (np.arange(300) > 20))[0])
    own = explored.data.caption_image[caption]
    best = min((c for c in explored.data.captions_of(own) if c > 5), key=lambda c: ranks[c])
    page = tab.see(serve(), f"#/query/{60 + caption}")
    assert page.locator(".own img").get_attribute("src") == f"photos/{own}"
    page.get_by_text("Change its words").click()
    page.get_by_role("textbox", name="The caption").fill(explored.data.captions[best])
    page.get_by_role("button", name="Score again").click()
    page.wait_for_selector(".move")
    assert page.locator(".move").first.inner_text() == f"rank {ranks[caption]} → {ranks[best]}"


def test_judgements_go_to_the_server_and_wait_while_it_is_away(
    tab: Any, serve: Any, explored: Any, tmp_path: Path
) -> None:
    page = tab.see(serve(), "#/query/75")
    buttons = page.locator(".column").first.locator(".item .judge.yes")
    buttons.nth(0).click()
    tab.until(
        "localStorage.getItem(Object.keys(localStorage).find((key) => key.includes('unsent'))) === '[]'"
    )
    assert len(read_judgements(tmp_path / "judged.jsonl", explored.data)) == 1
    page.context.set_offline(True)
    buttons.nth(1).click()
    page.wait_for_selector("#status:has-text('kept in this browser')")
    assert len(read_judgements(tmp_path / "judged.jsonl", explored.data)) == 1
    page.context.set_offline(False)
    tab.until(
        "localStorage.getItem(Object.keys(localStorage).find((key) => key.includes('unsent'))) === '[]'"
    )
    assert len(read_judgements(tmp_path / "judged.jsonl", explored.data)) == 2
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector(".badge:text-is('2')")  # as the server has them
    assert page.locator(".judge.yes[aria-pressed=true]").count() >= 2
    tab.complaints.clear()  # the browser notes the lost connection


def test_a_judgement_that_waited_outlives_a_change_of_runs(
    tab: Any, serve: Any, explored: Any, tmp_path: Path
) -> None:
    """Kept while the server was away; when it is back, it shows other Runs."""
    data, page = explored.data, tab.see(serve())
    record = {
        "image_id": data.image_ids[9], "caption_id": data.caption_ids[46], "relevant": True,
        "dataset": "scenes/test", "fingerprint": data.fingerprint, "run": "another", "time": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    waiting = [{"record": record, "body": {"image": 9, "caption": 46, "relevant": True, "run": 7}}]
    key = f"tiir-unsent-{data.fingerprint}"
    page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, json.dumps(waiting)])
    page.reload()
    tab.until(f"localStorage.getItem({json.dumps(key)}) === '[]'")
    (line,) = (tmp_path / "judged.jsonl").read_text("utf-8").splitlines()
    saved = json.loads(line)
    assert (saved["image_id"], saved["caption_id"], saved["relevant"]) == (
        data.image_ids[9],
        data.caption_ids[46],
        True,
    )
    assert saved["run"] is None


def test_two_tabs_keep_what_both_could_not_send(tab: Any, serve: Any, explored: Any, tmp_path: Path) -> None:
    address = serve()
    page, file = tab.see(address, "#/query/75"), tmp_path / "judged.jsonl"
    context = page.context
    other = context.new_page()
    other.goto(f"{address}#/query/90")
    other.wait_for_selector(".judge")
    context.set_offline(True)
    for each in (page, other):
        each.locator(".judge.yes").first.click()
        each.wait_for_selector("#status:has-text('kept in this browser')")
    for each in (page, other):
        each.goto("about:blank")
    context.set_offline(False)
    tab.see(address)
    tab.until(
        "localStorage.getItem(Object.keys(localStorage).find((key) => key.includes('unsent'))) === '[]'"
    )
    assert len(read_judgements(file, explored.data)) == 2
    tab.complaints.clear()  # the browser notes the lost connection


def test_without_photos_none_is_asked_for(tab: Any, explored: Any, search: Search, tmp_path: Path) -> None:
    build_site(explored.runs, explored.data, tmp_path / "site", images=False, resamples=0)
    with JudgementFile(tmp_path / "judged.jsonl", explored.data) as judged:
        app = make_app(tmp_path / "site", explored.data, search, judged)
        with served(app) as address:
            for route in ("#/query/75", "#/query/3", "#/image/9"):
                page = tab.see(address, route)
                assert page.locator("main img").count() == 0
                assert page.locator("main .no-photo").count() > 0


def test_a_token_is_asked_for_once(tab: Any, serve: Any) -> None:
    page = tab.page
    page.goto(serve(token="s3cret-of-the-test") + "#/queries?dir=t2i")
    page.wait_for_selector("#token")
    page.locator("#token").fill("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status:not(:empty)")
    page.locator("#token").fill("s3cret-of-the-test")
    page.keyboard.press("Enter")
    page.wait_for_selector(".line")
    assert "s3cret" not in page.url
    tab.complaints.clear()  # the browser notes the refusal


def test_axe_finds_nothing_serious_in_what_is_live(tab: Any, serve: Any, axe: Any) -> None:
    def both(where: str) -> None:
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        axe(page, where)
        page.emulate_media(color_scheme="dark")
        axe(page, f"{where} dark", runOnly=["color-contrast"])

    address = serve()
    page = tab.see(address, "#/search?text=a+house")
    page.wait_for_selector(".item")
    both("search")
    tab.see(address, "#/query/75")
    page.get_by_text("Change its words").click()
    page.get_by_role("button", name="Score again").click()
    page.wait_for_selector(".move")
    both("edit")
    page.goto(serve(token="s3cret-of-the-test"))
    page.wait_for_selector("#token")
    both("login")


def test_a_bomb_is_refused_in_words(tab: Any, serve: Any) -> None:
    page = tab.see(serve(), "#/search")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    page.locator("#photo-file").set_input_files(
        {"name": "bomb.png", "mimeType": "image/png", "buffer": bomb.getvalue()}
    )
    page.wait_for_selector(".answer [role=alert]")
    assert "pixels" in page.locator(".answer [role=alert]").inner_text()
    tab.complaints.clear()  # the browser notes the refusal
