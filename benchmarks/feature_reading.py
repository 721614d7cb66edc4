"""Training samples from a FeatureStore against the study's layout: one HDF5 group an image.

    python benchmarks/feature_reading.py [--images 2000] [--rounds 3] [--folder DIR]

A sample is one image's 36 x 2,048 regions and 36 boxes as float32 tensors, drawn in random order, as training does.
Both files hold the same float32 numbers and are read in this process, the system's file cache as warm for one as for
the other. The rivals read an open h5py file, a group an image:

    arrays    torch.from_numpy(dataset[()]) of both datasets: the best that this layout allows
    study     what the original study's data set returned: the HDF5 datasets themselves, which the Trainer's collator
              turns into tensors by torch.tensor([...])

"training" is the store as `tiir train lxmert` reads it: the training collator on batches of 64 (image, caption) pairs,
captions' token ids and masks included; its samples are the images that it reads.

Rounds alternate; the medians count. The files take 0.75 MB an image. The store in float16 is shown too:
half the bytes, not quite the same numbers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import BertTokenizer

from measure import ratio, table
from tiir.data.dataset import Dataset as Captioned
from tiir.features import FeatureInfo, FeatureStore
from tiir.train.negatives import TruePairs
from tiir.train.pairs import Turns
from tiir.train.regions import BinaryPairs, RegionCollator, Tokens

REGIONS, WIDTH = 36, 2048


class FromStore(Dataset):  # type: ignore[type-arg]
    def __init__(self, path: Path, ids: list[str]) -> None:
        self.store = FeatureStore.open(path)
        self.rows = self.store.rows(ids)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        regions, boxes = self.store.read(self.rows[i : i + 1])
        return torch.from_numpy(regions[0]), torch.from_numpy(boxes[0])

    def __getitems__(self, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A whole batch at once: (B, R, D) and (B, R, 4)."""
        regions, boxes = self.store.read(self.rows[chosen])
        return torch.from_numpy(regions), torch.from_numpy(boxes)


class FromGroups(Dataset):  # type: ignore[type-arg]
    def __init__(self, path: Path, ids: list[str], *, as_study: bool = False) -> None:
        self.path, self.ids, self.as_study = path, ids, as_study
        self.file: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.file is None:  # at the first sample, so that each worker opens its own
            self.file = h5py.File(self.path, "r")
        group = self.file[self.ids[i]]
        feats, pos = group["visual_feats"], group["visual_pos"]
        if self.as_study:
            return torch.tensor([feats])[0], torch.tensor([pos])[0]
        return torch.from_numpy(feats[()]), torch.from_numpy(pos[()])


def write(folder: Path, n: int) -> tuple[Path, Path, list[str]]:
    ids = [str(391895 + 7 * i) for i in range(n)]
    rng = np.random.default_rng(0)
    store, groups = folder / "store.h5", folder / "groups.h5"
    with (
        FeatureStore.create(store, FeatureInfo(extractor="random"), ids, REGIONS, WIDTH) as writer,
        h5py.File(groups, "w") as file,
    ):
        for row, name in enumerate(ids):
            regions = rng.random((REGIONS, WIDTH), np.float32)
            boxes = np.sort(rng.random((REGIONS, 2, 2), np.float32), axis=1).reshape(REGIONS, 4)
            writer.put([row], regions[None], boxes[None])
            group = file.create_group(name)
            group.create_dataset("visual_feats", data=regions, dtype=np.float32)
            group.create_dataset("visual_pos", data=boxes, dtype=np.float32)
    return store, groups, ids


def convert_to_half(store: Path, half: Path) -> None:
    full = FeatureStore.open(store)
    with FeatureStore.create(half, full.info, full.image_ids, REGIONS, WIDTH, dtype="float16") as writer:
        for row in writer.missing:
            writer.put([row], *full.read(np.array([row])))


