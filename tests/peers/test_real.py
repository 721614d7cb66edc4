"""The same embeddings, real ones, through each tool as its users would use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.peers import others

from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.data.sources import flickr8k, karpathy
from tiir.metrics import graded_run, rank_run, recall
from tiir.metrics.recall import RSUM
from tiir.report.export import export_run
from tiir.scoring.foreign import import_embeddings
from tiir.scoring.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:failed to import `ujson`")]
Loaded = tuple[Run, Dataset, Path]


def cosine(source: Path, data: Dataset, out: Path) -> Run:
    """A Run of embeddings that lie in a folder, of length 1, as CLIP_benchmark makes them."""
    files = source / "image_embeds.npy", source / "text_embeds.npy"
    return import_embeddings(*files, data, "-", out, name=source.name, normalize=True)


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model's vectors of 1,000 photos and 5,000 captions, and its lists in TREC files."""
    folder = tmp_path_factory.mktemp("real")
    data = flickr8k.prepare(shared / "flickr8k", split="test", images=None)
    run = cosine(shared / "runs" / "resnet50-minilm-ft", data, folder / "run")
    export_run(run, data, folder / "trec", format="trec", depth=100)
    return run, data, folder / "trec"


@pytest.fixture(scope="module")
def sides(photos: Loaded) -> list[others.Side]:
    """What the TREC files say, under ids of one length, because ranx compiles anew for every other."""
    _, data, trec = photos
    key = dict(zip(data.image_ids, others.names("i", data.n_images), strict=True))
    key |= dict(zip(data.caption_ids, others.names("c", data.n_captions), strict=True))
    found: list[others.Side] = []
    for side in ("i2t", "t2i"):
        lists: others.Lists = {}
        relevant: others.Relevant = {}
        for line in (trec / f"{side}.run").read_text().splitlines():
            query, _, candidate, _, score, _ = line.split()
            lists.setdefault(key[query], {})[key[candidate]] = float(score)
        for line in (trec / f"{side}.qrels").read_text().splitlines():
            query, _, candidate, _ = line.split()
            relevant.setdefault(key[query], {})[key[candidate]] = 1
        found.append((side, lists, relevant))
    return found


def clip_benchmark(run: Run, data: Dataset) -> dict[str, float]:
    """Its `evaluate`, with a model whose towers look the vectors up."""
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    captions = {caption: n for n, caption in enumerate(data.caption_ids)}
    of_image = [np.flatnonzero(data.caption_image == n) for n in range(data.n_images)]

    class Model:
        encode_image = staticmethod(lambda rows: torch.from_numpy(run.image_embeds[rows.numpy()]))
        encode_text = staticmethod(lambda rows: torch.from_numpy(run.text_embeds[rows.numpy()]))

    def batches() -> Iterator[tuple[Any, list[list[str]]]]:
        for rows in np.array_split(np.arange(data.n_images), 20):
            yield torch.from_numpy(rows), [[data.caption_ids[c] for c in of_image[n]] for n in rows]

    def tokenizer(ids: list[str]) -> Any:
        return torch.tensor([captions[key] for key in ids])

    found = evaluate(Model(), batches(), tokenizer, "cpu", amp=False, recall_k_list=list(others.KS))
    sides = {"i2t": "text", "t2i": "image"}
    return {f"{s}_R@{k}": 100 * found[f"{sides[s]}_retrieval_recall@{k}"] for s in sides for k in others.KS}


@pytest.mark.parametrize("tool", ["tiir", "clip-benchmark", "mteb", "ranx", "ir-measures"])
def test_real_models(
    tool: str, photos: Loaded, sides: Any, peer: Any, documented: Callable[..., None]
) -> None:
    name = peer(tool)
    run, data, _ = photos
    ours = recall(rank_run(run, data))
    theirs = {
        "tiir": lambda: ours,
        "clip-benchmark": lambda: clip_benchmark(run, data),
        "mteb": lambda: others.mteb(sides),
        "ranx": lambda: others.ranx(sides),
        "ir-measures": lambda: others.ir_measures(sides),
    }[tool]()
    documented("Real models", [run.info.model, name], *(f"{theirs[key]:.2f}" for key in RSUM))
    assert all(theirs[key] == pytest.approx(ours[key], abs=6e-4) for key in RSUM)


def test_eccv_caption_on_coco(
    shared: Path, tmp_path: Path, peer: Any, documented: Callable[..., None]
) -> None:
    """Its class of metrics, given every query's best 200 candidates of its 25,000 captions."""
    name = peer("eccv-caption")
    import eccv_caption
    import torch

    metrics = eccv_caption.Metrics()
    data = karpathy.prepare(shared / "coco" / "dataset_coco.json", split="test", images=None)
    run = cosine(shared / "runs" / "coco5k-minilm-standin", data, tmp_path / "run")
    (gallery,) = resolve("eccv", data)
    scores = np.float64(run.image_embeds) @ np.float64(run.text_embeds[gallery.captions]).T
    ids = np.array(data.image_ids, int), np.array(data.caption_ids, int)[gallery.captions]

    def best(matrix: Any, queries: Any, candidates: Any) -> dict[int, list[int]]:
        found = torch.from_numpy(matrix).topk(200).indices.numpy()
        return dict(zip(queries.tolist(), candidates[found].tolist(), strict=True))

    long = {"i2t": best(scores, *ids), "t2i": best(scores.T, *ids[::-1])}
    short = {side: {query: row[:50] for query, row in lists.items()} for side, lists in long.items()}
    five = {"captions_per_image": 5}
    for protocol, function, options in (
        ("coco-5k", metrics.coco_5k_recalls, five),
        ("coco-1k-5fold", metrics.coco_1k_recalls, five),
        ("cxc", metrics.cxc_recalls, {}),
        ("eccv", metrics.eccv_recalls, {}),
    ):
        galleries = resolve(protocol, data, **options)
        low, high = (recall(rank_run(run, data, galleries, ties=t)) for t in ("pessimistic", "optimistic"))
        theirs = function(long, "all", K=10)
        for side in ("i2t", "t2i"):
            assert low[f"{side}_R@10"] - 1e-9 <= 100 * theirs[side] <= high[f"{side}_R@10"] + 1e-9
        ranges = (f"{low[f'{side}_R@10']:.2f} to {high[f'{side}_R@10']:.2f}" for side in theirs)
        documented("COCO", [f"`{protocol}`, R@10"], *ranges, "within")
        if protocol == "coco-1k-5fold":
            fewer = 100 * metrics.coco_1k_recalls(short, "all", K=10)["t2i"]
            assert fewer < low["t2i_R@10"] - 0.1
            documented(
                "Cases that differ",
                [name, "`coco_1k_recalls` of lists of 50, t2i R@10"],
                f"{low['t2i_R@10']:.2f}",
                f"{fewer:.2f}",
                "a list of 50 among 5,000 holds fewer than ten of a fold's thousand; of 200 it is equal",
            )
    ours = graded_run(run, data, (gallery,), ties="optimistic")
    found = metrics.eccv_metrics(long, "all")["eccv_map_at_r"]
    values = {side: ours[f"{side}_mAP@R"].value for side in found}
    assert all(values[side] == pytest.approx(100 * found[side], abs=0.05) for side in found)
    documented(
        "COCO", ["`eccv`, mAP@R"], *(f"{value:.2f}" for value in values.values()), "less than 0.05 apart"
    )
