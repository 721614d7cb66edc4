"""The other tools' own code behind one signature: a score matrix and each caption's image, to the six recalls.

`scores` is (n_images, n_captions), `own` (n_captions,). Tools that read lists get every query's candidates in the matrix's
order, under ids that sort as that order does ("i00007", "c00031").
"""

from __future__ import annotations

import ast
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

KS = (1, 5, 10)
Lists = dict[str, dict[str, float]]
Relevant = dict[str, dict[str, int]]
Side = tuple[str, Lists, Relevant]


def names(letter: str, n: int) -> list[str]:
    return [f"{letter}{i:05d}" for i in range(n)]


def as_lists(
    scores: Any,
    own: Any,
    *,
    depth: int | None = None,
    images: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> Iterator[Side]:
    """Of both directions: its name, every query's candidates with scores, every query's positives.

    Args:
        scores, own: as above.
        depth: candidates a query, those of the highest scores, best first; where None, all, in the matrix's order.
        images, captions: their ids, where not made up.
    """
    images = images or names("i", scores.shape[0])
    captions = captions or names("c", scores.shape[1])
    relevant: Relevant = {key: {} for key in images}
    for caption, image in zip(captions, own, strict=True):
        relevant[images[image]][caption] = 1
    yield "i2t", _lists(scores, images, captions, depth), relevant
    positive = {
        caption: {images[image]: 1} for caption, image in zip(captions, np.asarray(own).tolist(), strict=True)
    }
    yield "t2i", _lists(scores.T, captions, images, depth), positive


def _lists(matrix: Any, queries: Sequence[str], candidates: Sequence[str], depth: int | None) -> Lists:
    if depth is None or depth >= matrix.shape[1]:
        return {
            query: dict(zip(candidates, row, strict=True))
            for query, row in zip(queries, matrix.astype(float).tolist(), strict=True)
        }
    import torch

    best, places = torch.from_numpy(np.ascontiguousarray(matrix)).topk(depth)
    return {
        query: dict(zip([candidates[i] for i in row], values, strict=True))
        for query, row, values in zip(queries, places.tolist(), best.tolist(), strict=True)
    }


def clip_benchmark(scores: Any, own: Any) -> dict[str, float]:
    """As its `evaluate` does from the score matrix on."""
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    by_caption = torch.from_numpy(np.ascontiguousarray(scores.T))
    positive = torch.zeros_like(by_caption, dtype=torch.bool)
    positive[torch.arange(len(by_caption)), torch.as_tensor(own)] = True
    sides = {"i2t": (by_caption.T, positive.T), "t2i": (by_caption, positive)}
    return {
        f"{side}_R@{k}": 100 * float((batchify(recall_at_k, *pair, 64, "cpu", k=k) > 0).double().mean())
        for side, pair in sides.items()
        for k in KS
    }


def open_clip(images: Any, texts: Any) -> dict[str, float]:
    """`get_clip_metrics` of open_clip's training: from embeddings, the caption of image i at row i.

    Its module imports torchvision, which the function does not use: so the function alone is taken from the
    installed file.
    """
    import torch
    import torch.nn.functional as F

    spec = importlib.util.find_spec("open_clip_train")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'open_clip_train'", name="open_clip_train")
    path = Path(spec.origin).with_name("train.py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    function = next(part for part in body if getattr(part, "name", "") == "get_clip_metrics")
    scope: dict[str, Any] = {"torch": torch, "np": np, "F": F}
    exec(compile(ast.Module([function], []), path, "exec"), scope)
    found = scope["get_clip_metrics"](torch.as_tensor(images), torch.as_tensor(texts), 1.0)
    sides = {"i2t": "image_to_text", "t2i": "text_to_image"}
    return {f"{side}_R@{k}": 100 * float(found[f"{name}_R@{k}"]) for side, name in sides.items() for k in KS}


def mteb(sides: Iterable[Side]) -> dict[str, float]:
    """Hit rate, which mteb rounds to five digits."""
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    return {
        f"{side}_R@{k}": 100 * rates[f"HitRate@{k}"]
        for side, lists, relevant in sides
        for rates in [calculate_retrieval_scores(lists, relevant, KS).hit_rate]
        for k in KS
    }


def ranx(sides: Iterable[Side]) -> dict[str, float]:
    """Hit rate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its compiler
        from ranx import Qrels, Run, evaluate

        names = [f"hit_rate@{k}" for k in KS]
        return {
            f"{side}_R@{k}": 100 * float(rates[f"hit_rate@{k}"])
            for side, lists, relevant in sides
            for rates in [evaluate(Qrels(relevant), Run(lists), names)]
            for k in KS
        }


def ir_measures(sides: Iterable[Side]) -> dict[str, float]:
    """Success@k, by trec_eval."""
    from ir_measures import Success, calc_aggregate

    return {
        f"{side}_R@{k}": 100 * rates[Success @ k]
        for side, lists, relevant in sides
        for rates in [calc_aggregate([Success @ k for k in KS], relevant, lists)]
        for k in KS
    }


def torchmetrics(scores: Any, own: Any) -> dict[str, float]:
    """Hit rate, query by query as its class does."""
    import torch
    from torchmetrics.functional.retrieval import retrieval_hit_rate

    matrix = torch.from_numpy(np.ascontiguousarray(scores))
    positive = torch.as_tensor(own) == torch.arange(len(matrix))[:, None]
    sides = {"i2t": (matrix, positive), "t2i": (matrix.T, positive.T)}
    return {
        f"{side}_R@{k}": 100
        * float(np.mean([float(retrieval_hit_rate(p, t, top_k=k)) for p, t in zip(*pair, strict=True)]))
        for side, pair in sides.items()
        for k in KS
    }


def eccv_caption(sides: Iterable[Side]) -> dict[str, float]:
    """Recall by the package's own function. It takes lists already in order: here by a stable sort."""
    from eccv_caption._metrics import compute_r_at_k

    found = {}
    for side, lists, relevant in sides:
        number = {key: n for n, key in enumerate({**dict.fromkeys(lists), **dict.fromkeys(_all(lists))})}
        ordered = {
            number[query]: [number[key] for key in sorted(scores, key=scores.__getitem__, reverse=True)]
            for query, scores in lists.items()
        }
        positives = {number[query]: [number[key] for key in keys] for query, keys in relevant.items()}
        found |= {f"{side}_R@{k}": 100 * float(compute_r_at_k(ordered, positives, k)) for k in KS}
    return found


def _all(lists: Lists) -> Iterator[str]:
    return (key for scores in lists.values() for key in scores)


# Six recalls of a matrix by each tool, under the name of its distribution.
TOOLS: dict[str, Callable[[Any, Any], dict[str, float]]] = {
    "clip-benchmark": clip_benchmark,
    "mteb": lambda scores, own: mteb(as_lists(scores, own)),
    "ranx": lambda scores, own: ranx(as_lists(scores, own)),
    "ir-measures": lambda scores, own: ir_measures(as_lists(scores, own)),
    "torchmetrics": torchmetrics,
    "eccv-caption": lambda scores, own: eccv_caption(as_lists(scores, own)),
}
