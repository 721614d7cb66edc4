"""Recipes: every shipped one is planned; small ones run on Scenes and on a miniature COCO from a local mirror."""

from __future__ import annotations

import json
import math
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.data.test_download import Server
from tests.forks import Forks, Moment
from tests.models.frcnn.conftest import save_detector  # noqa: F401 - a fixture
from tests.test_setup_coco import Verb, mirror  # noqa: F401 - a fixture

from tiir.data.coco import PARTS, read_sources
from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.data.sources import scenes
from tiir.errors import ConfigError, DataError, ModelError, RunError
from tiir.features.store import FeatureStore
from tiir.metrics.evaluate import evaluate
from tiir.metrics.published import published
from tiir.metrics.recall import RSUM
from tiir.models import load
from tiir.models.source import Source
from tiir.recipes import Outcome, Recipe, find_recipe, read_recipe, recipe_steps, run_recipe, shipped
from tiir.recipes.made import model_flaw
from tiir.recipes.outcome import expected
from tiir.recipes.place import Place
from tiir.report.chunks import read_data
from tiir.scoring.cascade import rerank
from tiir.scoring.run import Run, RunInfo
from tiir.train.config import LxmertTrainConfig
from tiir.train.trainer import training_arguments

ASSETS = Path(__file__).resolve().parent.parent / "src" / "tiir" / "assets"
STUDY = {
    ("study-lxmert", "coco-1k-subset"): "63.0 90.9 95.8 55.4 87.8 94.9",
    ("study-lxmert", "coco-5k"): "36.5 67.6 79.4 31.3 62.0 74.7",
    ("study-clip-b32", "coco-1k-subset"): "30.5 56.6 67.9 24.8 51.9 64.2",
    ("study-clip-b32", "coco-5k"): "13.7 30.0 39.9 10.9 26.1 35.3",
}
TRAINING = {
    "num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 1.0e-3, "use_cpu": True, "report_to": "none",
    "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
}  # fmt: skip
TINY_LXMERT = {
    "scratch": {"width": 16, "heads": 2, "language_layers": 1, "vision_layers": 1, "cross_layers": 1},
    "objective": "contrastive",
    "captions": 1,
    "training": TRAINING,
}
SCENES = {"data": "scenes", "images": {"train": 24, "val": 6, "test": 12}, "protocols": ["own"]}


def write(path: Path, **values: Any) -> Path:
    path.write_text(yaml.safe_dump({"title": "a test", **values}))
    return path


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_recipe_can_be_planned(name: str, tmp_path: Path, tiir: Verb) -> None:
    recipe = read_recipe(shipped()[name])
    assert recipe.name == name
    to = tmp_path / "to"
    code, out, err = tiir("run", name, "--to", to, "--dry-run", "--json")
    assert code == 0, err
    (plan,) = json.loads(out)
    assert (plan["recipe"], plan["title"]) == (name, recipe.title)
    steps = plan["steps"]
    assert [step["step"] for step in steps][-1] == f"report {name}"
    assert not any(step["done"] for step in steps)
    assert not to.exists()
    if recipe.train is not None:
        assert training_arguments(recipe.train, tmp_path, validates=True).metric_for_best_model == "rsum"
    downloads = any(step["step"] == "download train2014" for step in steps)
    assert downloads == (recipe.data == "coco" and "train" in recipe.splits)


def test_what_is_published_stands_in_one_place_and_the_studys_numbers_in_its_recipes() -> None:
    for name in shipped():
        recipe = find_recipe(name)
        for numbers in recipe.published:
            assert not published(recipe.model or "", numbers.protocol)
    for (name, protocol), text in STUDY.items():
        recipe = find_recipe(name)
        shown = recipe.reported if recipe.model else recipe.published
        values = next(numbers.values for numbers in shown if numbers.protocol == protocol)
        assert values == dict(zip(RSUM, map(float, text.split()), strict=True))
    right = expected(find_recipe("study-clip-b32"), "coco-5k")
    assert right is not None
    assert right.values["i2t_R@1"] == 50.12


