"""Training of LXMERT as a matcher, on region features and transformers' Trainer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, ModelError
from tiir.metrics.ranking import rank_scores
from tiir.metrics.recall import recall
from tiir.models.base import ModelInfo
from tiir.models.loading import caption_limit
from tiir.models.lxmert import load_matcher
from tiir.models.pairs import PairScorer
from tiir.models.scratch import new_lxmert
from tiir.models.source import Source
from tiir.revisions import pinned
from tiir.train.config import LxmertTrainConfig
from tiir.train.negatives import HardNegatives, TruePairs, hard_negatives
from tiir.train.objective import Matching
from tiir.train.pairs import Turns
from tiir.train.regions import BinaryPairs, ContrastivePairs, RegionCollator, Tokens
from tiir.train.trainer import RecallTrainer, begin, run

if TYPE_CHECKING:
    from tiir.features.store import FeatureStore
    from tiir.models.lxmert import LxmertMatcher
    from tiir.scoring.run import Run

__all__ = ["train_lxmert"]

MEMORY = 2 * 1024**3  # bytes of the validation's tensors


def train_lxmert(
    dataset: Dataset,
    config: LxmertTrainConfig,
    *,
    features: FeatureStore,
    out: Path | str,
    validation: Dataset | None = None,
    validation_features: FeatureStore | None = None,
    negatives: Run | None = None,
    resume: bool = False,
) -> Path:
    """Train an LXMERT to tell which captions belong to which images.

    The layers that see one side run once for each image and caption of a batch, the cross layers once for each pair.
    Under torchrun each process takes its share of a batch and the gradients are averaged: the binary objective is then
    that of one process with the whole batch (where all images have the same number of captions in an epoch); the
    negatives of the contrastive one are those of the process.

    Args:
        dataset: training images and captions; no image files are needed.
        config: the model to start from, the objective and TrainingArguments.
        features: region features of the training images.
        out: directory to write the model into; checkpoints and TensorBoard logs go to `out/checkpoints`,
            losses and recalls to `out/history.json`.
        validation: every image is scored against every caption after every epoch; the model with the best rsum is
            kept. The last one if None.
        validation_features: of the validation images; `features` if None.
        negatives: scores of the training data set, from which hard negatives are drawn; no cascade.
        resume: continue from the last whole checkpoint in `out`, from the start if there is none.

    Returns:
        `out`, a model directory: `tiir.models.load("lxmert:OUT")`.

    Raises:
        MissingExtraError: accelerate is not installed.
        ConfigError: a wrong training argument, hard negatives asked for without a Run, features of another extractor
            than those that the model to start from or the validation has, or `out` holds checkpoints and `resume` is
            False.
        DataError: no captions to train or to validate on, images without features, or features of other pictures.
        ModelError: the model to start from cannot be loaded, or reads features of another width.
        RunError: `negatives` is of another data set.
    """
    takes_hard = config.hard_share > 0 or config.hard_partners > 0
    if takes_hard != (negatives is not None):
        given = "a Run of negatives is given" if negatives is not None else "no Run of negatives is given"
        raise ConfigError(
            f"{given}, and hard_share and hard_partners are {config.hard_share} and {config.hard_partners}",
            hint="give --negatives RUN together with hard_share (binary) or hard_partners (contrastive)",
        )
    features.check(dataset)
    if validation is not None:
        validation = _part(validation, config)
        validation_features = validation_features or features
        validation_features.check(validation)
        _same_source(validation_features, features.info.origin, f"{features.path}, to train on, those")
    elif validation_features is not None:
        raise ConfigError("validation features are given, and no validation split", hint="give --validation")
    if negatives is not None:
        negatives.check(dataset)
        if negatives.shortlist is not None:
            raise ConfigError(
                f"{negatives.name} is a cascade: each direction has an order of its own, no one score a pair",
                hint="use its first stage",
            )
    inputs = {
        "features": features.fingerprint,
        "validation_features": None if validation_features is None else validation_features.fingerprint,
        "negatives": None if negatives is None else _identity(negatives),
    }
    out = Path(out)
    arguments, last, source = begin(dataset, config, out, validation=validation, resume=resume, inputs=inputs)
    # DataParallel would tear a batch's pairs apart, and only this attribute keeps the Trainer from it.
    arguments._n_gpu = min(1, arguments.n_gpu)
    if config.scratch is not None:
        language, source = source, Source(str(out / "scratch"))
        shape = {"feature_width": features.width, "seed": arguments.seed, **config.scratch.model_dump()}
        with arguments.main_process_first(desc="writing a new model"):
            if arguments.process_index == 0:
                new_lxmert(dataset.captions, Path(source.name), **shape | {"language": language})
    assert source is not None
    matcher, tokenizer = load_matcher(source, new_head=True)
    for width, of in [
        (features.width, "training"),
        (getattr(validation_features, "width", None), "validation"),
    ]:
        if width not in (None, matcher.config.visual_feat_dim):
            raise ModelError(
                f"{source.name} reads features of width {matcher.config.visual_feat_dim}, the {of} features have {width}",
                hint="extract features with the extractor that the model was trained with",
            )
    if config.dropout is not None:
        _set_dropout(matcher, config.dropout)
    _same_source(
        features, getattr(matcher.config, "region_features", {}), f"{source.name} was trained on those"
    )
    matcher.config.region_features = features.info.origin
    length = caption_limit(matcher, tokenizer)
    assert length is not None  # an LXMERT has positions
    tokens = Tokens(tokenizer, dataset.captions, length)
    true = TruePairs(dataset)
    hard = None if negatives is None else hard_negatives(negatives, dataset, depth=config.hard_depth)
    turns = Turns(dataset, captions=config.captions, seed=arguments.seed)
    pairs = _pairs(config, dataset, true, turns, arguments.seed, hard)
    validate = None
    if validation is not None and validation_features is not None:
        validate = functools.partial(
            _validate, data=validation, features=validation_features, tokenizer=tokenizer, length=length
        )
    trainer = RecallTrainer(
        model=Matching(matcher, config),
        args=arguments,
        train_dataset=pairs,
        data_collator=RegionCollator(dataset, features, tokens, true),
        turns=turns,
        validate=validate,
        early_stopping=config.early_stopping,
    )
    return run(trainer, last, out, matcher, tokenizer, weights=config.weights)


def _pairs(
    config: LxmertTrainConfig,
    dataset: Dataset,
    true: TruePairs,
    turns: Turns,
    seed: int,
    hard: HardNegatives | None,
) -> BinaryPairs | ContrastivePairs:
    if config.objective == "contrastive":
        return ContrastivePairs(dataset, true, turns, seed=seed, hard=hard, partners=config.hard_partners)
    return BinaryPairs(
        dataset, true, turns, negatives=config.negatives, seed=seed, hard=hard, share=config.hard_share
    )


def _part(validation: Dataset, config: LxmertTrainConfig) -> Dataset:
    if config.validation_images is not None:
        validation = validation.subset(range(min(config.validation_images, validation.n_images)))
    if config.validation_captions is not None and validation.n_images:
        validation = validation.first_captions(config.validation_captions)
    return validation


def _identity(run: Run) -> str:
    # A scored Run is known by its plan, an imported one by its day.
    made = run.info.notes.get("plan") or run.info.created
    return f"{run.info.model} {run.info.revision} {run.info.fingerprint} {made}"


def _same_source(features: FeatureStore, seen: Mapping[str, str | None], of: str) -> None:
    if key := features.info.difference(seen):
        raise ConfigError(
            f"{features.path} has features of {key} {features.info.origin[key]}, {of} of {seen[key]}",
            hint=f"extract with {seen['extractor']}{pinned(seen[key])}",
        )


def _set_dropout(matcher: LxmertMatcher, dropout: float) -> None:
    matcher.config.hidden_dropout_prob = matcher.config.attention_probs_dropout_prob = dropout
    for module in matcher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout


def _validate(
    module: Matching, *, data: Dataset, features: FeatureStore, tokenizer: Any, length: int
) -> dict[str, float]:
    matcher = module.matcher
    info = ModelInfo("the model in training", "", str(matcher.device), "float32", "grouped by length")
    ids = tokenizer(list(data.captions), truncation=True, max_length=length, padding=False)["input_ids"]
    scorer = PairScorer(matcher, info, ids, data.image_ids, features, memory=MEMORY)
    scores = scorer.score_block(np.arange(data.n_images), np.arange(data.n_captions))
    return recall(rank_scores(scores, data.positives, empty="exclude"))
