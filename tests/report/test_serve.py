"""The live server: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tiir import models
from tiir.data.dataset import Dataset
from tiir.data.judgements import read_judgements
from tiir.data.positives import Positives
from tiir.data.protocols import resolve
from tiir.data.sources import scenes
from tiir.errors import ProtocolError
from tiir.features.scenes import scenes_features
from tiir.metrics.ranking import rank_run
from tiir.metrics.retrieve import retrieve
from tiir.report import guard
from tiir.report.chunks import data_script
from tiir.report.judged import JudgementFile
from tiir.report.live import LiveRun, live_runs
from tiir.report.search import Search
from tiir.report.serve import make_app
from tiir.scoring.cascade import remix, rerank
from tiir.scoring.dense import score_dual
from tiir.scoring.run import Run, RunInfo

ASSETS = Path(__file__).parent.parent.parent / "src" / "tiir" / "assets"
HERE = "http://127.0.0.1"
POST = {"X-Tiir": "1", "Origin": HERE}


@dataclass
class World:
    """Sixty Scenes pictures, a CLIP Run, two cascades (the second mixed), and scores without a model."""

    data: Dataset
    folder: Path
    runs: list[Run]
    live: list[LiveRun]
    search: Search
    site: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("explore")
    scenes.prepare(folder / "data", split="test", n=60).save(folder / "data")
    data = Dataset.load(folder / "data")
    regions = scenes_features(data, folder / "scenes.h5")
    clip = score_dual(
        models.load(str(ASSETS / "scenes-clip"), device="cpu"), data, folder / "data", folder / "clip"
    )
    lxmert = models.load(f"lxmert:{ASSETS / 'scenes-lxmert'}", device="cpu")
    cascade = rerank(clip, data, lxmert, regions, folder / "cascade", depth=12)
    mixed = remix(cascade, 0.4)
    scores = np.random.default_rng(0).normal(size=(60, 300)).astype(np.float32)
    imported = Run(RunInfo.about(data, folder / "data", "elsewhere"), scores=scores).save(folder / "other")
    runs = [clip, cascade, mixed, imported]
    live = live_runs(runs, data, device="cpu")
    site = folder / "site"
    (site / "app").mkdir(parents=True)
    (site / "thumbs").mkdir()
    (site / "index.html").write_text("<!doctype html><title>site</title>")
    (site / "app" / "main.js").write_text('"use strict";')
    (site / "secret.txt").write_text("secret")
    (site / "site.json").write_text("{}")
    (site / "app" / "link.js").symlink_to(folder / "data" / "dataset.json")
    Image.new("RGB", (8, 8)).save(site / "thumbs" / "0.webp")
    (site / "data").mkdir()
    about = {"live": False, "runs": [{"name": name} for name in "abcd"]}
    (site / "data" / "site.js").write_text(data_script("site", about))
    return World(data, folder, runs, live, Search(live, resolve("own", data)), site)


@pytest.fixture
def judged(world: World, tmp_path: Path) -> Iterator[JudgementFile]:
    with JudgementFile(tmp_path / "judgements.jsonl", world.data) as file:
        yield file


@pytest.fixture
def client(world: World, judged: JudgementFile) -> Iterator[TestClient]:
    app = make_app(world.site, world.data, world.search, judged)
    with TestClient(app, base_url=HERE, headers=POST, raise_server_exceptions=False) as client:
        yield client


def refused(answer: httpx.Response, status: int) -> str:
    """The error that an answer gives, once it is one that gives nothing away."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "hint"}
    assert told["error"]
    for leak in ("/tmp", "/home", "Traceback", "site-packages", str(Path.cwd())):
        assert leak not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    return str(told["error"])


# ---- what it answers


