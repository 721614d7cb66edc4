"""What damaged files have done to the readers once: each of these ended in a traceback, or was believed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tiir.analysis.study_files import read_study
from tiir.data.dataset import Dataset
from tiir.data.download import unpack
from tiir.data.sources import flickr8k, karpathy, oscar
from tiir.errors import DataError, TiirError
from tiir.io import load_npy, read_json, sha256_file, write_json
from tiir.report.chunks import data_script, read_data

DEEP = "[" * 100_000


def pets() -> Dataset:
    return Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))


@pytest.mark.parametrize("votes", ["9" * 400, "-1", "9" * 5000])
def test_votes_that_no_one_gave(tmp_path: Path, votes: str) -> None:
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\ta cat\n")
    for file in ("train", "dev", "test"):
        (tmp_path / f"Flickr_8k.{file}Images.txt").write_text("a.jpg\n")
    (tmp_path / "ExpertAnnotations.txt").write_text(f"a.jpg\ta.jpg#0\t1\t2\t{votes}\n")
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text("")
    with pytest.raises(DataError, match="line 1: votes are not whole numbers"):
        flickr8k.prepare(tmp_path, split="test", images=None)


def test_a_query_without_ground_truth(tmp_path: Path) -> None:
    entry = {"query": 0, "ground_truth": None, "retrieved": ["a dog"]}
    (tmp_path / "study.json").write_text(json.dumps({"i2t": {"hard": [entry]}}))
    assert read_study(tmp_path / "study.json", pets())["retrieved"].tolist() == [[["b0"]]]


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ({(1, 2): ["a cat"]}, "an image id is neither"),
        ({"1": DEEP}, "captions are not valid JSON"),
    ],
)
def test_captions_of_no_image(tmp_path: Path, contents: Any, why: str) -> None:
    torch.save(contents, tmp_path / "test_captions.pt")
    with pytest.raises(DataError, match=why):
        oscar.prepare(tmp_path, split="test", images=None)


def test_an_id_of_five_thousand_digits_is_text(tmp_path: Path) -> None:
    torch.save({"0" + "9" * 5000: ["a cat"]}, tmp_path / "test_captions.pt")
    assert oscar.prepare(tmp_path, split="test", images=None).image_ids[0] == "9" * 5000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cocoid": [[]]}, "has a 'cocoid' that is a list"),
        ({"filepath": 7}, "'filepath' of type str, but a int"),
        ({"dataset": "\ud800"}, "is not valid Unicode"),
    ],
)
def test_records_that_name_nothing(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    image = {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "a cat"}]}
    content = {"images": [image | change], "dataset": change.get("dataset", "coco")}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=why):
        karpathy.prepare(tmp_path / "x.json", split="test", images=None)


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("images", "image_id", [["a"], ["b"]]),
        ("images", "image_id", ["a", None]),
        ("captions", "image", ["x", "y"]),
        ("captions", "caption", [None, None]),
    ],
)
def test_columns_of_another_type(tmp_path: Path, name: str, column: str, values: list[Any]) -> None:
    """Of a file that somebody wrote anew, with its checksum."""
    pets().save(tmp_path)
    path = tmp_path / f"{name}.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values)), path)
    header = read_json(tmp_path / "dataset.json")
    header["files"][name] = sha256_file(path)
    write_json(tmp_path / "dataset.json", header)
    with pytest.raises(DataError, match=rf"{name}\.parquet"):
        Dataset.load(tmp_path)


def _zip_before_its_start(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "abc")
        file.writestr("b.txt", "abc")
    path.write_bytes(path.read_bytes()[20:])  # members begin before the file does
    unpack(path, path.parent / "unpacked")


def _npy_of_two_lines(path: Path) -> None:
    np.save(path, np.eye(2))
    path.write_bytes(path.read_bytes().replace(b"'shape': (2, 2)", b"'shape': (2, (\0\0"))
    load_npy(path)


def _deep_block(path: Path) -> None:
    path.write_text(data_script("captions", 0).replace("0", DEEP))
    read_data(path)


@pytest.mark.parametrize(
    ("name", "read"),
    [("x.zip", _zip_before_its_start), ("x.npy", _npy_of_two_lines), ("captions.js", _deep_block)],
)
def test_files_whose_parts_do_not_fit(tmp_path: Path, name: str, read: Callable[[Path], None]) -> None:
    with pytest.raises(TiirError, match=name):
        read(tmp_path / name)
