from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiir.analysis.mix import mixed
from tiir.data.dataset import Dataset
from tiir.data.protocols import resolve
from tiir.errors import RunError, TiirError
from tiir.metrics.ranking import rank_run
from tiir.metrics.retrieve import retrieve
from tiir.scoring.foreign import import_embeddings, import_scores
from tiir.scoring.run import Run
from tiir.scoring.shards import Shards

rng = np.random.default_rng(0)
# One to three captions an image; an id with a line separator that is no line end.
OWN = np.array([0, 0, 1, 2, 2, 2, 3])
DATA = Dataset(
    "pets",
    "test",
    ["a", "b", "ç\u2028c", "d"],
    [f"t{n}" for n in range(7)],
    [f"text {n}" for n in range(7)],
    OWN,
)
IMAGES = rng.standard_normal((4, 5)).astype(np.float32)
TEXTS = rng.standard_normal((7, 5)).astype(np.float32)
SCORES = IMAGES @ TEXTS.T
LABELS = np.arange(4)[:, None] == OWN


def write(folder: Path, images: Any = IMAGES, texts: Any = TEXTS, **ids: Any) -> tuple[Path, Path]:
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", texts)
    for kind, rows in ids.items():
        (folder / f"{kind}_ids.txt").write_text("".join(f"{key}\n" for key in rows), encoding="utf-8")
    return folder / "images.npy", folder / "texts.npy"


