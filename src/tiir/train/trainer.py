"""What every training shares: its arguments, its directory, resuming, and the best model by rsum."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError, MissingExtraError, ModelError, TiirError
from tiir.io import read_json, remove_leftovers, write_json
from tiir.models.loading import choose_device
from tiir.models.source import Source
from tiir.out import check_out
from tiir.revisions import commit
from tiir.train.config import LxmertTrainConfig, TrainConfig, differences, start_of
from tiir.train.pairs import Turns

__all__ = ["RecallTrainer", "begin", "run"]

HOLDS = {"dataset.json": "data set", "run.json": "Run", "config.json": "model"}


def begin(
    dataset: Dataset,
    config: TrainConfig | LxmertTrainConfig,
    out: Path,
    *,
    validation: Dataset | None,
    resume: bool,
    inputs: Mapping[str, str | None] | None = None,
) -> tuple[TrainingArguments, str | None, Source | None]:
    """Check what can be checked before the long work, and seed all random numbers.

    Args:
        dataset: to train on.
        config: its `training` becomes the TrainingArguments.
        out: the model's directory; `out/training.json` records what a resumed training must share.
        validation: to choose the best model on, or None.
        resume: continue from the last whole checkpoint in `out`.
        inputs: further inputs that a resumed training must share, by name: fingerprints.

    Returns:
        The arguments, the checkpoint to continue from, and the model to start from (see `start_of`): of the hub that of
        the commit that the training was begun with.

    Raises:
        MissingExtraError: accelerate is not installed.
        ConfigError: a wrong training argument, `out` holds something else, or was begun differently.
        DataError: no captions to train on, or to validate on.
        ModelError: the model to start from is not there.
    """
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")
    if not dataset.n_captions:
        raise DataError(f"{dataset!r} has no captions to train on")
    if validation is not None and not validation.n_captions:
        raise DataError(
            f"the validation split, {validation!r}, has no captions", hint="give another --validation"
        )
    last = _last_checkpoint(out / "checkpoints")
    if last and not resume:
        raise ConfigError(
            f"{out} holds checkpoints of an earlier training",
            hint="continue it with --resume, or choose another --out",
        )
    held = next((name for name in HOLDS if (out / name).exists()), None)
    if held and not last:
        raise ConfigError(f"{out} already holds a {HOLDS[held]}", hint="choose another --out")
    check_out(out, "a training", begun=(out / "training.json").exists())
    arguments = training_arguments(config, out / "checkpoints", validates=validation is not None)
    begun = {} if last is None else read_json(out / "training.json", error=ConfigError)
    if not isinstance(begun, dict):
        raise ConfigError(
            f"{out / 'training.json'} is not a record of a training", hint="choose another --out"
        )
    record: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "dataset": dataset.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        **(inputs or {}),
    }
    _check_begun(out, begun, record)
    start = start_of(config)
    source = None if start is None else Source.of(start, commit(start, begun.get("start")))
    record["start"] = None if source is None else source.revision
    _check_begun(out, begun, record)
    if arguments.process_index == 0:
        remove_leftovers(out)
        if last is None:
            write_json(out / "training.json", record)
    set_seed(arguments.seed)
    return arguments, last, source


def _check_begun(out: Path, begun: dict[str, Any], record: dict[str, Any]) -> None:
    # What is not in one of the records counts as the same: an earlier version did not write it.
    for key, before, now in differences({**record, **begun}, {**begun, **record}):
        raise ConfigError(
            f"{out} was begun with another {key}: {before!r}, now it is {now!r}",
            hint="resume with the same, or choose another --out",
        )


class RecallTrainer(Trainer):  # type: ignore[misc]
    """Trainer of a module whose forward pass gives the loss, evaluated by recall.

    Args:
        validate: gives the recalls of the module (unwrapped), in evaluation mode and without gradients.
        turns: told which epoch it is, also after a resume.
        early_stopping: stop after so many evaluations without a better rsum.
        options: of transformers' Trainer.
    """

    def __init__(
        self,
        *,
        validate: Callable[[Any], dict[str, float]] | None,
        turns: Turns,
        early_stopping: int | None,
        **options: Any,
    ) -> None:
        callbacks: list[TrainerCallback] = [_Epochs(turns)]
        if early_stopping is not None:
            callbacks.append(EarlyStoppingCallback(early_stopping))
        # The Trainer only asks whether there is something to evaluate on.
        super().__init__(eval_dataset=None if validate is None else [0], callbacks=callbacks, **options)
        self.validate = validate
        self.stepped = False  # whether a batch has been trained on, now or after a resume

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        """What the module gives."""
        self.stepped = True
        loss: Tensor = model(**inputs)
        return loss

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Recalls, logged and told to the callbacks; under torchrun each process computes them all."""
        assert self.validate is not None
        module = self.accelerator.unwrap_model(self.model)
        module.eval()
        with torch.no_grad():
            values = self.validate(module)
        module.train()
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in values.items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def run(
    trainer: RecallTrainer, last: str | None, out: Path, model: Any, tokenizer: Any, *more: Any, weights: str
) -> Path:
    """Train, then let the main process write the model's parts and `out/history.json`.

    Args:
        trainer: of the model.
        last: the checkpoint to continue from, or None.
        out: the model's directory.
        model, tokenizer, more: what the directory holds.
        weights: precision of the saved model.

    Raises:
        ModelError: the checkpoint cannot be read.
    """
    try:
        trainer.train(resume_from_checkpoint=last)
    except Exception as problem:
        if last is None or trainer.stepped or isinstance(problem, TiirError):
            raise
        # torch.load and transformers raise many kinds on what is damaged, or holds more than tensors and numbers.
        raise ModelError(
            f"cannot continue from {last}: {(str(problem).strip() or type(problem).__name__).splitlines()[0]}",
            hint="delete that folder: --resume then goes on from the checkpoint before it, or from the start",
        ) from problem
    if trainer.is_world_process_zero():
        model.to(getattr(torch, weights))
        if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
            backend.no_padding()  # as the last batch left them, and that depends on where a killed training went on
            backend.no_truncation()
        for part in (model, tokenizer, *more):
            part.save_pretrained(out)
        history = [entry for entry in trainer.state.log_history if "eval_rsum" in entry or "loss" in entry]
        write_json(out / "history.json", [dict(sorted(entry.items())) for entry in history])
    trainer.accelerator.wait_for_everyone()  # when any process returns, the model is there
    return out


