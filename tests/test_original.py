"""docs/from-the-original.md says what is so: of our verbs, keys and files, and of the negatives."""

from __future__ import annotations

import dataclasses
import re
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from typer.main import get_command

from tiir import load
from tiir.cli.verbs import app
from tiir.data import Dataset, open_image
from tiir.data.sources import scenes
from tiir.metrics import check, published, rank_embeddings, recall
from tiir.train import LxmertTrainConfig

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "from-the-original.md"
PICTURE = ROOT / "docs" / "images" / "negatives.png"
TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""

# What the original has: its scripts, the flags of its own, the files it writes and its figures.
SCRIPTS = [
    "setup.sh",
    "coco_image_rename.py",
    "get_coco_features.py",
    "faster_to_h5.py",
    "image_to_h5.py",
    "stringify_keys.py",
    "lxmert/train.py",
    "clip/train.py",
    "lxmert_finetune.sh",
    "lxmert_predict.sh",
    "clip_zero_shot.sh",
    "error_analysis.py",
    "comparison.py",
    "error.sh",
    "comparison.sh",
    "error_exploration.ipynb",
]
FLAGS = [
    "model_name_or_path",
    "formulation",
    "config_name",
    "tokenizer_name",
    "cache_dir",
    "use_fast_tokenizer",
    "return_dict",
    "ignore_keys",
    "margin",
    "top_k_violations",
    "data_path",
    "prob_unaligned",
    "cross_image_eval",
    "eval_img_keys_file",
    "evaluate_during_training",
    "evaluation_output_file",
    "img_idxs",
    "caption_idxs",
    "output_file",
    "num_to_sample",
    "image_dir",
    "split",
    "output_dir",
    "captions_dir",
    "skip_splits",
    "val2014_loc",
    "splits",
]
FILES = [
    "{split}_captions.pt",
    "{split}_img_frcnn_feats.h5",
    "{split}_imgs.h5",
    "test_img_keys_1k.tsv",
    "clip_1k_test.npz",
    "lxmert_1k_test.npz",
    "clip_1k_test.json",
    "lxmert_1k_test.json",
    "clip_retrievals_for_lxmert.json",
    "lxmert_retrievals_for_clip.json",
    "comparison.json",
    "performance.png",
    "hard_image_retrieval.png",
    "hard_text_retrieval.png",
    "clip_better_images.png",
    "clip_better_captions.png",
]


def test_nothing_of_the_original_is_left_out() -> None:
    quoted = " ".join(re.findall(r"`([^`\n]+)`", TEXT))
    assert [name for name in SCRIPTS + FILES if name not in quoted] == []
    assert [flag for flag in FLAGS if not re.search(rf"`--{flag}\b", TEXT)] == []


def test_every_verb_and_option_in_the_text_exists() -> None:
    """Within a sentence or a table; whole commands are parsed by test_site_docs.py, as those of every page."""
    inline = [code for code in re.findall(r"`([^`\n]+)`", TEXT) if code.startswith("tiir ")]
    assert len(inline) > 20
    for code in inline:
        command: Any = get_command(app)
        words = code.split()[1:]
        while hasattr(command, "commands"):
            assert words, f"{code} names no verb"
            assert words[0] in command.commands, code
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, code


def test_every_key_of_a_configuration_exists() -> None:
    from transformers import TrainingArguments

    arguments = {field.name for field in dataclasses.fields(TrainingArguments)}
    keys = re.findall(r"`(\w+): [^`]*`", TEXT)
    assert {"model", "objective", "negatives", "margin", "top_violations"} <= set(keys)
    assert set(keys) <= set(LxmertTrainConfig.model_fields) | arguments
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    config = LxmertTrainConfig.model_validate(yaml.safe_load(block))
    assert set(config.training) <= arguments


def test_every_file_and_test_that_is_named_exists() -> None:
    named = re.findall(r"`((?:slurm|recipes|tests|benchmarks)/[\w./-]+)(?:::(\w+))?`", TEXT)
    assert len(named) > 8
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (DOCUMENT.parent / link).exists(), link


STUDY = {  # 5,000 images, as the original prints them
    "lxmert": dict(zip(("i2t_R@1", "i2t_R@5", "i2t_R@10", "t2i_R@1", "t2i_R@5", "t2i_R@10"),
                       (36.5, 67.6, 79.4, 31.3, 62.0, 74.7), strict=True)),
    "clip": dict(zip(("i2t_R@1", "i2t_R@5", "i2t_R@10", "t2i_R@1", "t2i_R@5", "t2i_R@10"),
                     (13.7, 30.0, 39.9, 10.9, 26.1, 35.3), strict=True)),
}  # fmt: skip


