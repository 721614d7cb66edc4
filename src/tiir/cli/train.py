"""`tiir train`: fine-tune a model, or train a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiir.cli.options import DatasetDir, Out, show

__all__ = ["train_app"]

train_app = typer.Typer(help="Fine-tune a model, or train a small one.", no_args_is_help=True)


@train_app.command("clip")
def train_clip_command(
    dataset: DatasetDir,
    config: Annotated[
        Path,
        typer.Option(
            help="YAML or JSON, such as {model: openai/clip-vit-base-patch32, training: {num_train_epochs: 5}}."
        ),
    ],
    out: Out,
    validation: Annotated[
        Path | None,
        typer.Option(help="Data set directory of the validation split; the best model is chosen on it."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
) -> None:
    """Fine-tune (or train a small) CLIP-type model with the contrastive loss."""
    from tiir.data.dataset import Dataset
    from tiir.scoring.engines.torchrun import is_first
    from tiir.train.clip import train_clip
    from tiir.train.config import TrainConfig, read_config

    settings = read_config(config, TrainConfig)
    held_out = None if validation is None else Dataset.load(validation)
    path = train_clip(Dataset.load(dataset), settings, out=out, validation=held_out, resume=resume)
    if is_first():
        show(f"model -> {path}", f"next: tiir score {path} DATASET --out RUN")


@train_app.command("lxmert")
def train_lxmert_command(
    dataset: DatasetDir,
    features: Annotated[Path, typer.Option(help="Region features of the training images.")],
    config: Annotated[
        Path,
        typer.Option(
            help="YAML or JSON, such as {model: unc-nlp/lxmert-base-uncased, training: {num_train_epochs: 5}}."
        ),
    ],
    out: Out,
    validation: Annotated[
        Path | None,
        typer.Option(help="Data set directory of the validation split; the best model is chosen on it."),
    ] = None,
    validation_features: Annotated[
        Path | None,
        typer.Option(help="Region features of the validation images, if --features has not these."),
    ] = None,
    negatives: Annotated[
        Path | None,
        typer.Option(
            help="Run of the training data set, such as a dual encoder's: hard negatives are drawn from it."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
) -> None:
    """Train LXMERT to match images and captions: matched or not, or contrastive over a batch."""
    from tiir.data.dataset import Dataset
    from tiir.features.store import FeatureStore
    from tiir.scoring.engines.torchrun import is_first
    from tiir.scoring.run import Run
    from tiir.train.config import LxmertTrainConfig, read_config
    from tiir.train.lxmert import train_lxmert

    settings = read_config(config, LxmertTrainConfig)
    path = train_lxmert(
        Dataset.load(dataset),
        settings,
        features=FeatureStore.open(features),
        out=out,
        validation=None if validation is None else Dataset.load(validation),
        validation_features=None if validation_features is None else FeatureStore.open(validation_features),
        negatives=None if negatives is None else Run.load(negatives),
        resume=resume,
    )
    if is_first():
        show(f"model -> {path}", f"next: tiir score lxmert:{path} DATASET --features STORE --out RUN")