def training_arguments(
    config: TrainConfig | LxmertTrainConfig, checkpoints: Path, *, validates: bool
) -> TrainingArguments:
    """TrainingArguments of a configuration, its keys and types checked.

    Args:
        config: its `training` holds what the user set.
        checkpoints: the directory of checkpoints and logs.
        validates: whether there is a validation split.

    Raises:
        ConfigError: unknown keys, wrong values, or evaluations without a validation split.
    """
    if not validates:
        asked = {"early_stopping": config.early_stopping} | {
            f"training.{key}": config.training.get(key) for key in ("eval_strategy", "eval_on_start")
        }
        for key, value in asked.items():
            if value not in (None, False, "no"):
                raise ConfigError(f"{key} needs a validation split", hint="give --validation")
    defaults: dict[str, Any] = {
        "save_strategy": "epoch",
        "eval_strategy": "epoch" if validates else "no",
        "save_total_limit": 2,
        "logging_steps": 50,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": choose_device("auto").type == "cpu",  # said so, bfloat16 is allowed there
        "disable_tqdm": not sys.stderr.isatty(),  # a bar for people, lines for log files
        "report_to": ["tensorboard"] if find_spec("tensorboard") else [],
    }
    ours: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "remove_unused_columns": False,
        "load_best_model_at_end": validates,
        "metric_for_best_model": "rsum" if validates else None,
    }
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    given = {}
    for key, value in config.training.items():
        if key in ours:
            raise ConfigError(f"training.{key} cannot be set: the training decides it", hint="remove it")
        if key not in fields:
            raise ConfigError(
                f"unknown key training.{key}", hint="the keys are those of transformers.TrainingArguments"
            )
        given[key] = _number(key, value, fields[key].default)
    if not 0 <= given.get("seed", 0) < 2**32:
        raise ConfigError(f"training.seed is {given['seed']}", hint="from 0 to 4294967295")
    try:
        return TrainingArguments(**{**defaults, **given, **ours})
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"training: {problem}") from None


def _number(key: str, value: Any, default: Any) -> Any:
    # TrainingArguments takes any type and fails much later; YAML reads 1e-3 as text.
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"training.{key} is {value!r}", hint="true or false")
        return value
    if isinstance(default, (int, float)):
        try:
            number = float(value if not isinstance(value, bool) else "a truth value is no number")
        except (TypeError, ValueError):
            raise ConfigError(f"training.{key} is {value!r}", hint="it must be a number") from None
        # Defaults such as save_steps: 500.0 are floats: a whole number is given on as an int either way.
        if isinstance(default, int) and not number.is_integer() and key != "warmup_steps":
            raise ConfigError(f"training.{key} is {value!r}", hint="it must be a whole number")
        return int(number) if number.is_integer() and isinstance(default, int) else number
    if isinstance(value, str) and key.endswith(("_steps", "_ratio")):
        raise ConfigError(f"training.{key} is the text {value!r}", hint="write a number such as 10 or 0.1")
    return value


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the data which epoch it is, also after a resume."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.turns.epoch = int(state.epoch)


def _last_checkpoint(folder: Path) -> str | None:
    named = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdecimal()]
    whole = [path for path in named if _is_whole(path)]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    # The Trainer writes trainer_state.json last, but not at once; and a power cut may leave any file cut off.
    try:
        read_json(checkpoint / "trainer_state.json")
        weights = list(checkpoint.glob("*.safetensors"))
        for path in weights:
            with safe_open(path, "pt"):
                pass
    except (TiirError, OSError, SafetensorError):
        return False
    return bool(weights) and all(map(is_zipfile, checkpoint.glob("*.pt*")))
