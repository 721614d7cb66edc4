"""`tiir explore`: the report as a live page, with search, edited captions and judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tiir.cli.options import (
    Device,
    Features,
    FirstCaptions,
    Keys,
    Overwrite,
    Protocol,
    Resamples,
    RunDataset,
    WithoutPositive,
    note,
    show,
)
from tiir.errors import ConfigError, MissingExtraError

__all__ = ["explore_command"]


def explore_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", show_default=False)],
    dataset: RunDataset = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on. One that other machines reach asks for a token.")
    ] = "127.0.0.1",
    judgements: Annotated[
        Path | None,
        typer.Option(
            help="File that judgements are appended to; judgements.jsonl in the first Run if not given.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page's files, to keep; a temporary one if not given.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    features: Features = None,
    with_model: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="lxmert:MODEL to re-rank what is searched, with --features; a cascade brings its own.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        Literal["exact", "faiss"],
        typer.Option(
            help="faiss: search fast and approximately, for hundreds of thousands of images; ranks stay exact. Needs "
            "tiir\\[faiss]."
        ),
    ] = "exact",
    protocol: Protocol = None,
    keys: Keys = None,
    captions_per_image: FirstCaptions = None,
    empty: WithoutPositive = "error",
    resamples: Resamples = 1000,
    overwrite: Overwrite = False,
) -> None:
    """Look at Runs in the browser: as `tiir report`, and search live, edit captions, judge what was retrieved."""
    import contextlib
    import tempfile
    from importlib.util import find_spec

    from tiir.data.protocols import default_protocol, resolve
    from tiir.report.build import build_site
    from tiir.report.judged import JudgementFile
    from tiir.report.live import live_runs
    from tiir.report.search import Search
    from tiir.scoring.run import Run

    try:
        from tiir.report.explore import ended_by_signals, listen, new_token, serve, spare_a_core
        from tiir.report.serve import make_app
    except ImportError as problem:
        raise MissingExtraError(problem.name or "fastapi", "explore") from None

    if index == "faiss" and find_spec("faiss") is None:  # said before the long work
        raise MissingExtraError("faiss-cpu", "faiss")
    loaded = [Run.load(path) for path in runs]
    data = loaded[0].load_dataset(dataset)
    for run in loaded:
        run.check(data)
    protocol = protocol or loaded[0].info.protocol or default_protocol(data)
    galleries = resolve(protocol, data, keys=keys, captions_per_image=captions_per_image)
    file = judgements or runs[0] / "judgements.jsonl"
    if not file.parent.is_dir():
        raise ConfigError(f"--judgements {file}: there is no folder {file.parent}", hint="make it first")
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        bound = stack.enter_context(contextlib.closing(listen(host, port)))
        judged = stack.enter_context(JudgementFile(file, data))
        if judged.torn:
            note(
                f"warning: {file}: the last line was cut off by a crash and is removed ({judged.torn} bytes)"
            )
        folder = site or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tiir-explore-")), "site"
        )
        try:
            build_site(
                loaded,
                data,
                folder,
                protocol=protocol,
                keys=keys,
                captions_per_image=captions_per_image,
                empty=empty,
                resamples=resamples,
                overwrite=overwrite,
                reuse=True,
                say=note,
            )
        except ConfigError as problem:  # in this verb's words
            hint = None if problem.hint is None else problem.hint.replace("--out", "--site")
            raise ConfigError(problem.message.replace("--out", "--site"), hint=hint) from None
        spare_a_core()
        live = live_runs(loaded, data, device=device, features=features, reranker=with_model, say=note)
        search = Search(live, galleries, index=index, say=note)
        token = new_token(host)
        app = make_app(folder, data, search, judged, host=host, token=token)
        show(f"judgements: {file}")
        serve(app, bound, host, token, say=show)
