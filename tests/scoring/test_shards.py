from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiir.errors import RunError
from tiir.scoring import shard_files, shards
from tiir.scoring.shards import Shards, write_rows

rng = np.random.default_rng(0)


def write(path: Path, rows: Any, *, fixed: bool = True, group: int = 3) -> None:
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".safetensors":
        raw, kind = rows.tobytes(), {2: "F16", 4: "F32", 8: "F64"}[rows.dtype.itemsize]
        ids = {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}
        both = {"dtype": kind, "shape": list(rows.shape), "data_offsets": [8, 8 + len(raw)]}
        header = json.dumps({"__metadata__": {"a": "b"}, "ids": ids, "embeddings": both}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8) + raw)
    else:
        values, n = pa.array(rows.ravel()), len(rows)
        offsets = pa.array(range(0, rows.size + 1, rows.shape[1]), pa.int32())
        lists = (
            pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
            if fixed
            else pa.ListArray.from_arrays(offsets, values)
        )
        pq.write_table(
            pa.table({"id": [str(k) for k in range(n)], "vector": lists}), path, row_group_size=group
        )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mixed")
    rows = rng.standard_normal((23, 4)).astype(np.float16)
    write(folder / "a-1.npy", rows[:5])
    write(folder / "a-2.safetensors", rows[5:6])
    write(folder / "b-09.parquet", rows[6:14])
    write(folder / "b-10.parquet", rows[14:17], fixed=False)
    write(folder / "c.npy", np.asfortranarray(rows[17:]))
    (folder / "image_ids.txt").write_text("not a shard")
    return folder, rows


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_reads_what_numpy_would(mixed: tuple[Path, Any], data: st.DataObject) -> None:
    folder, rows = mixed
    shards = Shards.open(folder)
    assert (shards.shape, shards.dtype, len(shards), shards.ndim) == (rows.shape, rows.dtype, 23, 2)
    if data.draw(st.booleans()):
        chosen = np.array(data.draw(st.lists(st.integers(0, 22), max_size=30)), np.int64)
        shards, rows = shards.select(chosen), rows[chosen]
    key: Any = data.draw(
        st.one_of(
            st.slices(len(rows)),
            st.lists(st.integers(-len(rows), len(rows) - 1), max_size=9).map(lambda x: np.array(x, np.int64))
            if len(rows)
            else st.just(np.empty(0, np.int64)),
        )
    )
    assert np.array_equal(shards[key], rows[key])
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(shards))), rows)


def test_other_keys(mixed: tuple[Path, Any]) -> None:
    folder, rows = mixed
    shards = Shards.open(folder)
    assert np.array_equal(shards[7], rows[7])
    assert np.array_equal(shards[rows[:, 0] > 0], rows[rows[:, 0] > 0])
    assert np.asarray(shards, np.float32).dtype == np.float32
    for key in (np.array([23]), np.array([-24]), np.array([0.5])):
        with pytest.raises(IndexError):
            shards[key]


def test_a_memory_map_is_its_file(tmp_path: Path) -> None:
    rows = rng.standard_normal((6, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    shards = Shards.of(mapped)
    assert isinstance(shards, Shards)
    assert np.array_equal(np.asarray(shards), rows)
    assert len(pickle.dumps(shards)) < 1000
    for other in (mapped[1:], mapped.T, np.load(tmp_path / "a.npy", mmap_mode="r+"), rows):
        assert Shards.of(other) is other  # a part of the file, or one that may change


def test_written_rows_are_the_file_that_numpy_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS", 4)
    rows = rng.standard_normal((11, 3)).astype(np.float16)
    np.save(tmp_path / "a.npy", rows)
    write_rows(tmp_path / "b.npy", Shards.open(tmp_path / "a.npy"), np.float16)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


FLOATS = rng.standard_normal((4, 3)).astype(np.float32)


def ragged(path: Path) -> None:
    pq.write_table(pa.table({"vector": pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32()))}), path)


def holes(path: Path) -> None:
    pq.write_table(pa.table({"vector": pa.array([[1.0, 2.0], None], pa.list_(pa.float32()))}), path)


