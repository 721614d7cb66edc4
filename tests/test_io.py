from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tiir.errors import DataError, RunError, UnsafePathError
from tiir.io import (
    atomic_write,
    inside,
    load_npy,
    load_npz,
    read_json,
    read_text,
    remove_leftovers,
    sha256_file,
    write_json,
    write_npy,
)


def test_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() != text
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["a.txt"]


def test_atomic_write_leaves_nothing_behind_on_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_inside(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.jpg").touch()
    (tmp_path / "photos2").mkdir()
    (tmp_path / "secret").touch()
    (root / "out").symlink_to(tmp_path)
    (root / "file_out").symlink_to(tmp_path / "secret")
    (root / "in").symlink_to(root / "sub")
    (tmp_path / "link").symlink_to(root)
    real = Path(os.path.realpath(root))
    assert inside(root, "sub/a.jpg") == real / "sub" / "a.jpg"
    assert inside(root, "sub/../sub/a.jpg") == real / "sub" / "a.jpg"
    assert inside(root, "in/a.jpg") == real / "sub" / "a.jpg"  # a link that stays inside
    assert inside(tmp_path / "link", "sub/a.jpg") == real / "sub" / "a.jpg"  # the root itself may be one
    assert inside(root, "not yet.jpg") == real / "not yet.jpg"
    for bad in (
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "out/secret",
        "file_out",
        "../photos2/a",
        "a\0b",
        "..",
    ):
        with pytest.raises(UnsafePathError):
            inside(root, bad)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": [1,\n2', "line 2, column 2"),
        (b"", "is not valid JSON"),
        (b'{"a": "\xe9"}', "byte 7 (0xe9), line 1"),
        (b"9" * 5000, "cannot be read as JSON"),
        (b"[" * 200_000, "cannot be read as JSON"),
    ],
)
def test_read_json_explains(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(RunError) as caught:
        read_json(path, error=RunError)
    assert why in str(caught.value)
    assert str(path) in caught.value.message


def test_read_json_missing_or_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path)


def test_leftovers_of_killed_writers(tmp_path: Path) -> None:
    others = [
        ".run.json.0123abcd.old.tmp",
        "run.json.0123abcd.tmp",
        ".run.json.0123abc.tmp",
        ".store.h5.tmp",
        "a",
    ]
    for name in [*others, ".run.json.0123abcd.tmp", ".store.h5.part.01234567.tmp"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "store.h5")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, ".run.json.0123abcd.tmp"])
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    remove_leftovers(tmp_path / "missing")


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"é": [1, None, "☃\n\t"], "b": {"c": 1.5}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(value).encode())
    assert read_json(tmp_path / "b.json") == value  # a byte order mark


def test_read_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa\r\nb\u2028c\n".encode())
    assert read_text(path) == "a\r\nb\u2028c\n"
    path.write_bytes("eins\nzwölf".encode("latin-1"))
    assert read_text(path, encoding="latin-1") == "eins\nzwölf"
    with pytest.raises(DataError, match=r"byte 7 \(0xf6\), line 2") as caught:
        read_text(path)
    assert "cp1252" in str(caught.value.hint)
    path.write_bytes("zwölf".encode("utf-16"))
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert "utf-16" in str(caught.value.hint)
    assert read_text(path, encoding="utf-16") == "zwölf"
    for encoding in ("utf_8", "utf-16-le"):  # however it is spelt, the mark is none of the text
        path.write_bytes("\ufeffzwölf".encode(encoding))
        assert read_text(path, encoding=encoding) == "zwölf"
    with pytest.raises(DataError, match="not a text encoding"):
        read_text(path, encoding="klingon")


def test_a_misspelt_file_is_told_the_near_name(tmp_path: Path) -> None:
    (tmp_path / "images.npy").touch()
    for read in (read_text, load_npy, lambda path: load_npz(path, ["a"], most=1)):
        with pytest.raises(DataError, match=r"no such file: .*imags\.npy \(did you mean .*images\.npy\?\)"):
            read(tmp_path / "imags.npy")


def test_npy(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_npy(path, array[:, ::2])
    for mmap in (False, True):
        np.testing.assert_array_equal(load_npy(path, mmap=mmap), array[:, ::2])
    whole = path.read_bytes()
    np.savez(tmp_path / "many.npz", a=array)
    with pytest.raises(DataError, match="several arrays"):
        load_npy(tmp_path / "many.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name, raw in [
        ("cut", whole[:-4]),
        ("empty", b""),
        ("text", b"hello"),
        ("objects", None),
        ("none", None),
    ]:
        target = tmp_path / f"{name}.npy"
        if raw is not None:
            target.write_bytes(raw)
        for mmap in (False, True):
            with pytest.raises(DataError, match=f"{name}.npy"):
                load_npy(target, mmap=mmap)


def test_sha256(tmp_path: Path) -> None:
    raw = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(raw)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(raw).hexdigest()