def test_who_is_ahead() -> None:
    """The table of both models on 5,000 images: as printed there, and CLIP as others measured it."""
    clip = published("openai/clip-vit-base-patch32", "coco-5k")
    for name, values in [("LXMERT, fine-tuned", STUDY["lxmert"]), ("CLIP, as the original printed it", STUDY["clip"]),
                         ("CLIP, as others measured it", clip)]:  # fmt: skip
        assert f"| {name} | {' | '.join(f'{values[key]:.1f}' for key in STUDY['lxmert'])} |" in TEXT
    ahead = {key: round(STUDY["lxmert"][key] - round(clip[key], 1), 1) for key in clip}
    row = " | ".join(f"{ahead[key]:+.1f}".replace("-", "\N{MINUS SIGN}") for key in STUDY["lxmert"])
    assert f"| LXMERT less CLIP | {row} |" in TEXT
    (warning,) = check("openai/clip-vit-base-patch32", "coco-5k", STUDY["clip"])
    assert "negatives" in warning


def negative(image: Image.Image) -> Image.Image:
    """What the original showed CLIP: pixels stored as floats, taken for 0 to 1, and wrapped to bytes."""
    pixels = np.asarray(image).astype(np.float32)
    return Image.fromarray((pixels * 255).astype(np.int64).astype(np.uint8))


def test_the_arithmetic_is_that_of_a_negative() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (np.asarray(negative(Image.fromarray(every))) == (256 - every.astype(int)) % 256).all()
    assert "(256 - x) mod 256" in TEXT


def drawn(n: int, folder: Path) -> Dataset:
    return scenes.prepare(folder, split="test", n=n)


def panels(data: Dataset) -> Image.Image:
    """Three pictures, and below each what CLIP was shown."""
    side = 256  # twice their own size
    sheet = Image.new("RGB", (3 * side + 2 * 8, 2 * side + 8), "white")
    for column, picture in enumerate((3, 4, 7)):
        for row, image in enumerate((data.image(picture), negative(data.image(picture)))):
            doubled = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(doubled, (column * (side + 8), row * (side + 8)))
    return sheet


def test_the_picture_shows_scenes_and_their_negatives(tmp_path: Path) -> None:
    assert PICTURE.stat().st_size < 60_000
    made, shown = np.asarray(panels(drawn(8, tmp_path)), int), np.asarray(open_image(PICTURE), int)
    assert made.shape == shown.shape
    assert np.abs(made - shown).mean() < 2  # other versions of Pillow round otherwise
    assert "](images/negatives.png)" in TEXT


N = 200


def measured(folder: Path) -> tuple[float, dict[str, dict[str, float]]]:
    """Correlation of the pixels that reach CLIP, and recall, of pictures and of their negatives."""
    data = drawn(N, folder)
    pictures = [data.image(i) for i in range(N)]
    with as_file(files("tiir") / "assets" / "scenes-clip") as path:
        model = load(str(path), device="cpu")
    texts = model.encode_captions(list(data.captions))
    pixels, found = {}, {}
    for name, images in [("pictures", pictures), ("negatives", [negative(image) for image in pictures])]:
        prepared = model.prepare(images)
        pixels[name] = prepared["pixel_values"].numpy().ravel()
        found[name] = recall(rank_embeddings(model.encode_prepared(prepared), texts, data.caption_image))
    return correlation(pixels["pictures"], pixels["negatives"]), found


def correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def row(name: str, values: dict[str, float]) -> str:
    return f"| {name} | {' | '.join(f'{value:.1f}' for key, value in values.items() if key != 'rsum')} |"


@pytest.mark.slow
def test_what_negatives_cost_is_as_the_document_says(tmp_path: Path) -> None:
    same, found = measured(tmp_path)
    assert f"{N} of its pictures" in TEXT
    assert f"is \N{MINUS SIGN}{-same:.2f}" in TEXT
    for name, values in found.items():
        (line,) = re.findall(rf"^\| its {name} \| (.*) \|$", TEXT, re.M)
        # Another processor may round a vector otherwise, which moves a query or two.
        said = [float(cell) for cell in line.split(" | ")]
        assert said == pytest.approx([value for key, value in values.items() if key != "rsum"], abs=1.01)


if __name__ == "__main__":  # draws the picture, and prints what the document quotes
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        panels(drawn(8, Path(folder) / "few")).save(PICTURE, optimize=True)
        same, found = measured(Path(folder) / "many")
        print(
            f"correlation {same:.3f}",
            *(row(f"its {name}", values) for name, values in found.items()),
            sep="\n",
        )
