"""Downloads from a real local server that misbehaves in every way that servers do."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tiir.data.coco import WebFile, download, is_done, read_sources, to_fetch
from tiir.data.download import check_space, fetch, unpack
from tiir.errors import ConfigError, DataError, UnsafePathError

CONTENT = bytes(range(256)) * 2000  # 512 kB


class Server:
    """Files by path, and how the next answers go wrong. `sent` counts the bytes of every answer, `ranges` what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []  # bytes after which the next answers break off
        self.status: list[int] = []  # of the next answers
        self.ignore_range = False
        self.wrong_range = False
        self.declared: int | None = None
        self.slow = 0.0
        self.etag: str | None = '"1"'
        self.ranges: list[str | None] = []
        self.sent: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        self.sent.append(0)
        mine = len(self.sent) - 1
        content = self.files.get(handler.path)
        status = self.status.pop(0) if self.status else 200 if content is not None else 404
        if status != 200 or content is None:
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0
        same = handler.headers.get("If-Range") in (None, self.etag)
        if asked and not self.ignore_range and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            said = start + 1 if self.wrong_range else start
            handler.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(self.declared or len(content) - start))
        handler.end_headers()
        stop = self.cut.pop(0) if self.cut else None
        body = content[start:][:stop]
        try:
            for at in range(0, len(body), 16_384):
                handler.wfile.write(body[at : at + 16_384])
                self.sent[mine] += len(body[at : at + 16_384])
                time.sleep(self.slow)
        except OSError:
            pass
        if stop is not None or self.declared:
            handler.close_connection = True
            handler.wfile.flush()
            handler.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.files["/file.bin"] = CONTENT
    yield made
    made.http.shutdown()
    made.http.server_close()


def get(server: Server, to: Path, name: str = "file.bin", **more: Any) -> Path:
    return fetch(f"{server.url}/{name}", to / name, wait=0.01, tries=3, **more)


SHA = hashlib.sha256(CONTENT).hexdigest()


def assert_nothing_half(to: Path, name: str = "file.bin") -> None:
    assert not (to / name).exists()


def test_whole(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, n_bytes=len(CONTENT), sha256=SHA).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_cut_connections_are_taken_up(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 50_000, 70_000, 1_000, 1_000, 1_000]
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT
    assert server.ranges[0] is None
    assert all(asked is not None for asked in server.ranges[1:])
    assert sum(server.sent) == len(CONTENT)  # not a byte twice


def test_a_dead_server_is_given_up_and_continued_later(server: Server, tmp_path: Path) -> None:
    server.cut = [200_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"broke off 3 times in a row.*200,000 bytes are kept"):
        get(server, tmp_path, sha256=SHA)
    assert_nothing_half(tmp_path)
    server.cut = []
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=200000-"


def test_range_ignored(server: Server, tmp_path: Path) -> None:
    server.cut, server.ignore_range = [100_000], True
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT
    assert server.sent == [100_000, len(CONTENT)]


def test_another_range_than_asked_for(server: Server, tmp_path: Path) -> None:
    server.cut, server.wrong_range = [100_000], True
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT


def test_the_file_changed_meanwhile(server: Server, tmp_path: Path) -> None:
    server.cut = [200_000, 0, 0, 0]
    with pytest.raises(DataError):
        get(server, tmp_path)
    server.files["/file.bin"], server.etag, server.cut = CONTENT[::-1], '"2"', []
    assert get(server, tmp_path).read_bytes() == CONTENT[::-1]