def embeddings(folder: Path, **options: Any) -> Run:
    return import_embeddings(
        folder / "images.npy", folder / "texts.npy", DATA, folder, folder / "run", name="mine", **options
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_rows_by_position(tmp_path: Path, dtype: Any) -> None:
    write(tmp_path, IMAGES.astype(dtype), TEXTS.astype(dtype))
    run = embeddings(tmp_path)
    assert run.image_embeds is not None
    kept = np.float16 if dtype == np.float16 else np.float32
    assert run.image_embeds.dtype == kept
    assert np.array_equal(run.image_embeds, IMAGES.astype(dtype).astype(kept))
    assert run.info.notes["images_joined_by"] == "position"
    assert run.info.protocol == "own"


def test_rows_by_id_undo_any_shuffle(tmp_path: Path) -> None:
    i, c = rng.permutation(4), rng.permutation(7)
    ids = {"image": [DATA.image_ids[k] for k in i], "caption": [DATA.caption_ids[k] for k in c]}
    write(tmp_path, IMAGES[i], TEXTS[c], **ids)
    run = embeddings(tmp_path)
    assert np.array_equal(run.image_embeds, IMAGES)  # type: ignore[arg-type]
    assert np.array_equal(run.text_embeds, TEXTS)  # type: ignore[arg-type]
    assert run.info.notes["captions_joined_by"].endswith("caption_ids.txt")


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    write(tmp_path)
    lines = "\r\n".join(reversed(DATA.caption_ids)) + "\r\n"
    (tmp_path / "caption_ids.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert np.array_equal(embeddings(tmp_path).text_embeds, TEXTS[::-1])  # type: ignore[arg-type]


def test_normalize(tmp_path: Path) -> None:
    write(tmp_path)
    run = embeddings(tmp_path, normalize=True)
    assert np.allclose(np.linalg.norm(run.text_embeds, axis=1), 1)  # type: ignore[arg-type]
    write(tmp_path, np.where(np.arange(4)[:, None] == 1, 0, IMAGES))
    with pytest.raises(RunError, match="'b' is all zero"):
        embeddings(tmp_path, normalize=True, overwrite=True)


def shard(folder: Path, array: Any, cuts: list[int]) -> Path:
    folder.mkdir()
    for n, part in enumerate(np.split(array, cuts)):
        np.save(folder / f"part-{n}.npy", part)
    return folder


@pytest.mark.parametrize("in_place", [False, True])
def test_shards_copied_or_in_place(tmp_path: Path, in_place: bool) -> None:
    images = shard(tmp_path / "images", IMAGES.astype(np.float16), [1, 3])
    np.save(tmp_path / "texts.npy", TEXTS)
    (images / "image_ids.txt").write_text("".join(f"{key}\n" for key in DATA.image_ids), encoding="utf-8")
    run = import_embeddings(
        images, tmp_path / "texts.npy", DATA, tmp_path, tmp_path / "run", name="mine", in_place=in_place
    )
    assert (tmp_path / "run" / "image_embeds.npy").exists() is not in_place
    assert np.array_equal(run.image_embeds, IMAGES.astype(np.float16))  # type: ignore[arg-type]
    plain = Run(run.info, IMAGES.astype(np.float16), TEXTS)
    assert np.array_equal(rank_run(run, DATA).t2i, rank_run(plain, DATA).t2i)
    assert np.array_equal(
        run.block(np.array([2, 0]), np.arange(7)), plain.block(np.array([2, 0]), np.arange(7))
    )
    found, scores = retrieve(run, resolve("own", DATA)[0], "i2t", np.arange(4), depth=3)
    same = retrieve(plain, resolve("own", DATA)[0], "i2t", np.arange(4), depth=3)
    assert np.array_equal(found, same[0])
    assert np.array_equal(scores, same[1])
    copied = run.save(tmp_path / "again") if not in_place else run
    assert np.array_equal(copied.text_embeds, TEXTS)  # type: ignore[arg-type]
    both = mixed(run, run)
    assert both is not None
    assert both.image_embeds is not None
    assert both.image_embeds.shape == (4, 10)


def test_in_place_refuses_what_it_would_have_to_change(tmp_path: Path) -> None:
    write(tmp_path, IMAGES[::-1], image=DATA.image_ids[::-1])
    with pytest.raises(RunError, match=r"images\.npy cannot be used: its rows are not those of the data set"):
        embeddings(tmp_path, in_place=True)
    (tmp_path / "image_ids.txt").unlink()
    with pytest.raises(RunError, match="cannot be normalised"):
        embeddings(tmp_path, in_place=True, normalize=True)
    write(tmp_path, IMAGES.astype(np.float64))
    with pytest.raises(RunError, match=r"images\.npy cannot be used: it is float64[\s\S]*without --in-place"):
        embeddings(tmp_path, in_place=True)
    assert not (tmp_path / "run").exists()


def changed_values(folder: Path) -> None:
    np.save(folder / "part-1.npy", -np.load(folder / "part-1.npy"))


def changed_length(folder: Path) -> None:
    np.save(folder / "part-1.npy", np.load(folder / "part-1.npy")[:1])


def gone(folder: Path) -> None:
    (folder / "part-1.npy").unlink()


def added(folder: Path) -> None:
    np.save(folder / "part-3.npy", IMAGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed_values, r"part-1\.npy has changed since"),
        (changed_length, r"part-1\.npy has changed since"),
        (gone, r"part-1\.npy is not there any more"),
        (added, r"part-3\.npy has come since"),
        (lambda folder: folder.rename(folder.with_name("moved")), "images is not there any more"),
    ],
)
def test_shards_that_changed_are_named(tmp_path: Path, change: Any, message: str) -> None:
    images = shard(tmp_path / "images", IMAGES, [1, 3])
    np.save(tmp_path / "texts.npy", TEXTS)
    run = import_embeddings(
        images, tmp_path / "texts.npy", DATA, tmp_path, tmp_path / "run", name="mine", in_place=True
    )
    assert isinstance(run.image_embeds, Shards)
    change(images)
    with pytest.raises(RunError, match=message):
        Run.load(tmp_path / "run")


def test_shards_in_the_run_itself(tmp_path: Path) -> None:
    write(tmp_path)
    run = embeddings(tmp_path)
    (tmp_path / "run" / "image_embeds.npy").unlink()
    shard(tmp_path / "run" / "image_embeds", IMAGES, [2])
    again = Run.load(tmp_path / "run")
    assert isinstance(again.image_embeds, Shards)
    assert np.array_equal(rank_run(run, DATA).i2t, rank_run(again, DATA).i2t)


