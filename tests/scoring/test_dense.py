from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError, DataError, ImageError, RunError
from tiir.io import sha256_file
from tiir.models import load
from tiir.scoring.dense import score_dual
from tiir.scoring.run import Run


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures with two captions each, some captions twice."""
    folder = tmp_path_factory.mktemp("noise")
    rng, words = np.random.default_rng(0), ["a", "dog", "cat", "red", "green", "on", "grass", "two"]
    (folder / "images").mkdir()
    for n in range(40):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / "images" / f"{n}.png")
    captions = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(80)]
    names = [f"{n}.png" for n in range(40)]
    data = Dataset("noise", "test", names, [f"c{n}" for n in range(80)], captions, np.repeat(np.arange(40), 2),
                   folder / "images", names)  # fmt: skip
    data.save(folder / "data")
    return folder / "data"


def test_a_run_holds_what_the_model_says(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data, model = Dataset.load(noise), load(str(tiny_clip))
    run = score_dual(model, data, noise, tmp_path / "run", batch_size=8)
    images = model.encode_images([data.image(i) for i in range(data.n_images)])
    texts = np.concatenate([model.encode_captions([caption]) for caption in data.captions])
    assert np.abs(run.image_embeds - images).max() < 1e-6
    assert np.abs(run.text_embeds - texts).max() < 1e-5
    assert run.info.revision == model.info.revision
    assert run.info.notes["distinct_captions"] == len(set(data.captions))
    assert run.info.notes["truncated_captions"] == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "image_embeds.npy",
        "run.json",
        "text_embeds.npy",
    ]
    run.check(Dataset.load(noise))


def test_equal_captions_get_the_same_bytes(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data = Dataset.load(noise)
    run = score_dual(load(str(tiny_clip)), data, noise, tmp_path / "run", batch_size=8)
    first: dict[str, int] = {}
    twice = 0
    for place, caption in enumerate(data.captions):
        earlier = first.setdefault(caption, place)
        twice += earlier != place
        assert run.text_embeds[place].tobytes() == run.text_embeds[earlier].tobytes()  # type: ignore[index]
    assert twice


def test_out_is_not_overwritten_by_accident(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data, model = Dataset.load(noise), load(str(tiny_clip))
    score_dual(model, data, noise, tmp_path / "run")
    with pytest.raises(RunError, match="already holds a Run"):
        score_dual(model, data, noise, tmp_path / "run")
    score_dual(model, data, noise, tmp_path / "run", overwrite=True)


def test_overwriting_keeps_the_earlier_run_until_the_new_one_is_whole(
    noise: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model, out = Dataset.load(noise), load(str(tiny_clip)), tmp_path / "run"
    score_dual(model, data, noise, out, batch_size=8)
    earlier = {name: (out / name).read_bytes() for name in ("run.json", "image_embeds.npy")}

    def stops(texts: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_captions", stops)  # after all tiles of images
        with pytest.raises(KeyboardInterrupt):
            score_dual(model, data, noise, out, batch_size=4, overwrite=True)
    assert {name: (out / name).read_bytes() for name in earlier} == earlier
    with pytest.raises(RunError, match="already holds a Run"):
        score_dual(model, data, noise, out, batch_size=4)
    with pytest.raises(RunError, match="begun with batch_size 4, now it is 2"):
        score_dual(model, data, noise, out, batch_size=2, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_prepared", stops)  # those tiles are there
        run = score_dual(model, data, noise, out, batch_size=4, resume=True)
    assert run.info.notes["batch_size"] == 4
    assert not (out / ".parts").exists()


def test_a_damaged_run_does_not_stop_what_overwrites_it(
    noise: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model, out = Dataset.load(noise), load(str(tiny_clip)), tmp_path / "run"
    score_dual(model, data, noise, out, batch_size=8)
    (out / "text_embeds.npy").write_bytes(b"cut off")
    with pytest.raises(RunError, match="text_embeds"):
        score_dual(model, data, noise, out, batch_size=8, resume=True)

    def stops(texts: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_captions", stops)
        with pytest.raises(KeyboardInterrupt):
            score_dual(model, data, noise, out, batch_size=8, overwrite=True)
    assert score_dual(model, data, noise, out, batch_size=8, resume=True).text_embeds is not None


def test_resume_of_a_finished_run_is_nothing_to_do(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data, model, out = Dataset.load(noise), load(str(tiny_clip)), tmp_path / "run"
    score_dual(model, data, noise, out, batch_size=8)
    written = (out / "run.json").read_bytes()
    (out / ".parts").mkdir()  # killed after the last write, before the tiles were removed
    again = score_dual(model, data, noise, out, batch_size=8, resume=True)
    assert again.info.images == 40
    assert (out / "run.json").read_bytes() == written
    assert not (out / ".parts").exists()
    with pytest.raises(RunError, match="finished Run, made otherwise"):
        score_dual(model, data, noise, out, batch_size=4, resume=True)


def test_resume_of_another_plan_names_what_differs(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data, model = Dataset.load(noise), load(str(tiny_clip))
    (tmp_path / "run").mkdir()
    shutil.copytree(noise.parent / "images", tmp_path / "images")
    (tmp_path / "images" / "20.png").write_bytes(b"no picture")
    broken = replace(data, image_root=tmp_path / "images")
    with pytest.raises(ImageError):
        score_dual(model, broken, noise, tmp_path / "run", batch_size=4)
    with pytest.raises(RunError, match="begun with batch_size 4, now it is 8"):
        score_dual(model, data, noise, tmp_path / "run", batch_size=8, resume=True)
    half = load(str(tiny_clip), precision="bfloat16")
    with pytest.raises(RunError, match="begun with precision 'float32', now it is 'bfloat16'"):
        score_dual(half, data, noise, tmp_path / "run", batch_size=4, resume=True)
    with pytest.raises(RunError, match="begun with dataset"):
        score_dual(model, data.subset(range(3)), noise, tmp_path / "run", batch_size=4, resume=True)
    with pytest.raises(RunError, match=r"unfinished run[\s\S]*--resume"):
        score_dual(model, data, noise, tmp_path / "run", batch_size=4)
    score_dual(model, data, noise, tmp_path / "run", batch_size=8, overwrite=True)


def test_tiles_of_another_gpu_are_of_the_same_plan(
    noise: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = Dataset.load(noise), tmp_path / "run"
    model, other = load(str(tiny_clip), device="cpu"), load(str(tiny_clip), device="cpu")
    for one, device in ((model, "cuda:0"), (other, "cuda:1")):
        one.info = replace(one.info, device=device)  # as processes of torchrun on one node name theirs

    def breaks(texts: object) -> None:
        raise ConfigError("now")

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_captions", breaks)
        with pytest.raises(ConfigError, match="now"):
            score_dual(model, data, noise, out, batch_size=8)
    assert len(list((out / ".parts").glob("images-*.npy"))) == 5
    with monkeypatch.context() as patch:
        patch.setattr(other, "encode_prepared", breaks)  # nothing is computed twice
        score_dual(other, data, noise, out, batch_size=8, resume=True)


def test_a_damaged_tile_is_computed_again(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data, model = Dataset.load(noise), load(str(tiny_clip))
    whole = score_dual(model, data, noise, tmp_path / "whole", batch_size=4)
    shutil.copytree(noise.parent / "images", tmp_path / "images")
    (tmp_path / "images" / "39.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"39\.png"):
        score_dual(
            model, replace(data, image_root=tmp_path / "images"), noise, tmp_path / "run", batch_size=4
        )
    tile = next((tmp_path / "run" / ".parts").glob("images-000003.*"))
    tile.write_bytes(tile.read_bytes()[:-4] + b"\0\0\x80?")
    resumed = score_dual(model, data, noise, tmp_path / "run", batch_size=4, resume=True)
    assert resumed.image_embeds is not None
    assert whole.image_embeds is not None
    assert resumed.image_embeds.tobytes() == whole.image_embeds.tobytes()


def test_a_picture_exchanged_since_it_was_prepared(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    data = Dataset.load(noise)
    hashes = [sha256_file(data.image_path(i)) for i in range(data.n_images)]
    data = replace(data, image_columns={"sha256": hashes})
    score_dual(load(str(tiny_clip)), data, noise, tmp_path / "run")
    hashes[7] = hashes[8]
    with pytest.raises(ImageError, match=r"'7\.png'.* has changed"):
        score_dual(load(str(tiny_clip)), data, noise, tmp_path / "other")


def test_options_below_one(noise: Path, tiny_clip: Path, tmp_path: Path) -> None:
    for option in ("batch_size", "threads"):
        with pytest.raises(ConfigError, match="it must be at least 1"):
            score_dual(load(str(tiny_clip)), Dataset.load(noise), noise, tmp_path / "run", **{option: 0})


def test_a_data_set_without_images_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    data = Dataset("pets", "test", ["a"], ["a0"], ["a cat"], np.array([0]))
    with pytest.raises(DataError, match="without images"):
        score_dual(load(str(tiny_clip)), data, tmp_path, tmp_path / "run")


def test_a_picture_that_breaks_later_stops_the_run_and_keeps_its_tiles(
    noise: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(noise.parent, tmp_path / "copy")
    data = Dataset.load(tmp_path / "copy" / "data")
    data = replace(data, image_root=tmp_path / "copy" / "images")
    broken = tmp_path / "copy" / "images" / "30.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    model, out = load(str(tiny_clip)), tmp_path / "run"
    with pytest.raises(ImageError, match=r"30\.png"):
        score_dual(model, data, noise, out, batch_size=4, threads=1)
    assert len(list((out / ".parts").glob("images-*.npy"))) >= 5
    broken.write_bytes(whole)
    resumed = score_dual(model, data, noise, out, batch_size=4, resume=True)
    fresh = score_dual(model, data, noise, tmp_path / "fresh", batch_size=4)
    assert np.array_equal(resumed.image_embeds, fresh.image_embeds)  # type: ignore[arg-type]


@pytest.mark.slow
def test_200_real_photos_equal_a_plain_loop(shared: Path, tiny_clip: Path, tmp_path: Path) -> None:
    from tiir.data.sources.flickr8k import prepare

    folder = shared / "flickr8k"
    images = next(path for path in sorted(folder.iterdir()) if path.is_dir())
    data = prepare(folder, split="test", images=images).subset(range(200))
    run = score_dual(load(str(tiny_clip)), data, tmp_path / "data", tmp_path / "run")
    assert run.scores is None
    assert (run.info.images, run.info.captions) == (200, 1000)

    model = transformers.CLIPModel.from_pretrained(tiny_clip).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tiny_clip)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_clip)
    with torch.no_grad():
        tokens = tokenizer(
            list(data.captions), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        texts = [
            model.get_text_features(**{k: v[i : i + 1] for k, v in tokens.items()}).pooler_output
            for i in range(1000)
        ]
        pixels = (processor(Image.open(data.image_path(i)), return_tensors="pt") for i in range(200))
        pictures = [model.get_image_features(**p).pooler_output for p in pixels]
    a, b = (torch.nn.functional.normalize(torch.cat(side), dim=-1) for side in (pictures, texts))
    assert tokens["input_ids"].shape == (1000, 77)
    scores = run.block(np.arange(200), np.arange(1000))
    assert np.abs(scores - (a @ b.T).numpy()).max() < 1e-4
    assert scores.std() > 1e-3  # the model tells pictures apart, so the comparison means something
    assert isinstance(Run.load(tmp_path / "run"), Run)