def test_the_page_says_what_can_be_asked(client: TestClient, world: World) -> None:
    answer = client.get("/data/site.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    site = json.loads(answer.text.removeprefix('tiir.data("site",').removesuffix(");\n"))
    assert site["live"] is True
    can = {"text": True, "photo": True, "rescore": True}
    assert site["models"] == [
        {"run": 0, **can, "rerank": None},
        {"run": 1, **can, "rerank": "lxmert:scenes-lxmert"},
        {"run": 2, **can, "rerank": "lxmert:scenes-lxmert"},
    ]
    assert client.get("/").text.startswith("<!doctype html>")
    again = client.get("/app/main.js", headers={"If-None-Match": client.get("/app/main.js").headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/thumbs/0.webp").headers["content-type"] == "image/webp"


@pytest.mark.parametrize("caption", [0, 7, 123, 299])
def test_the_text_of_a_caption_finds_what_its_runs_found(
    client: TestClient, world: World, caption: int
) -> None:
    """Scores and order are those of `tiir score` and `tiir rerank`, mixed or not."""
    text = world.data.captions[caption]
    results = client.post("/api/search/text", json={"text": text, "depth": 20}).json()["results"]
    (gallery,) = resolve("own", world.data)
    assert [result["run"] for result in results] == [0, 1, 2]
    for result, run in zip(results, world.runs, strict=False):
        first, scores = retrieve(world.runs[0], gallery, "t2i", np.array([caption]), depth=20)
        assert result["scores"] == pytest.approx(scores[0].tolist(), rel=1e-4)
        same_order(result["candidates"], first[0], scores[0])
        if run.shortlist is None:
            assert result["reranked"] is None
            continue
        final, scores = retrieve(run, gallery, "t2i", np.array([caption]), depth=20)
        assert result["reranked"]["scores"] == pytest.approx(scores[0].tolist(), rel=1e-3, abs=1e-4)
        same_order(result["reranked"]["candidates"], final[0], scores[0])
    assert world.runs[1].shortlist is not None


def same_order(found: list[int], expected: Any, scores: Any) -> None:
    # But for places whose scores are closer than float32 tells.
    for n, (one, other) in enumerate(zip(found, expected.tolist(), strict=True)):
        if one != other:
            assert np.isclose(scores, scores[n], atol=1e-5).sum() > 1


def test_a_photo_finds_what_its_image_found(client: TestClient, world: World) -> None:
    (gallery,) = resolve("own", world.data)
    raw = world.data.image_path(5).read_bytes()
    results = client.post("/api/search/photo", files={"photo": ("../../x.png", raw)}).json()["results"]
    expected, scores = retrieve(world.runs[0], gallery, "i2t", np.array([5]), depth=10)
    for result in results:
        assert result["scores"] == pytest.approx(scores[0].tolist(), rel=1e-4)
        same_order(result["candidates"], expected[0], scores[0])
        assert result["reranked"] is None


def test_an_edited_caption_moves_its_rank(client: TestClient, world: World) -> None:
    data = world.data
    ranks = [rank_run(run, data).t2i for run in world.runs]
    for caption in (3, 44, 210):
        same = client.post("/api/rescore", json={"caption": caption, "text": data.captions[caption]}).json()
        other = client.post("/api/rescore", json={"caption": caption, "text": "a red kite at night"}).json()
        for number, result in enumerate(same["results"]):
            assert result["run"] == number
            assert result["rank_before"] == result["rank_after"] == ranks[number][caption]
            assert len(result["candidates"]) == 10
        for number, result in enumerate(other["results"]):
            assert result["rank_before"] == ranks[number][caption]
        own = data.caption_image[caption]
        for result in other["results"]:
            if result["rank_after"] <= 10:
                assert result["candidates"][result["rank_after"] - 1] == own
    assert len(other["results"]) == 3


def test_ranks_within_a_fold_are_those_of_the_protocol(world: World) -> None:
    """Galleries that are parts of the data set, as with coco-1k-5fold."""
    data = world.data
    halves = tuple(
        resolve("own", data, keys=[data.image_ids[i] for i in part])[0]
        for part in (range(0, 30), range(30, 60))
    )
    search = Search(world.live, halves)
    ranks = [rank_run(run, data, halves) for run in world.runs[:3]]
    for caption in (3, 199):
        place = int(np.flatnonzero(ranks[0].t2i_counts.query == caption)[0])
        text = data.captions[caption]
        for number, result in enumerate(search.rescore(caption, text, search.encode([text])[0])):
            assert result["rank_before"] == result["rank_after"] == ranks[number].t2i[place]


def test_a_caption_without_a_positive_has_no_rank(world: World) -> None:
    gallery = resolve("own", world.data)[0]
    kept = np.arange(5, 300)
    without = replace(gallery, t2i=Positives.pairs(world.data.caption_image[kept], kept, (60, 300)))
    search = Search(world.live, [without])
    with pytest.raises(ProtocolError, match="no positive"):
        search.rescore(3, "a house", search.encode(["a house"])[0])


def test_photos_at_full_size(client: TestClient, world: World) -> None:
    answer = client.get("/photos/3")
    assert answer.content == world.data.image_path(3).read_bytes()
    assert answer.headers["content-type"] in ("image/png", "image/jpeg")


def test_judgements_are_kept(client: TestClient, world: World, judged: JudgementFile) -> None:
    assert client.get("/api/judgements").json() == {"judgements": []}
    assert not judged.path.exists()
    for body in (
        {"image": 1, "caption": 20, "relevant": True, "run": 1},
        {"image": 2, "caption": 20, "relevant": False, "run": None},
        {"image": 1, "caption": 21, "relevant": True, "run": "a"},
        {"image": 1, "caption": 21, "relevant": None, "run": 0},
    ):
        assert client.post("/api/judgements", json=body).json() == {"saved": True}
    entries = client.get("/api/judgements").json()["judgements"]
    assert [(e["image"], e["caption"], e["relevant"], e["run"]) for e in entries] == [
        (1, 20, True, "b"),
        (2, 20, False, None),
    ]
    assert entries[0]["image_id"] == world.data.image_ids[1]
    read = read_judgements(judged.path, world.data)
    assert list(zip(read.image, read.caption, read.relevant, strict=True)) == [(1, 20, True), (2, 20, False)]
    assert len(judged.path.read_bytes().splitlines()) == 4


# ---- what it refuses


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/site.json",
        "/app/link.js",
        "/app",
        "/data/../secret.txt",
        "/app/..%2fsecret.txt",
        "/%2e%2e/data/dataset.json",
        "/..%5cdata%5cdataset.json",
        "/app/%2e%2e/%2e%2e/data/dataset.json",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/file:///etc/passwd",
        "/app/main.js%00.html",
        "/photos/../secret.txt",
        "/photos/-1",
        "/photos/60",
        "/photos/1e1",
        "/photos/٣",
        "/photos/" + "9" * 5000,
        "/photos/test-000003",
        "/photos/..%2f..%2fdata%2fdataset.json",
        "/photos/",
        "/login/..%2fserve.py",
        "/docs",
        "/openapi.json",
        "/api/nothing",
    ],
)
def test_no_other_files(client: TestClient, path: str) -> None:
    refused(client.get(path), 404)


