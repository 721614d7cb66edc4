"""Figures of a paper's size: recall at k, ranks, one model against another, slices.

Every function draws from plain tables and gives a matplotlib Figure; `save` writes it. Colours are those of Okabe
and Ito, which the colour-blind tell apart, and nothing is said by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiir.errors import ConfigError
from tiir.io import atomic_write
from tiir.metrics.intervals import resample
from tiir.metrics.recall import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FORMATS",
    "checked",
    "rank_histograms",
    "rank_scatter",
    "recall_curves",
    "save",
    "slice_bars",
    "style",
]

FigureFormat = Literal["png", "svg", "pdf"]
FORMATS: tuple[FigureFormat, ...] = ("png", "svg", "pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
COLUMN, TEXT = 3.4, 7.0
"""Widths in inches of a column and of the text of a two-column page."""
NAMES = {"i2t": "image to text", "t2i": "text to image"}
FONT = 7.0  # points
LARGEST = 100  # k of the curves
RC = {
    "font.size": FONT,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tiir",  # the same figure, the same bytes
    "pdf.fonttype": 42,
}


def style() -> Any:
    """The look of all figures, as a context."""
    import matplotlib as mpl

    return mpl.rc_context(RC)


def checked(formats: Sequence[str]) -> list[FigureFormat]:
    """The formats, in order and once each.

    Raises:
        ConfigError: one is not of `FORMATS`.
    """
    unknown = [kind for kind in formats if kind not in FORMATS]
    if unknown:
        raise ConfigError(f"no figure format {unknown[0]!r}", hint=f"one of: {', '.join(FORMATS)}")
    return [kind for kind in FORMATS if kind in formats]


def save(figure: Figure, path: Path | str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure as `path` with the suffix of each format; the same figure gives the same bytes.

    Args:
        figure: any of this module's.
        path: without suffix.
        formats: of `FORMATS`.

    Returns:
        The files written.

    Raises:
        ConfigError: an unknown format.
    """
    path, written = Path(path), []
    for kind in checked(formats):
        target = path.with_name(f"{path.name}.{kind}")
        dates = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with style(), atomic_write(target) as temporary:
            figure.savefig(temporary, format=kind, dpi=300, metadata=dates[kind], bbox_inches="tight")
        written.append(target)
    return written


def recall_curves(tables: Mapping[str, pd.DataFrame], *, resamples: int = 300, seed: int = 0) -> Figure:
    """Recall at every k up to 100 of some Runs, both directions, with 95% bands.

    Args:
        tables: query tables by name of the Run.
        resamples, seed: of the bootstrap over images; 0 for no bands.
    """
    with style():
        figure, axes = _axes(TEXT, 2.3, 2)
        for axis, side in zip(axes, NAMES, strict=True):
            for number, (name, table) in enumerate(tables.items()):
                part = table[table["direction"] == side]
                rank = part["rank"].to_numpy()
                largest = max(2, min(LARGEST, int(rank.max())))
                ks = np.unique(np.geomspace(1, largest, 40).round().astype(int))
                codes, fold = pd.factorize(part["image"])[0].astype(np.int64), part["fold"].to_numpy()
                metrics = {str(k): Metric(np.where(rank <= k, 100.0, 0.0), codes, fold) for k in ks}
                look = _look(number)
                axis.plot(ks, [metric.value for metric in metrics.values()], label=name, **look)
                if resamples:
                    draws = resample(metrics, resamples=resamples, seed=seed)
                    low, high = np.array([np.quantile(draws[str(k)], [0.025, 0.975]) for k in ks]).T
                    axis.fill_between(ks, low, high, color=look["color"], alpha=0.18, linewidth=0)
            axis.set(xscale="log", ylim=(0, 100), title=NAMES[side], xlabel="k", ylabel="R@k, percent")
            axis.set_xticks([1, 5, 10, 50, 100], ["1", "5", "10", "50", "100"])
            axis.minorticks_off()
            axis.grid(alpha=0.25, linewidth=0.4)
        axes[0].legend(frameon=False, loc="lower right")
    return figure