def test_extra_rows_are_refused_or_left_out_on_demand(tmp_path: Path) -> None:
    write(tmp_path, np.vstack([IMAGES[:1] * np.nan, IMAGES]), image=["x", *DATA.image_ids])
    with pytest.raises(RunError, match=r"1 image not in the data set: 'x'[\s\S]*--allow-extra"):
        embeddings(tmp_path)
    run = embeddings(tmp_path, allow_extra=True)
    assert np.array_equal(run.image_embeds, IMAGES)  # type: ignore[arg-type]
    assert run.info.notes["images_left_out"] == 1


def test_what_a_run_is_made_of_is_not_replaced(tmp_path: Path) -> None:
    """Under --in-place a Run removes arrays of its own directory that it does not hold."""
    images, captions = tmp_path / "image_embeds.npy", tmp_path / "text_embeds.npy"
    for path, array in ((images, IMAGES), (captions, TEXTS), (tmp_path / "scores.npy", SCORES)):
        np.save(path, array.astype(np.float32))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for in_place in (False, True):
        with pytest.raises(RunError, match=r"is where .*image_embeds\.npy lies"):
            import_embeddings(
                images, captions, DATA, "d", tmp_path, name="m", in_place=in_place, overwrite=True
            )
    with pytest.raises(RunError, match=r"is where .*scores\.npy lies"):
        import_scores(tmp_path / "scores.npy", DATA, "d", tmp_path, name="m")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("below", ["", "run"])
def test_shards_are_not_replaced_by_what_is_made_of_them(tmp_path: Path, below: str) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    np.save(shards / "image_embeds.npy", IMAGES)
    np.save(tmp_path / "captions.npy", TEXTS)
    (shards / "run.json").touch()  # of an earlier Run, say
    for in_place in (False, True):
        with pytest.raises(RunError, match=r"is where .*shards lies"):
            import_embeddings(
                shards, tmp_path / "captions.npy", DATA, "d", shards / below, name="m", in_place=in_place,
                overwrite=True,
            )  # fmt: skip
    assert sorted(path.name for path in shards.iterdir()) == ["image_embeds.npy", "run.json"]
    assert np.array_equal(np.load(shards / "image_embeds.npy"), IMAGES)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"images": IMAGES[:3]}, "has 3 images, the data set 4"),
    ({"image": ["a", "b", "c", "d"]}, r"lacks 1 of the data set's 4 images: 'ç"),
    ({"image": ["a", "b", "b", "a"]}, "repeats 2 image ids: 'a', 'b'"),
    ({"image": ["a"]}, "has 1 line,"),
    ({"images": np.where(np.arange(4)[:, None] == 3, np.nan, IMAGES)}, "1 row with NaN.*'d'"),
    ({"texts": np.where(np.arange(7)[:, None] > 4, np.inf, TEXTS)}, "2 rows with NaN or infinite.*'t5'"),
    ({"texts": TEXTS.astype(np.float64) * 1e300}, "NaN or infinite"),
    ({"texts": TEXTS[:, :4]}, "width"),
    ({"images": IMAGES.astype(object)}, "not a readable .npy"),
    ({"images": IMAGES[0]}, "expected a float matrix"),
    ({"images": (IMAGES * 100).astype(np.int8)}, "expected a float matrix"),
]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("given", "message"), BAD, ids=[message[:24] for _, message in BAD])
def test_bad_embeddings_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    write(tmp_path, **given)
    with pytest.raises(TiirError, match=message):
        embeddings(tmp_path)
    assert not (tmp_path / "run").exists()


def scores(folder: Path, matrix: Any, data: Dataset = DATA, **options: Any) -> Run:
    np.save(folder / "matrix.npy", matrix)
    return import_scores(
        folder / "matrix.npy", data, folder, folder / "run", name="mine", overwrite=True, **options
    )


def test_matrix_in_both_layouts(tmp_path: Path) -> None:
    assert np.array_equal(scores(tmp_path, SCORES).scores, SCORES)  # type: ignore[arg-type]
    assert np.array_equal(scores(tmp_path, SCORES.T, transpose=True).scores, SCORES)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="add --transpose"):
        scores(tmp_path, SCORES.T)
    with pytest.raises(RunError, match="leave out --transpose"):
        scores(tmp_path, SCORES, transpose=True)
    with pytest.raises(RunError, match="is 3 x 7"):
        scores(tmp_path, SCORES[:3])


