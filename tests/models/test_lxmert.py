"""Loading LXMERT from everywhere it comes from, and scoring pairs within a memory budget."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import BertConfig, BertModel, LxmertConfig, LxmertForPreTraining

from tiir.errors import ConfigError, DataError, ModelError
from tiir.features import FeatureInfo, FeatureStore
from tiir.models import load
from tiir.models.base import ModelInfo
from tiir.models.lxmert import LxmertMatcher, load_matcher
from tiir.models.pairs import PairScorer
from tiir.models.scratch import new_lxmert

WORDS = "a the man woman dog cat red blue green runs sits on in with grass water street two people".split()  # noqa: SIM905
WIDTH, REGIONS, IMAGES = 12, 5, 7


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lxmert") / "tiny"
    new_lxmert(
        [" ".join(WORDS)], out, feature_width=WIDTH, vocabulary=100, text_length=40, width=16, heads=2,
        language_layers=1, vision_layers=1, cross_layers=2,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("features") / "features.h5"
    ids = [f"i{n}" for n in range(IMAGES)]
    with FeatureStore.create(
        path, FeatureInfo(extractor="test"), ids, REGIONS, WIDTH, dtype="float32"
    ) as writer:
        boxes = np.sort(draw.random((IMAGES, REGIONS, 2, 2)), axis=2).reshape(IMAGES, REGIONS, 4)
        writer.put(np.arange(IMAGES), draw.normal(size=(IMAGES, REGIONS, WIDTH)), boxes)
    return FeatureStore.open(path)


def sentences(n: int, seed: int = 0, longest: int = 20) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, longest))) for _ in range(n)]


@torch.no_grad()
def plain(directory: Path, store: FeatureStore, captions: list[str], rows: list[int]) -> np.ndarray[Any, Any]:
    matcher, tokenizer = load_matcher(str(directory))
    tokens = tokenizer(captions, padding=True, truncation=True, max_length=40, return_tensors="pt")
    regions, boxes = map(torch.from_numpy, store.read(np.array(rows)))
    m = len(captions)
    scores = [
        matcher(tokens["input_ids"], tokens["attention_mask"], r.expand(m, -1, -1), b.expand(m, -1, -1))
        for r, b in zip(regions, boxes, strict=True)
    ]
    return torch.stack(scores).numpy()


def test_block_and_pairs_equal_the_plain_forward(tiny: Path, store: FeatureStore) -> None:
    captions = [*sentences(9), "a dog", "a dog", " ".join(WORDS * 3)]  # repeated; longer than the limit
    order = [4, 0, 6, 2]
    scorer = load(f"lxmert:{tiny}").bind(captions, [f"i{n}" for n in order], store)
    expected = plain(tiny, store, captions, order)
    images, columns = np.arange(4), np.arange(len(captions))
    np.testing.assert_allclose(scorer.score_block(images, columns), expected, atol=1e-4)
    some_images, some_captions = np.array([2, 0, 2]), np.array([5, 1, 5, 0])
    np.testing.assert_allclose(
        scorer.score_block(some_images, some_captions),
        expected[np.ix_(some_images, some_captions)],
        atol=1e-4,
    )
    draw = np.random.default_rng(1)
    rows, cells = draw.integers(0, 4, 50), draw.integers(0, len(captions), 50)
    np.testing.assert_allclose(scorer.score_pairs(rows, cells), expected[rows, cells], atol=1e-4)
    assert scorer.score_pairs(rows[:0], cells[:0]).shape == (0,)
    assert scorer.score_block(images, columns[:0]).shape == (4, 0)


class LiveBytes(TorchDispatchMode):
    """The bytes of the tensors alive that were made under it, and their peak; views of a model's weights are none."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = {weights.untyped_storage().data_ptr() for weights in model.state_dict().values()}

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        self.seen.discard(key)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if (key := storage.data_ptr()) and key not in self.seen:
                    self.seen.add(key)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, key, storage.nbytes())
        return out


