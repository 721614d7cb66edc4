from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from tiir.data.dataset import Dataset
from tiir.train.negatives import HardNegatives, TruePairs
from tiir.train.pairs import Turns
from tiir.train.regions import BinaryPairs, ContrastivePairs, RegionCollator, Tokens


class Words:
    """A tokenizer of one id a letter."""

    pad_token_id = 0

    def __call__(self, texts, *, truncation, max_length, padding):
        return {"input_ids": [[ord(letter) for letter in text][:max_length] for text in texts]}


@pytest.fixture(scope="module")
def data(scene_regions) -> Dataset:
    return scene_regions[0]


def binary(data, **options) -> BinaryPairs:
    return BinaryPairs(data, TruePairs(data), Turns(data, captions=options.pop("captions", None)), **options)


def drawn(pairs) -> list:
    return [row for item in range(len(pairs)) for row in pairs[item]]


def test_tokens_are_those_of_the_tokenizer_padded():
    texts = ["abc", "", "de", "fghijkl"]
    tokens = Tokens(Words(), texts, length=5)
    ids, mask = tokens.batch(np.array([2, 3, 1, 2]))
    assert ids.tolist() == [[100, 101, 0, 0, 0], [102, 103, 104, 105, 106], [0] * 5, [100, 101, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 0, 0, 0], [1] * 5, [0] * 5, [1, 1, 0, 0, 0]]


def test_half_the_pairs_are_negatives_half_of_each_kind_and_none_is_true(data):
    rows = drawn(binary(data, seed=3))
    image, caption, matched = np.array(rows).T
    assert len(rows) == data.n_captions
    assert (TruePairs(data)(image, caption) == matched.astype(bool)).all()
    assert 0.45 < matched.mean() < 0.55
    wrong = matched == 0
    # In the order of the items: where the image was swapped, the caption is still the item's.
    own = np.concatenate([data.captions_of(i) for i in range(data.n_images)])
    home = np.repeat(np.arange(data.n_images), 5)
    swapped_image = image != home
    assert 0.4 < swapped_image[wrong].mean() < 0.6
    assert set(caption[~swapped_image & ~wrong]) <= set(own)


@pytest.mark.parametrize("negatives", [0.0, 0.8])
def test_the_share_of_negatives(data, negatives):
    matched = np.array([row[2] for row in drawn(binary(data, negatives=negatives))])
    assert (1 - matched).mean() == pytest.approx(negatives, abs=0.05)


def test_draws_depend_on_seed_epoch_and_item_only(data):
    one, again, other = binary(data), binary(data), binary(data, seed=1)
    again[7], again[3]  # what was drawn before does not matter
    assert one[5] == again[5]
    assert drawn(one) != drawn(other)
    first = drawn(one)
    one.turns.epoch = again.turns.epoch = 4
    assert drawn(one) == drawn(again) != first


def test_identical_texts_are_no_negatives():
    data = Dataset("x", "train", ["a", "b"], ["0", "1"], ["same", "same"], np.array([0, 1]))
    assert all(matched for _, _, matched in drawn(binary(data, negatives=0.9)))


def test_hard_negatives_are_drawn_by_their_share(data):
    hard = HardNegatives(
        ((data.n_captions - 1) * np.ones((data.n_images, 1))).astype(np.int32),
        ((data.n_images - 2) * np.ones((data.n_captions, 1))).astype(np.int32),
    )
    rows = drawn(binary(data, hard=hard, share=1.0))
    wrong = [(image, caption) for image, caption, matched in rows if not matched]
    assert all(image == data.n_images - 2 or caption == data.n_captions - 1 for image, caption in wrong)
    some = drawn(binary(data, hard=hard, share=0.5))
    wrong = [
        image == data.n_images - 2 or caption == data.n_captions - 1 for image, caption, m in some if not m
    ]
    assert 0.4 < np.mean(wrong) < 0.6


def test_partners_bring_their_own_captions(data):
    hard = HardNegatives(
        np.full((data.n_images, 2), 11, np.int32), np.full((data.n_captions, 2), 7, np.int32)
    )
    pairs = ContrastivePairs(data, TruePairs(data), Turns(data, captions=2), hard=hard, partners=2)
    row = pairs[40]
    assert [image for image, _, _ in row] == [40, 40, 7, int(data.caption_image[11])]
    assert all(data.caption_image[caption] == image for image, caption, _ in row)
    assert row[3][1] == 11


def test_nothing_left_to_confuse_with(data):
    nothing = HardNegatives(np.full((data.n_images, 2), -1), np.full((data.n_captions, 2), -1))
    pairs = ContrastivePairs(data, TruePairs(data), Turns(data, captions=2), hard=nothing, partners=3)
    assert len(pairs[0]) == 2
    assert any(not matched for *_, matched in drawn(binary(data, hard=nothing, share=1.0)))


def collator(data, features) -> RegionCollator:
    return RegionCollator(data, features, Tokens(Words(), data.captions, 40), TruePairs(data))


def test_a_batch_holds_every_image_and_caption_once(scene_regions):
    data, features = scene_regions
    rows = [[(4, 20, True), (4, 21, True), (9, 20, False)], [(2, 10, True), (4, 10, False), (2, 799, False)]]
    batch = collator(data, features)(rows)
    assert batch["regions"].shape == (3, features.n_regions, features.width)
    assert torch.equal(batch["regions"], torch.from_numpy(features.read(np.array([2, 4, 9]))[0]))
    assert torch.equal(batch["boxes"], torch.from_numpy(features.read(np.array([2, 4, 9]))[1]))
    captions = np.array([10, 20, 21, 799])
    assert torch.equal(batch["input_ids"], Tokens(Words(), data.captions, 40).batch(captions)[0])
    assert batch["owner"].tolist() == [0, 1, 1, -1]  # the image of 799 is not in the batch
    assert np.array([2, 4, 9])[batch["image"]].tolist() == [4, 4, 9, 2, 4, 2]
    assert captions[batch["caption"]].tolist() == [20, 21, 20, 10, 10, 799]
    assert batch["matched"].tolist() == [1, 1, 0, 1, 0, 0]
    assert batch["true"][1].tolist() == [False, True, True, False]


def test_rows_of_the_store_are_found_by_id(scene_regions):
    data, features = scene_regions
    backwards = data.subset(range(data.n_images)[::-1])
    batch = collator(backwards, features)([[(0, 0, True)]])
    last = features.read(np.array([data.n_images - 1]))[0]
    assert torch.equal(batch["regions"], torch.from_numpy(last))


def test_worker_processes_give_the_same_batches_and_follow_the_epoch(scene_regions):
    data, features = scene_regions
    pairs = binary(data, captions=1)
    load = {"batch_size": 40, "collate_fn": collator(data, features)}
    workers = torch.utils.data.DataLoader(
        pairs, **load, num_workers=1, persistent_workers=True, multiprocessing_context="fork"
    )
    seen = []
    for epoch in range(2):
        pairs.turns.epoch = epoch
        for mine, theirs in zip(torch.utils.data.DataLoader(pairs, **load), workers, strict=True):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
        seen.append(theirs["matched"].tolist())
    assert seen[0] != seen[1]


def test_the_collator_travels_as_the_path_of_its_store(scene_regions):
    data, features = scene_regions
    sent = pickle.dumps(collator(data, features))
    assert features.regions[3, 0].tobytes() not in sent
    assert features.path.name.encode() in sent
    assert pickle.loads(sent)([[(3, 15, True)]])["regions"].shape[0] == 1
