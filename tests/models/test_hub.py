"""Models of a hub, which is a server on this machine: which commit a Run is of, and what is done without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tests.forks import Forks, Moment
from tests.hub import Hub
from tests.models.frcnn.conftest import changed, random_network
from tests.models.test_detr import small_detr
from transformers import AutoTokenizer, BertConfig, BertModel, DetrImageProcessorPil

from tiir.data.sources import scenes
from tiir.features.scenes import scenes_features
from tiir.features.store import FeatureStore
from tiir.models.scratch import new_clip, new_lxmert
from tiir.scoring.run import Run

pytestmark = pytest.mark.slow

OLD, NEW = "0a" * 20, "1b" * 20
SMALL = {"width": 16, "heads": 2}


class Desk:
    """A machine with a hub: `tiir` types a verb."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hub, self.cache = folder, Hub(), folder / "hf" / "hub"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", self.hub.url)
            patch.setenv("HF_HOME", str(folder / "hf"))
            patch.setenv("HF_HUB_OFFLINE", "0")
            patch.delenv("HF_HUB_CACHE", raising=False)
            self._forks = Forks(folder)
        self.data, self.features = folder / "data", folder / "features.h5"
        made = scenes.prepare(folder / "scenes", split="test", n=4)
        made.save(self.data)
        store = scenes_features(made, self.features)
        for n, (name, commit) in enumerate([("clip", OLD), ("clip", NEW)]):
            new_clip(made.captions, folder / name / commit, **SMALL, image_layers=1, text_layers=1, seed=n)
        made.save(folder / "own" / "test")
        for name, width in (("lxmert", store.width), ("cells", 16)):
            new_lxmert(made.captions, folder / name / OLD, feature_width=width, **SMALL, language_layers=1,
                       vision_layers=1, cross_layers=1)  # fmt: skip
        config = changed(INPUT__MIN_SIZE_TEST=64, INPUT__MAX_SIZE_TEST=96, RPN__POST_NMS_TOPK_TEST=30)
        frcnn = folder / "frcnn" / OLD
        frcnn.mkdir(parents=True)
        (frcnn / "config.yaml").write_text(json.dumps(config))
        save_file(random_network(config).state_dict(), frcnn / "pytorch_model.safetensors")
        tokenizer = AutoTokenizer.from_pretrained(folder / "clip" / OLD)
        bert = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=64, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
        for part in (BertModel(bert), tokenizer):
            part.save_pretrained(folder / "bert" / OLD)
        small_detr().save_pretrained(folder / "detr" / OLD)
        DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(
            folder / "detr" / OLD
        )
        names = ("clip", "lxmert", "cells", "frcnn", "detr", "bert")
        self.hub.models = {f"some/{name}": {OLD: folder / name / OLD} for name in names}

    def tiir(self, *arguments: Any, moment: Moment | None = None) -> tuple[int, str]:
        """A verb's exit code, and what it printed."""
        device = () if arguments[0] == "train" else ("--device", "cpu")
        ended = self._forks.run([*arguments, *device], self.folder / "runs", moment)
        return ended.code, self._forks.log.read_text()

    def score(self, model: str, name: str, *options: Any, **how: Any) -> tuple[int, str]:
        """Score the pictures by a model, to a Run of this name."""
        return self.tiir("score", model, self.data, "-o", self.folder / "runs" / name, *options, **how)

    def run(self, name: str) -> Run:
        return Run.load(self.folder / "runs" / name)

    def make(self, kind: str, name: str) -> tuple[int, str | None]:
        """Score or extract by the model of a kind; the exit code, and the commit that is recorded."""
        if kind in ("clip", "lxmert"):
            model, options = {"clip": ("", ()), "lxmert": ("lxmert:", ("--features", self.features))}[kind]
            return self.score(f"{model}some/{kind}", name, *options)[0], self.run(name).info.revision
        extractor = f"{kind}:some/{'clip' if kind == 'grid' else kind}"
        options = () if kind == "grid" else ("--boxes", 6)
        store = self.folder / "runs" / f"{name}.h5"
        code, _ = self.tiir("features", "extract", self.data, "-e", extractor, "-o", store, *options)
        return code, FeatureStore.open(store).info.weights

    def asked(self) -> list[str]:
        """What the hub was asked about models since the last time."""
        made = [request for request in self.hub.requests if "/some/" in request]
        self.hub.requests.clear()
        return made

    def close(self) -> None:
        self._forks.close()
        self.hub.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("machine"))
    yield made
    made.close()