def test_a_photo_that_is_none_is_not_let_out(world: World, judged: JudgementFile, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "page.png").write_text("<script>alert(1)</script>")
    Image.new("RGB", (9, 7), "red").save(tmp_path / "photos" / "scan.tif")
    (tmp_path / "outside.png").write_bytes(world.data.image_path(0).read_bytes())
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "outside.png")
    names = ["page.png", "scan.tif", "link.png", "gone.png"]
    data = Dataset("odd", "test", names, names, names, np.arange(4), tmp_path / "photos", names)
    client = TestClient(
        make_app(world.site, data, world.search, judged), base_url=HERE, raise_server_exceptions=False
    )
    refused(client.get("/photos/0"), 404)
    tif = client.get("/photos/1")
    assert Image.open(io.BytesIO(tif.content)).size == (9, 7)
    assert tif.headers["content-type"] == "image/jpeg"
    refused(client.get("/photos/2"), 404)
    refused(client.get("/photos/3"), 404)
    bare = replace(data, image_root=None, image_paths=None)
    client = TestClient(make_app(world.site, bare, world.search, judged), base_url=HERE)
    refused(client.get("/photos/0"), 404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("search/text", {"text": "x" * 10_000}),
        ("search/text", {"text": "   "}),
        ("search/text", {"text": "\ud800"}),
        ("search/text", {"text": None}),
        ("search/text", {"text": "a", "depth": 0}),
        ("search/text", {"text": "a", "depth": 10**9}),
        ("search/text", {"text": "a", "depth": "ten"}),
        ("search/text", {"text": "a", "more": 1}),
        ("search/text", ["a"]),
        ("rescore", {"caption": 300, "text": "a"}),
        ("rescore", {"caption": -1, "text": "a"}),
        ("rescore", {"caption": True, "text": "a"}),
        ("rescore", {"caption": "../../etc/passwd", "text": "a"}),
        ("judgements", {"image": 60, "caption": 0, "relevant": True}),
        ("judgements", {"image": 0, "caption": 300, "relevant": True}),
        ("judgements", {"image": "0", "caption": 0, "relevant": True}),
        ("judgements", {"image": 0.5, "caption": 0, "relevant": True}),
        ("judgements", {"image": 10**400, "caption": 0, "relevant": True}),
        ("judgements", {"image": 0, "caption": 0, "relevant": "yes"}),
        ("judgements", {"image": 0, "caption": 0, "relevant": True, "run": 4}),
        ("judgements", {"image": 0, "caption": 0, "relevant": True, "run": "<script>"}),
        ("judgements", {"image_id": "\n{}", "caption_id": "x", "relevant": True}),
    ],
)
def test_nonsense_is_refused(client: TestClient, judged: JudgementFile, path: str, body: Any) -> None:
    content = json.dumps(body)  # escapes, as a browser would send half a character
    refused(client.post(f"/api/{path}", content=content, headers={"Content-Type": "application/json"}), 422)
    assert not judged.path.exists()