def test_a_square_matrix_says_that_its_layout_was_believed(tmp_path: Path) -> None:
    square = Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))
    run = scores(tmp_path, np.arange(4.0).reshape(2, 2), square)
    assert "square" in run.info.notes["layout"]
    assert run.scores is not None
    assert run.scores.tolist() == [[0, 1], [2, 3]]


def test_matrix_joined_by_ids(tmp_path: Path) -> None:
    i, c = rng.permutation(4), rng.permutation(7)
    (tmp_path / "i.txt").write_text("\n".join(DATA.image_ids[k] for k in i), encoding="utf-8")
    (tmp_path / "c.txt").write_text("\n".join(DATA.caption_ids[k] for k in c), encoding="utf-8")
    ids = {"image_ids": tmp_path / "i.txt", "caption_ids": tmp_path / "c.txt"}
    assert np.array_equal(scores(tmp_path, SCORES[i][:, c], **ids).scores, SCORES)  # type: ignore[arg-type]
    turned = scores(tmp_path, SCORES[i][:, c].T, transpose=True, **ids)
    assert np.array_equal(turned.scores, SCORES)  # type: ignore[arg-type]


def test_nan_means_not_scored_and_infinity_nothing(tmp_path: Path) -> None:
    part = SCORES.copy()
    part[1, 2:4] = np.nan
    run = scores(tmp_path, part)
    assert run.info.notes["not_scored"] == 2
    assert np.array_equal(run.scores, part, equal_nan=True)  # type: ignore[arg-type]
    part[2, 5] = -np.inf
    with pytest.raises(RunError, match=r"1 infinite score .*'ç.*'t5'"):
        scores(tmp_path, part)
    with pytest.raises(RunError, match="every value is NaN"):
        scores(tmp_path, np.full_like(SCORES, np.nan))


def study(folder: Path, logits: Any, labels: Any, data: Dataset = DATA, **options: Any) -> Run:
    ranks = {"i2t_ranks": np.zeros(4), "t2i_ranks": np.zeros(7)}
    np.savez(folder / "study.npz", logits=logits, labels=labels, **ranks)
    return import_scores(
        folder / "study.npz", data, folder, folder / "run", name="s", overwrite=True, **options
    )


@pytest.mark.parametrize("shape", ["2-d", "flat", "column"])
@pytest.mark.parametrize("layout", ["images x captions", "captions x images"])
def test_study_file_in_every_layout(tmp_path: Path, layout: str, shape: str) -> None:
    def lay(array: Any) -> Any:
        array = array if layout == "images x captions" else array.T
        return {"2-d": array, "flat": array.reshape(-1), "column": array.reshape(-1, 1)}[shape]

    run = study(tmp_path, lay(SCORES), lay(LABELS).astype(np.float32))
    assert np.array_equal(run.scores, SCORES)  # type: ignore[arg-type]
    assert run.info.notes["layout"] == layout


def test_study_file_whose_logits_are_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no layout"):
        study(tmp_path, SCORES.T, LABELS)
    with pytest.raises(RunError, match="no layout"):
        study(tmp_path, SCORES, np.roll(LABELS, 1, axis=1))
    with pytest.raises(RunError, match="21 logits"):
        study(tmp_path, SCORES[:3], LABELS)


def test_study_file_that_no_label_can_lay_out(tmp_path: Path) -> None:
    square = Dataset("pets", "test", ["a", "b"], ["a0", "b0"], ["a cat", "a dog"], np.array([0, 1]))
    with pytest.raises(RunError, match=r"both layouts[\s\S]*save the logits as .npy"):
        study(tmp_path, np.arange(4.0), np.eye(2).ravel(), square)


def test_study_file_joined_by_ids(tmp_path: Path) -> None:
    i, c = rng.permutation(4), rng.permutation(7)
    (tmp_path / "i.txt").write_text("\n".join(DATA.image_ids[k] for k in i), encoding="utf-8")
    (tmp_path / "c.txt").write_text("\n".join(DATA.caption_ids[k] for k in c), encoding="utf-8")
    ids = {"image_ids": tmp_path / "i.txt", "caption_ids": tmp_path / "c.txt"}
    run = study(tmp_path, SCORES[i][:, c], LABELS[i][:, c], **ids)
    assert np.array_equal(run.scores, SCORES)  # type: ignore[arg-type]


