from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiir.analysis.queries import query_table
from tiir.analysis.study import chosen, samples
from tiir.analysis.study_files import read_study
from tiir.analysis.tables import write_table
from tiir.data.protocols import resolve
from tiir.errors import ConfigError, DataError


def pets(make, n: int = 30):  # type: ignore[no-untyped-def]
    owner, rng = np.repeat(np.arange(n), 2), np.random.default_rng(0)
    texts = [f"animal {m // 2} seen from side {m % 2} " for m in range(2 * n)]
    return make(rng.random((n, 2 * n)) + (owner == np.arange(n)[:, None]) * 0.3, owner, texts)


def test_samples_are_read_back_as_the_table_has_them(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run, data = pets(make)
    table = query_table(run, data)
    made = samples(table, data, number=4, seed=1)
    assert made == samples(table, data, number=4, seed=1)
    assert made != samples(table, data, number=4, seed=2)
    (tmp_path / "samples.json").write_text(json.dumps(made))
    back = read_study(tmp_path / "samples.json", data)
    assert len(back) == 16
    assert back.groupby("kind")["positive"].agg(["sum", "count"]).values.tolist() == [[8, 8], [0, 8]]
    by_query = table.set_index(["direction", "query"])
    for side in ("i2t", "t2i"):
        for kind in ("hard", "easy"):
            read = back[(back["direction"] == side) & (back["kind"] == kind)].to_dict("records")
            for entry, row in zip(made[side][kind], read, strict=True):
                facts = by_query.loc[(side, entry["query_id"])]
                assert facts["difficulty"] == kind
                assert entry["retrieved_ids"] == facts["top"]
                assert entry["rank"] == facts["rank"]
                assert row["images"] == [facts["image"]]
                if side == "t2i":
                    assert row["captions"] == [entry["query_id"]]
                expected = facts["top"][:1] if (side, kind) == ("i2t", "easy") else facts["top"]
                assert [place for (place,) in row["retrieved"]] == expected


def test_chosen_queries_by_id_and_by_words(make) -> None:  # type: ignore[no-untyped-def]
    run, data = pets(make)
    table = query_table(run, data).set_index("query")
    made = chosen(run, data, resolve("own", data), ids=["i3", "c5"], search=["SIDE 12 seen"], depth=10)
    assert [entry["query_id"] for entry in made["i2t"]] == ["i3"]
    assert [entry["query_id"] for entry in made["t2i"]] == ["c5", "c24", "c25"]
    for side in made:
        for entry in made[side]:
            facts = table.loc[entry["query_id"]]
            assert entry["retrieved_ids"] == facts["top"]
            assert entry["positive"] == facts["top_positive"]
            assert entry["scores"] == facts["top_scores"]
    assert made["i2t"][0]["query"] == "i3"
    assert made["t2i"][0]["query"] == data.captions[5]
    with pytest.raises(ConfigError, match="no image or caption nobody"):
        chosen(run, data, resolve("own", data), ids=["nobody"])
    with pytest.raises(ConfigError, match="no caption holds all of: animal zebra"):
        chosen(run, data, resolve("own", data), search=["animal zebra"])
    few = resolve("own", data, captions_per_image=1)
    with pytest.raises(ConfigError, match="not in the protocol's gallery: c5, 29 side 1"):
        chosen(run, data, few, ids=["c5", "c4"], search=["29 side 1"])
    assert len(chosen(run, data, few, ids=["c4"], search=["animal 2"])["t2i"]) == 1


def test_files_that_name_other_captions_are_refused_with_a_list(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, data = pets(make)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"t2i": [{"query": "a yeti", "retrieved": ["i1", "i99"]}]}))
    with pytest.raises(
        DataError, match=r"2 captions or images.*\n.*yeti.*\n.*i99|2 captions or images.*\n.*i99.*\n.*yeti"
    ):
        read_study(path, data)
    text = data.captions[0]
    for content in (
        [],
        {"x": []},
        {"t2i": [{"retrieved": []}]},
        {"i2t": 5},
        {"t2i": None},
        {"i2t": {"hard": 3}},
        {"t2i": [{"query": [text]}]},
        {"i2t": [{"query": True}]},
        {"i2t": [{"query": 3, "ground_truth": 5}]},
        {"i2t": [{"query": "i0", "ground_truth": text}]},
        {"t2i": [{"query": text, "ground_truth": ["i0"]}]},
        {"t2i": [{"query": text, "retrieved": 5.5}]},
        {"t2i": [{"query": text, "retrieved": [{"a": 1}]}]},
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(DataError):
            read_study(path, data)
    path.write_text(json.dumps({"t2i": []}))
    assert read_study(path, data).empty


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_what_was_read_is_written_in_full(make, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    _, data = pets(make)
    path, out = tmp_path / "x.json", tmp_path / f"out.{suffix}"
    for ranks in ({"clip": 1, "lxmert": 13}, {}):
        path.write_text(json.dumps({"i2t": [{"query": "i0", **ranks}]}))
        write_table(read_study(path, data), out, overwrite=True)
        if suffix == "jsonl":
            assert json.loads(out.read_text())["ranks"] == ranks
        else:
            back = pd.read_parquet(out) if suffix == "parquet" else pd.read_csv(out)
            assert json.loads(back["ranks"].iloc[0]) == ranks


@pytest.mark.slow
def test_the_studys_files_resolve_against_coco(shared: Path) -> None:
    from tiir.data.sources import karpathy

    data = karpathy.prepare(shared / "coco" / "dataset_coco.json", images=None, split="test")
    for model in ("clip", "lxmert"):
        table = read_study(shared / "seed" / "results" / f"{model}_1k_test.json", data)
        counts = table.groupby(["direction", "kind"])["positive"].agg(["sum", "count"])
        for side in ("i2t", "t2i"):
            assert counts.loc[(side, "hard")].tolist() == [0, 40]
            assert counts.loc[(side, "easy")].tolist() == [40, 40]
        assert (table["images"].map(len) >= 1).all()
        i2t = table[table["direction"] == "i2t"]
        assert (i2t["images"].map(len) == 1).all()  # five captions tell an image
        assert all(ids for places in i2t["retrieved"] for ids in places)
    comparison = read_study(shared / "seed" / "results" / "comparison.json", data)
    assert comparison.groupby("direction").size().to_dict() == {"i2t": 13, "t2i": 51}
    for ranks in comparison["ranks"]:  # 0-based: CLIP in the top 10 and at least 10 places better
        assert ranks["clip"] < 10
        assert ranks["lxmert"] - ranks["clip"] >= 10
    for name in ("clip_retrievals_for_lxmert", "lxmert_retrievals_for_clip"):
        table = read_study(shared / "seed" / "results" / f"{name}.json", data)
        assert (table["kind"] == "retrieved").all()
        assert all(ids for places in table["retrieved"] for ids in places)