def test_odd_texts_are_searched_as_text(client: TestClient) -> None:
    for text in ("<script>alert(1)</script>", "‮ desrever", "\x00\x07", "🎈" * 500, "../../etc/passwd"):
        answer = client.post("/api/search/text", json={"text": text})
        assert len(answer.json()["results"][0]["candidates"]) == 10


def test_bodies_that_are_not_what_they_say(client: TestClient) -> None:
    as_json = {"Content-Type": "application/json"}
    refused(client.post("/api/search/text", content=b"{", headers=as_json), 422)
    refused(client.post("/api/search/text", content=b"[" * 60_000, headers=as_json), 400)
    refused(client.post("/api/search/text", content=b'{"text": "' + b"a" * 70_000, headers=as_json), 413)
    refused(
        client.post("/api/search/photo", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400
    )
    refused(client.post("/api/search/photo", data={"photo": "text"}), 422)
    refused(client.post("/api/search/photo", files={"other": b"x"}), 422)
    many = [("photo", (f"{n}.png", b"x")) for n in range(5)]
    refused(client.post("/api/search/photo", files=many), 400)
    refused(client.get("/api/search/text"), 404)
    refused(client.put("/api/judgements", content=b"{}"), 405)


def png(width: int, height: int) -> bytes:
    """A picture of one colour, a few kilobytes however large it is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" * ((width + 7) // 8 + 1)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_uploads_that_are_no_photo(client: TestClient, world: World) -> None:
    def send(raw: bytes, name: str = "photo.png") -> httpx.Response:
        return client.post("/api/search/photo", files={"photo": (name, raw, "image/png")})

    assert send(png(64, 64)).status_code == 200
    bomb = png(7000, 7000)
    assert len(bomb) < 100_000
    assert "49" not in refused(send(bomb), 422)[:2]
    assert "pixels" in refused(send(bomb), 422)
    refused(send(png(30_000, 30_000)), 422)
    assert "not a JPEG" in refused(send(b"GIF", "photo.gif"), 422)
    assert "The photo is empty" in refused(send(b""), 422)
    refused(send(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "x.svg"), 422)
    whole = world.data.image_path(0).read_bytes()
    assert "The photo" in refused(send(whole[: len(whole) // 2]), 422)
    assert "20 MB" in refused(send(b"\0" * (guard.PHOTO + 1)), 413)


def test_an_upload_is_bounded_while_it_is_read(client: TestClient) -> None:
    """What is longer than allowed is never held: the server stops taking it in, whatever length was announced."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n'
        while sent < 100 * guard.PHOTO:
            sent += 1 << 20
            yield bytes(1 << 20)

    bounded = guard._bounded(stream(endless()), guard.PHOTO)

    async def read() -> None:
        while True:
            await bounded()

    # In a thread: the browser of other tests keeps an event loop in this one.
    with ThreadPoolExecutor(1) as thread, pytest.raises(guard.Refusal) as problem:
        thread.submit(asyncio.run, read()).result()
    assert problem.value.status_code == 413
    assert sent <= 11 * guard.PHOTO


def stream(parts: Iterator[bytes]) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(parts), "more_body": True}

    return receive


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "10.0.0.5",
        "",
        "[::1",
        "a b",
        "localhost:x",
    ],
)
def test_a_name_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    refused(client.get("/", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "localhost:80", "[::1]:9", "LOCALHOST"])
def test_our_names(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:81", "http://127.0.0.1.evil.example", "x"]
)
def test_other_sites_cannot_post(client: TestClient, judged: JudgementFile, origin: str) -> None:
    body = {"image": 0, "caption": 0, "relevant": True}
    refused(client.post("/api/judgements", json=body, headers={"Origin": origin}), 403)
    assert not judged.path.exists()


