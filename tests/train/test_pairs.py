from __future__ import annotations

import numpy as np
import pytest
import torch

from tiir.data.dataset import Dataset
from tiir.data.sources import scenes
from tiir.train.pairs import Collator, Pairs


def by_position(picture):
    return torch.as_tensor(np.asarray(picture)[:2, :2].astype(np.float32)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return scenes.prepare(tmp_path_factory.mktemp("scenes"), split="val", n=6)


class Words:
    """A tokenizer of one id a word."""

    model_input_names = ("input_ids", "attention_mask")

    def __call__(self, texts, *, padding, truncation, max_length, return_tensors):
        rows = [torch.arange(len(text.split()[:max_length])) for text in texts]
        return {"input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}


def test_all_captions_of_each_picture(data):
    pairs = Pairs(data, by_position)
    assert len(pairs) == 6
    for image in range(6):
        assert sorted(pairs[image]["captions"]) == sorted(data.captions[c] for c in data.captions_of(image))


def test_captions_take_turns_and_all_come_up(data):
    pairs = Pairs(data, by_position, captions=2, seed=1)
    seen = []
    for epoch in range(5):
        pairs.turns.epoch = epoch
        assert len(pairs[3]["captions"]) == 2
        seen += pairs[3]["captions"]
    assert sorted(seen) == sorted([data.captions[c] for c in data.captions_of(3)] * 2)


def test_the_turns_depend_on_the_seed_only(data):
    def captions(seed):
        return [Pairs(data, by_position, captions=1, seed=seed)[i]["captions"] for i in range(6)]

    assert captions(0) == captions(0) != captions(1)


def test_pictures_without_captions_are_left_out(data):
    keep = data.caption_image != 2
    columns = [c for c in range(data.n_captions) if keep[c]]
    fewer = Dataset(
        "x",
        "val",
        data.image_ids,
        [data.caption_ids[c] for c in columns],
        [data.captions[c] for c in columns],
        data.caption_image[columns],
        data.image_root,
        data.image_paths,
    )
    pairs = Pairs(fewer, by_position)
    assert pairs.turns.images.tolist() == [0, 1, 3, 4, 5]
    assert set(pairs[2]["captions"]) == {data.captions[c] for c in data.captions_of(3)}
    assert torch.equal(pairs[2]["pixel_values"], by_position(data.image(3)))


def test_cached_pictures_are_the_same(data):
    plain, cached = Pairs(data, by_position), Pairs(data, by_position, cache=True)
    assert all(torch.equal(plain[i]["pixel_values"], cached[i]["pixel_values"]) for i in range(6))


def test_batch_names_the_owner_of_each_caption(data):
    pairs = Pairs(data, by_position, captions=2)
    batch = Collator(Words(), length=4)([pairs[4], pairs[1], pairs[0]])
    assert batch["pixel_values"].shape == (3, 3, 2, 2)
    assert batch["owner"].tolist() == [0, 0, 1, 1, 2, 2]
    assert batch["input_ids"].shape[0] == 6
    assert batch["input_ids"].shape[1] <= 4
