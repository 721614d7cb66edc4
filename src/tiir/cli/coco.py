"""`tiir download coco` and `tiir setup coco`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiir.cli.options import AsJson, Device, note, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiir.setup import Step

__all__ = ["Sources", "download_app", "setup_app", "step_facts", "step_table"]

download_app = typer.Typer(help="Fetch public data sets.", no_args_is_help=True)
setup_app = typer.Typer(help="From nothing to a data set that is ready.", no_args_is_help=True)

To = Annotated[Path, typer.Option("--to", help="Folder for everything.", show_default=False)]
Sources = Annotated[
    Path | None,
    typer.Option(help="YAML with other addresses, sizes and hashes: a mirror. See docs/coco.md."),
]


@download_app.command("coco")
def download_coco(
    to: To,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--parts",
            help="Separated by commas, or given several times; by default train2014, val2014, annotations, karpathy. oscar: the captions "
            "that the original study copied (its address is no longer sure). vg-names: the detector's class names.",
            show_default=False,
        ),
    ] = None,
    sources: Sources = None,
) -> None:
    """COCO 2014: pictures (20 GB), annotations, Karpathy's captions and splits.

    A broken or killed download goes on where it stopped; every file is checked; what is there is not fetched again.
    """
    from tiir.data.coco import DEFAULT, download, read_sources

    chosen = [part for given in parts or DEFAULT for part in re.split(r"[,\s]+", given) if part]
    fetched = download(to, chosen, read_sources(sources))
    show(f"{', '.join(fetched) or 'nothing to fetch'} -> {to}")


@setup_app.command("coco")
def setup_coco_command(
    to: To,
    purpose: Annotated[
        Literal["clip", "lxmert"],
        typer.Option("--for", help="lxmert: region features too.", show_default=False),
    ],
    captions: Annotated[
        Literal["karpathy", "oscar"], typer.Option(help="Whose captions; oscar: the original study's.")
    ] = "karpathy",
    detector: Annotated[
        str, typer.Option(help="lxmert: frcnn:MODEL or detr:MODEL.")
    ] = "frcnn:unc-nlp/frcnn-vg-finetuned",
    device: Device = "auto",
    sources: Sources = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """COCO with Karpathy's split, ready to train and score: download, prepare train, val and test, extract features.

    Steps whose output is there and valid are skipped, so a killed setup is simply run again.

    Example: tiir setup coco --to data/coco --for clip --dry-run
    """
    from tiir.data.coco import read_sources
    from tiir.setup import coco_steps, do_steps

    table_of_parts = read_sources(sources)

    def plan() -> list[Step]:
        return coco_steps(
            to, purpose, captions=captions, detector=detector, device=device, sources=table_of_parts
        )

    steps = plan()
    if not dry_run:
        do_steps(to, steps, "COCO", note)
        if not as_json:
            show(f"COCO for {purpose} -> {to}")
            return
        steps = plan()
    if as_json:
        typer.echo(json.dumps(step_facts(steps), indent=2))
        return
    show(step_table(f"COCO for {purpose} in {to}", steps))
    note(RATES)


RATES = "expected at 20 MB/s, 100 pictures/s to prepare, and 5 pictures/s of the detector (a GPU with 10 TFLOP/s in float32)"


def step_facts(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Steps, ready for JSON."""
    return [
        {
            "step": s.name,
            "done": s.done,
            "fetch": s.fetch,
            "disk": s.disk,
            "seconds": None if s.seconds is None else round(s.seconds),
        }
        for s in steps
    ]


def step_table(title: str, steps: Sequence[Step]) -> Any:
    """Steps, whether they are done, and what they take, as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    from tiir.setup import disk_needed

    table = Table("step", "state", title=escape(title))
    for name in ("GB to fetch", "GB of disk", "expected"):
        table.add_column(name, justify="right")
    for step in steps:
        table.add_row(
            escape(step.name),
            "there" if step.done else "to do",
            f"{step.fetch / 1e9:.2f}",
            f"{step.disk / 1e9:.2f}" if step.disk or step.seconds is not None else "?",
            "?" if step.seconds is None else f"{step.seconds / 60:.0f} min",
        )
    table.add_section()
    todo = [step for step in steps if not step.done]
    unknown = " and more" if any(step.seconds is None for step in todo) else ""
    table.add_row(
        "all",
        f"{len(todo)} to do",
        f"{sum(step.fetch for step in todo) / 1e9:.2f}",
        f"{disk_needed(steps) / 1e9:.2f}",
        f"{sum(step.seconds or 0 for step in todo) / 60:.0f} min{unknown}",
    )
    return table