def test_list(tiir: Verb) -> None:
    code, out, _ = tiir("run", "--json")
    assert code == 0
    assert [entry["name"] for entry in json.loads(out)] == list(shipped())
    assert "clip-b32" in tiir("run")[1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modell": "x"}, "r.yaml: unknown key modell"),
        ({"protocols": ["coco-6k"], "model": "a/b"}, "no protocol 'coco-6k'"),
        ({"model": "a/b", "features": "scenes"}, "'features' belong to an LXMERT"),
        ({"model": "a/b", "train": {"model": "a/b"}}, "give one of 'model', 'train' and 'rerank'"),
        ({"train": {"model": "a/b", "epochs": 3}}, "r.yaml, train: unknown key epochs"),
        ({"train": "./none.yaml"}, "no such file"),
        ({"rerank": {"first": "r.yaml", "by": "scenes-lxmert"}}, "is a part of itself"),
        ({"rerank": {"first": "scenes-clip", "by": "nobody"}}, "no recipe 'nobody'"),
        ({"rerank": {"first": "scenes-clip", "by": "scenes-clip"}}, "scenes-clip, which is no LXMERT"),
        ({"rerank": {"first": "clip-b32", "by": "scenes-lxmert"}}, "clip-b32 has other data"),
        ({"data": "cocoa", "model": "a/b"}, "data is 'cocoa'"),
        ({"model": "a/b", "data": "coco", "reported": [{"protocol": "cxc", "source": "x", "values": {"i2t_R@1": 1}}]}, "numbers of cxc"),
        ({"model": "a/b", "published": [{"protocol": "own", "source": "x", "values": {"i2t_r@1": 1}}]}, "own has no value 'i2t_r@1'"),
        ({"model": "a/b", "published": [{"protocol": "own", "source": "x", "values": {"i2t_mAP@R": 1}}]}, "own has no value 'i2t_mAP@R'"),
        ({"model": "a/b", "published": [{"protocol": "own", "source": "x", "values": {"rsum": math.nan}}]}, "published.0.values.rsum is nan"),
        ({"model": "a/b", "published": [{"protocol": "own", "source": s, "values": {"rsum": 1}} for s in "xy"]}, "own is given twice"),
        ({"model": "a/b", "protocols": ["own", "own"]}, "own is given twice"),
        ({"model": "a/b", "protocols": ["own", "cxc"]}, "protocol cxc is not of scenes"),
        ({"model": "./\0"}, "is no name"),
        ({"model": "a/b", "name": "../up"}, "name is '../up'"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_told_by_file_and_key(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", **{"data": "scenes", "protocols": ["own"]} | values)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert said in str(caught.value)
    assert caught.value.hint or said == "no such file"


def test_what_is_trained_lies_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "t.yaml").write_text("model: ../clip\n")
    for train in ("./training/t.yaml", {"model": "./clip"}):
        read = read_recipe(write(tmp_path / "r.yaml", **SCENES, train=train)).train
        assert read is not None
        assert read.model == str(tmp_path / "clip")
    scratch = {"width": 16, "heads": 2, "language": "./bert"}
    train = {"objective": "binary", "scratch": scratch}
    lxmert = read_recipe(write(tmp_path / "r.yaml", **SCENES, features="scenes", train=train)).train
    assert isinstance(lxmert, LxmertTrainConfig)
    assert lxmert.scratch is not None
    assert lxmert.scratch.language == str(tmp_path / "bert")


def test_the_demos_numbers_are_those_of_the_readme() -> None:
    page = (ASSETS.parents[2] / "README.md").read_text(encoding="utf-8")
    for name, row in (("clip", "clip"), ("lxmert", "lxmert, all pairs"), ("cascade", "cascade-50")):
        (numbers,) = find_recipe(f"scenes-{name}").published
        (line,) = re.findall(rf"^\| {row} \|.*$", page, re.MULTILINE)
        shown = [float(number) for number in re.findall(r"\| (\d+\.\d\d) \[", line)]
        assert shown[:4] == list(numbers.values.values())


def test_the_documented_recipe_is_one(tmp_path: Path) -> None:
    page = (ASSETS.parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    block = page.split("## Your own")[1].split("| key |")[0]
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(block))
    recipe = read_recipe(tmp_path / "mine.yaml")
    assert recipe.model == str(tmp_path / "models" / "mine")
    assert recipe.published[0].band == 1
    keys = re.findall(r"^\| `(\w+)` \|", page.split("| key |")[1], re.MULTILINE)
    assert {*keys, "title"} == set(Recipe.model_fields)
    listed = page.split("| recipe | expected |")[1].split("Those on COCO")[0]
    assert set(re.findall(r"`([\w-]+)`", listed)) == set(shipped())


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual encoder, an LXMERT to be trained, and their cascade, on a few scenes."""
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(ASSETS / "scenes-clip", folder / "clip-model")
    write(folder / "clip.yaml", **SCENES, model="./clip-model")
    write(folder / "lxmert.yaml", **SCENES, features="scenes", train=TINY_LXMERT)
    write(folder / "cascade.yaml", **SCENES, rerank={"first": "clip.yaml", "by": "lxmert.yaml", "depth": 4})
    return folder


@pytest.fixture(scope="module")
def whole(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The cascade, from nothing to its end."""
    to = tmp_path_factory.mktemp("whole")
    return to, run_recipe(read_recipe(recipes / "cascade.yaml"), to, device="cpu", resamples=50)


def test_a_cascade_from_nothing(recipes: Path, whole: tuple[Path, Outcome]) -> None:
    """Its numbers are those of the same work done by hand."""
    to, outcome = whole
    data = Dataset.load(to / "scenes" / "test-12")
    assert data.n_images == 12
    model: Any = load(f"lxmert:{to / 'lxmert' / 'model'}", device="cpu")
    store = FeatureStore.open(to / "scenes" / "test-12-scenes.h5")
    by_hand = rerank(Run.load(to / "clip"), data, model, store, to / "by-hand", depth=4, dataset_path=to / "scenes" / "test-12")  # fmt: skip
    assert outcome.evaluations[0].values == evaluate(by_hand, data, "own", resamples=0).values
    assert not (to / "lxmert" / "run.json").exists()  # all pairs are not scored for it
    front = read_data(to / "cascade" / "report" / "data" / "site.js")
    assert [run["name"] for run in front["runs"]] == ["clip", "cascade"]
    shutil.rmtree(to / "by-hand")


@pytest.mark.slow
def test_what_is_there_and_valid_stays(recipes: Path, whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    to = shutil.copytree(whole[0], tmp_path / "to")
    recipe = read_recipe(recipes / "cascade.yaml")

    def started() -> list[str]:
        said: list[str] = []
        run_recipe(recipe, to, device="cpu", resamples=0, say=said.append)
        return [line.split("] ")[1].split(":")[0] for line in said if line.endswith(": started")]

    # Scenes lie in the copy: what knows them by another folder is still of the same pictures.
    assert started() == []
    (to / "cascade" / "shortlist.npz").write_bytes(b"damaged")
    assert started() == ["re-rank cascade", "report cascade"]
    (to / "scenes" / "test-12-scenes.h5").unlink()
    assert started() == ["extract test-12-scenes.h5"]
    assert started() == []
    header = to / "clip" / "run.json"  # of a Run that was made again within the second
    header.write_text(json.dumps(json.loads(header.read_text()) | {"seconds": 123.0}))
    assert started() == ["report cascade"]


def test_a_changed_recipe_does_not_take_the_old_results(
    recipes: Path, whole: tuple[Path, Outcome], tmp_path: Path
) -> None:
    to = whole[0]
    other = shutil.copytree(recipes, tmp_path / "other")
    write(other / "cascade.yaml", **SCENES, rerank={"first": "clip.yaml", "by": "lxmert.yaml", "depth": 5})
    with pytest.raises(ConfigError, match=r"another rerank.depth: 4, now it is 5") as caught:
        recipe_steps(read_recipe(other / "cascade.yaml"), to)
    assert "another --to" in str(caught.value.hint)
    training = TRAINING | {"learning_rate": 2.0e-3}
    write(other / "lxmert.yaml", **SCENES, features="scenes", train=TINY_LXMERT | {"training": training})
    with pytest.raises(ConfigError, match=r"train.training.learning_rate: 0.001, now it is 0.002"):
        recipe_steps(read_recipe(other / "lxmert.yaml"), to)
    write(other / "lxmert.yaml", **SCENES, features="scenes", train=TINY_LXMERT | {"training": TRAINING | {"logging_steps": 1}})  # fmt: skip
    recipe_steps(read_recipe(other / "lxmert.yaml"), to)
    # A model whose files changed under the same name.
    config = other / "clip-model" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(RunError, match=r"holds a Run of .*clip-model"):
        run_recipe(read_recipe(other / "clip.yaml"), to, device="cpu", resamples=0)


def test_a_recipe_that_failed_at_once_may_be_mended(tmp_path: Path) -> None:
    """A misspelt model is not held against the right one."""
    wrong, right = tmp_path / "nowhere", ASSETS / "scenes-clip"
    for values, said in (({"model": str(wrong)}, "model"), ({"train": {"model": str(wrong)}}, "train.model")):
        path = write(tmp_path / "r.yaml", **SCENES, **values)
        with pytest.raises(ModelError, match="no such model directory"):
            run_recipe(read_recipe(path), tmp_path / said, device="cpu", resamples=0)
        path.write_text(path.read_text().replace(str(wrong), str(right)))
        assert len(recipe_steps(read_recipe(path), tmp_path / said)) > 2
        (tmp_path / said / "r" / "image_embeds.npy").touch()  # of the earlier one
        with pytest.raises(ConfigError, match=f"another {said}: "):
            recipe_steps(read_recipe(path), tmp_path / said)


def test_what_lies_where_a_recipe_would_lie_stays(recipes: Path, tmp_path: Path, tiir: Verb) -> None:
    """A model in a directory of the recipe's name, before and after the recipe's own data are there."""
    shutil.copytree(ASSETS / "scenes-clip", tmp_path / "clip")
    scenes.prepare(tmp_path / "photos", n=2).save(tmp_path / "scenes" / "test-12")
    before = sorted(tmp_path.rglob("*"))
    for more in ((), ("--dry-run",)):
        code, _, err = tiir("run", recipes / "clip.yaml", "--to", tmp_path, *more)
        assert code == 2
        assert (
            f"{tmp_path / 'clip'} already holds files that are not part of a Run, such as config.json" in err
        )
    shutil.rmtree(tmp_path / "clip")
    source = tmp_path / "scenes" / "test-12" / "dataset.json"
    source.write_text(source.read_text().replace('"source": "scenes"', '"source": "folder"'))
    code, _, err = tiir("run", recipes / "clip.yaml", "--to", tmp_path)
    assert (code, "test-12 holds a data set of folder, not of scenes" in err) == (2, True)
    assert sorted(tmp_path.rglob("*")) == [
        path for path in before if tmp_path / "clip" not in (path, *path.parents)
    ]


@pytest.mark.parametrize(("name", "to"), [("own", "."), ("test", "own"), ("coco", "to")])
def test_a_recipe_does_not_lie_in_data(
    name: str, to: str, whole: tuple[Path, Outcome], tmp_path: Path
) -> None:
    Dataset.load(whole[0] / "scenes" / "test-12").save(tmp_path / "own" / "test")
    before = sorted(tmp_path.rglob("*"))
    path = write(tmp_path / "r.yaml", name=name, data="./own", model="a/b", protocols=["own"])
    with pytest.raises(RunError, match=f"a recipe named {name}, and data in"):
        run_recipe(read_recipe(path), tmp_path / to)
    assert sorted(tmp_path.rglob("*")) == [*before, path]


def test_flickr8ks_data_are_no_recipes_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "flickr8k-test.yaml", data="flickr8k", model="a/b", protocols=["flickr8k"])
    with pytest.raises(RunError, match="give it another name"):
        recipe_steps(read_recipe(path), tmp_path)


def test_a_table_shows_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiir: Verb) -> None:
    """A second row that fails takes nothing from the first, and what it lacks is said before the first begins."""
    right = write(tmp_path / "right.yaml", **SCENES, model=str(ASSETS / "scenes-clip"))
    wrong = write(tmp_path / "wrong.yaml", **SCENES, train={"model": str(tmp_path / "nowhere")})
    monkeypatch.setattr("tiir.cli.run.STUDY", (str(right), str(wrong)))
    command = ("reproduce", "study", "--to", tmp_path / "to", "--device", "cpu", "--resamples", "0", "--json")
    with monkeypatch.context() as without:
        without.setattr("tiir.recipes.steps.find_spec", lambda name: None)
        code, out, err = tiir(*command)
    assert (code, out) == (1, "")
    assert "accelerate" in err
    assert not (tmp_path / "to").exists()
    code, out, err = tiir(*command)
    assert code == 1
    assert "no such model directory" in err
    assert [outcome["recipe"] for outcome in json.loads(out)] == ["right"]


def test_a_trained_model_is_of_the_directory_that_it_began_with(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    recipe = read_recipe(write(tmp_path / "tuned.yaml", **SCENES, train={"model": str(begun)}))
    place = Place(recipe, tmp_path / "to")
    scenes.prepare(tmp_path / "scenes", split="train", n=2).save(place.data("train"))
    place.model.mkdir(parents=True)
    (place.model / "history.json").write_text("[]")
    assert recipe.train is not None
    record = {"config": recipe.train.model_dump(mode="json"), "start": Source(str(begun)).revision}
    (place.model / "training.json").write_text(json.dumps(record))
    assert model_flaw(recipe, place) is None
    (begun / "config.json").write_text('{"other": 1}')
    assert "trained with another start" in str(model_flaw(recipe, place))


def test_a_directory_of_ones_own_is_only_read(
    recipes: Path, whole: tuple[Path, Outcome], tmp_path: Path
) -> None:
    own = tmp_path / "own" / "test"
    Dataset.load(whole[0] / "scenes" / "test-12").save(own)
    before = sorted((tmp_path / "own").rglob("*"))
    recipe = read_recipe(
        write(
            tmp_path / "mine.yaml",
            data="./own",
            features="scenes",
            model=f"lxmert:{ASSETS / 'scenes-lxmert'}",
            protocols=["own"],
        )
    )
    outcome = run_recipe(recipe, tmp_path / "to", device="cpu", resamples=0)
    assert outcome.evaluations[0].n_images == 12
    assert (tmp_path / "to" / "mine" / "test-scenes.h5").exists()
    assert sorted((tmp_path / "own").rglob("*")) == before


def test_flickr8k_that_nobody_copied(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", data="flickr8k", model="a/b", protocols=["flickr8k"])
    with pytest.raises(DataError, match="flickr8k is not there") as caught:
        recipe_steps(read_recipe(path), tmp_path)[0].run()
    assert "Images/" in str(caught.value.hint)


@pytest.mark.slow
def test_flickr8k_as_the_user_copied_it(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "flickr8k").symlink_to(shared / "flickr8k")
    path = write(tmp_path / "f.yaml", data="flickr8k", model="a/b", protocols=["flickr8k"])
    step = recipe_steps(read_recipe(path), tmp_path)[0]
    step.run()
    assert step.check()
    assert Dataset.load(tmp_path / "flickr8k-test").n_captions == 5000


def test_torchrun_is_refused_in_words(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="run by one process") as caught:
        run_recipe(read_recipe(recipes / "clip.yaml"), tmp_path)
    assert f"--out {tmp_path / 'clip' / 'model'} and `tiir score`" in str(caught.value.hint)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(recipes: Path, tmp_path: Path, forks: Forks) -> None:
    def run(to: str, moment: Moment | None = None) -> int:
        verb = ["run", recipes / "cascade.yaml", "--to", tmp_path / to, "--device", "cpu", "--resamples", "0"]
        return forks.run(verb, tmp_path, moment).code

    assert run("whole") == 0, forks.log.read_text()
    codes = [run("killed", Moment(seconds)) for seconds in (0.4, 0.9, 1.4, 1.9, 2.4)]
    assert -9 in codes
    assert run("killed") == 0, forks.log.read_text()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in ("lxmert/model/model.safetensors", "clip/image_embeds.npy", "clip/text_embeds.npy"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = (Run.load(to / "cascade").shortlist for to in (killed, whole))
    assert one is not None
    assert other is not None
    for key, value in vars(other).items():
        np.testing.assert_array_equal(vars(one)[key], value)


@pytest.mark.slow
def test_on_a_miniature_coco(
    mirror: tuple[Server, Path],  # noqa: F811
    save_detector: Callable[..., Path],  # noqa: F811
    tiny_clip: Path,
    tmp_path: Path,
    tiir: Verb,
) -> None:
    server, sources = mirror
    coco: Any = {"data": "coco", "protocols": ["own"]}
    far = {"protocol": "own", "source": "nobody", "band": 0.5, "values": {"i2t_R@1": -50.0, "t2i_R@1": -50.0}}
    clip = write(tmp_path / "clip.yaml", **coco, model=str(tiny_clip), published=[far])
    to = tmp_path / "to"
    common = ("--to", to, "--sources", sources, "--device", "cpu", "--resamples", "20")
    code, out, err = tiir("run", clip, *common, "--json")
    assert code == 0, err
    assert not (to / "coco" / "train2014").exists()  # a third of the pictures is enough
    (entry,) = json.loads(out)
    assert (entry["recipe"], entry["title"]) == ("clip", "a test")  # named as with --dry-run
    found = entry["protocols"]["own"]
    own = evaluate(Run.load(to / "clip"), Dataset.load(to / "coco" / "coco-test"), "own", resamples=0)
    row = found["metrics"]["i2t_R@1"]
    assert row["value"] == own.values["i2t_R@1"]
    assert row["difference"] == row["value"] + 50
    assert found["within"] is row["within"] is False
    write(
        tmp_path / "lxmert.yaml", **coco, features=f"frcnn:{save_detector()}", train=TINY_LXMERT | {"objective": "binary"},
        published=[far | {"band": 200}],
    )  # fmt: skip
    asked = len(server.ranges)
    code, out, err = tiir("run", tmp_path / "lxmert.yaml", *common)
    assert code == 0, err
    assert len(server.ranges) == asked + 1  # train2014
    assert "prepare coco-test: there already" in err
    assert "lxmert, own: WITHIN 200 points of the published numbers (nobody)" in out
    assert Run.load(to / "lxmert").info.notes["share"] == 100
    code, out, err = tiir("run", tmp_path / "lxmert.yaml", *common, "--dry-run", "--json")
    assert all(step["done"] for step in json.loads(out)[0]["steps"])
    assert len(server.ranges) == asked + 1


def test_the_list_of_1000_images(mirror: tuple[Server, Path], tmp_path: Path) -> None:  # noqa: F811
    server, sources = mirror
    recipe = find_recipe("study-clip-b32")
    to, url = tmp_path / "to", f"{server.url}/test_img_keys_1k.tsv"
    sources.write_text(sources.read_text() + yaml.safe_dump({"oscar": [{"url": url, "folder": "coco_ir"}]}))

    def first_step() -> Any:
        return recipe_steps(recipe, to, sources=read_sources(sources), how={"tries": 1})[0]

    with pytest.raises(DataError, match="list of the 1,000 images") as caught:
        first_step().run()
    path = to / "coco" / "coco_ir" / "test_img_keys_1k.tsv"
    assert str(path) in str(caught.value.hint)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1\n2\n2\n")  # copied there, and cut
    assert not first_step().done
    with pytest.raises(DataError, match="names 2 images, not 1,000"):
        first_step().run()
    path.unlink()
    server.files["/test_img_keys_1k.tsv"] = "\n".join(map(str, range(1000))).encode()
    first_step().run()
    assert path.read_bytes() == server.files["/test_img_keys_1k.tsv"]
    assert first_step().done
    assert any(file.name == path.name for file in PARTS["oscar"])


def test_the_studys_clip_row_beside_what_was_published(tiir: Verb) -> None:
    """Of 5,000 images whose captions are mostly told by a model of our own making."""
    n = 5000
    names = [str(i) for i in range(n)]
    captions = [f"{i}-{k}" for i in names for k in range(5)]
    data = Dataset("coco", "test", names, captions, captions, np.repeat(np.arange(n), 5))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(n, 16)).astype(np.float32)
    texts = np.repeat(images, 5, 0) + rng.normal(scale=0.55, size=(5 * n, 16)).astype(np.float32)
    model = "openai/clip-vit-base-patch32"
    run = Run(RunInfo.about(data, "nowhere", model), image_embeds=images, text_embeds=texts)
    e = evaluate(run, data, "coco-5k", resamples=0)
    assert resolve("coco-5k", data)
    outcome = Outcome(find_recipe("study-clip-b32"), (e,), Path("site"))
    known = published(model, "coco-5k")
    found = outcome.to_dict()["protocols"]["coco-5k"]
    for name in RSUM:
        row = found["metrics"][name]
        assert row["difference"] == e.values[name] - known[name]
        assert row["within"] == (abs(row["difference"]) <= 1.5)
    assert found["reported"][0]["values"]["i2t_R@1"] == 13.7
    (sentence,) = outcome.verdicts()
    assert found["within"] is False
    assert sentence.startswith("study-clip-b32, coco-5k: NOT within 1.5 points")
    assert "negatives" in outcome.to_dict()["note"]
    code, out, err = tiir("reproduce", "study", "--dry-run", "--json", "--to", "nowhere")
    assert code == 0, err
    assert [plan["recipe"] for plan in json.loads(out)] == ["study-clip-b32", "study-lxmert"]