def rank_histograms(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How many queries have which rank, in bins of 1, 2-3, 4-7, ..., both directions.

    Args:
        tables: query tables by name of the Run.
    """
    with style():
        figure, axes = _axes(TEXT, 2.3, 2)
        for axis, side in zip(axes, NAMES, strict=True):
            ranks = {name: table.loc[table["direction"] == side, "rank"] for name, table in tables.items()}
            n_bins = int(np.log2(max(rank.max() for rank in ranks.values()))) + 1
            width = 0.8 / len(ranks)
            for number, (name, rank) in enumerate(ranks.items()):
                share = np.bincount(np.log2(rank).astype(int), minlength=n_bins) * 100 / len(rank)
                place = np.arange(n_bins) + (number - (len(ranks) - 1) / 2) * width
                hatch = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")[number % 6]
                colour = COLOURS[number % len(COLOURS)]
                axis.bar(
                    place,
                    share,
                    width,
                    label=name,
                    color=colour,
                    hatch=hatch,
                    edgecolor="white",
                    linewidth=0.3,
                )
            axis.set_xticks(range(n_bins), [_bin(2**n) for n in range(n_bins)], rotation=45, ha="right")
            axis.set(title=NAMES[side], xlabel="rank of the best positive", ylabel="queries, percent")
        axes[0].legend(frameon=False)
    return figure


def _bin(low: int) -> str:
    return (
        "1"
        if low == 1
        else f"{low}-{2 * low - 1}"
        if low < 512
        else f"{low}+"
        if low < 1024
        else f"{low // 1024}k+"
    )


def rank_scatter(a: pd.DataFrame, b: pd.DataFrame, name_a: str, name_b: str, *, k: int = 10) -> Figure:
    """Each query's rank by one model against its rank by another, with the counts that R@k tells apart.

    Args:
        a, b: query tables of the same queries.
        name_a, name_b: of the Runs.
        k: where the quadrants part.
    """
    with style():
        figure, axes = _axes(TEXT, 3.3, 2)
        for axis, side in zip(axes, NAMES, strict=True):
            here = (a["direction"] == side).to_numpy()
            x, y = a["rank"].to_numpy()[here], b["rank"].to_numpy()[here]
            top = max(x.max(), y.max(), k + 1) * 1.5
            jitter = np.exp(
                np.random.default_rng(0).normal(0, 0.06, (2, len(x)))
            )  # equal ranks lie side by side
            axis.scatter(
                x * jitter[0], y * jitter[1], s=3, alpha=_alpha(len(x)), color=COLOURS[0], linewidths=0
            )
            axis.plot([0.7, top], [0.7, top], color="#444444", linewidth=0.6)
            axis.axvline(k + 0.5, color=COLOURS[1], linewidth=0.7, linestyle="--")
            axis.axhline(k + 0.5, color=COLOURS[1], linewidth=0.7, linestyle="--")
            only_a, only_b = (x <= k) & (y > k), (x > k) & (y <= k)
            for left, up, text in [
                (0.02, 0.99, f"only {name_a}\n{_share(only_a)}"),
                (0.98, 0.02, f"only {name_b}\n{_share(only_b)}"),
            ]:
                ha, va = ("left", "top") if up > left else ("right", "bottom")
                box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
                axis.text(left, up, text, transform=axis.transAxes, ha=ha, va=va, fontsize=6, bbox=box)
            both, neither = (x <= k) & (y <= k), (x > k) & (y > k)
            axis.set(xscale="log", yscale="log", xlim=(0.7, top), ylim=(0.7, top), aspect="equal")
            axis.set_title(f"{NAMES[side]}\n", pad=3)
            axis.text(
                0.5,
                1.02,
                f"in the top {k} of both {_share(both)}, of neither {_share(neither)}",
                transform=axis.transAxes,
                ha="center",
                fontsize=6,
            )
            for one in (axis.xaxis, axis.yaxis):
                one.set_major_formatter("{x:,.0f}")
            axis.set(xlabel=f"rank by {name_a}", ylabel=f"rank by {name_b}")
    return figure


def _share(mask: npt.NDArray[np.bool_]) -> str:
    return f"{mask.sum():,} ({mask.mean():.0%})"


def _alpha(n: int) -> float:
    return float(np.clip(600 / max(n, 1), 0.05, 0.6))


def slice_bars(slices: pd.DataFrame, direction: str = "t2i", *, k: int = 10) -> Figure:
    """How much worse or better a Run does on the queries with each tag, with 95% intervals.

    Args:
        slices: of `tiir.analysis.slices`.
        direction: "i2t" or "t2i".
        k: of R@k.
    """
    part = slices[(slices["direction"] == direction) & (slices["k"] == k)].iloc[::-1]
    with style():
        figure, (axis,) = _axes(COLUMN, 0.6 + 0.19 * max(len(part), 1), 1)
        place = np.arange(len(part))
        value = part["difference"].to_numpy()
        sure = (part["difference_high"] < 0) | (part["difference_low"] > 0)
        colours = np.where(value < 0, COLOURS[1], COLOURS[0])
        for n, (at, width, colour) in enumerate(zip(place, value, colours, strict=True)):
            axis.barh(at, width, 0.7, color=colour, alpha=0.9 if sure.iloc[n] else 0.35)
        errors = np.abs(np.stack([value - part["difference_low"], part["difference_high"] - value]))
        axis.errorbar(
            value,
            place,
            xerr=np.nan_to_num(errors),
            fmt="none",
            ecolor="#222222",
            elinewidth=0.7,
            capsize=1.5,
        )
        axis.axvline(0, color="#222222", linewidth=0.6)
        axis.set_yticks(place, [f"{tag} ({n:,})" for tag, n in zip(part["tag"], part["n"], strict=True)])
        axis.set(xlabel=f"{NAMES[direction]} R@{k} less the rest, points (pale: 0 inside the 95% interval)")
        axis.xaxis.label.set_x(0.2)
    return figure


def _look(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}


def _axes(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure as New

    figure = New(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))
