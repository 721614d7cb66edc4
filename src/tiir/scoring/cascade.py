"""The cascade: a first stage's shortlists, scored again by a cross encoder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tiir.data.dataset import Dataset
from tiir.engine import Engine
from tiir.errors import ConfigError, RunError
from tiir.io import write_json
from tiir.models.base import ModelInfo, PairModel
from tiir.scoring.engines.torchrun import is_first
from tiir.scoring.order import best
from tiir.scoring.pairs import Pairs, pairs_of
from tiir.scoring.plan import tile_of
from tiir.scoring.run import Run
from tiir.scoring.shortlist import Shortlist
from tiir.scoring.tiles import Tiles, cut
from tiir.scoring.work import MEMORY, Say, Work

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore

__all__ = ["check_all_pairs", "remix", "rerank", "shortlists"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BLOCK = 700  # images that a tile touches, or twice as many: it encodes each again
TILE, GPU_TILE = 1 << 14, 1 << 17  # pairs of a tile: minutes of LXMERT-base, which a kill may cost


def shortlists(
    run: Run, depth: int
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The top `depth` captions of every image and the top `depth` images of every caption.

    The scores are those that ranks are counted by; among equal ones the lower position comes first, whatever is
    relevant.

    Returns:
        image, caption, i2t, t2i of the pairs that are on a shortlist, (n_pairs,) each, sorted by image and
        caption; i2t: on its image's, t2i: on its caption's.

    Raises:
        ConfigError: `depth` is below 1.
        RanksError: the Run left pairs unscored.
    """
    if depth < 1:
        raise ConfigError(f"depth {depth}", hint="it must be at least 1")
    pairs = pairs_of(run)
    n_captions = pairs.shape[1]
    queries, found = _top(pairs, depth)
    i2t = queries * n_captions + found
    queries, found = _top(pairs.T, depth)
    t2i = found * n_captions + queries
    key = np.union1d(i2t, t2i)
    return key // n_captions, key % n_captions, np.isin(key, i2t), np.isin(key, t2i)


def _top(pairs: Pairs, depth: int) -> tuple[IntArray, IntArray]:
    n_queries, depth = pairs.shape[0], min(depth, pairs.shape[1])
    found = np.empty((n_queries, depth), np.int64)
    for n, (candidates, _) in enumerate(best(pairs, np.arange(n_queries), depth)):
        found[n] = candidates
    return np.repeat(np.arange(n_queries), depth), found.ravel()


