from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tiir.analysis.background import background
from tiir.analysis.concreteness import concreteness, image_vectors
from tiir.analysis.counterfactual import rescore_typos
from tiir.analysis.diagnose import diagnose
from tiir.analysis.duplicates import near_duplicates
from tiir.analysis.hubs import k_occurrence, skewness
from tiir.analysis.missing import judged_pairs, suspects, with_suspects
from tiir.analysis.queries import query_table
from tiir.analysis.slices import counted_recall, slices
from tiir.analysis.tables import write_table
from tiir.analysis.words import Words
from tiir.data.dataset import Dataset, Judgements
from tiir.data.protocols import resolve
from tiir.errors import ConfigError, RunError
from tiir.scoring.run import Run, RunInfo


def random_run(make, n: int = 20, each: int = 2, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), each)
    return make(rng.random((n, n * each)) + (owner == np.arange(n)[:, None]) * 0.4, owner)


def test_slices_against_a_loop(make) -> None:  # type: ignore[no-untyped-def]
    run, data = random_run(make)
    table = query_table(run, data)
    rng = np.random.default_rng(1)
    tags = pd.DataFrame({"row": rng.choice(len(table), 30, replace=False), "tag": rng.choice(["x", "y"], 30)})
    made = slices(table, tags, ks=[1, 5], resamples=50)
    assert len(made) == 2 * 2 * 2
    for row in made.to_dict("records"):
        here = table[table["direction"] == row["direction"]]
        tagged = here.index.isin(tags.loc[tags["tag"] == row["tag"], "row"])
        hits = 100.0 * (here["rank"] <= row["k"])
        assert row["n"] == tagged.sum()
        assert row["share"] == pytest.approx(tagged.mean())
        assert row["recall"] == pytest.approx(hits[tagged].mean())
        assert row["rest_recall"] == pytest.approx(hits[~tagged].mean())
        assert row["difference"] == pytest.approx(row["recall"] - row["rest_recall"])
        assert row["low"] <= row["recall"] <= row["high"]
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_a_tag_of_every_query_has_no_rest(make) -> None:  # type: ignore[no-untyped-def]
    run, data = random_run(make)
    table = query_table(run, data)
    made = slices(table, pd.DataFrame({"row": table.index, "tag": "all"}), resamples=20)
    assert made["rest_recall"].isna().all()
    assert slices(table, pd.DataFrame({"row": [], "tag": []}), resamples=20).empty


def judged(data: Dataset, rows: list[tuple[int, int, float, str]]) -> Dataset:
    image, caption, grade, source = zip(*rows, strict=True)
    judgements = Judgements(
        np.array(image), np.array(caption), np.array(grade, np.float32), list(source), [(1,)] * len(rows)
    )
    return Dataset(
        data.name,
        data.split,
        data.image_ids,
        data.caption_ids,
        data.captions,
        data.caption_image,
        judgements=judgements,
    )


def test_what_people_judged_counts_beside_the_labels(make) -> None:  # type: ignore[no-untyped-def]
    run, data = make([[5, 9, 1], [9, 5, 1], [7, 1, 3]], [0, 1, 2])
    data = judged(
        data, [(0, 1, 3.3, "expert"), (0, 1, 0.0, "crowd"), (1, 0, 2.0, "expert"), (2, 0, 0.6, "crowd")]
    )
    run = Run(RunInfo.about(data, "made", "by hand"), scores=run.scores)
    pairs = judged_pairs(data)
    assert pairs[["image", "caption", "right", "source"]].values.tolist() == [
        [0, 1, True, "expert"],  # the experts' word goes before the crowd's
        [1, 0, False, "expert"],
        [2, 0, True, "crowd"],
    ]
    table = query_table(run, data)
    found = suspects(table, data, None, pairs)
    ranks = with_suspects(table, found)
    assert table["rank"].tolist() == [2, 2, 2, 3, 2, 1]
    # i0 finds c1 first (judged right), i1 finds c0 first (judged wrong), i2 c0 (right); c0 finds i1 (wrong), i2 (right).
    assert ranks["judged"].tolist() == [1, 2, 1, 2, 1, 1]
    recall = counted_recall(table, ranks, ks=[1], resamples=0).set_index(["direction", "counting"])["recall"]
    assert recall["i2t", "labelled"] == 0
    assert recall["i2t", "judged"] == pytest.approx(200 / 3)
    assert recall["t2i", "labelled"] == pytest.approx(100 / 3)