class Regions:
    """What a PairScorer asks of a FeatureStore, in memory."""

    def __init__(self, images: int, regions: int, width: int, seed: int) -> None:
        self.n_regions, self.width, draw = regions, width, np.random.default_rng(seed)
        self.regions = draw.normal(size=(images, regions, width)).astype(np.float32)
        corners = np.sort(draw.random((images, regions, 2, 2), np.float32), axis=2)
        self.boxes = corners.reshape(images, regions, 4)

    def rows(self, image_ids: list[int]) -> np.ndarray[Any, Any]:
        return np.asarray(image_ids)

    def read(self, rows: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return self.regions[rows], self.boxes[rows]


@pytest.mark.slow
@settings(max_examples=20)
@given(data=st.data())
def test_memory_stays_within_its_budget_and_changes_no_score(data: st.DataObject) -> None:
    draw = data.draw
    heads = draw(st.sampled_from([1, 2, 8, 16]))
    config = LxmertConfig(
        vocab_size=30, hidden_size=heads * draw(st.sampled_from([2, 4, 8])), num_attention_heads=heads,
        intermediate_size=draw(st.sampled_from([4, 64, 256])), max_position_embeddings=32,
        l_layers=draw(st.integers(0, 2)), r_layers=draw(st.integers(0, 2)), x_layers=draw(st.integers(1, 3)),
        visual_feat_dim=draw(st.sampled_from([1, 16, 256])),
    )  # fmt: skip
    torch.manual_seed(0)
    matcher = LxmertMatcher(config).eval()
    seed, n_images = draw(st.integers(0, 99)), draw(st.integers(1, 12))
    store: Any = Regions(n_images, draw(st.integers(1, 20)), config.visual_feat_dim, seed)
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=30))
    tokens = [
        np.random.default_rng(seed + n).integers(1, 30, length).tolist() for n, length in enumerate(lengths)
    ]
    info, images = ModelInfo("m", "", "cpu", "float32", ""), list(range(n_images))
    with pytest.raises(ConfigError) as problem:
        PairScorer(matcher, info, tokens, images, store, memory=1)
    needed = int("".join(filter(str.isdigit, problem.value.hint or "")))
    memory = needed * draw(st.integers(10, 40)) // 10
    little = PairScorer(matcher, info, tokens, images, store, memory=memory)
    everything = PairScorer(matcher, info, tokens, images, store, memory=1 << 30)
    block = np.arange(n_images), np.arange(len(tokens))
    with LiveBytes(matcher) as live:
        scores = little.score_block(*block)
    assert 0 < live.peak <= memory
    np.testing.assert_allclose(scores, everything.score_block(*block), atol=1e-4)


def test_too_little_memory_says_how_much_is_needed(tiny: Path, store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="does not hold one pair") as problem:
        load(f"lxmert:{tiny}").bind(["a dog"], ["i0"], store, memory=1000)
    needed = int("".join(filter(str.isdigit, problem.value.hint or "")))
    scorer = load(f"lxmert:{tiny}").bind(["a dog"], ["i0"], store, memory=needed)
    assert np.isfinite(scorer.score_block(np.array([0]), np.array([0]))).all()


def test_wrong_width_and_missing_image_are_named(tiny: Path, store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="i99"):
        load(f"lxmert:{tiny}").bind(["a dog"], ["i0", "i99"], store)
    path = tmp_path / "wide.h5"
    with FeatureStore.create(
        path, FeatureInfo(extractor="test"), ["x"], 2, WIDTH + 1, dtype="float32"
    ) as writer:
        writer.put(np.array([0]), np.zeros((1, 2, WIDTH + 1)), np.tile([0.0, 0.0, 1.0, 1.0], (1, 2, 1)))
    with pytest.raises(ModelError, match="width 12, these have 13"):
        load(f"lxmert:{tiny}").bind(["a dog"], ["x"], FeatureStore.open(path))


def test_save_and_load_round_trip(tiny: Path, tmp_path: Path) -> None:
    matcher, tokenizer = load_matcher(str(tiny))
    matcher.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = load_matcher(str(tmp_path))
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in matcher.state_dict().items())
    assert {key.split(".")[0] for key in state} == {"lxmert", "match_head"}
    assert any(key.startswith("match_head.logit_fc.3") for key in state)


def test_a_checkpoint_of_the_study_loads(tiny: Path, tmp_path: Path) -> None:
    """The study saved pytorch_model.bin with `lxmert.*` and `match_head.logit_fc.*`."""
    matcher, tokenizer = load_matcher(str(tiny))
    tokenizer.save_pretrained(tmp_path)
    matcher.config.save_pretrained(tmp_path)
    torch.save(matcher.state_dict(), tmp_path / "pytorch_model.bin")
    again, _ = load_matcher(str(tmp_path))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in matcher.state_dict().items())


@pytest.fixture(scope="module")
def pretrained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as unc-nlp/lxmert-base-uncased's, small."""
    out = tmp_path_factory.mktemp("lxmert") / "pretrained"
    shutil.copytree(tiny, out)
    (out / "model.safetensors").unlink()
    config = LxmertConfig.from_pretrained(tiny)
    config.num_qa_labels, config.num_object_labels, config.num_attr_labels = 3, 4, 5
    torch.manual_seed(0)
    LxmertForPreTraining(config).save_pretrained(out)
    return out


