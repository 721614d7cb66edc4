"""`tiir score`, `tiir rerank`: from a model to a Run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiir.cli.options import (
    Address,
    AsJson,
    DatasetDir,
    Device,
    EngineName,
    Features,
    Memory,
    ModelPrecision,
    Out,
    Overwrite,
    Resume,
    Revision,
    RunDataset,
    Workers,
    memory_of,
    note,
    show,
)
from tiir.errors import ConfigError, several

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiir.engine import Engine
    from tiir.scoring.run import Run

__all__ = ["rerank_command", "score_command"]


def score_command(
    model: Annotated[
        str,
        typer.Argument(
            help="Hub id or directory, such as openai/clip-vit-base-patch32; lxmert:DIR for an LXMERT.",
            show_default=False,
        ),
    ],
    dataset: DatasetDir,
    out: Out,
    features: Features = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="LXMERT: what it may take besides its weights, such as 500MB or 2GB.", show_default="2GB"
        ),
    ] = None,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    revision: Revision = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Dual encoders: images a forward pass, and four times as many captions.",
            show_default="64",
        ),
    ] = None,
    engine: EngineName = None,
    workers: Workers = None,
    address: Address = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Embed every image and every distinct caption once, or score all pairs with an LXMERT, and write a Run.

    \b
    On one machine: tiir score MODEL DATASET -o RUN --workers 4
    On its GPUs:    torchrun --nproc-per-node=4 -m tiir score MODEL DATASET -o RUN
    On a cluster:   tiir score MODEL DATASET -o RUN --engine ray --address auto

    A killed run goes on with --resume, whichever of them it was begun with.
    """
    from tiir.data.dataset import Dataset
    from tiir.features.store import FeatureStore
    from tiir.models import load
    from tiir.scoring.cross import score_cross
    from tiir.scoring.dense import score_dual
    from tiir.scoring.engines import open_engine
    from tiir.scoring.plan import begun_commit
    from tiir.scoring.run import check_run_out

    cross = model.startswith("lxmert:")
    if cross != (features is not None):
        raise ConfigError(
            f"{model} needs the region features of the images" if cross else "--features is for lxmert:DIR",
            hint="give --features STORE, made by `tiir features`" if cross else "leave it out",
        )
    if (batch_size if cross else memory) is not None:
        name, use = ("--batch-size", "--memory") if cross else ("--memory", "--batch-size")
        raise ConfigError(f"{name} does nothing with {model}", hint=f"use {use}, or leave it out")
    check_run_out(out, overwrite=overwrite or resume)
    n_bytes = memory_of(memory or "2GB")
    data = Dataset.load(dataset)
    store = None if features is None else FeatureStore.open(features)
    with open_engine(engine, workers=workers, address=address) as crew:
        if resume:
            revision = revision or begun_commit(out, model)
        loaded: Any = load(model, device=crew.place(device), precision=precision, revision=revision)
        files: Any = {"engine": crew, "resume": resume, "overwrite": overwrite}
        if store is None:
            run = score_dual(loaded, data, dataset, out, batch_size=batch_size or 64, **files)
        else:
            run = score_cross(loaded, data, dataset, store, out, memory=n_bytes, say=_say(crew), **files)
        if crew.first:
            show(f"{run!r} -> {out}")
            _say_cut(run, loaded.max_length)
            show(f"next: tiir evaluate {out}")


def rerank_command(
    run: Annotated[Path, typer.Argument(help="Run directory of the first stage.", show_default=False)],
    model: Annotated[str, typer.Option("--with", help="lxmert:DIR or lxmert:HUB_ID.", show_default=False)],
    features: Annotated[Path, typer.Option(help="Region features of the images.", show_default=False)],
    out: Out,
    depth: Annotated[int, typer.Option(min=1, help="Candidates a query, in both directions.")] = 100,
    mix: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Weight of the LXMERT in the shortlists' order, both scores standardised over all shortlists: "
            "1 its score alone, 0 the first stage's. Choose it on a validation split, not on the test split; "
            "`tiir evaluate --mix` tries others without scoring.",
        ),
    ] = 1.0,
    compare: Annotated[
        Path | None, typer.Option(help="Run of the same LXMERT over all pairs: show what the cascade lost.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="Of the table, as in `tiir evaluate`.")
    ] = None,
    memory: Memory = "2GB",
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    revision: Revision = None,
    engine: EngineName = None,
    workers: Workers = None,
    address: Address = None,
    dataset: RunDataset = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score a Run's shortlists again with an LXMERT, and show recall before and after."""
    import json

    from tiir.data.protocols import default_protocol, resolve
    from tiir.features.store import FeatureStore
    from tiir.metrics.evaluate import evaluate
    from tiir.models import load
    from tiir.report.cascade import cross_table, lost
    from tiir.scoring.cascade import check_all_pairs, rerank
    from tiir.scoring.engines import open_engine
    from tiir.scoring.plan import begun_commit
    from tiir.scoring.run import Run, check_run_out

    if not model.startswith("lxmert:"):
        raise ConfigError(f"--with {model}: only an LXMERT can re-rank", hint=f"--with lxmert:{model}")
    check_run_out(out, overwrite=overwrite or resume)
    if compare is not None and compare.resolve() == out.resolve():
        raise ConfigError(f"--compare {compare} is --out itself", hint="choose another --out")
    n_bytes = memory_of(memory)
    first = Run.load(run)
    data = first.load_dataset(dataset)
    others = [] if compare is None else [Run.load(compare)]
    store = FeatureStore.open(features)
    protocol = protocol or first.info.protocol or default_protocol(data)
    resolve(protocol, data)  # what is wrong is said before the long work
    for other in others:
        other.check(data)
    with open_engine(engine, workers=workers, address=address) as crew:
        if resume:
            revision = revision or begun_commit(out, model)
        encoder: Any = load(model, device=crew.place(device), precision=precision, revision=revision)
        for other in others:
            check_all_pairs(other, encoder.info, store)
        cascade = rerank(
            first,
            data,
            encoder,
            store,
            out,
            depth=depth,
            mix=mix,
            memory=n_bytes,
            engine=crew,
            dataset_path=dataset,
            resume=resume,
            overwrite=overwrite,
            say=_say(crew),
        )
        if not crew.first:
            return
    rows = [evaluate(one, data, protocol, resamples=0) for one in (first, cascade, *others)]
    loss = lost(rows[1], rows[2]) if others else None
    if as_json:
        result = {"runs": [row.to_dict() for row in rows], "lost_against_all_pairs": loss}
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    show(f"{cascade!r} -> {out}", cross_table(rows))
    if loss is not None:
        parts = ", ".join(f"{name.replace('_', ' ')} {value:+.2f}" for name, value in loss.items())
        show(f"lost against all pairs (minus: gained): {parts}")
    _say_cut(cascade, encoder.max_length)
    for row in rows:
        for warning in row.warnings:
            note(f"warning: {row.run}: {warning}")
    show(f"next: tiir evaluate {run} {out}")


def _say_cut(run: Run, max_length: int | None) -> None:
    if cut := run.info.notes["truncated_captions"]:
        note(f"note: {several(cut, 'caption')} cut to the model's {max_length} tokens")


def _say(engine: Engine) -> Callable[[str], None]:
    # Processes of torchrun work together; one of them speaks.
    return note if engine.first else (lambda text: None)
