"""The verbs of the command line, one thin function each; the work is done in the packages."""

from __future__ import annotations

from typing import Annotated

import typer

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

app = typer.Typer(
    help="Text-image retrieval: recall you can trust, and the reasons behind it.\n\n"
    "prepare a data set -> score it with a model (or import scores) -> evaluate -> analyze, compare, report.  Try: tiir demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(download_app, name="download")
app.add_typer(setup_app, name="setup")
app.add_typer(prepare_app, name="prepare")
app.add_typer(features_app, name="features")
app.add_typer(train_app, name="train")
app.add_typer(import_app, name="import")
app.add_typer(reproduce_app, name="reproduce")
app.command("score")(score_command)
app.command("rerank")(rerank_command)
app.command("evaluate")(evaluate_command)
app.command("analyze")(analyze_command)
app.command("compare")(compare_command)
app.command("figures")(figures_command)
app.command("explore")(explore_command)
app.command("report")(report_command)
app.command("export")(export_command)
app.command("run")(run_command)
app.command("demo")(demo_command)
app.command("doctor")(doctor_command)


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