@pytest.fixture
def desk(machine: Desk) -> Iterator[Desk]:
    """With an empty cache, without Runs, and with a hub that answers."""
    for made in (machine.cache, machine.folder / "runs"):
        shutil.rmtree(made, ignore_errors=True)
    for kind in ("clip", "lxmert", "cells", "bert"):
        machine.hub.models[f"some/{kind}"] = {OLD: machine.folder / kind / OLD}
    machine.hub.requests.clear()
    yield machine
    machine.hub.mute, machine.hub.refuses = False, None


def test_a_run_names_the_commit(desk: Desk) -> None:
    assert desk.score("some/clip", "old")[0] == 0
    desk.hub.models["some/clip"][NEW] = desk.folder / "clip" / NEW
    assert desk.score("some/clip", "new")[0] == 0
    assert desk.score("some/clip", "pinned", "--revision", OLD)[0] == 0
    runs = {name: desk.run(name) for name in ("old", "new", "pinned")}
    assert {name: (run.info.model, run.info.revision) for name, run in runs.items()} == {
        "old": ("some/clip", OLD),
        "new": ("some/clip", NEW),
        "pinned": ("some/clip", OLD),
    }
    vectors = {name: run.text_embeds[:].tobytes() for name, run in runs.items()}  # type: ignore[index]
    assert vectors["old"] == vectors["pinned"] != vectors["new"]


