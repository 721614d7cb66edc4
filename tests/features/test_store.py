"""The store gives back what was put, notices damage, and loses nothing to a kill."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiir.data.dataset import Dataset
from tiir.errors import DataError
from tiir.features import FeatureInfo, FeatureStore, FeatureWriter
from tiir.features import plan as planning
from tiir.features.layout import part_of, read_header

INFO = FeatureInfo(extractor="test", notes={"x": 1})
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_weights_that_an_earlier_version_called_unknown_are_none() -> None:
    old = FeatureInfo(extractor="grid:a", weights="unknown")
    assert old.weights is None
    assert old.difference({"extractor": "grid:a", "weights": "1b"}) is None
    assert old.difference({"extractor": "grid:b", "weights": "unknown"}) == "extractor"
    new = FeatureInfo(extractor="grid:a", weights="1b")
    assert new.difference({"extractor": "grid:a", "weights": "unknown"}) is None


def features(n: int, regions: int = 3, width: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((n, regions, 2, 2)), axis=2)  # (n, R, from/to, x/y)
    values = rng.normal(size=(n, regions, width)).astype(np.float32)
    return values, corners.reshape(n, regions, 4).astype(np.float32)


def ids(n: int) -> list[str]:
    return [f"image-{i}" for i in range(n)]


def made(path: Path, n: int = 6, **options: Any) -> FeatureStore:
    regions, boxes = features(n)
    with FeatureStore.create(path, INFO, ids(n), 3, 5, **options) as writer:
        writer.put(writer.missing, regions, boxes)
    return FeatureStore.open(path)


@many
@given(
    n=st.integers(1, 9),
    regions=st.integers(1, 5),
    width=st.integers(1, 7),
    dtype=st.sampled_from(["float16", "float32"]),
    names=st.sets(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=9
    ),
    data=st.data(),
)
def test_round_trip(
    tmp_path: Path, n: int, regions: int, width: int, dtype: str, names: set[str], data: Any
) -> None:
    names_in_order = sorted(names)[:n]
    values, boxes = features(n, regions, width)
    path = tmp_path / "store.h5"
    order = data.draw(st.permutations(range(n)))
    with FeatureStore.create(
        path, INFO, names_in_order, regions, width, dtype=dtype, overwrite=True
    ) as writer:
        for row in order:
            writer.put([row], values[row : row + 1], boxes[row : row + 1])
    store = FeatureStore.open(path)
    assert store.image_ids == tuple(names_in_order)
    assert (len(store), store.n_regions, store.width, store.dtype) == (n, regions, width, dtype)
    assert store.info.model_copy(update={"created": ""}) == INFO
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1)))
    some_values, some_boxes = store.read(rows)
    assert some_values.dtype == some_boxes.dtype == np.float32
    np.testing.assert_array_equal(some_values, values.astype(dtype).astype(np.float32)[rows])
    np.testing.assert_array_equal(some_boxes, boxes[rows])
    assert store.rows([names_in_order[row] for row in rows]).tolist() == rows.tolist()
    assert store.verify() == []
    with h5py.File(path, "r") as file:  # other programs read it as plain HDF5
        np.testing.assert_array_equal(file["regions"][:], store.regions)
        np.testing.assert_array_equal(file["boxes"][:], store.boxes)
        assert [name.decode() for name in file["image_ids"][:]] == names_in_order


@many
@given(calls=st.integers(0, 60), again=st.integers(0, 60), dtype=st.sampled_from(["float16", "float32"]))
def test_stopped_after_any_write_it_goes_on(tmp_path: Path, calls: int, again: int, dtype: str) -> None:
    """As after a kill: what was written stays, nothing more is, and the next process goes on."""
    values, boxes = features(10)
    path = tmp_path / "stopped.h5"
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".part").unlink(missing_ok=True)
    plain = FeatureWriter._write
    for allowed in (calls, again, None):
        left = allowed

        def write(self: Any, name: str, at: int, raw: bytes) -> None:
            nonlocal left
            if left == 0:
                raw = raw[: len(raw) // 2]
            plain(self, name, at, raw)
            if left == 0:
                raise KeyboardInterrupt
            left = None if left is None else left - 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FeatureWriter, "_write", write)
            try:
                with FeatureStore.create(path, INFO, ids(10), 3, 5, dtype=dtype, resume=True) as writer:
                    for row in writer.missing:
                        writer.put([row], values[[row]], boxes[[row]])
            except KeyboardInterrupt:
                with pytest.raises(DataError, match="unfinished"):
                    FeatureStore.open(path)
    store = FeatureStore.open(path)
    np.testing.assert_array_equal(store.regions, values.astype(dtype))
    np.testing.assert_array_equal(store.boxes, boxes)
    assert store.verify() == []


CHILD = """
import sys, numpy as np
from tiir.features import FeatureInfo, FeatureStore
path, n = sys.argv[1], int(sys.argv[2])
names = [f"image-{i}" for i in range(n)]
with FeatureStore.create(path, FeatureInfo(extractor="kill"), names, 36, 256, resume=True) as writer:
    print(len(writer.missing), flush=True)
    for row in writer.missing:
        rng = np.random.default_rng(int(row))
        writer.put([row], rng.random((1, 36, 256)), np.sort(rng.random((1, 36, 2, 2)), axis=2).reshape(1, 36, 4))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    n, path, moments, killed, left = 4000, tmp_path / "killed.h5", random.Random(0), 0, []
    command = [sys.executable, "-c", CHILD, str(path), str(n)]
    while not path.exists():
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        left.append(int(child.stdout.readline()))
        if killed < 5:
            time.sleep(moments.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
        status = child.wait()
        assert status in (0, -signal.SIGKILL)
        killed += status != 0
    assert killed >= 2, "it was too quick to be killed"
    assert left == sorted(left, reverse=True)
    assert left[-1] < n, "it began from nothing every time"
    store = FeatureStore.open(path)
    assert store.verify() == []
    for row in range(n):
        rng = np.random.default_rng(row)
        np.testing.assert_array_equal(store.regions[row], rng.random((1, 36, 256)).astype(np.float32)[0])
        boxes = np.sort(rng.random((1, 36, 2, 2)), axis=2).reshape(36, 4)
        np.testing.assert_array_equal(store.boxes[row], boxes.astype(np.float32))


def test_a_finished_store_is_resumed_as_it_is_and_guarded(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    made(path)
    before = path.read_bytes()
    with FeatureStore.create(path, INFO, ids(6), 3, 5, resume=True) as writer:
        assert len(writer.missing) == 0
    assert path.read_bytes() == before
    with pytest.raises(DataError, match="already exists"), FeatureStore.create(path, INFO, ids(6), 3, 5):
        pass
    other = FeatureInfo(extractor="other")
    with pytest.raises(DataError, match="extractor 'test', now it is 'other'"), FeatureStore.create(
        path, other, ids(6), 3, 5, resume=True
    ):  # fmt: skip
        pass
    with pytest.raises(DataError, match="other images"), FeatureStore.create(
        path, INFO, ids(6)[::-1], 3, 5, resume=True
    ):  # fmt: skip
        pass


def test_an_earlier_store_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    old = made(path).fingerprint
    values, boxes = features(6, seed=1)
    with pytest.raises(DataError, match=r"4 of 6 images were not written, the first is 'image-2'"), FeatureStore.create(
        path, INFO, ids(6), 3, 5, overwrite=True
    ) as writer:  # fmt: skip
        writer.put([0, 1], values[:2], boxes[:2])
    assert FeatureStore.open(path).fingerprint == old
    with (
        pytest.raises(DataError, match="--resume"),
        FeatureStore.create(path.with_name("new.h5"), INFO, ["a"], 1, 1),
    ):
        pass
    with FeatureStore.create(path, INFO, ids(6), 3, 5, resume=True, overwrite=True) as writer:
        assert writer.missing.tolist() == [2, 3, 4, 5]
        writer.put(writer.missing, values[2:], boxes[2:])
    assert FeatureStore.open(path).fingerprint != old


def test_two_processes_do_not_write_one_store(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    values, boxes = features(6)
    with FeatureStore.create(path, INFO, ids(6), 3, 5) as writer:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(DataError, match=rf"writing .*store.h5: process {os.getpid()} on "), FeatureStore.create(
                path, INFO, ids(6), 3, 5, **options
            ):  # fmt: skip
                pass
        writer.put(writer.missing, values, boxes)
    assert FeatureStore.open(path).verify() == []
    assert [found.name for found in tmp_path.iterdir()] == ["store.h5"]


@pytest.mark.parametrize("left", [False, True])
def test_a_second_writer_is_refused_while_the_first_allocates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    path = tmp_path / "store.h5"
    values, boxes = features(6)
    if left:
        path.with_name("store.h5.part").write_bytes(b"what a kill left")
    allocate, inside, go = planning.allocate, threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        inside.set()
        assert go.wait(20)
        allocate(*arguments)

    def first() -> None:
        with FeatureStore.create(path, INFO, ids(6), 3, 5, overwrite=True) as writer:
            writer.put(writer.missing, values, boxes)

    monkeypatch.setattr(planning, "allocate", slowly)
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(first)
        assert inside.wait(20)
        try:
            with pytest.raises(DataError, match="another process is writing"), FeatureStore.create(
                path, INFO, ids(6), 3, 5, overwrite=True
            ):  # fmt: skip
                pass
        finally:
            go.set()
        task.result()
    assert FeatureStore.open(path).verify() == []


def test_a_lock_of_a_file_that_is_gone_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened while another writer held it, locked after that one had removed it: a third may hold its own."""
    import fcntl

    path = tmp_path / "store.h5"
    flock = fcntl.flock

    def late(file: Any, how: int) -> None:
        (tmp_path / ".store.h5.lock").unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(DataError, match="another process"), planning.only_writer(path):
        pass


@many
@given(row=st.integers(0, 5), where=st.sampled_from(["regions", "boxes", "crc32"]), data=st.data())
def test_a_flipped_bit_is_found_and_its_image_named(tmp_path: Path, row: int, where: str, data: Any) -> None:
    path = tmp_path / "store.h5"
    store = made(path, overwrite=True)
    size = {"regions": 60, "boxes": 48, "crc32": 4}[where]
    at = store._header.offsets[where] + row * size + data.draw(st.integers(0, size - 1))
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    (problem,) = FeatureStore.open(path).verify()
    assert f"image 'image-{row}'" in problem


@many
@given(data=st.data())
def test_a_cut_off_file_names_the_first_lost_image(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "store.h5"
    store = made(path, overwrite=True)
    raw = path.read_bytes()
    first = store._header.offsets["regions"]
    keep = data.draw(st.integers(first, len(raw) - 1))
    path.write_bytes(raw[:keep])
    lost = (keep - first) // 60
    with pytest.raises(DataError, match=f"cut off.*'image-{lost}' and {5 - lost} after it are lost"):
        FeatureStore.open(path)


@pytest.mark.slow
def test_any_flipped_byte_is_an_error_or_found(tmp_path: Path) -> None:
    """Wherever it is: in ids, in HDF5's own structure, in the features, unless nothing reads the byte."""
    path = tmp_path / "store.h5"
    regions, boxes = (np.array(array) for array in (made(path).regions, made(path, overwrite=True).boxes))
    raw = path.read_bytes()
    for at in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[at] ^= 255
        path.write_bytes(damaged)
        try:
            store = FeatureStore.open(path)
        except DataError:
            continue
        if not store.verify():
            np.testing.assert_array_equal(store.regions, regions)
            np.testing.assert_array_equal(store.boxes, boxes)
            assert store.image_ids == tuple(ids(6))
            assert store.info.notes == INFO.notes


def test_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(DataError, match="no such feature store"):
        FeatureStore.open(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        FeatureStore.open(path)
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(DataError, match="not a feature store"):
        FeatureStore.open(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "tiir features 1"
    with pytest.raises(DataError, match="damaged"):
        FeatureStore.open(path)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r, b: r.__setitem__((1, 2, 0), NAN), r"image 'image-1': regions have NaN or infinite values \(region 2\)"),
        (lambda r, b: r.__setitem__((0, 1, 4), INF), "image 'image-0': regions have NaN"),
        (lambda r, b: r.__setitem__((1, 0, 0), 70000), "image 'image-1': regions are too large for float16"),
        (lambda r, b: b.__setitem__((1, 0, 0), NAN), "image 'image-1': boxes have NaN"),
        (lambda r, b: b.__setitem__((1, 0, 2), 1.01), r"image 'image-1': boxes lie outside \[0, 1\]"),
        (lambda r, b: b.__setitem__((0, 2, 1), -0.002), r"image 'image-0': boxes lie outside \[0, 1\] \(region 2\)"),
        (lambda r, b: b.__setitem__((1, 1), [0.5, 0.1, 0.4, 0.2]), r"image 'image-1': boxes are inverted \(region 1\)"),
    ],
)  # fmt: skip
def test_bad_values_name_the_image(tmp_path: Path, change: Any, says: str) -> None:
    regions, boxes = features(2)
    change(regions, boxes)
    with pytest.raises(DataError, match=says), FeatureStore.create(
        tmp_path / "s.h5", INFO, ids(2), 3, 5, dtype="float16"
    ) as writer:  # fmt: skip
        writer.put([0, 1], regions, boxes)


def test_wrong_shapes_name_the_image(tmp_path: Path) -> None:
    regions, boxes = features(1)
    with FeatureStore.create(tmp_path / "s.h5", INFO, ["a"], 3, 5) as writer:
        with pytest.raises(DataError, match=r"regions of image 'a': shape \(2, 5\), the store has \(3, 5\)"):
            writer.put([0], regions[:, :2], boxes)
        with pytest.raises(DataError, match=r"boxes of image 'a': shape \(3, 3\)"):
            writer.put([0], regions, boxes[:, :, :3])
        with pytest.raises(DataError, match="row 1 of a store of 1 images"):
            writer.put([1], regions, boxes)
        writer.put([0], regions, boxes)


def test_pixel_edges_are_clipped(tmp_path: Path) -> None:
    regions, boxes = features(1)
    boxes[0, 0] = [-0.0005, 0, 1.0009, 1]
    with FeatureStore.create(tmp_path / "s.h5", INFO, ["a"], 3, 5) as writer:
        writer.put([0], regions, boxes)
    assert FeatureStore.open(tmp_path / "s.h5").boxes[0, 0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("names", "shape", "dtype", "says"),
    [
        (["a", "b", "a"], (1, 1), "float32", "duplicate image id 'a'"),
        ([], (1, 1), "float32", "holds nothing"),
        (["a"], (0, 1), "float32", "holds nothing"),
        (["a"], (1, 1), "float64", "no dtype 'float64'"),
        (["a", ""], (1, 1), "float32", "image id ''"),
        (["a\0"], (1, 1), "float32", "NUL"),
    ],
)
def test_bad_plans(tmp_path: Path, names: list[str], shape: tuple[int, int], dtype: str, says: str) -> None:
    with pytest.raises(DataError, match=says), FeatureStore.create(
        tmp_path / "s.h5", INFO, names, *shape, dtype=dtype
    ):  # fmt: skip
        pass
    assert not list(tmp_path.iterdir())


def test_missing_images_are_named(tmp_path: Path) -> None:
    store = made(tmp_path / "s.h5")
    with pytest.raises(DataError, match="no features of 2 of 3 images: 'x', 'y'"):
        store.rows(["x", "image-0", "y"])


def test_append(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    old = made(path, dtype="float16")
    values, boxes = features(9)
    with pytest.raises(DataError, match="already has 1 of the 2 images, such as 'image-5'"), FeatureStore.append(
        path, INFO, ["new", "image-5"]
    ):  # fmt: skip
        pass
    new = ids(9)[6:]
    with pytest.raises(KeyboardInterrupt), FeatureStore.append(path, INFO, new) as writer:  # noqa: PT012
        assert writer.missing.tolist() == [6, 7, 8]
        writer.put([7], values[[7]], boxes[[7]])
        raise KeyboardInterrupt
    assert FeatureStore.open(path).fingerprint == old.fingerprint
    for _ in range(2):  # the second time there is nothing to do
        with FeatureStore.append(path, INFO, new, resume=True) as writer:
            for row in writer.missing:
                assert row in (6, 8)
                writer.put([row], values[[row]], boxes[[row]])
    store = FeatureStore.open(path)
    assert store.image_ids == tuple(ids(9))
    np.testing.assert_array_equal(store.regions[:6], old.regions)
    np.testing.assert_array_equal(store.regions[6:], values[6:].astype(np.float16))
    assert store.verify() == []
    assert store.info == old.info
    for changed in ({"extractor": "other"}, {"weights": "abc"}, {"colour": "bgr"}):
        with pytest.raises(DataError, match=f"features with {next(iter(changed))} "), FeatureStore.append(
            path, INFO.model_copy(update=changed), ["newer"]
        ):  # fmt: skip
            pass


def pictures(names: list[str], hashes: list[str] | None) -> Dataset:
    columns = {} if hashes is None else {"sha256": hashes}
    return Dataset(
        "photos", "test", names, names, ["x"] * len(names), np.arange(len(names)), None, None, columns
    )


def test_other_pictures_under_the_same_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    names, hashes = ids(6), [f"{i:064x}" for i in range(6)]
    store = made(path, image_sha256=hashes)
    assert store.check(pictures(names, hashes)) == 6
    assert store.check(pictures(names[:1:-1], hashes[:1:-1])) == 4  # another split of the same pictures
    assert store.check(pictures(names, None)) == 0  # nothing to compare
    other = [*hashes[:3], "f" * 64, "e" * 64, hashes[5]]
    with pytest.raises(DataError, match=r"image 'image-3' of Dataset.*is not the picture"):
        store.check(pictures(names, other))
    with pytest.raises(DataError, match="no features of 1 of 1 images"):
        store.check(pictures(["nine"], None))
    values, boxes = features(2)
    with FeatureStore.append(path, INFO, ["a", "b"], image_sha256=["", "d" * 64]) as writer:
        writer.put(writer.missing, values, boxes)
    store = FeatureStore.open(path)
    assert store.check(pictures([*names, "a", "b"], [*hashes, "c" * 64, "d" * 64])) == 7
    with pytest.raises(DataError, match="image 'b'"):
        store.check(pictures(["a", "b"], ["c" * 64, "c" * 64]))
    assert made(tmp_path / "old.h5").check(pictures(names, other)) == 0  # a store without hashes
    with pytest.raises(DataError, match="2 hashes of 6 images"):
        made(tmp_path / "short.h5", image_sha256=hashes[:2])


def test_a_finished_store_takes_no_more(tmp_path: Path) -> None:
    values, boxes = features(6)
    made(tmp_path / "s.h5")
    with (
        pytest.raises(DataError, match="is finished"),
        FeatureStore.create(tmp_path / "s.h5", INFO, ids(6), 3, 5, resume=True) as writer,
    ):
        writer.put([0], values[:1], boxes[:1])


def test_a_store_in_chunks_is_refused(tmp_path: Path) -> None:
    """As h5repack can leave it."""
    path = tmp_path / "s.h5"
    made(path)
    with h5py.File(path, "r+") as file:
        regions = file["regions"][:]
        del file["regions"]
        file.create_dataset("regions", data=regions, chunks=(1, 3, 5))
    with pytest.raises(DataError, match="not contiguous"):
        FeatureStore.open(path)


@pytest.mark.parametrize(
    ("code", "fatal"), [(errno.ENOSPC, True), (errno.EOPNOTSUPP, False), (errno.EINVAL, False)]
)
def test_reserving_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fatal: bool) -> None:
    def fails(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    if fatal:
        with pytest.raises(DataError, match="cannot reserve"):
            made(tmp_path / "s.h5")
    else:
        assert made(tmp_path / "s.h5").verify() == []


def test_a_pickled_store_is_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path / "s.h5", n=500)
    raw = pickle.dumps(store)
    assert len(raw) < 500
    monkeypatch.chdir(tmp_path)
    relative = pickle.dumps(FeatureStore.open("s.h5"))
    monkeypatch.chdir("/")
    assert pickle.loads(relative).fingerprint == store.fingerprint
    again = pickle.loads(raw)
    assert again.fingerprint == store.fingerprint
    np.testing.assert_array_equal(again.regions, store.regions)
    made(tmp_path / "s.h5", n=6, overwrite=True)
    with pytest.raises(DataError, match="was replaced"):
        pickle.loads(raw)
    assert store.verify() == []  # it goes on showing the file it opened


def test_the_arrays_are_read_only(tmp_path: Path) -> None:
    store = made(tmp_path / "s.h5")
    with pytest.raises(ValueError, match="read-only"):
        store.regions[0, 0, 0] = 1
    regions, _ = store.read(np.array([0]))
    regions[:] = 0  # a copy
    assert store.verify() == []


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    prints = {made(tmp_path / "a.h5").fingerprint, made(tmp_path / "b.h5").fingerprint}
    assert len(prints) == 1
    assert made(tmp_path / "c.h5", dtype="float16").fingerprint not in prints


def test_the_provenance_is_readable_json(tmp_path: Path) -> None:
    made(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r") as file:
        assert json.loads(file.attrs["info"])["extractor"] == "test"


COLUMNS = {"object_ids": ("int32", (3,)), "nms_threshold": ("float32", ())}


def values_of(n: int) -> dict[str, np.ndarray]:
    return {
        "object_ids": np.arange(3 * n, dtype=np.int32).reshape(n, 3),
        "nms_threshold": np.linspace(0.5, 0.6, n, dtype=np.float32),
    }


def with_columns(path: Path, n: int = 6, **options: Any) -> FeatureStore:
    with FeatureStore.create(path, INFO, ids(n), 3, 5, columns=COLUMNS, **options) as writer:
        writer.put(range(n), *features(n), values_of(n))
    return FeatureStore.open(path)


def test_columns_come_back(tmp_path: Path) -> None:
    store = with_columns(tmp_path / "s.h5")
    assert {name: column.dtype.name for name, column in store.columns.items()} == {
        "object_ids": "int32",
        "nms_threshold": "float32",
    }
    for name, values in values_of(6).items():
        np.testing.assert_array_equal(store.columns[name], values)
    assert made(tmp_path / "plain.h5").columns == {}
    with FeatureStore.create(tmp_path / "s.h5", INFO, ids(6), 3, 5, columns=COLUMNS, resume=True) as writer:
        assert not len(writer.missing)
    for other in ({}, {**COLUMNS, "object_ids": ("int64", (3,))}):
        with pytest.raises(DataError, match="begun with columns"), FeatureStore.create(
            tmp_path / "s.h5", INFO, ids(6), 3, 5, columns=other, resume=True
        ):  # fmt: skip
            pass


@many
@given(row=st.integers(0, 5), where=st.sampled_from(["object_ids", "nms_threshold"]), data=st.data())
def test_a_flipped_bit_of_a_column_is_found(tmp_path: Path, row: int, where: str, data: Any) -> None:
    path = tmp_path / "s.h5"
    store = with_columns(path, overwrite=True)
    size = {"object_ids": 12, "nms_threshold": 4}[where]
    at = store._header.offsets[where] + row * size + data.draw(st.integers(0, size - 1))
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    assert FeatureStore.open(path).verify() == [
        f"image 'image-{row}' (row {row}) does not match its checksum"
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"boxes": ("int32", ())}, "'boxes' of int32 cannot be stored"),
        ({"a/b": ("int32", ())}, "cannot be stored"),
        ({"words": ("S9", ())}, "cannot be stored"),
    ],
)
def test_bad_columns(tmp_path: Path, columns: Any, says: str) -> None:
    with pytest.raises(DataError, match=says), FeatureStore.create(
        tmp_path / "s.h5", INFO, ["a"], 1, 1, columns=columns
    ):  # fmt: skip
        pass
    values = values_of(2)
    values["nms_threshold"][1] = NAN
    with pytest.raises(DataError, match="image 'image-1': column 'nms_threshold' has NaN"), FeatureStore.create(
        tmp_path / "s.h5", INFO, ids(2), 3, 5, columns=COLUMNS
    ) as writer:  # fmt: skip
        writer.put([0, 1], *features(2), values)