def rerank(
    run: Run,
    dataset: Dataset,
    model: PairModel,
    features: FeatureStore,
    out: Path | str,
    *,
    depth: int = 100,
    mix: float = 1.0,
    memory: int = MEMORY,
    tile: int | None = None,
    engine: Engine | None = None,
    dataset_path: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> Run:
    """Score the shortlists of a Run again with a cross encoder, both directions, and write a cascade Run.

    Every pair that is on a shortlist is scored once (once for all captions with the same text). The Run holds the
    first stage and `shortlist.npz`: in each direction the shortlist of a query comes first, ordered by the
    cross encoder, and the rest keeps the first stage's order. Tiles, kills and engines as in `score_cross`.

    Args:
        run: the first stage: embeddings or scores of the whole data set.
        dataset: the data set of the Run.
        model: from `tiir.models.load("lxmert:NAME")`.
        features: region features of the images.
        out: directory of the new Run.
        depth: candidates a query; all of them where there are fewer.
        mix: weight of the cross encoder in the shortlists' order (see `Shortlist.final`): 1 its score alone. With
            `resume`, a finished Run gets another one without scoring; `remix` tries them out.
        memory, engine, resume, overwrite, say: see `score_cross`.
        tile: pairs of a tile, on average; by the device where None.
        dataset_path: where the data set lies, if it moved since the first stage.

    Raises:
        ConfigError: `depth` or `mix` is out of range.
        DataError: `features` lack an image.
        ModelError: a score is NaN or infinite.
        RanksError: the first stage left pairs unscored.
        RunError: the Run belongs to another data set, or is a cascade; or `out` is taken.
    """
    run.check(dataset)
    out = Path(out)
    if run.shortlist is not None:
        raise RunError(
            f"{run.name} is a cascade itself", hint="re-rank the Run it was made of, or `remix` it"
        )
    if run.path is not None and run.path.resolve() == out.resolve():
        raise RunError(f"{out} is the first stage itself", hint="choose another --out")
    if not 0 <= mix <= 1:
        raise ConfigError(f"mix {mix}", hint="from 0 (first stage) to 1 (cross encoder)")
    work = Work(
        model, dataset, dataset_path or run.info.dataset_path, features, out, memory, "cascade", engine
    )
    image, caption, i2t, t2i = shortlists(run, depth)
    first = pairs_of(run).exact(image, caption)
    # Sorted by block of images, then caption length, then caption.
    n_texts = len(work.texts)
    key = (image // BLOCK * n_texts + work.texts.of_caption[caption]) * BLOCK + image % BLOCK
    key, place = np.unique(key, return_inverse=True)
    images, texts = key // (BLOCK * n_texts) * BLOCK + key % BLOCK, key // BLOCK % n_texts
    size = tile or (TILE if work.plan["device"] == "cpu" else GPU_TILE)
    asked = hashlib.sha256()
    for array in (image, caption, i2t, t2i, first):
        asked.update(array.tobytes())
    work.plan |= {"tile": size, "depth": depth, "shortlists": asked.hexdigest()[:16]}
    parts = cut(work.texts.lengths[texts] + features.n_regions, size)
    keys = [f"pairs-{n:06d}" for n in range(len(parts))]

    def finish(tiles: Tiles, notes: dict[str, Any]) -> None:
        scores = np.concatenate([tile_of(tiles, name) for name in keys])
        short = Shortlist.of(image, caption, scores[place.ravel()], first, i2t, t2i, mix)
        notes |= {
            "depth": depth,
            "mix": mix,
            "order": _order(mix),
            "first_stage": run.info.model_dump(
                include={"model", "revision", "precision", "created", "versions"}
            ),
        }
        info = work.info(f"{run.info.model} > {model.info.name}", notes)
        replace(run, info=info, shortlist=short, path=None).save(out, overwrite=True)

    pairs = [(images[part], texts[part]) for part in parts]
    made = work.run(keys, pairs, finish, engine=engine, resume=resume, overwrite=overwrite, say=say)
    assert made.shortlist is not None
    if (made.shortlist.mix, made.info.notes["mix"]) == (mix, mix):
        return made
    made = remix(made, mix)  # finished earlier, with another weight
    if is_first() and made.shortlist is not None:
        made.shortlist.save(out / "shortlist.npz")
        write_json(out / "run.json", made.info.model_dump())
    return made


def check_all_pairs(run: Run, model: ModelInfo, features: FeatureStore) -> None:
    """Refuse a Run that is not of this cross encoder with these features over all pairs.

    Args:
        run: to compare a cascade with.
        model: of the cascade's cross encoder.
        features: of the cascade.

    Raises:
        RunError: what differs.
    """
    notes, revision = run.info.notes, run.info.revision
    # The revision of a directory is a hash of its content, however its path is written. An old Run may have none.
    hashed = revision is not None and revision.startswith("sha256:")
    same = revision in (None, model.revision) and (hashed or run.info.model == model.name)
    found = notes.get("features", {}).get("fingerprint")
    if run.shortlist is not None or notes.get("share") != 100:
        problem = "did not score all pairs with a cross encoder"
    elif not same:
        problem = f"is of {run.info.model} ({revision}), the cascade of {model.name} ({model.revision})"
    elif found != features.fingerprint:
        problem = f"was scored with other features ({found}) than {features.path} ({features.fingerprint})"
    else:
        return
    raise RunError(
        f"{run.name} {problem}", hint="score all pairs by the same model: `tiir score lxmert:NAME`"
    )


def remix(run: Run, mix: float) -> Run:
    """A cascade with another weight of the cross encoder; nothing is scored or written.

    Args:
        run: a cascade.
        mix: see `rerank`.

    Raises:
        RunError: no cascade, or `mix` is out of range.
    """
    if run.shortlist is None:
        raise RunError(f"{run.name} is not a cascade", hint="make one with `tiir rerank`")
    notes = run.info.notes | {"mix": mix, "order": _order(mix)}
    return replace(
        run, info=run.info.model_copy(update={"notes": notes}), shortlist=replace(run.shortlist, mix=mix)
    )


def _order(mix: float) -> str:
    return (
        "cross encoder"
        if mix == 1
        else f"{1 - mix:g} z(first stage) + {mix:g} z(cross encoder), z over the shortlisted pairs"
    )