def test_a_form_of_another_site_cannot_post(client: TestClient, judged: JudgementFile) -> None:
    body = {"image": 0, "caption": 0, "relevant": True}
    del client.headers["x-tiir"]
    refused(client.post("/api/judgements", json=body), 403)
    refused(client.post("/api/judgements", json=body, headers={"X-Tiir": "2"}), 403)
    client.headers["x-tiir"] = "1"
    refused(
        client.post("/api/judgements", content=json.dumps(body), headers={"Content-Type": "text/plain"}), 422
    )
    assert not judged.path.exists()


def test_a_token_where_others_reach_it(world: World, judged: JudgementFile) -> None:
    app = make_app(world.site, world.data, world.search, judged, host="0.0.0.0", token="s3cret-token")
    with TestClient(app, base_url="http://10.0.0.5:8765", follow_redirects=False) as client:
        client.headers["X-Tiir"] = "1"
        for path in ("/index.html", "/data/site.js", "/photos/0", "/thumbs/0.webp", "/api/judgements", "/x"):
            refused(client.get(path), 401)
        refused(client.post("/api/search/text", json={"text": "a"}), 401)
        assert client.get("/").headers["location"] == "/login/"
        page = client.get("/login/").text
        assert "<script src=" in page
        assert "onclick" not in page
        assert client.get("/login/login.js").status_code == client.get("/app/main.js").status_code == 200
        for wrong in ({"token": "s3cret-toke"}, {"token": ""}, {"token": "ü"}):
            refused(client.post("/api/login", json=wrong), 401)
        for wrong in ({"token": None}, {}, []):
            refused(client.post("/api/login", json=wrong), 422)
        refused(client.post("/api/login", content=b"a" * 100_000), 413)
        refused(client.get("/api/login"), 405)
        refused(client.get("/api/judgements", headers={"Cookie": "tiir=s3cret-token"}), 401)
        cookie = client.post("/api/login", json={"token": "s3cret-token"}).headers["set-cookie"]
        assert "s3cret" not in cookie
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert client.get("/photos/0").status_code == 200
        assert client.post("/api/search/text", json={"text": "a"}).status_code == 200
        refused(client.get("/", headers={"Host": "evil.example"}), 403)
        refused(client.post("/api/judgements", json={}, headers={"Origin": "http://evil.example"}), 403)