def test_zero_shot_uses_the_head_of_the_pretraining(pretrained: Path, store: FeatureStore) -> None:
    model = LxmertForPreTraining.from_pretrained(pretrained).eval()
    scorer = load(f"lxmert:{pretrained}").bind(["a dog runs"], ["i0", "i3"], store)
    tokens = load(f"lxmert:{pretrained}").tokenizer(["a dog runs"] * 2, return_tensors="pt")
    regions, boxes = map(torch.from_numpy, store.read(np.array([0, 3])))
    with torch.no_grad():
        no, yes = model(
            input_ids=tokens["input_ids"], visual_feats=regions, visual_pos=boxes,
            token_type_ids=torch.zeros_like(tokens["input_ids"]),
        ).cross_relationship_score.unbind(1)  # fmt: skip
    found = scorer.score_block(np.arange(2), np.array([0]))[:, 0]
    np.testing.assert_allclose(found, (yes - no).numpy(), atol=1e-4)


def test_training_starts_from_the_pretrained_with_a_new_head(pretrained: Path) -> None:
    matcher, _ = load_matcher(str(pretrained), new_head=True)
    assert matcher.match_head is not None
    assert matcher.cls is None


def test_language_layers_come_from_a_bert(tiny: Path, store: FeatureStore, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=120, hidden_size=16, num_attention_heads=2, intermediate_size=64, num_hidden_layers=3,
        max_position_embeddings=30,
    )  # fmt: skip
    torch.manual_seed(1)
    bert = BertModel(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    load_matcher(str(tiny))[1].save_pretrained(tmp_path / "bert")
    new_lxmert(
        [], tmp_path / "new", feature_width=WIDTH, language=str(tmp_path / "bert"), width=16, heads=2,
        language_layers=3, vision_layers=0, cross_layers=1,
    )  # fmt: skip
    matcher, tokenizer = load_matcher(str(tmp_path / "new"))
    ids = tokenizer("a dog runs", return_tensors="pt")["input_ids"]
    regions, boxes = map(torch.from_numpy, store.read(np.array([0])))
    with torch.no_grad():
        states = matcher.lxmert(
            input_ids=ids, visual_feats=regions, visual_pos=boxes, token_type_ids=torch.zeros_like(ids),
            output_hidden_states=True, return_dict=True,
        ).language_hidden_states  # fmt: skip
        expected = bert(ids).last_hidden_state
    torch.testing.assert_close(states[2], expected)
    with pytest.raises(ModelError, match="asked for 32"):
        new_lxmert([], tmp_path / "x", feature_width=4, language=str(tmp_path / "bert"), width=32, heads=2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no such directory", "no such model directory"),
        ("no weights", "cannot load"),
        ("cut weights", "cannot load"),
        ("lost weight", "lacks 1 weights"),
        ("other shape", "lacks 1 weights"),
        ("half a head", "lacks 1 weights"),
        ("no head", "no head"),
        ("no tokenizer", "tokenizer"),
        ("another model", "is a bert model"),
        ("no cross layers", "no cross layers"),
    ],
)
def test_a_damaged_directory_is_told(tiny: Path, tmp_path: Path, damage: str, message: str) -> None:
    from safetensors.torch import load_file, save_file

    out = tmp_path / "model"
    shutil.copytree(tiny, out)
    weights, config = out / "model.safetensors", json.loads((out / "config.json").read_text())
    if damage == "no such directory":
        out = tmp_path / "nothing" / "here"
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "other shape":
        kept = load_file(weights)
        kept["lxmert.pooler.dense.bias"] = kept["lxmert.pooler.dense.bias"][:3].clone()
        save_file(kept, weights, metadata={"format": "pt"})
    elif damage in ("lost weight", "half a head", "no head"):
        lost = {
            "lost weight": "lxmert.pooler.dense.bias",
            "half a head": "match_head.logit_fc.0.weight",
            "no head": "match_head",
        }[damage]
        kept = {key: value for key, value in load_file(weights).items() if not key.startswith(lost)}
        save_file(kept, weights, metadata={"format": "pt"})
    elif damage == "no tokenizer":
        for path in out.glob("token*"):
            path.unlink()
    elif damage == "another model":
        BertConfig().save_pretrained(out)
    else:
        (out / "config.json").write_text(json.dumps(config | {"x_layers": 0}))
    with pytest.raises(ModelError, match=message):
        load(f"lxmert:{out}")


def test_bfloat16_keeps_the_head_in_float32(tiny: Path, store: FeatureStore) -> None:
    captions, ids = sentences(30, longest=6), [f"i{n}" for n in range(IMAGES)]
    block = np.arange(IMAGES), np.arange(30)
    exact = load(f"lxmert:{tiny}").bind(captions, ids, store).score_block(*block)
    encoder = load(f"lxmert:{tiny}", device="cpu", precision="bfloat16")
    rough = encoder.bind(captions, ids, store).score_block(*block)
    assert encoder.info.precision == "bfloat16"
    assert 0 < np.abs(rough - exact).max() < 0.2
    distinct = len(set(captions)) * IMAGES
    assert len(np.unique(rough)) > 0.9 * distinct  # a head in bfloat16 would leave about 250 values
