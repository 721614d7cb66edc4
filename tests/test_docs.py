"""The documents do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

from tiir.analysis.compare import compare
from tiir.analysis.diagnose import diagnose
from tiir.analysis.queries import query_table
from tiir.analysis.words import WORD
from tiir.data.sources import flickr8k
from tiir.scoring.foreign import import_embeddings

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    done = doctest.testfile(str(DOCS / "error-analysis.md"), module_relative=False, optionflags=flags)
    assert done.attempted > 30
    assert done.failed == 0


@pytest.mark.slow
def test_the_case_study_quotes_what_the_data_says(shared: Path, tmp_path: Path) -> None:
    text = " ".join((DOCS / "case-study-flickr8k.md").read_text(encoding="utf-8").split())
    folder = shared / "flickr8k"
    data = flickr8k.prepare(folder, images=None, split="test")
    names = ["resnet50-minilm-ft", "efficientnet-minilm-linear"]
    runs = [
        import_embeddings(
            shared / "runs" / name / "image_embeds.npy",
            shared / "runs" / name / "text_embeds.npy",
            data,
            folder,
            tmp_path / name,
            name=name,
            image_ids=shared / "runs" / name / "image_ids.txt",
            caption_ids=shared / "runs" / name / "caption_ids.txt",
        )
        for name in names
    ]
    tables = [query_table(run, data) for run in runs]
    quoted = []
    found = [diagnose(run, data, table=table) for run, table in zip(runs, tables, strict=True)]
    for made in found:
        first = made.suspects.query("direction == 't2i' and place == 1")
        right = (first["judged"] == "right").sum()
        quoted.append((right, (first["judged"] != "").sum()))
        for row in made.recall.query("direction == 't2i' and k == 1").to_dict("records"):
            assert f"{row['recall']:.2f} [{row['low']:.1f}, {row['high']:.1f}]" in text
        colour = made.slices.query("direction == 't2i' and tag == 'colour' and k == 10").iloc[0]
        assert f"{colour['difference']:.1f}" in text
        by_tag = made.slices.query("direction == 't2i' and k == 10").set_index("tag")
        for tag in ("counting", "spatial relation", "typo", "named text"):
            row = by_tag.loc[tag]
            assert f"({row['n']:,}" in text
            assert row["difference_low"] < 0 < row["difference_high"]
    assert quoted == [(158, 453), (119, 406)]
    captions = tables[0][tables[0]["direction"] == "t2i"]
    hard = captions["rank"].gt(10).groupby(captions["image"]).sum()
    assert "| photos | " + " | ".join(map(str, hard.value_counts().sort_index())) + " |" in text
    ranks = [table.loc[captions.index, "rank"].to_numpy() for table in tables]
    length = np.array([len(WORD.findall(caption)) for caption in captions["text"]])
    for name, rank in zip(names, ranks, strict=True):
        short, long = (100 * (rank[part] <= 10).mean() for part in (length <= 6, length >= 15))
        assert f"| {name} | {short:.1f} | {long:.1f} | {long - short:.1f}" in text
    made = compare(runs, data, names=names, tables=tables, resamples=20_000)
    for row in made.tests.to_dict("records"):
        assert f"{row['difference']:.1f} (p " in text
    for k in (1, 10):
        row = made.combined.query("direction == 't2i' and k == @k").iloc[0]
        cells = [f"{row[way]:.2f}" for way in ("recall_a", "recall_b", "mix", "oracle")]
        assert f"| R@{k} | {' | '.join(cells)} |" in text
    wins = made.outcomes.query("direction == 't2i' and rule == 'rank'").iloc[0]
    assert f"{wins['b_wins']:,} captions, and loses {wins['a_wins']:,}" in text