def test_a_failure_tells_nothing(world: World, judged: JudgementFile, monkeypatch: Any, caplog: Any) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("/home/user/secret")

    monkeypatch.setattr(guard.LOG, "propagate", True)
    monkeypatch.setattr(world.search, "text", broken)
    app = make_app(world.site, world.data, world.search, judged)
    with TestClient(app, base_url=HERE, headers=POST) as client:
        refused(client.post("/api/search/text?q=private", json={"text": "a private matter"}), 500)
        assert client.get("/app/main.js").status_code == 200
    assert "/home/user/secret" in caplog.text  # for the one who runs it
    assert "private" not in caplog.text


def test_too_many_at_once_are_asked_to_come_again(
    world: World, judged: JudgementFile, monkeypatch: Any
) -> None:
    """And whoever got a place is answered; the page itself is served all the while."""
    gate = threading.Event()

    def slow(texts: Any) -> Any:
        assert gate.wait(60)
        return [{encoder: np.ones((1, 1), np.float32) for encoder in ()} for _ in texts]

    monkeypatch.setattr(world.search, "encode", slow)
    monkeypatch.setattr(world.search, "text", lambda *_: [])
    app = make_app(world.site, world.data, world.search, judged, waiting=3)
    with TestClient(app, base_url=HERE, headers=POST) as client, ThreadPoolExecutor(12) as threads:
        ask = lambda _: client.post("/api/search/text", json={"text": "a"})  # noqa: E731
        asked = [threads.submit(ask, n) for n in range(8)]
        while sum(one.done() for one in asked) < 5:
            time.sleep(0.01)
        assert client.get("/").status_code == 200
        gate.set()
        answers = [one.result() for one in asked]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
    for answer in answers:
        if answer.status_code == 503:
            refused(answer, 503)
            assert int(answer.headers["retry-after"]) > 0


@pytest.mark.slow
def test_people_who_search_at_once_get_their_own_answers(client: TestClient, world: World) -> None:
    captions = list(range(0, 300, 7))
    (gallery,) = resolve("own", world.data)
    expected, scores = retrieve(world.runs[0], gallery, "t2i", np.array(captions), depth=10)

    def ask(caption: int) -> Any:
        return client.post("/api/search/text", json={"text": world.data.captions[caption]}).json()

    with ThreadPoolExecutor(16) as threads:
        for n, answer in enumerate(threads.map(ask, captions)):
            assert answer["results"][0]["scores"] == pytest.approx(scores[n].tolist(), rel=1e-4)
            same_order(answer["results"][0]["candidates"], expected[n], scores[n])


# ---- models that cannot be had


