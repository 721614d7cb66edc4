"""The four examples of docs/extending.md, run as they stand there, one after the other in one folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiir import Dataset, FeatureStore, Run, evaluate
from tiir.data.sources import scenes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
EXAMPLES = dict(
    re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and annotations in COCO's JSON, the pictures being Scenes; every example has run."""
    folder = tmp_path_factory.mktemp("extending")
    data = scenes.prepare(folder / "photos", split="test", n=60)
    content = {
        "images": [{"id": n, "file_name": path} for n, path in enumerate(data.image_paths or ())],
        "annotations": [
            {"id": n, "image_id": int(image), "caption": text}
            for n, (image, text) in enumerate(zip(data.caption_image, data.captions, strict=True))
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    for name, code in EXAMPLES.items():
        (folder / name).write_text(code)
        done = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        (folder / name).with_suffix(".out").write_text(done.stdout)
    return folder


def test_four_examples_of_less_than_forty_lines() -> None:
    lines = {name: sum(bool(line.strip()) for line in code.splitlines()) for name, code in EXAMPLES.items()}
    assert list(lines) == ["coco_json.py", "colours.py", "contrast.py", "several.py"]
    assert max(lines.values()) < 40


def test_the_source_makes_a_data_set(folder: Path) -> None:
    data = Dataset.load(folder / "data" / "mine")
    assert (data.n_images, data.n_captions, data.name) == (60, 300, "annotations")
    assert data.prepared_image(0).mode == "RGB"


def test_the_model_is_better_than_chance(folder: Path) -> None:
    data = Dataset.load(folder / "data" / "mine")
    values = evaluate(Run.load(folder / "runs" / "colours"), data, ties="expected", resamples=0).values
    assert values["t2i_R@10"] > 1.5 * 100 * 10 / 60  # 31.7 measured
    assert values["i2t_R@10"] > 1.5 * 100 * (
        1 - (290 / 300) ** 5
    )  # 32.6: one of five captions among ten of 300


def test_the_detector_fills_a_store(folder: Path) -> None:
    store, data = FeatureStore.open(folder / "regions.h5"), Dataset.load(folder / "data" / "mine")
    assert store.check(data) == 60
    assert store.verify() == []
    assert (store.n_regions, store.width) == (36, 12)
    contrast = np.asarray(store.columns["contrast"])
    assert (np.diff(contrast, axis=1) <= 0).all()
    row = store.rows([data.image_ids[3]])
    regions, boxes = store.read(row)
    x0, y0, x1, y1 = (boxes[0, 0] * 192).round().astype(int)
    cell = np.asarray(data.image(3).resize((192, 192)), np.float32)[y0:y1, x0:x1] / 255
    assert np.allclose(regions[0, 0, :3], cell.mean(axis=(0, 1)), atol=1e-3)


def test_the_tag_has_its_recall(folder: Path) -> None:
    assert "several things" in (folder / "several.out").read_text()
    from tiir.analysis.queries import query_table
    from tiir.analysis.slices import slices

    table = query_table(Run.load(folder / "runs" / "colours"), Dataset.load(folder / "data" / "mine"))
    rows = table.index[table["text"].str.contains(r"\b(?:two|three|four|and)\b")]
    made = slices(table, pd.DataFrame({"row": rows, "tag": "several things"}), ks=[10], resamples=0)
    assert made["n"].tolist() == [len(rows)]
    assert made["recall"].iloc[0] == pytest.approx(100 * (table.loc[rows, "rank"] <= 10).mean())
