from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tiir.analysis.queries import query_table
from tiir.analysis.slices import slices
from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError
from tiir.report import figures, photos
from tiir.scoring.run import Run, RunInfo


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Dataset, pd.DataFrame, pd.DataFrame]:
    n, rng = 24, np.random.default_rng(0)
    owner = np.repeat(np.arange(n), 2)
    for i in range(n):
        Image.new("RGB", (40, 30), (10 * i, 90, 200)).save(tmp_path / f"{i}.png")
    data = Dataset(
        "d", "test", [f"i{i}" for i in range(n)], [f"c{i}" for i in range(2 * n)],
        [f"thing {i} on a $5_table & more" for i in range(2 * n)], owner,
        image_root=tmp_path, image_paths=[f"{i}.png" for i in range(n)],
    )  # fmt: skip
    own = owner == np.arange(n)[:, None]
    tables = [
        query_table(
            Run(
                RunInfo.about(data, "d", "m"), scores=(rng.random((n, 2 * n)) + gain * own).astype(np.float32)
            ),
            data,
        )
        for gain in (0.5, 0.0)
    ]
    return data, tables[0], tables[1]


@pytest.mark.slow
def test_every_figure_is_written_in_every_format_and_the_same_each_time(pair, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data, a, b = pair
    tags = pd.DataFrame({"row": a.index[::3], "tag": "a tag & more"})

    def draw(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        made = {
            "curves": figures.recall_curves({"a": a, "b_1": b}, resamples=20),
            "ranks": figures.rank_histograms({"a": a, "b_1": b}),
            "scatter": figures.rank_scatter(a, b, "a", "b_1"),
            "slices": figures.slice_bars(slices(a, tags, resamples=20)),
            "image": photos.hard_image_retrieval(photos.sample_hard(b, "t2i"), data),
            "text": photos.hard_text_retrieval(photos.sample_hard(b, "i2t"), data),
            "beats": photos.where_a_beats_b(a, b, "a", "b_1", data),
        }
        for name, figure in made.items():
            assert len(figures.save(figure, folder / name)) == 3
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first, second = draw(tmp_path / "one"), draw(tmp_path / "two")
    assert len(first) == 21
    assert first == second
    assert b"b_1" in first["curves.svg"]
    with Image.open(tmp_path / "one" / "curves.png") as image:
        assert image.width > 1500


def test_curves_hold_the_recall_of_the_table(pair) -> None:  # type: ignore[no-untyped-def]
    _, a, _ = pair
    figure = figures.recall_curves({"a": a}, resamples=0)
    for axis, side in zip(figure.axes, ("i2t", "t2i"), strict=True):
        rank = a.loc[a["direction"] == side, "rank"]
        for k, value in zip(*axis.lines[0].get_data(), strict=True):
            assert value == pytest.approx(100 * (rank <= k).mean())


def test_histograms_add_up(pair) -> None:  # type: ignore[no-untyped-def]
    _, a, b = pair
    for axis in figures.rank_histograms({"a": a, "b": b}).axes:
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(200)


def test_scatter_counts_are_those_of_compare(pair) -> None:  # type: ignore[no-untyped-def]
    _, a, b = pair
    axis = figures.rank_scatter(a, b, "a", "b").axes[1]
    here = a["direction"] == "t2i"
    wins = ((a["rank"] <= 10) & (b["rank"] > 10))[here].sum()
    assert axis.texts[0].get_text() == f"only a\n{wins:,} ({wins / here.sum():.0%})"


def test_offending_words() -> None:
    data = Dataset("d", "test", ["a"], ["a0", "a1"], ["a black cat", "cat on a sofa ."], np.array([0, 0]))
    marked = [word for word, bad in photos.unsupported("The white cat, on a sofa .", data, "a") if bad]
    assert marked == ["white"]


def test_most_ahead_against_a_loop(pair) -> None:  # type: ignore[no-untyped-def]
    _, a, b = pair
    ratios = {}
    for x, y in zip(a.to_dict("records"), b.to_dict("records"), strict=True):
        if x["direction"] == "t2i" and x["rank"] <= 10 and x["rank"] < y["rank"]:
            ratios.setdefault(x["image"], []).append(y["rank"] / x["rank"])
    expected = sorted((max(some) for some in ratios.values()), reverse=True)[:3]
    made = photos.most_ahead(a, b, n=3)
    assert [y["rank"] / x["rank"] for x, y in made] == expected
    assert all(x["query"] == y["query"] for x, y in made)
    assert photos.most_ahead(a, a) == []


def test_what_cannot_be_drawn(pair, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data, a, _ = pair
    bare = Dataset(data.name, "test", data.image_ids, data.caption_ids, data.captions, data.caption_image)
    with pytest.raises(DataError, match="no photos"):
        photos.hard_image_retrieval(photos.sample_hard(a, "t2i"), bare)
    with pytest.raises(DataError, match="no such query"):
        photos.hard_text_retrieval([], data)
    with pytest.raises(DataError, match="no such query"):
        photos.where_a_beats_b(a, a, "a", "a2", data)
    with pytest.raises(ConfigError, match="no figure format 'gif'"):
        figures.save(figures.rank_histograms({"a": a}), tmp_path / "x", ["gif"])