def test_runs_whose_model_changed_or_went_cannot_search(world: World, tmp_path: Path) -> None:
    clip, cascade = world.runs[:2]
    heard: list[str] = []

    def with_info(run: Run, **facts: Any) -> Run:
        return replace(run, info=run.info.model_copy(update=facts))

    gone = with_info(clip, model=str(tmp_path / "gone"))
    other = with_info(clip, revision="sha256:0")
    assert clip.text_embeds is not None
    turned = replace(clip, text_embeds=np.roll(np.asarray(clip.text_embeds), 1, axis=0))
    imported = with_info(clip, revision=None, versions={})
    for run in (gone, other, turned, imported, world.runs[3]):
        (live,) = live_runs([run], world.data, device="cpu", say=heard.append)
        assert live.encoder is None
        assert not live.rescores
        assert Search([live], ()).models == []
    assert len(heard) == 5
    assert "is another model than before" in heard[1]
    assert "other vectors" in heard[2]
    (live,) = live_runs([with_info(clip, revision=None)], world.data, device="cpu")
    assert live.encoder is not None  # of a Run that an earlier version made: its vectors tell
    lost = with_info(
        cascade, notes=cascade.info.notes | {"features": {"path": "gone.h5", "fingerprint": "x"}}
    )
    (live,) = live_runs([lost], world.data, device="cpu", say=heard.append)
    assert live.encoder is not None
    assert live.reranker is None
    assert not live.rescores  # its order is that of the cross encoder


def test_another_cross_encoder_looks_on(world: World) -> None:
    """With --with and --features a free text is re-ranked beside a dual encoder's list."""
    live = live_runs(
        world.runs[:1],
        world.data,
        device="cpu",
        features=world.folder / "scenes.h5",
        reranker=f"lxmert:{ASSETS / 'scenes-lxmert'}",
    )
    search = Search(live, resolve("own", world.data))
    text = world.data.captions[9]
    (answer,) = search.text(text, search.encode([text])[0], 12)
    (own,) = Search(world.live[1:2], ()).text(text, world.search.encode([text])[0], 12)
    assert answer["reranked"] == own["reranked"]
    assert sorted(answer["candidates"]) == sorted(answer["reranked"]["candidates"])


# ---- the verb, as a process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_explore_as_a_process(world: World, tmp_path: Path) -> None:
    """A real server: searched, judged, and killed; what it had said to be saved is there. Then ended politely."""
    file, port, temporary = tmp_path / "j.jsonl", free_port(), tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "tiir", "explore", str(world.folder / "clip"), "--port", str(port)]
    command += ["--judgements", str(file), "--device", "cpu", "--resamples", "20"]
    environment = {**os.environ, "TMPDIR": str(temporary)}

    def start() -> tuple[subprocess.Popen[str], httpx.Client]:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-Tiir": "1"}, timeout=60)
        while True:
            assert process.poll() is None, process.stdout and process.stdout.read()
            try:
                if client.get("/").status_code == 200:
                    return process, client
            except httpx.TransportError:
                time.sleep(0.2)

    process, client = start()
    try:
        assert client.post("/api/search/text", json={"text": "a house"}).status_code == 200
        saved, stop = [], threading.Event()

        def judge(worker: int) -> None:
            with httpx.Client(base_url=client.base_url, headers={"X-Tiir": "1"}, timeout=60) as own:
                for caption in range(worker, 300, 4):
                    try:
                        body = {"image": caption % 60, "caption": caption, "relevant": True}
                        own.post("/api/judgements", json=body).raise_for_status()
                    except httpx.TransportError:
                        return
                    saved.append((caption % 60, caption))
                    if len(saved) >= 40:
                        stop.set()

        with ThreadPoolExecutor(4) as threads:
            for worker in range(4):
                threads.submit(judge, worker)
            assert stop.wait(120)
            process.send_signal(signal.SIGKILL)
        process.wait()
        with open(file, "ab") as end:
            end.write(b'{"image_id": "torn')
        read = read_judgements(file, world.data)
        assert set(saved) <= set(zip(read.image.tolist(), read.caption.tolist(), strict=True))
        assert read.torn
        process, client = start()
        kept = client.get("/api/judgements").json()["judgements"]
        assert {(e["image"], e["caption"]) for e in kept} >= set(saved)
        assert not read_judgements(file, world.data).torn
        listed = len(list(temporary.iterdir()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, 143)
        assert len(list(temporary.iterdir())) == listed - 1  # its own folder; the killed one's stays
    finally:
        process.kill()
        client.close()
