"""The whole of `tiir setup coco` against a local mirror with a miniature COCO: 20 pictures, the real file layout and zips."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.data.test_download import Server
from tests.models.frcnn.conftest import save_detector  # noqa: F401 - a fixture

from tiir.data.dataset import Dataset
from tiir.features import FeatureStore

Verb = Callable[..., tuple[int, str, str]]
SPLITS = ["train"] * 6 + ["restval"] * 4 + ["val"] * 5 + ["test"] * 5


def mini_coco() -> dict[str, bytes]:
    """Zip files by name."""
    rng = np.random.default_rng(0)
    pictures: dict[str, dict[str, bytes]] = {"train2014": {}, "val2014": {}}
    images = []
    for i, split in enumerate(SPLITS):
        folder = "train2014" if split == "train" else "val2014"
        name = f"COCO_{folder}_{i + 1:012d}.jpg"
        size = [(64, 48), (48, 64)][i % 2]
        raw = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(size).save(raw, "JPEG")
        pictures[folder][f"{folder}/{name}"] = raw.getvalue()
        sentences = [{"raw": f"picture {i} said {n}", "tokens": [], "sentid": 5 * i + n} for n in range(5)]
        images.append(
            {"filepath": folder, "filename": name, "cocoid": i + 1, "split": split, "sentences": sentences}
        )
    karpathy = {"dataset_coco.json": json.dumps({"dataset": "coco", "images": images}).encode()}
    files = {"train2014.zip": pictures["train2014"], "val2014.zip": pictures["val2014"]}
    zips = {}
    for name, members in (files | {"caption_datasets.zip": karpathy}).items():
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as file:
            for member, content in members.items():
                file.writestr(member, content)
        zips[f"/{name}"] = raw.getvalue()
    return zips


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    server = Server()
    server.files = mini_coco()
    sources = tmp_path / "mirror.yaml"
    table = {
        part: [{"url": f"{server.url}/{name}", "bytes": len(server.files[f"/{name}"]), "folder": folder}]
        for part, name, folder in [
            ("train2014", "train2014.zip", ""),
            ("val2014", "val2014.zip", ""),
            ("karpathy", "caption_datasets.zip", "karpathy"),
        ]
    }
    sources.write_text(yaml.safe_dump(table))
    yield server, sources
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.slow
def test_for_clip(mirror: tuple[Server, Path], tmp_path: Path, tiir: Verb) -> None:
    server, sources = mirror
    to = tmp_path / "coco"
    command = ("setup", "coco", "--to", to, "--for", "clip", "--sources", sources)
    code, out, err = tiir(*command, "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert [step["done"] for step in plan] == [False] * 6
    assert plan[0]["fetch"] == len(server.files["/train2014.zip"])
    assert not to.exists()
    assert server.ranges == []

    server.cut = [500, 500]
    code, out, err = tiir(*command)
    assert code == 0, err
    sizes = {split: Dataset.load(to / f"coco-{split}") for split in ("train", "val", "test")}
    assert {split: (data.n_images, data.n_captions) for split, data in sizes.items()} == {
        "train": (10, 50), "val": (5, 25), "test": (5, 25)}  # fmt: skip
    assert sizes["test"].image(0).size in ((64, 48), (48, 64))
    assert not list(to.glob("*.zip"))
    assert not list(to.glob("*.part"))

    asked = len(server.ranges)
    code, out, err = tiir(*command)
    assert code == 0
    assert err.count("there already") == 6
    assert len(server.ranges) == asked

    picture = next((to / "val2014").glob("*.jpg"))
    picture.unlink()
    (to / "coco-val" / "captions.parquet").write_bytes(b"damaged")
    code, out, err = tiir(*command)
    assert code == 0, err
    assert picture.exists()
    assert len(server.ranges) == asked + 1
    assert "download train2014: there already" in err
    assert "download val2014: started" in err
    assert "prepare coco-val: started" in err
    assert Dataset.load(to / "coco-val").n_captions == 25


def test_the_original_studys_captions(mirror: tuple[Server, Path], tmp_path: Path, tiir: Verb) -> None:
    server, sources = mirror
    table = yaml.safe_load(sources.read_text()) | {"oscar": []}
    for name, split in (("train", ("train", "restval")), ("minival", ("val",)), ("test", ("test",))):
        raw = io.BytesIO()
        torch.save({i + 1: json.dumps([f"said of {i}"] * 5) for i, s in enumerate(SPLITS) if s in split}, raw)
        server.files[f"/{name}_captions.pt"] = raw.getvalue()
        table["oscar"].append({"url": f"{server.url}/{name}_captions.pt", "folder": "coco_ir"})
    sources.write_text(yaml.safe_dump(table))
    to = tmp_path / "coco"
    command = ("setup", "coco", "--to", to, "--for", "clip", "--captions", "oscar", "--sources", sources)
    code, _, err = tiir(*command)
    assert code == 0, err
    assert [Dataset.load(to / f"coco-{split}").n_images for split in ("train", "val", "test")] == [10, 5, 5]
    code, _, err = tiir(*command)
    assert err.count("there already") == 6


def test_a_dead_mirror_and_again(mirror: tuple[Server, Path], tmp_path: Path, tiir: Verb) -> None:
    server, sources = mirror
    to = tmp_path / "coco"
    server.status = [200, 403]
    command = ("setup", "coco", "--to", to, "--for", "clip", "--sources", sources)
    code, _, err = tiir(*command)
    assert code == 1
    assert "val2014.zip cannot be fetched: the server answers 403" in err
    assert not (to / "coco-test").exists()
    code, _, err = tiir(*command)
    assert code == 0, err
    assert "download train2014: there already" in err


def test_download_verb(mirror: tuple[Server, Path], tmp_path: Path, tiir: Verb) -> None:
    _, sources = mirror
    code, out, err = tiir(
        "download", "coco", "--to", tmp_path / "c", "--parts", "val2014,karpathy", "--sources", sources
    )
    assert code == 0, err
    assert "val2014.zip, caption_datasets.zip" in out
    assert (tmp_path / "c" / "karpathy" / "dataset_coco.json").is_file()
    code, _, err = tiir(
        "download", "coco", "--to", tmp_path / "c", "--parts", "val2015", "--sources", sources
    )
    assert code == 2
    assert "no part 'val2015'" in err


@pytest.mark.slow
def test_for_lxmert(
    mirror: tuple[Server, Path],
    save_detector: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
    tiir: Verb,
) -> None:
    _, sources = mirror
    to = tmp_path / "coco"
    command = ("setup", "coco", "--to", to, "--for", "lxmert", "--sources", sources,
               "--detector", f"frcnn:{save_detector()}", "--device", "cpu")  # fmt: skip
    code, _, err = tiir(*command)
    assert code == 0, err
    for split, n in (("train", 10), ("val", 5), ("test", 5)):
        store = FeatureStore.open(to / f"coco-{split}-frcnn.h5")
        assert (len(store), store.n_regions) == (n, 36)
        assert store.check(Dataset.load(to / f"coco-{split}")) == n
        assert store.verify() == []
    code, _, err = tiir(*command)
    assert code == 0
    assert err.count("there already") == 9
    (to / "coco-val-frcnn.h5").unlink()
    code, _, err = tiir(*command)
    assert code == 0
    assert err.count("there already") == 8
    assert len(FeatureStore.open(to / "coco-val-frcnn.h5")) == 5
