"""`tiir features` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tiir.cli import main
from tiir.data.sources.scenes import prepare
from tiir.features import FeatureStore

Tiir = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tiir(capsys: pytest.CaptureFixture[str]) -> Tiir:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main(["features", *(str(a) for a in arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    prepare(out, split="val", n=6).save(out)
    return out


def test_scenes_from_extraction_to_damage(tiir: Tiir, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "scenes.h5"
    code, said, _ = tiir("extract", scenes, "--extractor", "scenes", "--out", out, "--noise", 0.1)
    assert code == 0
    assert "6 images, 10 regions x 39, float16" in said
    code, said, _ = tiir("info", out, "--json")
    facts = json.loads(said)
    assert (facts["images"], facts["extractor"], facts["notes"]["noise"]) == (6, "scenes", 0.1)
    code, said, _ = tiir("info", out)
    assert "scenes/val" in said
    code, said, _ = tiir("verify", out, "--dataset", scenes)
    assert code == 0
    assert "every image matches" in said
    other = tmp_path / "other"
    prepare(other, split="val", n=6, seed=1).save(other)
    code, _, said = tiir("verify", out, "--dataset", other)
    assert code == 1
    assert "'val-000000'" in said
    assert "is not the picture" in said
    code, _, said = tiir("extract", scenes, "-e", "scenes", "-o", out)
    assert code == 2
    assert "is there already" in said
    raw = bytearray(out.read_bytes())
    raw[-1] ^= 1
    out.write_bytes(raw)
    code, said, _ = tiir("verify", out)
    assert code == 1
    assert "image 'val-000005' (row 5) does not match its checksum" in said
    out.write_bytes(raw[:-1])
    code, _, said = tiir("verify", out)
    assert code == 1
    assert "cut off" in said
    assert "'val-000005'" in said


def test_a_backbone_on_the_grid(tiir: Tiir, scenes: Path, tiny_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.h5"
    code, said, error = tiir(
        "extract", scenes, "-e", f"grid:{tiny_clip}", "-o", out, "--size", 64, "--cells", 2, "--device", "cpu"
    )
    assert code == 0, error
    assert "6 images, 4 regions x 32" in said
    store = FeatureStore.open(out)
    assert store.info.extractor == f"grid:{tiny_clip}"
    assert store.info.notes["map"] == [4, 4]
    code, _, error = tiir("extract", scenes, "-e", f"grid:{tiny_clip}", "-o", tmp_path / "x.h5", "--cells", 6)
    assert code == 1
    assert "--cells 2, or a larger --size" in error


def test_converting_a_study_h5(tiir: Tiir, scenes: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "val_img_frcnn_feats.h5", tmp_path / "store.h5"
    with h5py.File(source, "w") as file:
        for i in range(8):
            file[f"val-{i:06d}/visual_feats"] = np.full((2, 3), i, np.float32)
            file[f"val-{i:06d}/visual_pos"] = np.tile([0, 0, 1, 1], (2, 1)).astype(np.float32)
    code, said, note = tiir("convert", source, "--dataset", scenes, "--out", out, "--colour", "bgr")
    assert code == 0
    assert "6 images, 2 regions x 3, float32" in said
    assert "6 of the source's 8 images" in note
    assert FeatureStore.open(out).regions[5, 0, 0] == 5


@pytest.mark.slow
def test_what_a_user_gets_wrong(tiir: Tiir, scenes: Path, tmp_path: Path) -> None:
    for arguments, exit_code, says in [
        (["extract", scenes, "-e", "frcnn", "-o", tmp_path / "x.h5"], 2, "grid:MODEL, or scenes"),
        (["extract", scenes, "-e", "grid:", "-o", tmp_path / "x.h5"], 2, "grid:MODEL, or scenes"),
        (["extract", scenes, "-e", "scenes", "-o", tmp_path], 2, "name a file"),
        *(
            (
                ["extract", scenes, "-e", "scenes", "-o", tmp_path / "x.h5", option, value],
                2,
                f"{option} does nothing",
            )
            for option, value in [
                ("--cells", 6),
                ("--size", 64),
                ("--device", "cpu"),
                ("--revision", "main"),
                ("--batch-size", 2),
                ("--boxes", 10),
                ("--names", tmp_path),
                ("--on-bad", "skip"),
            ]
        ),
        (
            ["extract", scenes, "-e", "grid:x/y", "-o", tmp_path / "x.h5", "--noise", 0],
            2,
            "--noise does nothing",
        ),
        (
            ["extract", scenes, "-e", "grid:x/y", "-o", tmp_path / "x.h5", "--keep-detections"],
            2,
            "--keep-detections does",
        ),
        (
            ["extract", scenes, "-e", "detr:x/y", "-o", tmp_path / "x.h5", "--names", tmp_path],
            2,
            "--names does nothing",
        ),
        (
            ["extract", scenes, "-e", "detr:x/y", "-o", tmp_path / "x.h5", "--cells", 2],
            2,
            "--cells does nothing",
        ),
        (["convert", tmp_path / "none", "-o", tmp_path / "x.h5"], 1, "no such file"),
        (["verify", tmp_path / "none.h5"], 1, "no such feature store"),
    ]:
        code, _, error = tiir(*arguments)
        assert code == exit_code
        assert says in error


def test_the_regions_of_an_image_are_drawn(tiir: Tiir, scenes: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "scenes.h5", tmp_path / "drawn.png"
    assert tiir("extract", scenes, "-e", "scenes", "-o", store)[0] == 0
    code, said, error = tiir("show", store, "val-000002", "-o", out, "--dataset", scenes, "--top", 3)
    assert code == 0, error
    assert said.splitlines()[1:] == ["  1", "  2", "  3"]
    with Image.open(out) as drawn:
        assert (drawn.format, max(drawn.size)) == ("PNG", 1000)
    other = tmp_path / "other"
    prepare(other, split="val", n=6, seed=1).save(other)
    for arguments, says in [
        (["val-000002"], "--dataset DIR"),
        (["val-000002", "--dataset", other], "is not the picture"),
        (["nobody", "--dataset", scenes], "'nobody'"),
    ]:
        code, _, error = tiir("show", store, *arguments, "-o", tmp_path / "none.png")
        assert code != 0
        assert says in error
    assert not (tmp_path / "none.png").exists()
