"""COCO from nothing: download, splits, and for LXMERT their region features, in steps. What is there and valid stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiir.data.coco import PARTS, WebFile, download, is_done, to_fetch
from tiir.data.dataset import Dataset
from tiir.data.dataset_files import check_dataset_out, source_of
from tiir.data.download import check_space
from tiir.errors import ConfigError, TiirError
from tiir.features.info import FeatureInfo
from tiir.features.layout import part_of, read_header
from tiir.features.plan import begun_commit

__all__ = [
    "DETECTOR",
    "Step",
    "check_source",
    "coco_steps",
    "disk_needed",
    "do_steps",
    "extract_step",
    "valid_dataset",
]

Captions = Literal["karpathy", "oscar"]
DETECTOR = "frcnn:unc-nlp/frcnn-vg-finetuned"  # LXMERT's own
IMAGES = {"train": 113_287, "val": 5_000, "test": 5_000}  # of COCO's Karpathy split, train with restval
NETWORK = 20e6  # bytes a second, for the estimate
DECODED = 100  # pictures a second that `prepare` reads and hashes on two cores
DETECTED = 5  # pictures a second: 2.1 TFLOP each, on a GPU that sustains 10 TFLOP/s in float32
ELSEWHERE = "move it away, or choose another --to; nothing was changed"
REGION_BYTES = 36 * (2048 * 2 + 4 * 4)  # of a picture, float16


@dataclass(frozen=True)
class Step:
    """One thing to be done.

    Args:
        name: what it makes.
        done: whether it is there and valid.
        fetch: bytes to download.
        disk: bytes it takes while it runs.
        seconds: expected, by the rates above; None where nothing is known.
        check: whether it is there and valid now: an earlier step may have changed that.
        run: does it.
    """

    name: str
    done: bool
    fetch: int
    disk: int
    seconds: float | None
    check: Callable[[], bool]
    run: Callable[[], None]


def do_steps(to: Path, steps: Sequence[Step], what: str, say: Callable[[str], None]) -> None:
    """Do the steps that are not done, in order; a killed one is continued by the next call.

    Args:
        to: the folder, for messages.
        steps: such as `coco_steps`.
        what: they make, for messages.
        say: is told what happens.
    """
    check_space(to, disk_needed(steps), what)
    for i, step in enumerate(steps, 1):
        done = step.check()
        say(f"[{i}/{len(steps)}] {step.name}: {'there already' if done else 'started'}")
        if not done:
            step.run()


def disk_needed(steps: Sequence[Step]) -> int:
    """Bytes of disk that the open steps take at the fullest moment: what is fetched is gone when it is unpacked."""
    kept = peak = 0
    for step in steps:
        if not step.done:
            peak = max(peak, kept + step.disk)
            kept += step.disk - step.fetch
    return peak


def coco_steps(
    to: Path,
    purpose: Literal["clip", "lxmert"],
    *,
    splits: Sequence[str] = tuple(IMAGES),
    captions: Captions = "karpathy",
    detector: str = DETECTOR,
    device: str = "auto",
    sources: Mapping[str, tuple[WebFile, ...]] = PARTS,
    how: Mapping[str, Any] = {},
) -> list[Step]:
    """What it takes to have COCO in `to`, for a dual encoder or for LXMERT.

    Args:
        to: the folder: pictures and captions, `coco-train`, `coco-val`, `coco-test`, and for LXMERT `coco-*-frcnn.h5`.
        purpose: "clip", or "lxmert" with region features.
        splits: which of train, val and test; without train a third of the pictures is enough.
        captions: "karpathy" (the default), or "oscar", the files that the original study used.
        detector: "frcnn:" or "detr:" and a hub id or directory.
        device: of the detector.
        sources: from `tiir.data.coco.read_sources`.
        how: `tries` and `wait` of the download.
    """
    kind, _, model = detector.partition(":")
    if purpose == "lxmert" and (kind not in ("frcnn", "detr") or not model):
        raise ConfigError(f"no detector {detector!r}", hint="frcnn:MODEL or detr:MODEL")
    parts = (*(["train2014"] if "train" in splits else []), "val2014", captions)
    steps = [_download(to, part, sources, how) for part in parts]
    for split in splits:
        name = "minival" if split == "val" and captions == "oscar" else split
        steps.append(_prepare(to, split, name, captions))
    if purpose == "lxmert":
        loaded: list[Any] = []  # the detector, once it is needed
        for split in splits:
            where = to / f"coco-{split}"
            out = to / f"{where.name}-{kind}.h5"
            steps.append(extract_step(where, out, detector, device, IMAGES[split], loaded))
    return steps


def _download(
    to: Path, part: str, sources: Mapping[str, tuple[WebFile, ...]], how: Mapping[str, Any]
) -> Step:
    files = sources[part]
    n_bytes, disk = to_fetch(to, files)

    def check() -> bool:
        return all(is_done(to, file) for file in files)

    def run() -> None:
        download(to, [part], sources, **how)

    return Step(f"download {part}", check(), n_bytes, disk, n_bytes / NETWORK, check, run)


def _prepare(to: Path, split: str, name: str, captions: Captions) -> Step:
    out = to / f"coco-{split}"
    check_source(out, captions)

    def run() -> None:
        check_source(out, captions)
        if captions == "oscar":
            from tiir.data.sources import oscar

            data = oscar.prepare(to / "coco_ir", split=name, images=to)
        else:
            from tiir.data.sources import karpathy

            data = karpathy.prepare(to / "karpathy" / "dataset_coco.json", split=name, images=to)
        data.save(out, overwrite=True)

    def check() -> bool:
        return valid_dataset(out, captions) is not None

    done = check()
    seconds = 0.0 if done else IMAGES[split] / DECODED
    return Step(f"prepare {out.name}", done, 0, 0 if done else 50_000_000, seconds, check, run)


def extract_step(where: Path, out: Path, extractor: str, device: str, images: int, loaded: list[Any]) -> Step:
    """Region features of a data set.

    Args:
        where: its directory.
        out: the store.
        extractor: "frcnn:MODEL", "detr:MODEL", "grid:MODEL" or "scenes".
        device: of the extractor.
        images: how many there are, for the estimate.
        loaded: holds the extractor once a step needed it; the same list for steps of one extractor.
    """
    kind, _, model = extractor.partition(":")
    _check_extractor(out, extractor)

    def run() -> None:
        _check_extractor(out, extractor)
        data = Dataset.load(where)
        _drop_foreign(out, data, extractor)
        if kind == "scenes":
            from tiir.features.scenes import scenes_features

            scenes_features(data, out, resume=True, overwrite=True)
            return
        if not loaded:
            from tiir.models import load_detector
            from tiir.models.backbone import VisionBackbone

            revision = begun_commit(out, extractor)
            loaded.append(
                VisionBackbone(model, device=device, revision=revision)
                if kind == "grid"
                else load_detector(extractor, device=device, revision=revision)
            )
        if kind == "grid":
            from tiir.features.grid import grid_features

            grid_features(loaded[0], data, out, resume=True, overwrite=True)
        else:
            from tiir.features.detected import detected_features

            detected_features(loaded[0], data, out, dataset_path=where, resume=True, overwrite=True)

    def check() -> bool:
        return _features(out, where, extractor)

    done = check()
    disk = 0 if done else images * REGION_BYTES
    seconds = 0.0 if done else images / DETECTED if kind in ("frcnn", "detr") else None
    return Step(f"extract {out.name}", done, 0, disk, seconds, check, run)


def check_source(out: Path, source: str) -> None:
    """Refuse a data set of another source, and other people's files; a damaged one is made again.

    Raises:
        ConfigError: what is there.
    """
    check_dataset_out(out, overwrite=True)
    if (found := source_of(out)) not in (None, source):
        raise ConfigError(f"{out} holds a data set of {found}, not of {source}", hint=ELSEWHERE)


def _check_extractor(out: Path, extractor: str) -> None:
    if not out.exists():
        return
    try:
        found = f"features of {read_header(out).info.extractor}"
    except (TiirError, OSError):
        found = "something else"
    if found != f"features of {extractor}":
        raise ConfigError(f"{out} holds {found}, not features of {extractor}", hint=ELSEWHERE)


def valid_dataset(path: Path, source: str) -> Dataset | None:
    """The data set of a source, None where it or one of its pictures is not there."""
    try:
        data = Dataset.load(path)
        if data.source.get("source") != source or data.image_root is None:
            return None
        return data if all(data.image_path(i).is_file() for i in range(data.n_images)) else None
    except (TiirError, OSError):
        return None


def _features(path: Path, where: Path, detector: str) -> bool:
    from tiir.features import FeatureStore

    try:
        store, data = FeatureStore.open(path), Dataset.load(where)
        return _is_from(store.info, detector) and store.check(data) == data.n_images
    except (TiirError, OSError):
        return False


def _drop_foreign(out: Path, data: Dataset, detector: str) -> None:
    # What an earlier setup began with other captions or another detector cannot be continued.
    part = part_of(out)
    if not part.exists():
        return
    try:
        begun = read_header(part).info
    except TiirError:
        begun = None
    if begun is None or begun.dataset_fingerprint != data.fingerprint or not _is_from(begun, detector):
        part.unlink()


def _is_from(info: FeatureInfo, extractor: str) -> bool:
    # A hub model is known by its name, a directory by its content.
    folder = extractor.partition(":")[2]
    if info.extractor != extractor or not folder or not Path(folder).is_dir():
        return info.extractor == extractor
    from tiir.models.source import Source

    return info.weights == Source(folder).revision
