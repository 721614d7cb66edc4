"""A site's data say what the analyses say; its folder is never half of anything, nor anything of a user's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiir.analysis.diagnose import diagnose
from tiir.analysis.queries import query_table
from tiir.data.dataset import Dataset, Judgements
from tiir.data.sources import scenes
from tiir.errors import ConfigError, ImageError, RunError
from tiir.metrics.evaluate import evaluate
from tiir.report import page
from tiir.report.build import build_site, distinct_names
from tiir.report.chunks import read_data
from tiir.scoring.run import Run, RunInfo
from tiir.scoring.shortlist import Shortlist

pytestmark = pytest.mark.slow

N = 90  # pictures: 540 queries, so that there is a second chunk
HOSTILE = ("</script><script>alert(1)</script>", "\u2028\u2029 <!-- ]]>", "x" * 10_000, "\u202ea", "'\");")


def embeddings(data: Dataset, name: str, noise: float, folder: Path) -> Run:
    """A Run whose captions lie near their images: the nearer, the less noise."""
    rng = np.random.default_rng(len(name))
    images = rng.normal(size=(data.n_images, 16)).astype(np.float32)
    texts = images[data.caption_image] + rng.normal(0, noise, (data.n_captions, 16)).astype(np.float32)
    info = RunInfo.about(data, folder / "data", f"/home/someone/models/{name}")
    return Run(info, image_embeds=images, text_embeds=texts.astype(np.float32)).save(folder / name)


def cascade(run: Run, folder: Path) -> Run:
    """Its shortlists hold some pairs of some queries, in random order."""
    rng = np.random.default_rng(1)
    assert run.image_embeds is not None
    assert run.text_embeds is not None
    listed = rng.random((run.info.images, run.info.captions)) < 0.04
    image, caption = np.nonzero(listed)
    first = (run.image_embeds.astype(np.float64) @ run.text_embeds.T)[image, caption]
    i2t = rng.random(len(image)) < 0.7
    short = Shortlist.of(image, caption, rng.normal(size=len(image)), first, i2t, ~i2t)
    info = run.info.model_copy(update={"model": f"{run.info.model} > lxmert:/home/someone/lxmert"})
    return replace(run, info=info, shortlist=short).save(folder / "cascade")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[Run], Path]:
    """Ninety Scenes pictures with some judgements, three Runs, and their site."""
    folder = tmp_path_factory.mktemp("world")
    made = scenes.prepare(folder / "data", split="test", n=N)
    rng, n = np.random.default_rng(5), 2000
    pairs = np.unique(np.stack([rng.integers(0, N, n), rng.integers(0, 5 * N, n)], axis=1), axis=0)
    grades = np.where(rng.random(len(pairs)) < 0.5, 4, 1).astype(np.float32)
    judged = Judgements(*pairs.T, grades, ["expert"] * len(pairs), [[int(grade)] for grade in grades])
    data = replace(made, judgements=judged)
    data.save(folder / "data")
    runs = [embeddings(data, "good", 1.0, folder), embeddings(data, "worse", 2.0, folder)]
    runs.append(cascade(runs[1], folder))
    build_site(runs, data, folder / "site", resamples=50)
    return data, runs, folder / "site"


def blocks(site: Path) -> dict[str, Any]:
    return {path.stem: read_data(path) for path in sorted((site / "data").iterdir())}


def test_every_list_is_that_of_the_query_table(world: tuple[Dataset, list[Run], Path]) -> None:
    data, runs, site = world
    found = blocks(site)
    captions, images, queries = found["captions"], found["images"], found["queries"]
    assert captions == {
        "id": list(data.caption_ids), "text": list(data.captions), "image": data.caption_image.tolist()
    }  # fmt: skip
    assert images["id"] == list(data.image_ids)
    assert images["width"] == list(data.image_columns["width"])
    sides = ("i2t", "t2i")
    for r, run in enumerate(runs):
        made = diagnose(run, data, table=query_table(run, data), resamples=0)
        table, tags = made.table, made.tags.groupby("row")["tag"].apply(set).to_dict()
        suspects = {(n, place): (d, j) for n, place, d, j in made.suspects[["row", "place", "suspicion", "judged"]].itertuples(index=False)}  # fmt: skip
        for row, query in table.iterrows():
            at = row % 500
            side = queries["direction"][row]
            own, other = (images, captions) if side == 0 else (captions, images)
            block = found[f"lists-{r}-{row // 500}"]
            assert block["start"] == row // 500 * 500
            assert (sides[side], own["id"][queries["query"][row]]) == (query["direction"], query["query"])
            assert queries["positives"][row] == query["positives"]
            here = queries["runs"][r]
            assert here["rank"][row] == query["rank"]
            assert here["margin"][row] == pytest.approx(query["margin"], rel=1e-4)
            assert {t for n, t in enumerate(found["site"]["tags"]) if here["tags"][row] >> n & 1} == tags.get(
                row, set()
            )
            assert [other["id"][n] for n in block["top"][at]] == query["top"]
            assert other["id"][block["best"][at]] == query["best_positive"]
            assert block["score"][at] == pytest.approx(query["top_scores"], rel=1e-4)
            assert [bool(block["positive"][at] >> n & 1) for n in range(10)] == query["top_positive"]
            assert {found["site"]["tags"][n] for n, _ in block["evidence"][at]} == tags.get(row, set())
            open_doubts = [-1.0]
            for place, hit in enumerate(query["top_positive"], 1):
                doubt, judged = suspects.get((row, place), (-1, ""))
                assert hit == ((row, place) not in suspects)
                assert block["suspicion"][at][place - 1] == pytest.approx(doubt, abs=1e-3)
                assert block["judged"][at][place - 1] == {"": 0, "right": 1, "wrong": -1}[judged]
                open_doubts += [] if judged == "wrong" else [doubt]
            assert here["suspicion"][row] == pytest.approx(max(open_doubts), abs=1e-3)
    judged = [
        mark
        for name, block in found.items()
        if name.startswith("lists")
        for row in block["judged"]
        for mark in row
    ]
    assert set(judged) == {1, 0, -1}


def test_lists_of_a_small_gallery_end_with_it(tmp_path: Path) -> None:
    data = scenes.prepare(tmp_path / "data", split="test", n=4)
    run = embeddings(data, "small", 1.0, tmp_path)
    build_site([run], data, tmp_path / "site", resamples=0)
    block, table = blocks(tmp_path / "site")["lists-0-0"], query_table(run, data)
    assert {len(top) for top in table["top"]} == {4, 10}
    for row, (top, scores, hits) in enumerate(
        zip(table["top"], table["top_scores"], table["top_positive"], strict=True)
    ):
        assert block["score"][row] == pytest.approx(scores, rel=1e-4)
        assert [bool(block["positive"][row] >> place & 1) for place in range(len(top))] == hits
        assert {len(block[name][row]) for name in ("top", "score", "suspicion", "judged")} == {len(top)}


def test_corrected_captions_are_those_with_typos(world: tuple[Dataset, list[Run], Path]) -> None:
    data, runs, site = world
    found = blocks(site)
    typos = set(diagnose(runs[0], data, resamples=0).typos["caption"])
    queries, lists = found["queries"], found["lists-0-0"]
    for row, text in enumerate(lists["corrected"]):
        caption = queries["query"][row] if queries["direction"][row] == 1 else None
        assert (text is not None) == (caption is not None and data.caption_ids[caption] in typos)
        assert text is None or text != data.captions[caption]
    assert sum(text is not None for text in lists["corrected"]) >= 3


def test_wrong_lists_are_the_lists_turned_round(world: tuple[Dataset, list[Run], Path]) -> None:
    _, runs, site = world
    found = blocks(site)
    for r in range(len(runs)):
        lists = [block for name, block in found.items() if name.startswith(f"lists-{r}-")]
        expected: list[list[int]] = [[] for _ in range(N)]
        for block in lists:
            for at, (top, positive) in enumerate(zip(block["top"], block["positive"], strict=True)):
                row = block["start"] + at
                for place, image in enumerate(top):
                    if found["queries"]["direction"][row] == 1 and not positive >> place & 1:
                        expected[image].append(row)
        assert found[f"wrong-{r}-0"] == {"start": 0, "rows": expected}


def test_the_overview_is_that_of_evaluate(world: tuple[Dataset, list[Run], Path]) -> None:
    data, runs, site = world
    front = blocks(site)["site"]
    assert [run["kind"] for run in front["runs"]] == ["embeddings", "embeddings", "cascade"]
    assert [run["name"] for run in front["runs"]] == ["good", "worse", "cascade"]
    for r, run in enumerate(runs):
        e = evaluate(run, data, resamples=50)
        shown = front["runs"][r]
        assert shown["values"] == pytest.approx(e.values, abs=0.006)
        assert set(shown["intervals"]) == set(e.intervals)
        assert shown["intervals"]["t2i_R@5"] == pytest.approx(e.intervals["t2i_R@5"], abs=0.006)
        for side in ("i2t", "t2i"):
            curve = dict(zip(front["curves"]["ks"], front["curves"][side][r], strict=True))
            assert [curve[k] for k in (1, 5, 10)] == pytest.approx(
                [e.values[f"{side}_R@{k}"] for k in (1, 5, 10)], abs=0.006
            )
            counts = front["histogram"][side][r]
            assert sum(counts) == (N if side == "i2t" else 5 * N)
            assert counts[0] == pytest.approx(curve[1] * sum(counts) / 100, abs=0.1)
    assert front["sampled"] is None
    assert [(c["a"], c["b"]) for c in front["comparisons"]] == [(0, 1), (0, 2), (1, 2)]
    assert all(len(c["sentences"]) == 6 for c in front["comparisons"])
    assert {row["run"] for row in front["slices"]} == {0, 1, 2}
    assert {row["counting"] for row in front["counted"]} == {"labelled", "judged", "suspected"}
    for n in range(N):
        with Image.open(site / "thumbs" / f"{n}.webp") as thumb:
            assert max(thumb.size) <= 256
    for path, text in page.page_files().items():
        assert (site / path).read_text(encoding="utf-8") == text


def test_no_path_of_this_machine_is_in_a_site(world: tuple[Dataset, list[Run], Path]) -> None:
    _, _, site = world
    text = "".join(
        path.read_text("utf-8") for path in site.rglob("*") if path.suffix in (".js", ".json", ".html")
    )
    for private in ("/home/someone", str(site.parent), "data/images"):
        assert private not in text
    models = [run["model"] for run in blocks(site)["site"]["runs"]]
    assert models == ["good", "worse", "worse > lxmert:lxmert"]


@pytest.mark.slow
def test_folds_have_curves_of_their_means(tmp_path: Path) -> None:
    captions = [f"a {n % 83} and a {n % 97}" for n in range(25_000)]
    owner = np.repeat(np.arange(5000), 5)
    ids = [f"i{n}" for n in range(5000)], [f"c{n}" for n in range(25_000)]
    data = Dataset("coco", "test", *ids, captions, owner)
    run = embeddings(data, "run", 1.0, tmp_path)
    build_site([run], data, tmp_path / "site", protocol="coco-1k-5fold", resamples=0)
    found = blocks(tmp_path / "site")
    front, queries = found["site"], found["queries"]
    assert front["folds"] == 5
    assert front["comparisons"] == []
    assert [queries["fold"].count(fold) for fold in range(5)] == [6000] * 5
    values = front["runs"][0]["values"]
    assert front["curves"]["t2i"][0][:1] == [values["t2i_R@1"]]
    assert max(queries["runs"][0]["rank"]) <= 5000
    assert len([name for name in found if name.startswith("lists-0-")]) == 60


def test_a_sample_shows_fewer_queries_and_the_same_numbers(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, site = world
    for name in ("one", "two"):
        build_site(runs[:2], data, tmp_path / name, max_queries=7, resamples=0)
    few, again, all_ = blocks(tmp_path / "one"), blocks(tmp_path / "two"), blocks(site)
    assert few["site"]["sampled"] == {"i2t": [7, N], "t2i": [7, 5 * N]}
    assert few["queries"]["direction"] == [0] * 7 + [1] * 7
    assert few["queries"] == again["queries"]
    assert few["site"]["curves"]["t2i"] == all_["site"]["curves"]["t2i"][:2]
    where = {(d, q): n for n, (d, q) in enumerate(zip(*(all_["queries"][k] for k in ("direction", "query")), strict=True))}  # fmt: skip
    for row, key in enumerate(zip(few["queries"]["direction"], few["queries"]["query"], strict=True)):
        there = where[key]
        assert few["queries"]["runs"][0]["rank"][row] == all_["queries"]["runs"][0]["rank"][there]
        assert few["lists-0-0"]["top"][row] == all_[f"lists-0-{there // 500}"]["top"][there % 500]
        assert few["lists-1-0"]["suspicion"][row] == all_[f"lists-1-{there // 500}"]["suspicion"][there % 500]
    thumbs = {int(path.stem) for path in (tmp_path / "one" / "thumbs").glob("*.webp")}
    needed = {few["captions"]["image"][n] for row in few["lists-0-0"]["top"][:7] for n in row}
    needed |= {n for row in few["lists-1-0"]["top"][7:] for n in row}
    assert needed <= thumbs < set(range(N)) | {N}


def test_without_images_nothing_of_the_photos_is_there(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, _ = world
    gone = replace(data, image_root=tmp_path / "photos-that-are-elsewhere")  # none is opened
    out = tmp_path / "site"
    build_site(runs[:1], data, out, resamples=0)
    assert (out / "thumbs").is_dir()
    build_site(runs[:1], gone, out, images=False, resamples=0, overwrite=True)
    assert not (out / "thumbs").exists()
    found = blocks(out)
    assert found["site"]["photos"] is False
    assert set(found["images"]["width"]) == set(found["images"]["height"]) == {0}
    text = "".join(path.read_text("utf-8") for path in (out / "data").iterdir())
    assert "photos-that-are-elsewhere" not in text
    assert data.image_paths is not None
    assert not any(path in text for path in data.image_paths)
    assert not any(sha in text for sha in data.image_columns["sha256"])


def test_hostile_texts_and_ids_stay_texts(world: tuple[Dataset, list[Run], Path], tmp_path: Path) -> None:
    data, _, _ = world
    texts = [*HOSTILE, *data.captions[len(HOSTILE) :]]
    ids = ["../../etc/passwd", "<script>alert(1)</script>", "CON", "a/b", "\u2028", *data.image_ids[5:]]
    hostile = replace(
        data, captions=texts, image_ids=ids, caption_ids=[f"</script>{n}" for n in range(5 * N)]
    )
    run = embeddings(hostile, "<b>&amp;", 2.0, tmp_path)
    build_site([run], hostile, tmp_path / "out" / "site", resamples=0)
    site = tmp_path / "out" / "site"
    found = blocks(site)
    assert found["captions"]["text"] == texts
    assert found["images"]["id"] == ids
    assert all("<" not in path.read_text("utf-8") for path in (site / "data").iterdir())
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    expected = re.compile(r"index\.html|site\.json|app/[\w-]+\.(js|css)|data/[a-z]+(-\d+-\d+)?\.js|thumbs/(\d+\.webp|source\.json)")  # fmt: skip
    assert all(expected.fullmatch(name) for name in names), names
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["site"]


def test_a_site_of_which_a_part_failed_does_not_look_finished_and_goes_on(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, _ = world
    photo, out = data.image_path(N - 1), tmp_path / "site"
    kept = photo.read_bytes()
    Image.new("RGB", (30, 30)).save(photo)
    try:
        with pytest.raises(ImageError, match="has changed"):
            build_site(runs[:1], data, out, resamples=0)
    finally:
        photo.write_bytes(kept)
    assert (out / "data" / "site.js").exists()
    assert not (out / "index.html").exists()
    assert not (out / "site.json").exists()
    (out / "mine.txt").write_text("a user's")
    first = (out / "thumbs" / "0.webp").stat().st_mtime_ns
    build_site(runs[:1], data, out, resamples=0)
    assert json.loads((out / "site.json").read_text())["runs"][0]["name"] == "good"
    assert (out / "thumbs" / "0.webp").stat().st_mtime_ns == first
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["app", "data", "index.html", "mine.txt", "site.json", "thumbs"]
    )


def test_only_a_site_is_replaced_and_only_its_own_files(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, _ = world
    out = tmp_path / "site"
    build_site(runs[:2], data, out, resamples=0)
    mine = [
        out / "notes.txt",
        out / "data" / "mine.csv",
        out / "thumbs" / "mine.png",
        out / "app" / "Mine.txt",
    ]
    for path in mine:
        path.write_text("a user's")
    with pytest.raises(ConfigError, match="already holds a site"):
        build_site(runs[:1], data, out, resamples=0)
    assert (out / "data" / "lists-1-0.js").exists()
    build_site(runs[:1], data, out, resamples=0, overwrite=True)
    assert all(path.read_text() == "a user's" for path in mine)
    assert not (out / "data" / "lists-1-0.js").exists()

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.html").write_text("my page")
    for made in ("{}", '{"name": "another tool\'s"}', "not JSON"):
        (theirs / "site.json").write_text(made)
        with pytest.raises(ConfigError, match="not part of a site"):
            build_site(runs[:1], data, theirs, resamples=0, overwrite=True)
    (theirs / "site.json").unlink()
    (theirs / "building.json").write_text('{"floors": 3}')
    with pytest.raises(ConfigError, match="not part of a site"):
        build_site(runs[:1], data, theirs, resamples=0, overwrite=True)
    assert (theirs / "index.html").read_text() == "my page"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        build_site(runs[:1], data, file, overwrite=True)
    linked, elsewhere = tmp_path / "linked", tmp_path / "elsewhere"
    linked.mkdir()
    elsewhere.mkdir()
    (linked / "data").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is a link"):
        build_site(runs[:1], data, linked, overwrite=True)


def test_the_same_site_is_left_alone_where_asked(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, _ = world
    out = tmp_path / "site"
    build_site(runs[:1], data, out, resamples=0)
    before = (out / "site.json").stat().st_mtime_ns
    build_site(runs[:1], data, out, resamples=0, reuse=True)
    assert (out / "site.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="already holds"):
        build_site(runs[:1], data, out, resamples=50, reuse=True)


def test_a_single_file_holds_all_and_lets_nothing_else_run(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, site = world
    out = tmp_path / "single"
    build_site(runs, data, out, resamples=50, single_file=True)
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "site.json"]
    html = (out / "index.html").read_text("utf-8")
    assert not re.search(r'\b(src|href)="(?!data:|#)', html)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert "unsafe" not in policy[1]
    assert "'self'" not in policy[1]
    for tag in ("script", "style"):
        for text in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy[1]
    inlined = {name: json.loads(value) for name, value in re.findall(r'^tiir\.data\("([\w-]+)",(.*)\);$', html.replace('<script>tiir.data', '<script>\ntiir.data'), re.M)}  # fmt: skip
    thumbs = inlined.pop("thumbs")
    assert len(thumbs) == N
    raw = base64.b64decode(thumbs["3"].removeprefix("data:image/webp;base64,"))
    assert raw == (site / "thumbs" / "3.webp").read_bytes()
    folder = blocks(site)
    assert inlined["site"].pop("single") is True
    assert folder["site"].pop("single") is False
    for block in (inlined, folder):
        block["site"].pop("created")
    assert inlined == folder


def test_a_single_file_beyond_the_limit_is_refused_before_anything_is_written(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, runs, _ = world
    monkeypatch.setattr(page, "LIMIT", 50_000)
    with pytest.raises(ConfigError, match="the limit is") as problem:
        build_site(runs, data, tmp_path / "out", resamples=0, single_file=True)
    assert "--max-queries" in str(problem.value.hint)
    assert not (tmp_path / "out").exists()


def test_runs_are_told_apart_and_must_be_of_the_data_set(
    world: tuple[Dataset, list[Run], Path], tmp_path: Path
) -> None:
    data, runs, _ = world
    with pytest.raises(ConfigError, match="are the same"):
        build_site([runs[0], runs[0]], data, tmp_path / "out")
    with pytest.raises(ConfigError, match="no Runs"):
        build_site([], data, tmp_path / "out")
    with pytest.raises(ConfigError, match="at least 1"):
        build_site(runs, data, tmp_path / "out", max_queries=0)
    with pytest.raises(RunError, match="was scored on"):
        build_site(runs, data.subset(range(5)), tmp_path / "out")
    other = replace(runs[0], path=tmp_path / "good")
    assert distinct_names([runs[0], other]) == [
        f"{runs[0].path.resolve().parent.name}/good",  # type: ignore[union-attr]
        f"{tmp_path.resolve().name}/good",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_kill_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    data = scenes.prepare(tmp_path / "data", split="test", n=300)
    data.save(tmp_path / "data")
    embeddings(data, "run", 1.0, tmp_path)
    out = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "tiir",
        "report",
        str(tmp_path / "run"),
        "--out",
        str(out),
        "--resamples",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (out / "thumbs" / "0.webp").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "site.json").exists()
    assert not (out / "index.html").exists()
    first = (out / "thumbs" / "0.webp").stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "thumbs" / "0.webp").stat().st_mtime_ns == first
    assert len(list((out / "thumbs").glob("*.webp"))) == 300
    assert not list(out.rglob("*.tmp"))
    assert (out / "index.html").exists()