def test_suspected_positives_never_worsen_a_rank_and_follow_the_threshold(make) -> None:  # type: ignore[no-untyped-def]
    run, data = random_run(make)
    table = query_table(run, data)
    found = suspects(table, data, None, judged_pairs(data))
    found["suspicion"] = np.random.default_rng(0).random(len(found))
    before = None
    for threshold in (0.9, 0.5, 0.0):
        ranks = with_suspects(table, found, threshold)
        assert (ranks["judged"] == ranks["labelled"]).all()  # nobody judged
        assert (ranks["suspected"] <= ranks["labelled"]).all()
        slow = [
            min([rank, *found.loc[(found["row"] == row) & (found["suspicion"] >= threshold), "place"]])
            for row, rank in table["rank"].items()
        ]
        assert ranks["suspected"].tolist() == slow
        assert before is None or (ranks["suspected"] <= before).all()
        before = ranks["suspected"]


def test_hubs_against_counting(make) -> None:  # type: ignore[no-untyped-def]
    run, data = random_run(make)
    scores = run.scores.copy()
    scores[7] += 2  # an image that every caption finds
    run = Run(run.info, scores=scores)
    table = query_table(run, data, depth=3)
    found = k_occurrence(table, data.image_ids, "t2i").set_index("candidate")
    for name in data.image_ids:
        lists = [
            (top, hit)
            for top, hit in zip(table["top"][20:], table["top_positive"][20:], strict=True)
            if name in top
        ]
        assert found.loc[name, "occurrence"] == len(lists)
        assert found.loc[name, "wrong"] == sum(not hit[top.index(name)] for top, hit in lists)
    assert found.index[0] == "i7"
    assert found["hub"].sum() == 1
    assert skewness(found) > 2
    tags = diagnose(run, data, table=table, resamples=0).tags
    hubbed = tags[(tags["tag"] == "hub") & (tags["direction"] == "t2i")]
    assert set(hubbed["query"]) == set(data.caption_ids) - {"c14", "c15"}
    assert hubbed["evidence"].str.startswith("i7 is wrong in 38 lists").all()


def test_concreteness_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 100)
    vectors = np.eye(2)[kinds] + rng.normal(0, 0.1, (100, 2))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    texts = [("cat" if kind else "dog") + (" hope" if rng.random() < 0.3 else "") for kind in kinds]
    words = Words(texts, np.arange(100), 100)
    table = concreteness(words, vectors).set_index("word")
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -9)
    for word, row in table.iterrows():
        uses = np.array([str(word) in text.split() for text in texts])
        shares = [
            uses[np.argsort(-alike[n])[:10]].mean() for n in np.flatnonzero(uses)
        ]  # a tenth of the images
        chance = (uses.sum() - 1) / 99
        expected = (uses.sum() * np.mean(shares) / chance + 20) / (uses.sum() + 20)
        assert row["concreteness"] == pytest.approx(expected, rel=1e-4)
    assert table.loc["hope", "concreteness"] < 1.3 < table.loc["cat", "concreteness"]


def test_image_vectors_of_scores_tell_alike_images(make) -> None:  # type: ignore[no-untyped-def]
    run, _ = make([[9, 1, 0], [8, 2, 0], [0, 1, 9]], [0, 1, 2])
    vectors = image_vectors(run)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