def test_the_info_of_a_store_without_news_is_as_it_was(tmp_path: Path) -> None:
    """Older versions refuse keys that they do not know."""
    made(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r") as file:
        keys = set(json.loads(file.attrs["info"]))
        assert "columns" not in file
    assert not keys & {"names", "dataset_path", "skipped"}


def test_skipped_images_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    regions, boxes = features(6)
    for _ in range(2):  # the second time there is nothing to do
        with FeatureStore.create(
            path, INFO, ids(6), 3, 5, columns=COLUMNS, resume=True, image_sha256=[str(i) for i in range(6)]
        ) as writer:
            for row in writer.missing:
                if row in (0, 4):
                    writer.skip(row, "no picture")
                else:
                    one = {name: values[[row]] for name, values in values_of(6).items()}
                    writer.put([row], regions[[row]], boxes[[row]], one)
    store = FeatureStore.open(path)
    assert store.image_ids == ("image-1", "image-2", "image-3", "image-5")
    assert store.info.skipped == {"image-0": "no picture", "image-4": "no picture"}
    assert store._header.image_sha256 == ("1", "2", "3", "5")
    np.testing.assert_array_equal(store.regions, regions[[1, 2, 3, 5]])
    np.testing.assert_array_equal(store.columns["object_ids"], values_of(6)["object_ids"][[1, 2, 3, 5]])
    assert store.verify() == []
    assert [found.name for found in tmp_path.iterdir()] == ["s.h5"]
    with pytest.raises(DataError, match="'image-4' was left out when they were made: no picture"):
        store.rows(["image-4"])


@pytest.mark.parametrize("step", ["allocate", "replace", "unlink"])
def test_stopped_while_skipped_images_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "s.h5"

    def fill(writer: Any) -> None:
        for row in writer.missing:
            if row == 2:
                writer.skip(row, "no picture")
            else:
                writer.put([row], *(array[[row]] for array in features(6)))

    def stops(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), FeatureStore.create(path, INFO, ids(6), 3, 5) as writer:  # noqa: PT012
        fill(writer)
        owner = {"allocate": planning, "replace": os, "unlink": Path}[step]
        monkeypatch.setattr(owner, step, stops)
    monkeypatch.undo()
    with FeatureStore.create(path, INFO, ids(6), 3, 5, resume=True) as writer:
        assert writer.missing.tolist() == [2]
        fill(writer)
    store = FeatureStore.open(path)
    assert len(store) == 5
    assert store.verify() == []
    assert not part_of(path).exists()


def test_a_torn_row_whose_picture_is_gone_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with pytest.raises(KeyboardInterrupt), FeatureStore.create(path, INFO, ids(6), 3, 5) as writer:  # noqa: PT012
        writer.put(range(6), *features(6))
        raise KeyboardInterrupt
    with open(part_of(path), "rb+") as file:
        file.seek(read_header(part_of(path)).offsets["regions"])
        file.write(b"torn")
    with FeatureStore.create(path, INFO, ids(6), 3, 5, resume=True) as writer:
        assert writer.missing.tolist() == [0]
        writer.skip(0, "gone")
    assert FeatureStore.open(path).image_ids == tuple(ids(6)[1:])


def test_append_keeps_why_images_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    values, boxes = features(1)
    with FeatureStore.create(path, INFO, ["a", "b"], 3, 5) as writer:
        writer.put([1], values, boxes)
        writer.skip(0, "gone")
    for _ in range(2):  # the second time there is nothing to do
        with FeatureStore.append(path, INFO, ["c", "d"], resume=True) as writer:
            if len(writer.missing):
                writer.put([1], values, boxes)
                writer.skip(2, "gone too")
    store = FeatureStore.open(path)
    assert store.image_ids == ("b", "c")
    assert store.info.skipped == {"a": "gone", "d": "gone too"}
    with FeatureStore.append(path, INFO, ["a"], resume=True) as writer:  # repaired
        writer.put(writer.missing, values, boxes)
    store = FeatureStore.open(path)
    assert store.image_ids == ("b", "c", "a")
    assert store.info.skipped == {"d": "gone too"}


def test_a_cut_off_file_with_many_names_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    info = INFO.model_copy(update={"names": {"objects": tuple(map(str, range(30_000)))}})
    with FeatureStore.create(path, info, ids(2), 3, 500, columns=COLUMNS) as writer:
        writer.put([0, 1], *features(2, 3, 500), values_of(2))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cut off.*'image-1' and 0 after it are lost"):
        FeatureStore.open(path)