def two_columns(path: Path) -> None:
    lists = pa.array([[1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"one": lists, "other": lists}), path)


def cut(path: Path) -> None:
    write(path, FLOATS)
    path.write_bytes(path.read_bytes()[:-5])


def lying(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def no_header(path: Path) -> None:
    path.write_bytes((4).to_bytes(8, "little") + b"nope")


BAD: list[tuple[str, Any, str]] = [
    ("a.npy", lambda path: np.save(path, FLOATS.astype(object)), r"a\.npy is not a readable"),
    ("a.npy", lambda path: np.save(path, FLOATS.astype(int)), "expected a float matrix"),
    ("a.npy", lambda path: np.save(path, FLOATS[:0]), "holds no vectors"),
    ("a.npy", cut, r"a\.npy is not a readable"),
    ("a.safetensors", cut, r"a\.safetensors is not a readable.*does not fit"),
    ("a.safetensors", lying, "header is longer"),
    ("a.safetensors", no_header, r"a\.safetensors is not a readable"),
    ("a.parquet", cut, r"a\.parquet is not a readable"),
    ("a.parquet", ragged, r"row group 0 holds vectors of other lengths than 2"),
    ("a.parquet", holes, r"row group 0 holds vectors of other lengths than 2"),
    ("a.parquet", two_columns, "has 2 columns of lists of floats"),
    ("a.txt", lambda path: path.write_text(""), "holds no embeddings"),
]


@pytest.mark.parametrize(("name", "make", "message"), BAD)
def test_bad_files_are_named(tmp_path: Path, name: str, make: Any, message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(RunError, match=message):
        np.asarray(Shards.open(tmp_path))


def test_shards_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", FLOATS)
    write(tmp_path / "b.npy", FLOATS.astype(np.float16))
    with pytest.raises(RunError, match=r"b\.npy holds float16 vectors of width 3, a\.npy float32"):
        Shards.open(tmp_path)
    write(tmp_path / "b.npy", FLOATS[:, :2])
    with pytest.raises(RunError, match=r"b\.npy holds float32 vectors of width 2"):
        Shards.open(tmp_path)


def test_numbers_without_zeros_are_refused(tmp_path: Path) -> None:
    for n in (1, 2, 10):
        write(tmp_path / f"part-{n}.npy", FLOATS)
    with pytest.raises(RunError, match=r"part-10\.npy comes before part-2\.npy by name, but not by number"):
        Shards.open(tmp_path)


def test_a_row_group_too_large_to_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "GROUP", 30)
    write(tmp_path / "a.parquet", FLOATS)
    with pytest.raises(RunError, match=r"row group 0 has 3 rows.*\n.*row_group_size of at most 2"):
        Shards.open(tmp_path)


@pytest.mark.parametrize("name", ["a.npy", "a.safetensors", "a.parquet"])
def test_a_file_that_changes_under_the_reader(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, FLOATS)
    read, unread = Shards.open(tmp_path / name), Shards.open(tmp_path / name)
    read[:]
    write(tmp_path / name, FLOATS[:2] + 1)
    with pytest.raises(RunError, match="was changed while it was read"):
        read[:]
    with pytest.raises(RunError, match=r"opened|damaged|other lengths"):
        unread[:]


def test_a_map_whose_file_was_replaced_stays_what_it_is(tmp_path: Path) -> None:
    for n in (FLOATS + 1, FLOATS[:2]):
        write_rows(tmp_path / "a.npy", FLOATS, np.float32)
        mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
        write_rows(tmp_path / "a.npy", n, np.float32)
        assert Shards.of(mapped) is mapped
    (tmp_path / "a.npy").unlink()
    assert Shards.of(mapped) is mapped


def test_reading_holds_no_more_than_was_asked_for(tmp_path: Path) -> None:
    # Resident memory, mapped pages included, in a process of its own: 128 MB are read, 40 MB may stay.
    np.save(tmp_path / "a.npy", np.zeros((1 << 16, 1 << 10), np.float16))
    script = (
        "import resource, sys\nfrom tiir.scoring.shards import Shards\nshards = Shards.open(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for start in range(0, len(shards), 4096): shards[start : start + 4096].sum()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.npy"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 40_000