def test_near_duplicates_are_copies_in_other_sizes_and_not_other_photos(tmp_path: Path) -> None:
    rng, names = np.random.default_rng(0), []
    for n in range(6):
        pixels = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
            (320, 240), Image.Resampling.BICUBIC
        )
        pixels.save(tmp_path / f"{n}.png")
        names.append(f"{n}.png")
    Image.open(tmp_path / "2.png").resize((200, 150)).save(tmp_path / "copy.jpg", quality=60)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")  # plain, but another picture
    names += ["copy.jpg", "white.png", "grey.png"]
    data = Dataset(
        "d", "test", names, [f"c{n}" for n in names], ["x"] * len(names), np.arange(len(names)),
        image_root=tmp_path, image_paths=names,
    )  # fmt: skip
    assert near_duplicates(data)[["image", "other"]].values.tolist() == [["2.png", "copy.jpg"]]
    run = Run(RunInfo.about(data, "d", "m"), scores=np.eye(9, dtype=np.float32))
    tags = diagnose(run, data, resamples=0).tags
    assert set(tags.loc[tags["tag"] == "near duplicate", "query"]) == {
        "2.png",
        "copy.jpg",
        "c2.png",
        "ccopy.jpg",
    }


def test_a_twin_in_another_fold_is_no_near_duplicate(make) -> None:  # type: ignore[no-untyped-def]
    run, data = make(np.eye(4), [0, 1, 2, 3])
    pairs = pd.DataFrame({"image": ["i0", "i0"], "other": ["i1", "i2"], "different": [0.05, 0.0]})
    shared = replace(background(data), duplicates=pairs)

    def tagged(keys):  # type: ignore[no-untyped-def]
        galleries = [gallery for some in keys for gallery in resolve("own", data, keys=some)]
        tags = diagnose(run, data, galleries, shared=shared, resamples=0).tags.query(
            "tag == 'near duplicate'"
        )
        return tags.query("direction == 'i2t'")[["fold", "query", "evidence"]].values.tolist()

    assert tagged([["i0", "i1"], ["i2", "i3"]]) == [
        [0, "i0", "i1 differs in 5%"],
        [0, "i1", "i0 differs in 5%"],
    ]
    assert [row[1:] for row in tagged([["i0", "i1", "i2"]])] == [
        ["i0", "i2 differs in 0%"], ["i1", "i0 differs in 5%"], ["i2", "i0 differs in 0%"]
    ]  # fmt: skip
    assert tagged([["i1", "i2"]]) == []


