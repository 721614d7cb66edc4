from __future__ import annotations

import numpy as np
import pytest

from tiir.data import protocols
from tiir.data.dataset import Dataset
from tiir.data.protocols import PROTOCOLS, default_protocol, describe, resolve
from tiir.errors import MissingExtraError, ProtocolError


def dataset(n: int, captions: int = 5, name: str = "coco", split: str = "test") -> Dataset:
    own = np.repeat(np.arange(n), captions)
    return Dataset(
        name, split, [f"i{i}" for i in range(n)], [f"c{i}" for i in range(len(own))], ["t"] * len(own), own
    )


def test_own_keeps_any_number_of_captions_in_the_data_sets_order():
    own = np.array([2, 0, 1, 0, 2, 2])
    data = Dataset("d", "test", list("abc"), list("uvwxyz"), ["t"] * 6, own)
    (gallery,) = resolve("own", data)
    assert gallery.captions.tolist() == [0, 1, 2, 3, 4, 5]
    assert gallery.i2t is gallery.t2i
    assert gallery.i2t.image.tolist() == [0, 0, 1, 2, 2, 2]
    assert gallery.i2t.caption.tolist() == [1, 3, 2, 0, 4, 5]
    (cut,) = resolve("own", data, captions_per_image=1)
    assert cut.captions.tolist() == [1, 2, 0]
    assert cut.i2t.image.tolist() == cut.i2t.caption.tolist() == [0, 1, 2]


def test_an_image_without_captions_is_left_to_the_ranks():
    data = Dataset("d", "test", list("ab"), ["u"], ["t"], np.array([0]))
    (gallery,) = resolve("own", data)
    assert gallery.i2t.per_image.tolist() == [1, 0]


def test_five_folds_are_consecutive_thousands():
    folds = resolve("coco-1k-5fold", dataset(5000))
    assert [(f.images[0], f.images[-1], f.captions[0], f.captions[-1]) for f in folds] == [
        (1000 * k, 1000 * k + 999, 5000 * k, 5000 * k + 4999) for k in range(5)
    ]
    assert "5 folds of 1,000 images x 5,000 captions" in describe("coco-1k-5fold", folds)


def test_key_lists(tmp_path):
    data = dataset(1200)
    keys = [f"i{i}" for i in range(1100, 100, -1)]
    file = tmp_path / "test_img_keys_1k.tsv"
    file.write_text("\n".join(f"{key}\tignored" for key in keys) + "\n\n", encoding="utf-8-sig")
    for given in (keys, file, str(file)):
        (gallery,) = resolve("coco-1k-subset", data, keys=given)
        assert gallery.images.tolist() == list(range(1100, 100, -1))
        assert gallery.captions[:6].tolist() == [5500, 5501, 5502, 5503, 5504, 5495]
    cases = [
        (["i1", "nope", "neither"], "2 of 3 images are not in .* 'nope', 'neither'"),
        (["i1", "i1"], "names 2 images, 1 of them distinct"),
        ([], "names 0 images"),
        (["i1"], "needs 1,000 images, .* with these keys gives 1"),
        (tmp_path / "gone", "no such file"),
    ]
    for given, message in cases:
        with pytest.raises(ProtocolError, match=message):
            resolve("coco-1k-subset", data, keys=given)
    with pytest.raises(ProtocolError, match="needs the list"):
        resolve("coco-1k-subset", data)
    with pytest.raises(ProtocolError, match="takes no list"):
        resolve("coco-5k", data, keys=["i1"])


