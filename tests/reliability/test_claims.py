"""Small files that claim to hold terabytes, or unfold to them: refused within half a gigabyte of memory, by one message."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiir.data.dataset import Dataset
from tiir.data.download import unpack
from tiir.data.images import open_image
from tiir.errors import TiirError
from tiir.features import FeatureInfo
from tiir.features.readers import convert
from tiir.features.store import FeatureStore
from tiir.io import load_npy, load_npz, read_json, read_yaml, sha256_file, write_json
from tiir.scoring.foreign import import_scores
from tiir.scoring.shortlist import Shortlist

MANY = 2**40
ROOM = 512 << 20


def npy(shape: tuple[int, ...]) -> bytes:
    """A header of float32 in this shape, and twelve bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(12)


def array(path: Path) -> None:
    path.write_bytes(npy((MANY, 4)))
    load_npy(path)


def mapped_array(path: Path) -> None:
    path.write_bytes(npy((MANY, 4)))
    load_npy(path, mmap=True)


def zipped_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", npy((MANY, 4)))
    load_npz(path, ["a"], most=1 << 20)


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("image.npy", npy((2**22,)) + bytes(2**24))
        for name in ("caption", "score", "first", "i2t", "t2i", "mix"):
            file.writestr(f"{name}.npy", npy((3,)))
    assert path.stat().st_size < 1 << 20
    Shortlist.load(path, 10, 10)


def study_scores(path: Path) -> None:
    path = path.with_suffix(".npz")
    with zipfile.ZipFile(path, "w") as file:
        for name in ("logits", "labels"):
            file.writestr(f"{name}.npy", npy((MANY, 4)))
    import_scores(
        path,
        Dataset("pets", "test", ["a"], ["a0"], ["a cat"], np.array([0])),
        path,
        path.parent / "run",
        name="x",
    )


def archive(path: Path) -> None:
    """A zip file whose directory says that a member has two terabytes."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "abc")
        file.filelist[0].file_size = 2 * MANY
    unpack(path, path.parent / "unpacked")


def groups(path: Path) -> None:
    """HDF5 of another program: chunks that are not there are read as zeros."""
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group.create_dataset("visual_feats", (MANY, 4), np.float32, chunks=(1024, 4))
        group.create_dataset("visual_pos", (MANY, 4), np.float32, chunks=(1024, 4))
    convert(path, path.parent / "out.h5")


def store(path: Path) -> None:
    with FeatureStore.create(path, FeatureInfo(extractor="x"), ["a"], 1, 1) as writer:
        writer.put([0], np.ones((1, 1, 1)), np.array([[[0, 0, 1, 1]]]))
    with h5py.File(path, "a") as file:
        del file["image_ids"]
        file.create_dataset("image_ids", (MANY,), "S8", chunks=(1024,))
    FeatureStore.open(path)


def parquet(path: Path) -> None:
    """A row and a `dataset.json` that says otherwise."""
    folder = path.parent
    Dataset("pets", "test", ["a"], ["a0"], ["a cat"], np.array([0])).save(folder)
    header = read_json(folder / "dataset.json")
    pq.write_table(pa.table({"image_id": pa.array([], pa.string())}), folder / "images.parquet")
    header["files"]["images"] = sha256_file(folder / "images.parquet")
    write_json(folder / "dataset.json", header | {"images": MANY})
    Dataset.load(folder)


def png(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))))
    open_image(path)


def text_in_png(path: Path) -> None:
    """A comment that unpacks to a quarter of a gigabyte."""
    from PIL import Image

    Image.new("RGB", (2, 2)).save(path, "PNG")
    raw = path.read_bytes()
    data = b"Comment\0\0" + zlib.compress(bytes(2**28))
    comment = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    path.write_bytes(raw[:33] + comment + raw[33:])
    open_image(path)


def aliases(path: Path) -> None:
    """Thirty lines, each twice the one before."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 31)]
    path.write_text("\n".join(lines))
    read_yaml(path)


def merged(path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 31)]
    path.write_text("\n".join(lines))
    read_yaml(path)


def endless(path: Path) -> None:
    path.write_text("&a [*a]")
    read_yaml(path)


def deep_yaml(path: Path) -> None:
    path.write_text("[" * 2000 + "]" * 2000)
    read_yaml(path)


def deep_json(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)
    read_json(path)


CLAIMS = [array, mapped_array, zipped_array, zip_bomb, study_scores, archive, groups, store, parquet, png, text_in_png,
          aliases, merged, endless, deep_yaml, deep_json]  # fmt: skip


def within(room: int, run: Callable[[], None]) -> str:
    """What a process that may take so many bytes more than it has says of an error, as "TYPE: message"."""
    import resource

    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        said = ""
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + room
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
            run()
        except TiirError as problem:
            said = f"TiirError: {problem}"
        except BaseException as problem:
            said = f"{type(problem).__name__}: {problem}"
        finally:
            os.write(writer, json.dumps(said[:2000]).encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    return str(json.loads(raw))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_what_claims_terabytes_is_refused(tmp_path: Path, claim: Callable[[Path], None]) -> None:
    said = within(ROOM, lambda: claim(tmp_path / f"file.{'npz' if claim is zip_bomb else 'x'}"))
    assert said.startswith("TiirError: ")
    assert str(tmp_path) in said