def test_all_files_are_of_one_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = desk.hub.answer

    def moves_on(path: str) -> tuple[int, dict[str, str], bytes]:
        if path.endswith("model.safetensors"):
            desk.hub.models["some/clip"][NEW] = desk.folder / "clip" / NEW
        return answer(path)

    monkeypatch.setattr(desk.hub, "answer", moves_on)
    assert desk.score("some/clip", "run")[0] == 0
    assert desk.run("run").info.revision == OLD
    files = [request.split("/resolve/")[1].split("/") for request in desk.asked() if "/resolve/" in request]
    assert {commit for commit, file in files if file != "config.json"} == {OLD}
    assert {"model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= {file for _, file in files}


def test_a_half_done_run_goes_on_with_its_commit(desk: Desk) -> None:
    assert desk.score("some/clip", "run", moment=Moment(0, "os.rename run.json"))[0] == -9
    desk.hub.models["some/clip"][NEW] = desk.folder / "clip" / NEW
    code, said = desk.score("some/clip", "run", "--resume", "--revision", NEW)
    assert code == 1
    assert f"was begun with revision '{OLD}', now it is '{NEW}'" in said
    assert f"resume with the same model (--revision {OLD})" in said
    assert desk.score("some/clip", "run", "--resume")[0] == 0
    assert desk.run("run").info.revision == OLD
    code, said = desk.score("some/clip", "run", "--resume")
    assert (code, "made otherwise" in said) == (1, True)


def test_a_half_done_cascade_goes_on_with_its_commit(desk: Desk) -> None:
    first, out = (desk.folder / "runs" / name for name in ("first", "cascade"))
    assert desk.score("some/clip", "first")[0] == 0
    rerank = ("rerank", first, "--with", "lxmert:some/lxmert", "--features", desk.features, "-o", out)
    assert desk.tiir(*rerank, "--depth", 2, moment=Moment(0, "os.rename run.json"))[0] == -9
    desk.hub.models["some/lxmert"][NEW] = desk.folder / "lxmert" / OLD
    assert desk.tiir(*rerank, "--depth", 2, "--resume")[0] == 0
    assert desk.run("cascade").info.revision == OLD


def test_half_done_features_go_on_with_their_commit(desk: Desk) -> None:
    extract = (
        "features",
        "extract",
        desk.data,
        "-e",
        "grid:some/clip",
        "-o",
        desk.folder / "runs" / "store.h5",
    )
    assert desk.tiir(*extract, moment=Moment(0, "os.rename store.h*"))[0] == -9
    desk.hub.models["some/clip"][NEW] = desk.folder / "clip" / NEW
    code, said = desk.tiir(*extract, "--resume", "--revision", NEW)
    assert (code, f"was begun with weights '{OLD}', now it is '{NEW}'" in said) == (1, True)
    assert f"resume with the same source (--revision {OLD})" in said
    assert desk.tiir(*extract, "--resume")[0] == 0
    assert FeatureStore.open(extract[-1]).info.weights == OLD


@pytest.mark.parametrize("kind", ["clip", "lxmert", "bert"])
def test_a_training_goes_on_from_the_commit_it_began_with(desk: Desk, kind: str) -> None:
    made, out = desk.folder / kind, desk.folder / "runs" / "trained"
    config, of_clip = desk.folder / f"{kind}.yaml", kind == "clip"
    scratch = {**SMALL, "language": "some/bert", "language_layers": 1, "vision_layers": 1, "cross_layers": 1}
    facts = {"scratch": scratch} if kind == "bert" else {"model": f"some/{kind}"}
    facts |= {"training": {"num_train_epochs": 2, "report_to": "none"}}
    config.write_text(json.dumps(facts | ({} if of_clip else {"objective": "contrastive"})))
    options = () if of_clip else ("--features", desk.features)
    train = ("train", "clip" if of_clip else "lxmert", desk.data, "--config", config, "--out", out, *options)
    assert desk.tiir(*train, moment=Moment(0, "open trainer_state.json", 2))[0] == -9
    record = (out / "training.json").read_bytes()
    assert json.loads(record)["start"] == OLD
    desk.hub.models[f"some/{kind}"][NEW] = made / OLD
    desk.asked()
    assert desk.tiir(*train, "--resume")[0] == 0
    assert (out / "training.json").read_bytes() == record
    asked = desk.asked()
    assert any(OLD in request for request in asked)
    assert not any(NEW in request or "main" in request for request in asked)
    assert desk.score(f"{'' if of_clip else 'lxmert:'}{out}", "run", *options)[0] == 0


@pytest.mark.parametrize("kind", ["clip", "lxmert", "grid", "frcnn", "detr"])
def test_a_model_of_the_cache_needs_no_network(desk: Desk, kind: str) -> None:
    """Its commit is known, too; and it is the hub that is asked first, once."""
    assert desk.make(kind, "there") == (0, OLD)
    desk.asked()
    desk.hub.mute = True
    assert desk.make(kind, "mute") == (0, OLD)
    assert len(desk.asked()) == 1


def test_a_recipe_goes_on_with_the_commits_it_began_with(desk: Desk) -> None:
    recipe, to = desk.folder / "own.yaml", desk.folder / "runs" / "results"
    facts = {"title": "own", "data": str(desk.folder / "own"), "features": "grid:some/clip",
             "model": "lxmert:some/cells", "protocols": ["own"]}  # fmt: skip
    recipe.write_text(json.dumps(facts))
    run = ("run", recipe, "--to", to, "--resamples", 0)
    for moment, kind in (("test-grid-some-clip.h*", "clip"), ("run.json", "cells")):
        assert desk.tiir(*run, moment=Moment(0, f"os.rename {moment}"))[0] == -9
        desk.hub.models[f"some/{kind}"][NEW] = desk.folder / kind / OLD
    assert desk.tiir(*run)[0] == 0
    assert FeatureStore.open(to / "own" / "test-grid-some-clip.h5").info.weights == OLD
    assert Run.load(to / "own").info.revision == OLD


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_hub_that_refuses_is_named(desk: Desk, status: int) -> None:
    assert desk.make("clip", "there") == (0, OLD)
    desk.hub.refuses = status
    code, said = desk.score("some/clip", "refused")
    assert (code, desk.run("refused").info.revision) == (0, OLD)
    assert (
        said.count(f"note: the hub answered {status}: commit {OLD} of some/clip is read from the cache") == 1
    )
    (weights,) = desk.cache.rglob("model.safetensors")
    weights.unlink()
    code, said = desk.score("some/clip", "partly")
    assert (code, f"was read, because the hub answered {status}; it may" in said) == (1, True)
    assert "cannot be reached" not in said
    shutil.rmtree(desk.cache)
    code, said = desk.score("some/clip", "nothing")
    assert (code, f"{status} " in said, "cannot be reached" in said) == (1, True, False)


def test_names_of_classes_are_not_lost_to_a_hub_that_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = desk.hub.answer
    monkeypatch.setattr(
        desk.hub, "answer", lambda path: (403, {}, b"") if path.endswith("_vocab.txt") else answer(path)
    )
    extract = (
        "features",
        "extract",
        desk.data,
        "-e",
        "frcnn:some/frcnn",
        "-o",
        desk.folder / "runs" / "f.h5",
    )
    code, said = desk.tiir(*extract, "--boxes", 6)
    assert code == 1
    assert "cannot load some/frcnn: Client error '403 Forbidden'" in said
    assert "objects_vocab.txt" in said
    assert "-> check the network and HF_ENDPOINT, or try it again later" in said


def test_typos_are_scored_again_by_the_model_that_made_the_run(desk: Desk) -> None:
    """Of its commit, and in its precision."""
    data, run = (desk.folder / "runs" / name for name in ("data", "run"))
    scenes.prepare(desk.folder / "runs" / "scenes", split="test", n=20).save(data)
    assert desk.tiir("score", "some/clip", data, "-o", run, "--precision", "bfloat16")[0] == 0
    desk.hub.models["some/clip"][NEW] = desk.folder / "clip" / NEW
    code, said = desk.tiir("analyze", run, "--rescore", "some/clip", "--resamples", 0)
    assert (code, "Typos corrected and scored again" in said) == (0, True)


def test_a_hub_that_is_mute_is_asked_once(desk: Desk) -> None:
    desk.hub.mute = True
    code, said = desk.score("some/clip", "run")
    assert code == 1
    assert (
        f"cannot load some/clip: there is no such directory, the cache {desk.cache} does not hold it, and "
        in said
    )
    assert f"{desk.hub.url} cannot be reached (Server disconnected" in said
    assert "-> check the name and the network; " in said
    assert "`hf download some/clip --local-dir FOLDER`" in said
    assert len(desk.asked()) == 1


def test_where_connections_are_refused(desk: Desk) -> None:
    assert desk.score("some/clip", "there")[0] == 0
    desk.hub.close()
    try:
        assert desk.score("some/clip", "gone")[0] == 0
        code, said = desk.score("some/other", "other")
        (weights,) = desk.cache.rglob("model.safetensors")
        weights.unlink()
        partly = desk.score("some/clip", "partly")
    finally:
        desk.hub.open()
    there, gone = desk.run("there"), desk.run("gone")
    assert gone.info.revision == there.info.revision == OLD
    assert gone.text_embeds[:].tobytes() == there.text_embeds[:].tobytes()  # type: ignore[index]
    assert (code, partly[0]) == (1, 1)
    assert (
        f"cannot load some/other: there is no such directory, the cache {desk.cache} does not hold it" in said
    )
    assert f"{desk.hub.url} cannot be reached ([Errno 111] Connection refused)" in said
    assert "model.safetensors" in partly[1]
    assert f"only the cache {desk.cache} was read, because {desk.hub.url} cannot be reached" in partly[1]


def test_what_the_hub_does_not_have(desk: Desk) -> None:
    code, said = desk.score("some/clop", "run")
    assert code == 1
    assert f"cannot load some/clop: there is no such directory, and {desk.hub.url} has no such model" in said
    code, said = desk.score("some/clip", "run", "--revision", "v9")
    assert code == 1
    assert "cannot load some/clip: the hub has no such revision of it" in said


def test_a_text_encoder_of_the_hub(desk: Desk) -> None:
    """Its pooling is a file that it may do without; where nobody knows, nothing is guessed."""

    def analyze() -> tuple[int, str]:
        run = desk.folder / "runs" / "run"
        return desk.tiir("analyze", run, "--text-encoder", "some/bert", "--resamples", 0, "--json")

    assert desk.score("some/clip", "run")[0] == 0
    assert analyze()[0] == 0
    desk.hub.mute = True
    assert analyze()[0] == 0
    shutil.rmtree(desk.cache / "models--some--bert" / ".no_exist")
    code, said = analyze()
    assert (code, f"only the cache {desk.cache} was read" in said) == (1, True)
    desk.hub.mute = False
    pooled = shutil.copytree(desk.folder / "bert" / OLD, desk.folder / "bert" / NEW)
    (pooled / "1_Pooling").mkdir()
    (pooled / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    desk.hub.models["some/bert"][NEW] = pooled
    code, said = analyze()
    assert (code, "asks for pooling_mode_max_tokens" in said) == (1, True)
