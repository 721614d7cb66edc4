"""The small CLIP that ships in the package, and the recipe it was made with."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from tiir.data.sources import scenes
from tiir.metrics.ranking import rank_embeddings
from tiir.metrics.recall import recall
from tiir.models import load
from tiir.train.config import LxmertTrainConfig, read_config
from tiir.train.trainer import training_arguments

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "training" / "scenes-clip.yaml"
SHIPPED = Path(str(files("tiir"))) / "assets" / "scenes-clip"


def test_the_shipped_model_is_small_and_has_the_shape_of_the_recipe():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3_000_000
    scratch = read_config(RECIPE).scratch
    shape = json.loads((SHIPPED / "config.json").read_text())
    assert shape["vision_config"]["image_size"] == scratch.image_size
    assert shape["vision_config"]["patch_size"] == scratch.patch_size
    assert shape["vision_config"]["num_hidden_layers"] == scratch.image_layers
    assert shape["text_config"]["num_hidden_layers"] == scratch.text_layers
    assert shape["text_config"]["max_position_embeddings"] == scratch.text_length
    assert shape["projection_dim"] == scratch.width


@pytest.mark.parametrize("name", ["scenes-lxmert", "flickr8k-lxmert-mini"])
def test_the_recipes_of_lxmert_are_valid(name, tmp_path):
    config = read_config(RECIPE.with_name(f"{name}.yaml"), LxmertTrainConfig)
    assert config.scratch is not None
    assert training_arguments(config, tmp_path, validates=True).metric_for_best_model == "rsum"


@pytest.mark.slow
def test_the_shipped_model_finds_test_scenes(tmp_path):
    data = scenes.prepare(tmp_path)
    assert data.n_images == 1000
    encoder = load(str(SHIPPED), device="cpu")
    images = encoder.encode_images([data.image(i) for i in range(data.n_images)])
    ranks = rank_embeddings(images, encoder.encode_captions(data.captions), data.positives)
    assert 20 <= recall(ranks)["t2i_R@1"] <= 95