@pytest.mark.parametrize(
    ("protocol", "data", "message"),
    [
        ("coco-5k", dataset(1000), "coco-5k needs 5,000 images, .* has 1,000"),
        ("coco-1k-5fold", dataset(4999), "needs 5,000 images, .* has 4,999"),
        ("coco-5k", dataset(5000, 4), "at least 5 captions an image; 5000 of 5000 .* 'i0' with 4"),
        ("flickr8k", dataset(999, name="flickr8k"), "flickr8k needs 1,000 images"),
        ("coco-1k", dataset(5), "no protocol 'coco-1k'"),
        ("coco-5k", dataset(5000, split="val"), "is of the test split of coco, this is .*coco/val"),
        ("flickr8k", dataset(1000, name="flickr30k"), "is of the test split of flickr8k"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(protocol, data, message):
    with pytest.raises(ProtocolError, match=message):
        resolve(protocol, data)


def test_captions_per_image():
    with pytest.raises(ProtocolError, match="at least 6 captions"):
        resolve("coco-5k", dataset(5000), captions_per_image=6)
    with pytest.raises(ProtocolError, match="captions_per_image=0"):
        resolve("own", dataset(3), captions_per_image=0)
    with pytest.raises(ProtocolError, match="fixed list"):
        resolve("cxc", dataset(3), captions_per_image=5)


def test_defaults():
    assert default_protocol(dataset(5000, name="coco")) == "coco-5k"
    assert default_protocol(dataset(5000, name="coco", split="val")) == "own"
    assert default_protocol(dataset(1000, name="coco")) == "coco-1k-subset"
    assert default_protocol(dataset(999, name="coco")) == "own"
    assert default_protocol(dataset(1000, name="flickr8k")) == "flickr8k"
    assert default_protocol(dataset(1000, 4, name="flickr8k")) == "own"
    assert default_protocol(dataset(1000, name="scenes")) == "own"


def test_the_judged_protocols_refuse_other_data():
    pytest.importorskip("eccv_caption")
    for protocol in ("cxc", "eccv"):
        with pytest.raises(
            ProtocolError, match="25,000 captions of the COCO Karpathy test split; 25,000 are not"
        ):
            resolve(protocol, dataset(10))


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(protocols, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tiir\[coco\]"):
        resolve("cxc", dataset(10))


def test_coco(coco):
    (gallery,) = resolve("coco-5k", coco)
    assert (len(gallery.images), len(gallery.captions)) == (5000, 25010)
    (five,) = resolve("coco-5k", coco, captions_per_image=5)
    assert len(five.captions) == 25000
    assert all(not coco.caption_ids[c].startswith("-") for c in five.captions)
    title = describe("coco-5k", (five,), captions_per_image=5)
    assert title.startswith(
        "coco-5k: 5,000 images x 25,000 captions (the first 5 of each image), COCO Karpathy"
    )
    folds = resolve("coco-1k-5fold", coco)
    assert sum(len(fold.captions) for fold in folds) == 25010
    assert "x 5,000 to 5,004 captions" in describe("coco-1k-5fold", folds)


def test_cxc(coco):
    pytest.importorskip("eccv_caption")
    (gallery,) = resolve("cxc", coco)
    assert (len(gallery.images), len(gallery.captions)) == (5000, 25000)
    assert (len(gallery.image_queries), len(gallery.caption_queries)) == (5000, 24972)
    assert len(gallery.i2t) == len(gallery.t2i) == 35585
    assert np.array_equal(gallery.i2t.image, gallery.t2i.image)
    assert np.array_equal(gallery.i2t.caption, gallery.t2i.caption)
    assert gallery.t2i.per_caption[gallery.caption_queries].min() == 1


def test_eccv(coco):
    pytest.importorskip("eccv_caption")
    (gallery,) = resolve("eccv", coco)
    assert (len(gallery.image_queries), len(gallery.caption_queries)) == (1261, 1332)
    assert (len(gallery.i2t), len(gallery.t2i)) == (22548, 11279)  # two of 22,550 are not in the gallery
    assert gallery.i2t.per_image[gallery.image_queries].max() == 48
    assert gallery.t2i.per_caption[gallery.caption_queries].max() == 19
    # A caption's own image is always among its positives.
    place = {image: i for i, image in enumerate(gallery.images.tolist())}
    pairs = set(zip(gallery.t2i.image.tolist(), gallery.t2i.caption.tolist(), strict=True))
    own = coco.caption_image[gallery.captions]
    assert all((place[own[c]], c) in pairs for c in gallery.caption_queries.tolist())
    assert "1,261 image and 1,332 caption queries" in describe("eccv", (gallery,))


def test_every_protocol_has_one_line():
    assert all(text and "\n" not in text for text in PROTOCOLS.values())
