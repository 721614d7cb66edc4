"""Faults of servers, zip files and disks that went unnoticed at first."""

from __future__ import annotations

import json
import struct
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.data.test_download import CONTENT, SHA, Server, get, server, zipped  # noqa: F401 - a fixture

from tiir.data.coco import WebFile, download, is_done, read_sources, to_fetch
from tiir.data.download import unpack
from tiir.errors import ConfigError, DataError


def test_no_range_and_cuts_here_and_there_end(server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.ignore_range, server.cut = True, [100_000, 200_000] * 50
    with pytest.raises(DataError, match="broke off 3 times"):
        get(server, tmp_path, sha256=SHA)
    assert len(server.ranges) < 10


def test_more_than_expected_is_not_written(server: Server, tmp_path: Path) -> None:  # noqa: F811
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            for _ in range(5000):
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            pass

    server.answer = endless  # type: ignore[method-assign]
    with pytest.raises(DataError, match="more than the 1,000 bytes"):
        get(server, tmp_path, n_bytes=1000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1000


def test_an_error_page_in_the_middle_costs_nothing(server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.cut = [300_000, 0, 0, 0]
    with pytest.raises(DataError, match="broke off"):
        get(server, tmp_path, n_bytes=len(CONTENT))
    server.files["/file.bin"], server.etag, server.cut = b"please log in", None, []
    with pytest.raises(DataError, match="has 13 bytes"):
        get(server, tmp_path, n_bytes=len(CONTENT))
    server.files["/file.bin"], server.etag = CONTENT, '"1"'
    assert get(server, tmp_path, n_bytes=len(CONTENT), sha256=SHA).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_redirected_in_circles(server: Server, tmp_path: Path) -> None:  # noqa: F811
    def circle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = circle  # type: ignore[method-assign]
    with pytest.raises(DataError, match="30 redirects"):
        get(server, tmp_path)


def test_own_file_that_is_no_zip_stays(server: Server, tmp_path: Path) -> None:  # noqa: F811
    file = WebFile(url=f"{server.url}/file.bin", folder="names")
    own = tmp_path / "names" / "file.bin"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with pytest.raises(DataError, match="in the way"):
        download(tmp_path, ["vg-names"], {"vg-names": (file,)})
    assert own.read_bytes() == b"mine"
    own.write_bytes(CONTENT)  # the same content: a run that was killed before its record
    assert download(tmp_path, ["vg-names"], {"vg-names": (file,)}) == ["file.bin"]
    assert [path.name for path in own.parent.iterdir()] == ["file.bin"]


def test_the_record_says_what_came_and_holds_for_another_mirror(server: Server, tmp_path: Path) -> None:  # noqa: F811
    file = WebFile(url=f"{server.url}/file.bin")
    download(tmp_path, ["karpathy"], {"karpathy": (file,)})
    record = json.loads((tmp_path / ".tiir" / "file.bin.json").read_text())
    assert (record["bytes"], record["sha256"]) == (len(CONTENT), SHA)
    assert is_done(tmp_path, WebFile(url="http://elsewhere/file.bin", sha256=SHA))
    assert not is_done(tmp_path, WebFile(url="http://elsewhere/file.bin"))


def test_bytes_left_after_a_kill(tmp_path: Path) -> None:
    one, other = ("d/x.bin", b"x" * 3000), ("d/y.bin", b"y" * 2000)
    raw = zipped(one, other)
    file = WebFile(url="http://x/a.zip", bytes=len(raw), unpacked=5000)
    assert to_fetch(tmp_path, [file]) == (len(raw), len(raw) + 5000)
    (tmp_path / "a.zip.part").write_bytes(raw[:100])
    assert to_fetch(tmp_path, [file]) == (len(raw) - 100, len(raw) - 100 + 5000)
    (tmp_path / "a.zip").write_bytes(raw)
    assert to_fetch(tmp_path, [file]) == (0, 5000)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.bin").write_bytes(one[1])
    assert to_fetch(tmp_path, [file]) == (0, 2000)


def test_disk_at_the_fullest_moment(tmp_path: Path) -> None:
    files = [WebFile(url=f"http://x/{name}.zip", bytes=n, unpacked=n) for name, n in (("a", 100), ("b", 60))]
    assert to_fetch(tmp_path, files) == (160, 220)  # 100 unpacked, then 60 twice
    assert to_fetch(tmp_path, files[::-1]) == (160, 260)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "A"), ("d/x.txt", "d/./x.txt"), ("d//x.txt", "d/x.txt"),
                                   ("a", "a/b/c")])  # fmt: skip
def test_names_that_collide(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(*((name, b"1") for name in names)))
    with pytest.raises(DataError, match="nothing was unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_member_larger_than_it_says(tmp_path: Path) -> None:
    raw = bytearray(zipped(("big.bin", bytes(10_000_000))))
    struct.pack_into("<I", raw, raw.rfind(b"PK\x01\x02") + 24, 100)
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    assert not list((tmp_path / "to").iterdir())


@pytest.mark.parametrize(("flag", "match"), [(8, "encrypted"), (10, "damaged: That compression")])
def test_members_that_cannot_be_read(tmp_path: Path, flag: int, match: str) -> None:
    raw = bytearray(zipped(("x", b"1" * 100)))
    struct.pack_into("<H", raw, raw.rfind(b"PK\x01\x02") + flag, 1 if flag == 8 else 99)
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match=match):
        unpack(tmp_path / "a.zip", tmp_path / "to")


@pytest.mark.parametrize("url", ["http://x/", "http://x/..", "http://x", "http://x/a/?q=b"])
def test_addresses_without_a_file(tmp_path: Path, url: str) -> None:
    sources = tmp_path / "mirror.yaml"
    sources.write_text(f"val2014: [{{url: '{url}'}}]")
    with pytest.raises(ConfigError, match="name of a file"):
        read_sources(sources)


def test_file_names(tmp_path: Path) -> None:
    assert WebFile(url="http://x/y/a.zip?key=c/d#e").name == "a.zip"
    sources = tmp_path / "mirror.yaml"
    sources.write_text("{train2014: [{url: 'http://x/1/i.zip'}], val2014: [{url: 'http://x/2/i.zip'}]}")
    with pytest.raises(ConfigError, match=r"2 files are called 'i.zip'"):
        read_sources(sources)