def samples(data: Any, order: list[int]) -> float:
    """Milliseconds a sample, one after the other, in this process."""
    data[order[0]]  # files are open
    start = time.perf_counter()
    for i in order:
        data[i]
    return 1000 * (time.perf_counter() - start) / len(order)


def in_training(store: FeatureStore) -> tuple[BinaryPairs, RegionCollator]:
    """As `tiir train lxmert` sets it up, one caption of ten words an image."""
    n = len(store)
    captions = [" ".join(str(i % p) for p in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)) for i in range(n)]
    dataset = Captioned("random", "train", store.image_ids, store.image_ids, captions, np.arange(n))
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(31))])}
    tokens = Tokens(BertTokenizer(vocab=words), captions, 32)
    true = TruePairs(dataset)
    return BinaryPairs(dataset, true, Turns(dataset)), RegionCollator(dataset, store, tokens, true)


def through_loader(data: Any, order: list[int], workers: int) -> float:
    """Milliseconds a sample in batches of 64 from a DataLoader, after its first batch."""
    collate: Any = (lambda batch: batch) if isinstance(data, FromStore) else None  # a batch comes whole
    if isinstance(data, tuple):
        data, collate = data
    loader = DataLoader(data, batch_size=64, sampler=order, num_workers=workers, collate_fn=collate)
    batches = iter(loader)
    next(batches)
    start, seen = time.perf_counter(), 0
    for batch in batches:
        regions, boxes = (batch["regions"], batch["boxes"]) if isinstance(batch, dict) else batch
        assert boxes.shape[1:] == (REGIONS, 4)
        seen += len(regions)
    return 1000 * (time.perf_counter() - start) / seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write the files; a temporary folder by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Creating a tensor from a list")  # that is what the study did
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store, groups, ids = write(Path(folder), options.images)
        half = Path(folder) / "half.h5"
        convert_to_half(store, half)
        data: dict[str, Any] = {
            "store": FromStore(store, ids),
            "groups, arrays": FromGroups(groups, ids),
            "groups, study": FromGroups(groups, ids, as_study=True),
        }
        for i in range(0, options.images, 97):  # the same numbers, whoever reads them
            for other in list(data.values())[1:]:
                assert all(torch.equal(a, b) for a, b in zip(data["store"][i], other[i], strict=True))
        data["store, float16"] = FromStore(half, ids)
        data["training"] = in_training(FeatureStore.open(store))
        sizes = ", ".join(
            f"{path.name} {path.stat().st_size / 1e6:,.0f} MB" for path in (store, groups, half)
        )
        print(
            f"{options.images:,} images of {REGIONS} x {WIDTH} float32, {sizes}; a sample is "
            f"{4 * REGIONS * (WIDTH + 4) / 1e3:.0f} kB; h5py {h5py.__version__}, torch {torch.__version__}"
        )
        rng = np.random.default_rng(1)
        ways: dict[str, Callable[[Any, list[int]], float]] = {
            "one by one": samples,
            "DataLoader, batches of 64, no workers": partial(through_loader, workers=0),
            "DataLoader, batches of 64, 2 workers, which send each batch here": partial(
                through_loader, workers=2
            ),
        }
        for title, way in ways.items():
            compare(
                title, way, data, [rng.permutation(options.images).tolist() for _ in range(options.rounds)]
            )


def compare(
    title: str, way: Callable[[Any, list[int]], float], data: dict[str, Any], orders: list[list[int]]
) -> None:
    spent: dict[str, list[float]] = {name: [] for name in data}
    for order in orders:
        for name, source in data.items():
            if name == "training" and way is samples:
                continue  # it makes batches only
            few = order[:256] if "study" in name else order  # it is slow, and even so well measured
            spent[name].append(way(source, few))
    rows = [
        (name, f"{statistics.median(times):.3f}", ratio(times, spent["store"]))
        for name, times in spent.items()
        if times
    ]
    table([title, "ms a sample", "of the store's time"], rows)
    print()


if __name__ == "__main__":
    main()
