"""Every reader of files that others write, given damaged ones: it reads them, or says in a `TiirError` why not.

`HYPOTHESIS_PROFILE=tiir-long` tries twenty times as many, others each time.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tiir.analysis.study_files import read_study
from tiir.data.coco import WebFile, is_done, read_sources, to_fetch
from tiir.data.dataset import Dataset, Judgements
from tiir.data.download import unpack
from tiir.data.images import open_image
from tiir.data.judgements import read_judgements
from tiir.data.protocols import resolve
from tiir.data.sources import flickr8k, folder, karpathy, oscar, scenes
from tiir.errors import TiirError
from tiir.features.readers import convert
from tiir.features.scenes import scenes_features
from tiir.features.store import FeatureStore
from tiir.io import sha256_file
from tiir.metrics import rank_run
from tiir.report.chunks import data_script, read_data
from tiir.report.folder import check_folder, clear_folder, finish_folder
from tiir.report.judged import JudgementFile
from tiir.scoring.foreign import import_embeddings, import_scores
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shortlist import Shortlist
from tiir.scoring.tiles import Tiles
from tiir.train.config import LxmertTrainConfig, read_config

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "tiir-long"


def fuzzed(examples: int) -> settings:
    """The same examples in every run, unless the profile is the long one."""
    return settings(
        max_examples=examples * (20 if LONG else 1),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# Damage ---------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
TOKENS = [
    b"", b"\0", b"-1", b"9" * 30, b"9" * 5000, b"1e999", b"NaN", b"null", b"true", b"{}", b"[]", b'"', b"'", b",", b"\t",
    b"\n", b"\r", b"../", b"/", b"\\ud800", b"\\u0000", b"\xff\xfe", b"\xf0\x9f\x90\x95", b"[" * 20_000, b'{"a":' * 20_000,
    b"&a [*a]", b"!!python/object/apply:os.abort []", b"2024-99-99", b"(99999999999,)", b"|O", b"#",
]  # fmt: skip
DEEP: list[Any] = [[]]
for _ in range(300):
    DEEP = [DEEP]
VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", "x", "../x", "/x", "\0", "\ud800",
    "a" * 300, "9" * 5000, [], {}, [None], [[]], {"": None}, {"a": {"b": []}}, DEEP,
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes with up to three faults, or the values of a JSON file exchanged."""
    if raw[:1] in (b"{", b"[") and draw(st.booleans()):
        lines = raw.splitlines() if b"\n{" in raw.strip() else [raw]
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = json.dumps(swapped(draw, json.loads(lines[at]))).encode()
        return b"\n".join(lines)
    data = raw
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, min(64, len(data) - at)))
        head, part, tail = data[:at], data[at : at + size], data[at + size :]
        match draw(
            st.sampled_from(["flip", "cut", "delete", "insert", "token", "repeat", "number", "splice"])
        ):
            case "flip":
                data = head + bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in part) + tail
            case "cut":
                data = head
            case "delete":
                data = head + tail
            case "insert":
                data = head + draw(st.binary(max_size=8)) + part + tail
            case "token":
                data = head + draw(st.sampled_from(TOKENS)) + tail
            case "repeat":
                data = head + part * draw(st.sampled_from([2, 100, 3000])) + tail
            case "number":
                form = draw(st.sampled_from(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
                number = draw(st.sampled_from(NUMBERS)) % 256 ** struct.calcsize(form)
                data = head + struct.pack(form, number) + data[at + struct.calcsize(form) :]
            case "splice":
                other = draw(st.integers(0, len(data)))
                data = head + data[other : other + 64] + tail
    return data


def swapped(draw: st.DrawFn, value: Any) -> Any:
    """The value with another one somewhere in it, or without a part of it."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(VALUES))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    copy = dict(value) if isinstance(value, dict) else list(value)
    match draw(st.sampled_from(["go on", "go on", "go on", "leave out", "add"])):
        case "leave out":
            del copy[key]
        case "add" if isinstance(copy, list):
            copy.append(draw(st.sampled_from(VALUES)))
        case "add":
            copy[draw(st.sampled_from(["", "x", "../x", "\0", "images", "format"]))] = draw(
                st.sampled_from(VALUES)
            )
        case _:
            copy[key] = swapped(draw, copy[key])
    return copy


# Readers --------------------------------------------------------------------------------------------------------

CAPTIONS = ["a cat, asleep", "two dogs run", 'a red "boat"', "the moon"]


def data_set() -> Dataset:
    grades = Judgements(
        np.array([0, 1]),
        np.array([1, 3]),
        np.array([1.5, 3], np.float32),
        ["expert", "crowd"],
        [(1, 2), (3, 1)],
    )
    return Dataset(
        "pets", "test", ["a.jpg", "b.jpg"], ["a#0", "a#1", "b#0", "b#1"], CAPTIONS, np.array([0, 0, 1, 1]),
        judgements=grades, skipped=[{"kind": "k", "item": "i", "detail": "d"}], caption_columns={"n": [1, 2, 3, 4]},
    )  # fmt: skip


def kept(data: Dataset, at: Path) -> None:
    """What is prepared can be written, read, and shown."""
    data.save(at / "out", overwrite=True)
    again = Dataset.load(at / "out")
    assert again.fingerprint == data.fingerprint
    repr(again)


def make_karpathy(at: Path) -> None:
    images = [
        {"filename": f"{n}.jpg", "filepath": "val2014", "cocoid": n, "split": split, "imgid": n,
         "sentences": [{"raw": text, "sentid": 10 * n + i, "tokens": text.split()} for i, text in enumerate(CAPTIONS)]}
        for n, split in enumerate(["test", "val", "test"])
    ]  # fmt: skip
    (at / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def make_oscar(at: Path) -> None:
    torch.save({"42": json.dumps(CAPTIONS), 43: CAPTIONS}, at / "test_captions.pt")
    (at / "test_img_keys.tsv").write_text("42\n43\n")


def make_flickr8k(at: Path) -> None:
    names = ["1_a.jpg", "2_b.jpg"]
    (at / "Flickr8k.token.txt").write_text(
        "".join(f"{n}#{i}\t{text}\n" for n in names for i, text in enumerate(CAPTIONS))
    )
    for file in ("train", "dev", "test"):
        (at / f"Flickr_8k.{file}Images.txt").write_text("".join(f"{n}\n" for n in names if file == "test"))
    (at / "ExpertAnnotations.txt").write_text("1_a.jpg\t2_b.jpg#1\t1\t2\t4\n")
    (at / "CrowdFlowerAnnotations.txt").write_text("1_a.jpg\t2_b.jpg#1\t0.66\t2\t1\n")


def make_folder(at: Path) -> None:
    (at / "captions.csv").write_text(
        'image,caption,caption_id,split\na.jpg,"a cat, ""asleep""",1,test\nb.jpg,a dog,2,test\n'
    )
    (at / "captions.tsv").write_text("file\ttext\na.jpg\ta cat\nb.jpg\ta dog\n")
    rows = [
        {"image": "a.jpg", "captions": CAPTIONS, "split": "test"},
        {"image": "b.jpg", "caption": "a dog", "id": 4, "split": "test"},
    ]
    (at / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_folder(at: Path, name: str) -> None:
    kept(folder.prepare(at, split="test", images=None, captions=at / name), at)


def read_dataset(at: Path) -> None:
    """Damage that the checksums show, and damage of the file before they were taken."""
    with suppress(TiirError):
        Dataset.load(at)
    header = at / "dataset.json"
    raw = header.read_bytes()
    try:
        said = json.loads(raw)
        said["files"] = {stem: sha256_file(at / f"{stem}.parquet") for stem in said["files"]}
        header.write_text(json.dumps(said))
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return
    try:
        data = Dataset.load(at)
        repr(data), data.positives, data.captions_of(0), data.subset([0])
    finally:
        header.write_bytes(raw)


def make_run(at: Path) -> None:
    data = data_set()
    data.save(at / "data")
    short = Shortlist.of([0, 1], [1, 3], [2.0, -1.0], [0.5, 0.25], [True, True], [True, False])
    embeds = np.eye(2, 3, dtype=np.float32), np.ones((4, 3), np.float32)
    info = RunInfo.about(data, at / "data", "m", notes={"a": [1]})
    replace(Run(info, *embeds), shortlist=short).save(at / "run")
    Run(info, scores=np.arange(8, dtype=np.float32).reshape(2, 4)).save(at / "matrix")


def read_run(at: Path) -> None:
    data = data_set()
    for name in ("run", "matrix"):
        run = Run.load(at / name)
        repr(run), run.name
        run.load_dataset(at / "data")
        rank_run(run, data, "own")


def make_foreign(at: Path) -> None:
    data = data_set()
    np.save(at / "images.npy", np.eye(2, 3, dtype=np.float32))
    np.save(at / "captions.npy", np.ones((4, 3)))
    (at / "image_ids.txt").write_text("\n".join(data.image_ids))
    (at / "caption_ids.txt").write_text("\n".join(data.caption_ids))
    np.save(at / "scores.npy", np.arange(8, dtype=np.float32).reshape(2, 4))
    labels = np.zeros((2, 4), np.int64)
    labels[data.caption_image, np.arange(4)] = 1
    np.savez(at / "stored.npz", logits=np.ones((2, 4), np.float32), labels=labels)
    np.savez_compressed(at / "study.npz", logits=np.ones((2, 4), np.float32), labels=labels)


def read_foreign(at: Path) -> None:
    data = data_set()
    import_embeddings(at / "images.npy", at / "captions.npy", data, at, at / "out", name="x", overwrite=True)
    for name in ("scores.npy", "stored.npz", "study.npz"):
        import_scores(at / name, data, at, at / "out", name="x", overwrite=True)


def make_study(at: Path) -> None:
    content = {
        "i2t": {"hard": [{"query": 0, "ground_truth": CAPTIONS[:2], "retrieved": [CAPTIONS[2], CAPTIONS[0]]}],
                "easy": [{"query": "a.jpg", "ground_truth": CAPTIONS[:2], "retrieved": CAPTIONS[0]}]},
        "t2i": [{"query": CAPTIONS[3], "ground_truth": "b.jpg", "m1": 0, "m2": 3}],
    }  # fmt: skip
    (at / "study.json").write_text(json.dumps(content))


def make_judged(at: Path) -> None:
    with JudgementFile(at / "judgements.jsonl", data_set()) as judged:
        judged.add(0, 3, True, run="x")
        judged.add(1, 0, False)
        judged.add(0, 3, None)


def read_judged(at: Path) -> None:
    read_judgements(at / "judgements.jsonl", data_set())
    with JudgementFile(at / "judgements.jsonl", data_set()) as judged:
        judged.add(1, 1, True)
        judged.entries()
    assert len(read_judgements(at / "judgements.jsonl", data_set())) >= 1


def make_yaml(at: Path) -> None:
    clip = {
        "scratch": {"width": 64, "heads": 2},
        "captions": 2,
        "training": {"num_train_epochs": 3, "learning_rate": 1e-3},
    }
    (at / "clip.yaml").write_text(yaml.safe_dump(clip))
    (at / "clip.json").write_text(json.dumps(clip))
    (at / "lxmert.yaml").write_text(
        yaml.safe_dump({"model": "x", "objective": "contrastive", "training": {"seed": 1}})
    )
    sources = {"karpathy": [{"url": "https://x.org/a.zip", "bytes": 3, "folder": "k", "sha256": "a" * 64}]}
    (at / "sources.yaml").write_text(yaml.safe_dump(sources))


def make_coco(at: Path) -> None:
    (at / ".tiir").mkdir()
    (at / "a.txt").write_text("abc")
    record = {"url": "https://x.org/a.txt", "bytes": 3, "sha256": "a" * 64, "files": {"a.txt": 3}}
    (at / ".tiir" / "a.txt.json").write_text(json.dumps(record))
    (at / ".tiir" / "b.zip.json").write_text(json.dumps({**record, "url": "https://x.org/b.zip"}))


def read_coco(at: Path) -> None:
    files = [WebFile(url="https://x.org/a.txt", bytes=3), WebFile(url="https://x.org/b.zip", bytes=3)]
    for file in files:
        is_done(at, file)
    to_fetch(at, files)


def make_zip(at: Path) -> None:
    with zipfile.ZipFile(at / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train/a.txt", "abc" * 50)
        file.writestr("b.txt", "abc")


def make_sources(at: Path) -> None:
    rng = np.random.default_rng(0)
    regions = rng.normal(size=(2, 3, 4)).astype(np.float32)
    boxes = np.tile(np.array([0, 0.25, 0.5, 1], np.float32), (2, 3, 1))
    with h5py.File(at / "source.h5", "w") as file:
        for name, values, places in zip("ab", regions, boxes, strict=True):
            file[f"{name}/visual_feats"], file[f"{name}/visual_pos"] = values, places
    for kind, save in (("npz", np.savez), ("zipped", np.savez_compressed)):
        (at / kind).mkdir()
        save(at / kind / "a.npz", visual_feats=regions[0], visual_pos=boxes[0])
    import base64

    def text(array: Any) -> str:
        return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()

    rows = [
        ["1", "20", "30", "3", text(boxes[0] * 20), text(regions[0])],
        ["2", "20", "30", "3", text(boxes[1] * 20), text(regions[1])],
    ]
    (at / "source.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    info = {"extractor": "x"}
    from tiir.features import FeatureInfo

    columns = {"ids": ("int32", (3,))}
    with FeatureStore.create(
        at / "store.h5", FeatureInfo(**info), ["a", "b"], 3, 4, image_sha256=["0" * 64, ""], columns=columns
    ) as writer:
        writer.put([0, 1], regions, boxes, {"ids": np.zeros((2, 3))})


def read_store(at: Path) -> None:
    store = FeatureStore.open(at / "store.h5")
    repr(store), store.verify(), store.rows(store.image_ids[:1]), store.read(np.array([0])), store.fingerprint


def make_scenes(at: Path) -> None:
    data = scenes.prepare(at / "data", split="test", n=2)
    (at / "objects.json").write_text(data.image_columns["objects"][0])


def read_scenes(at: Path) -> None:
    text = (at / "objects.json").read_text(errors="surrogateescape")
    data = replace(data_set(), image_columns={"objects": [text] * 2})
    scenes_features(data, at / "out.h5", overwrite=True)


def make_pictures(at: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(at / "x.jpg", exif=exif)
    picture.save(at / "progressive.jpg", progressive=True)
    picture.convert("CMYK").save(at / "cmyk.jpg")
    picture.convert("RGBA").save(at / "x.png")
    picture.convert("P").save(at / "palette.png", transparency=0)
    Image.fromarray(rng.integers(0, 2**16, (9, 11), np.uint16)).save(at / "grey16.png")
    picture.save(at / "x.webp")
    picture.save(at / "x.gif", save_all=True, append_images=[picture.rotate(90)])
    picture.save(at / "x.bmp")
    picture.save(at / "x.tif")
    picture.save(at / "lzw.tif", compression="tiff_lzw")


def make_site(at: Path) -> None:
    clear_folder(at / "building", keep_thumbs=False)
    clear_folder(at / "site", keep_thumbs=False)
    finish_folder(at / "site", {"tiir": "1", "format": 1})
    (at / "captions.js").write_text(data_script("captions", {"text": CAPTIONS}))


def read_site(at: Path) -> None:
    for name in ("building", "site"):
        with suppress(TiirError):
            check_folder(at / name)
    read_data(at / "captions.js")


def make_tiles(at: Path) -> None:
    with Tiles.open(at / "parts", {"model": "m", "n": [1]}) as tiles:
        tiles.put("a", np.ones(3, np.float32))
    next((at / "parts").glob("a.*.npy")).rename(at / "parts" / "a.0123456789abcdef.npy")


def read_tiles(at: Path) -> None:
    with Tiles.open(at / "parts", {"model": "m", "n": [1]}, resume=True) as tiles:
        for key in sorted(tiles.keys()):
            tiles.get(key)


def make_keys(at: Path) -> None:
    data_set()
    (at / "keys.tsv").write_text("a.jpg\nb.jpg\n")


class Reader(NamedTuple):
    """How to write valid files, how to read them, and which of them to damage."""

    make: Callable[[Path], None]
    read: Callable[[Path], object]
    files: tuple[str, ...]
    examples: int = 40


PICTURES = (
    "x.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "x.png",
    "palette.png",
    "grey16.png",
    "x.webp",
    "x.gif",
    "x.bmp",
    "x.tif",
    "lzw.tif",
)
READERS = {
    "karpathy": Reader(make_karpathy, lambda at: kept(karpathy.prepare(at / "dataset_coco.json", split="test", images=None), at),
                       ("dataset_coco.json",)),
    "oscar": Reader(make_oscar, lambda at: kept(oscar.prepare(at, split="test", images=None), at),
                    ("test_captions.pt", "test_img_keys.tsv")),
    "flickr8k": Reader(make_flickr8k, lambda at: kept(flickr8k.prepare(at, split="test", images=None, on_bad="skip"), at),
                       ("Flickr8k.token.txt", "Flickr_8k.testImages.txt", "ExpertAnnotations.txt", "CrowdFlowerAnnotations.txt")),
    "csv": Reader(make_folder, lambda at: read_folder(at, "captions.csv"), ("captions.csv",)),
    "tsv": Reader(make_folder, lambda at: read_folder(at, "captions.tsv"), ("captions.tsv",)),
    "jsonl": Reader(make_folder, lambda at: read_folder(at, "captions.jsonl"), ("captions.jsonl",)),
    "dataset": Reader(lambda at: data_set().save(at), read_dataset,
                      ("dataset.json", "images.parquet", "captions.parquet", "judgements.parquet", "skipped.parquet")),
    "run": Reader(make_run, read_run, ("run/run.json", "run/image_embeds.npy", "run/shortlist.npz", "matrix/scores.npy")),
    "import": Reader(make_foreign, read_foreign, ("images.npy", "captions.npy", "image_ids.txt", "scores.npy", "stored.npz", "study.npz")),
    "study": Reader(make_study, lambda at: read_study(at / "study.json", data_set()), ("study.json",)),
    "judgements": Reader(make_judged, read_judged, ("judgements.jsonl",)),
    "training": Reader(make_yaml, lambda at: read_config(at / "clip.yaml"), ("clip.yaml",)),
    "training json": Reader(make_yaml, lambda at: read_config(at / "clip.json"), ("clip.json",)),
    "training lxmert": Reader(make_yaml, lambda at: read_config(at / "lxmert.yaml", LxmertTrainConfig), ("lxmert.yaml",)),
    "sources": Reader(make_yaml, lambda at: read_sources(at / "sources.yaml"), ("sources.yaml",)),
    "downloaded": Reader(make_coco, read_coco, (".tiir/a.txt.json", ".tiir/b.zip.json")),
    "zip": Reader(make_zip, lambda at: unpack(at / "x.zip", at / "out"), ("x.zip",), 100),
    "features h5": Reader(make_sources, lambda at: convert(at / "source.h5", at / "out.h5", kind="h5", overwrite=True), ("source.h5",), 100),
    "features npz": Reader(make_sources, lambda at: convert(at / "npz", at / "out.h5", overwrite=True), ("npz/a.npz",)),
    "features zipped": Reader(make_sources, lambda at: convert(at / "zipped", at / "out.h5", overwrite=True), ("zipped/a.npz",)),
    "features tsv": Reader(make_sources, lambda at: convert(at / "source.tsv", at / "out.h5", kind="tsv", overwrite=True), ("source.tsv",)),
    "store": Reader(make_sources, read_store, ("store.h5",), 100),
    "scenes": Reader(make_scenes, read_scenes, ("objects.json",)),
    "site": Reader(make_site, read_site, ("building/building.json", "site/site.json", "captions.js")),
    "tiles": Reader(make_tiles, read_tiles, ("parts/plan.json",)),
    "keys": Reader(make_keys, lambda at: resolve("own", data_set(), keys=at / "keys.tsv"), ("keys.tsv",)),
    **{f"picture {name}": Reader(make_pictures, lambda at, name=name: open_image(at / name), (name,)) for name in PICTURES},
}  # fmt: skip
CASES = [(name, file) for name, reader in READERS.items() for file in reader.files]


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here is about power cuts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a reader's valid files, alone in its own parent."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("fuzz") / "case"
            folders[name].mkdir()
            READERS[name].make(folders[name])
        return folders[name]

    return make


def clean(at: Path) -> None:
    for path in at.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(("name", "file"), CASES, ids=lambda value: str(value).replace("/", "-"))
def test_a_damaged_file_is_read_or_explained(made: Callable[[str], Path], name: str, file: str) -> None:
    at, reader = made(name), READERS[name]
    path = at / file
    raw = path.read_bytes()
    reader.read(at)  # the valid one
    clean(at)
    raw = path.read_bytes() if name != "judgements" else raw
    there = sorted(at.parent.rglob("*"))

    @fuzzed(reader.examples)
    @given(damaged(raw))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reader.read(at)
        except TiirError as problem:
            assert str(problem).strip()  # noqa: PT017
            str(problem).encode("utf-8", "backslashreplace")
        finally:
            clean(at)

    try:
        check()
    finally:
        path.write_bytes(raw)
    assert [p for p in sorted(at.parent.rglob("*")) if not p.name.endswith((".part", ".lock"))] == there