def test_a_run_without_a_wrong_candidate_is_diagnosed_without_a_warning(make) -> None:  # type: ignore[no-untyped-def]
    run, data = make([[1.0]], [0], ["a cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = diagnose(run, data, resamples=20)
    assert made.suspects.empty
    assert set(made.recall["recall"]) == {100.0}


def test_corrected_captions_are_scored_by_the_same_model() -> None:
    texts = ["a giraffe"] * 12 + ["two giarffe", "a zebra"]
    data = Dataset(
        "d", "test", [f"i{n}" for n in range(14)], [f"c{n}" for n in range(14)], texts, np.arange(14)
    )
    known = {"a giraffe": [1, 0], "two giraffe": [1, 0.1], "two giarffe": [-1, 0], "a zebra": [0, 1]}

    def encode(captions):  # type: ignore[no-untyped-def]
        return np.array([known[text] for text in captions], np.float32)

    images = encode([*texts[:12], "two giraffe", "a zebra"])
    run = Run(RunInfo.about(data, "d", "m"), image_embeds=images, text_embeds=encode(texts))
    made = rescore_typos(run, data, resolve("own", data), encode).to_dict("records")
    assert made == [
        {"fold": 0, "query": "c12", "text": "two giarffe", "corrected": "two giraffe", "rank": 14,
         "corrected_rank": 1, "gain": 13}
    ]  # fmt: skip
    with pytest.raises(RunError, match="other vectors"):
        rescore_typos(run, data, resolve("own", data), lambda captions: encode(captions) * 2)
    scores = Run(RunInfo.about(data, "d", "m"), scores=np.eye(14, dtype=np.float32))
    with pytest.raises(RunError, match="no vectors"):
        rescore_typos(scores, data, resolve("own", data), encode)


def test_tags_belong_to_their_queries_and_notes_say_what_was_left(make) -> None:  # type: ignore[no-untyped-def]
    texts = ["a red cat", "two cats", "a dog", "a dog runs"]
    run, data = make([[9, 8, 1, 2], [1, 2, 8, 9]], [0, 0, 1, 1], texts)
    made = diagnose(run, data, resamples=0)
    assert (made.table.loc[made.tags["row"], "query"].to_numpy() == made.tags["query"]).all()
    colour = made.tags[made.tags["tag"] == "colour"]
    assert colour[["direction", "query", "evidence"]].values.tolist() == [["t2i", "c0", "red"]]
    assert any("no photos" in note for note in made.notes)
    assert any("nobody judged" in note for note in made.notes)
    assert not any("lists hold" in note for note in made.notes)
    short = diagnose(run, data, table=query_table(run, data, depth=1), resamples=0)
    assert any("lists hold 1 candidates" in note for note in short.notes)
    single, one = make(np.eye(3), [0, 1, 2], ["a cat", "a dog", "a cow"])
    assert any("not suspected" in note for note in diagnose(single, one, resamples=0).notes)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_tables_in_files(make, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    run, data = random_run(make, n=5)
    table, path = query_table(run, data), tmp_path / f"queries.{suffix}"
    write_table(table, path)
    if suffix == "parquet":
        back = pd.read_parquet(path)
        assert [list(top) for top in back["top"]] == table["top"].tolist()
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["top"] for row in rows] == table["top"].tolist()
        assert [row["margin"] for row in rows] == pytest.approx(table["margin"].tolist(), abs=1e-12)
    else:
        back = pd.read_csv(path)
        assert [json.loads(top) for top in back["top"]] == table["top"].tolist()
        assert back["rank"].tolist() == table["rank"].tolist()
    with pytest.raises(ConfigError, match="there already"):
        write_table(table, path)
    write_table(table, path, overwrite=True)
    with pytest.raises(ConfigError, match="says no format"):
        write_table(table, tmp_path / "queries.xls")


@pytest.mark.slow
def test_known_faults_of_scenes_are_found(tmp_path: Path) -> None:
    from tiir import models
    from tiir.data.sources import scenes
    from tiir.scoring.dense import score_dual

    assets = Path(models.__file__).parent.parent / "assets" / "scenes-clip"
    data = scenes.prepare(tmp_path / "data", split="test")
    run = score_dual(models.load(str(assets), device="cpu"), data, tmp_path / "data", tmp_path / "run")
    made = diagnose(run, data, resamples=0)
    faults = dict(zip(data.caption_ids, data.caption_columns["fault"], strict=True))
    for tag, precision, recall in [("typo", 0.9, 0.8), ("underspecified", 0.9, 0.8), ("abstract", 0.9, 0.6)]:
        told = set(made.tags.loc[made.tags["tag"] == tag, "query"])
        true = {name for name, fault in faults.items() if fault == tag}
        assert len(told & true) / len(told) >= precision
        assert len(told & true) / len(true) >= recall


@pytest.mark.slow
def test_suspicion_agrees_with_people_on_flickr8k(shared: Path) -> None:
    from sklearn.metrics import roc_auc_score

    from tiir.analysis.similarity import CaptionFit
    from tiir.data.sources import flickr8k

    data = flickr8k.prepare(shared / "flickr8k", split="test", images=None)
    pairs = judged_pairs(data)
    fit = CaptionFit(Words(data.captions, data.caption_image, data.n_images))
    for source, least in (("expert", 0.93), ("crowd", 0.87)):
        part = pairs[pairs["source"] == source]
        assert (
            roc_auc_score(part["right"], fit(part["image"].to_numpy(), part["caption"].to_numpy())) >= least
        )
