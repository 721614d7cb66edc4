"""The verbs of the command line, one thin function each; the work is done in the packages."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tiir import __version__
from tiir.cli.analyze import analyze_command, compare_command
from tiir.cli.coco import download_app, setup_app
from tiir.cli.demo import demo_command
from tiir.cli.doctor import doctor_command
from tiir.cli.evaluate import evaluate_command, export_command
from tiir.cli.explore import explore_command
from tiir.cli.features import features_app
from tiir.cli.figures import figures_command
from tiir.cli.foreign import import_app
from tiir.cli.prepare import prepare_app
from tiir.cli.report import report_command
from tiir.cli.run import reproduce_app, run_command
from tiir.cli.score import rerank_command, score_command
from tiir.cli.train import train_app

__all__ = ["app"]

VERBS: dict[str, dict[str, Any]] = {  # as `tiir --help` shows them: in working order
    "Data": {
        "download": download_app,
        "setup": setup_app,
        "prepare": prepare_app,
        "features": features_app,
    },
    "Scores": {
        "train": train_app,
        "score": score_command,
        "rerank": rerank_command,
        "import": import_app,
    },
    "Numbers": {"evaluate": evaluate_command, "export": export_command},
    "Reasons": {
        "analyze": analyze_command,
        "compare": compare_command,
        "figures": figures_command,
        "report": report_command,
        "explore": explore_command,
    },
    "All of it": {"demo": demo_command, "run": run_command, "reproduce": reproduce_app},
    "This machine": {"doctor": doctor_command},
}


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # typer puts all groups behind all commands
        return [name for verbs in VERBS.values() for name in verbs]


app = typer.Typer(
    cls=_InOrder,
    help="Text-image retrieval: recall you can trust, and the reasons behind it.\n\n"
    "prepare a data set -> score it with a model (or import scores) -> evaluate -> analyze, compare, report.  Try: tiir demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, verbs in VERBS.items():
    for name, verb in verbs.items():
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(verb)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"tiir {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