def test_wrong_bytes(server: Server, tmp_path: Path) -> None:
    server.files["/file.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=r"not the right file: its sha256 is.*deleted"):
        get(server, tmp_path, sha256=SHA)
    assert list(tmp_path.iterdir()) == []
    server.files["/file.bin"] = CONTENT
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT


def test_wrong_size(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 512,000 bytes, 7 were expected"):
        get(server, tmp_path, n_bytes=7)
    assert_nothing_half(tmp_path)


def test_less_than_declared(server: Server, tmp_path: Path) -> None:
    server.declared, server.ignore_range = len(CONTENT) + 10, True
    with pytest.raises(DataError, match="broke off"):
        get(server, tmp_path)
    assert_nothing_half(tmp_path)


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    server.cut = [200_000, 0, 0, 0]
    with pytest.raises(DataError):
        get(server, tmp_path, sha256=SHA)
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    server.cut = []
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT
    assert server.sent[-1] == 0


@pytest.mark.parametrize("status", [403, 404])
def test_refused(server: Server, tmp_path: Path, status: int) -> None:
    server.status = [status]
    with pytest.raises(DataError, match=f"answers {status}") as caught:
        get(server, tmp_path)
    assert "/file.bin" in str(caught.value)
    assert len(server.ranges) == 1
    assert_nothing_half(tmp_path)


def test_server_errors_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = [500, 503]
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT
    server.status = [500] * 9
    with pytest.raises(DataError, match="answers 500"):
        fetch(f"{server.url}/file.bin", tmp_path / "other.bin", wait=0.01, tries=3)
    assert_nothing_half(tmp_path, "other.bin")


def test_an_error_page_instead_of_a_zip(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = b"<html>Sorry</html>"
    with pytest.raises(DataError, match="it is no zip file"):
        get(server, tmp_path, "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="broke off 2 times"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", tries=2, wait=0.01)
    with pytest.raises(DataError, match="No connection adapters"):
        fetch("ftp://x/file.bin", tmp_path / "file.bin", tries=2, wait=0.01)


@pytest.mark.slow
def test_killed_in_the_middle(server: Server, tmp_path: Path) -> None:
    server.slow = 0.02
    code = f"from tiir.data.download import fetch; from pathlib import Path; fetch({server.url + '/file.bin'!r}, Path({str(tmp_path)!r}) / 'file.bin')"
    process = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "file.bin.part"
    deadline = time.time() + 60
    while time.time() < deadline and not (part.exists() and part.stat().st_size > 0):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_nothing_half(tmp_path)
    kept = part.stat().st_size
    server.slow = 0.0
    assert get(server, tmp_path, sha256=SHA).read_bytes() == CONTENT
    assert server.ranges[-1] == (f"bytes={kept}-" if kept < len(CONTENT) else server.ranges[-1])


# --- zip files ---


def zipped(*members: tuple[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return raw.getvalue()


@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "C:/out.txt", "a\\..\\out.txt"]
)
def test_hostile_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("good.txt", b"good"), (name, b"bad")))
    with pytest.raises(UnsafePathError, match="leads out"):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    assert not (tmp_path / "to").exists()
    assert not (tmp_path / "out.txt").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc")
    (tmp_path / "a.zip").write_bytes(raw.getvalue())
    with pytest.raises(UnsafePathError, match="is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "to")


def test_a_link_on_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "to" / "sub").symlink_to(tmp_path / "outside")
    (tmp_path / "a.zip").write_bytes(zipped(("sub/x.txt", b"x")))
    with pytest.raises(UnsafePathError):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    assert list((tmp_path / "outside").iterdir()) == []


def test_same_name_twice(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("x.txt", b"1"), ("X.txt", b"2")))
    with pytest.raises(DataError, match="two members"):
        unpack(tmp_path / "a.zip", tmp_path / "to")


def test_damaged_zip(tmp_path: Path) -> None:
    raw = bytearray(zipped(("x.bin", os.urandom(5000))))
    raw[2000] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    assert not (tmp_path / "to" / "x.bin").exists()


def test_unpacking_goes_on_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("d/x.txt", b"one"), ("d/y.txt", b"two")))
    (tmp_path / "to" / "d").mkdir(parents=True)
    (tmp_path / "to" / "d" / "x.txt").write_bytes(b"one")
    before = (tmp_path / "to" / "d" / "x.txt").stat().st_mtime_ns
    assert unpack(tmp_path / "a.zip", tmp_path / "to") == {"d/x.txt": 3, "d/y.txt": 3}
    assert (tmp_path / "to" / "d" / "x.txt").stat().st_mtime_ns == before
    (tmp_path / "to" / "d" / "y.txt").write_bytes(b"own")
    with pytest.raises(DataError, match="in the way"):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    assert (tmp_path / "to" / "d" / "y.txt").read_bytes() == b"own"


# --- parts ---


def test_parts_are_skipped_when_whole(server: Server, tmp_path: Path) -> None:
    server.files["/val2014.zip"] = zipped(("val2014/a.jpg", b"a" * 100), ("val2014/b.jpg", b"b" * 50))
    file = WebFile(url=f"{server.url}/val2014.zip")
    sources = {"val2014": (file,)}
    assert download(tmp_path, ["val2014"], sources) == ["val2014.zip"]
    assert not (tmp_path / "val2014.zip").exists()
    assert download(tmp_path, ["val2014"], sources) == []
    assert len(server.ranges) == 1
    assert is_done(tmp_path, file)
    (tmp_path / "val2014" / "b.jpg").unlink()
    assert not is_done(tmp_path, file)
    assert download(tmp_path, ["val2014"], sources) == ["val2014.zip"]
    with pytest.raises(ConfigError, match="no part"):
        download(tmp_path, ["test2014"], sources)


def test_no_room(server: Server, tmp_path: Path) -> None:
    huge = WebFile(url=f"{server.url}/val2014.zip", bytes=10**17)
    with pytest.raises(DataError, match="GB are free"):
        download(tmp_path / "to", ["val2014"], {"val2014": (huge,)})
    assert server.ranges == []  # said before anything starts
    assert to_fetch(tmp_path, [huge]) == (10**17, 2 * 10**17)
    with pytest.raises(DataError, match="are free"):
        check_space(tmp_path, 10**17, "it")


def test_sources(tmp_path: Path) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text("val2014: [{url: 'http://mirror/val2014.zip', bytes: 5}]")
    table = read_sources(file)
    assert table["val2014"][0].bytes == 5
    assert table["train2014"] == read_sources(None)["train2014"]
    for text, match in [
        ("val2014: [{url: 'file:///etc/passwd'}]", "url"),
        ("val2015: []", "no part 'val2015'"),
        ("[", "as YAML"),
        ("val2014: [{url: 'http://x/y.zip', size: 1}]", "size"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=match):
            read_sources(file)