def test_unreadable_study_files(tmp_path: Path) -> None:
    path = tmp_path / "study.npz"
    for content in (b"", b"not a zip", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"not a readable \.npz"):
            import_scores(path, DATA, tmp_path, tmp_path / "run", name="s")
    np.savez(path, logits=SCORES)
    with pytest.raises(RunError, match=r"has no 'labels'[\s\S]*it holds: logits"):
        import_scores(path, DATA, tmp_path, tmp_path / "run", name="s")
    with pytest.raises(RunError, match=r"not a readable \.npz"):
        study(tmp_path, SCORES.astype(object), LABELS)
    with pytest.raises(RunError, match="no such file"):
        import_scores(tmp_path / "nowhere.npz", DATA, tmp_path, tmp_path / "run", name="s")


# i2t then t2i R@1, 5, 10 in percent, from the README beside the runs.
KNOWN = {
    "resnet50-minilm-ft": [34.40, 60.30, 72.50, 25.28, 55.50, 68.84],
    "efficientnet-minilm-linear": [27.20, 56.50, 69.40, 21.94, 49.64, 62.64],
    "coco5k-minilm-standin": [67.64, 89.20, 94.16, 43.28, 71.01, 81.50],
    "coco5k-lsa-standin": [58.60, 86.44, 93.50, 35.82, 64.56, 75.61],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_real_embeddings_give_their_known_recall(shared: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("coco"):
        from tiir.data.sources.karpathy import prepare as karpathy

        data = karpathy(shared / "coco" / "dataset_coco.json", split="test", images=None)
    else:
        from tiir.data.sources.flickr8k import prepare as flickr8k

        data = flickr8k(shared / "flickr8k", split="test", images=None)
    folder = shared / "runs" / name
    run = import_embeddings(
        folder / "image_embeds.npy", folder / "text_embeds.npy", data, tmp_path, tmp_path / "run", name=name
    )
    assert run.info.notes["images_joined_by"] == str(folder / "image_ids.txt")
    scores = run.block(np.arange(data.n_images), np.arange(data.n_captions))
    own = data.caption_image == np.arange(data.n_images)[:, None]
    rank = [
        1
        + (
            np.where(own, -np.inf, scores) >= np.where(own, scores, -np.inf).max(axis=axis, keepdims=True)
        ).sum(axis)
        for axis in (1, 0)
    ]
    recalls = [100 * float((side <= k).mean()) for side in rank for k in (1, 5, 10)]
    assert recalls == pytest.approx(KNOWN[name], abs=0.1)


def test_scores_are_joined_by_the_ids_beside_them(tmp_path: Path) -> None:
    i, c = rng.permutation(4), rng.permutation(7)
    np.save(tmp_path / "scores.npy", SCORES[i][:, c])
    for kind, ids, order in [("image", DATA.image_ids, i), ("caption", DATA.caption_ids, c)]:
        (tmp_path / f"{kind}_ids.txt").write_text("".join(f"{ids[k]}\n" for k in order), encoding="utf-8")
    run = import_scores(tmp_path / "scores.npy", DATA, tmp_path, tmp_path / "run", name="m")
    assert np.array_equal(run.scores, SCORES)  # type: ignore[arg-type]
    assert run.info.notes["images_joined_by"].endswith("image_ids.txt")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (1.0 + SCORES.astype(np.float64) * 1e-9, "differ by less than float32"),
        (SCORES.astype(np.float64) * 1e39, "beyond float32"),
    ],
)
def test_scores_that_float32_cannot_hold_are_refused(tmp_path: Path, scores: Any, message: str) -> None:
    np.save(tmp_path / "scores.npy", scores)
    with pytest.raises(RunError, match=message):
        import_scores(tmp_path / "scores.npy", DATA, tmp_path, tmp_path / "run", name="m")
