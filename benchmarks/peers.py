"""Speed beside other tools: evaluation end to end, ranks and recall, LXMERT, reading features, a report's data.

    python benchmarks/peers.py [--only NAME ...] [--rounds 2] [--photos 100] [--small]

Whatever is compared takes turns in this process, on the same data; a row's ratio is the median of the rounds' ratios,
with their range. `make peers` installs the tools; one that is absent is named and left out.

clip      ViT-B/32 with random weights (time does not depend on them) on the first photos of Flickr8k's test split
          (TIIR_SHARED) and their captions, from files to recall, loading the model included. tiir: the data set as
          prepared, `score_dual`, `rank_run`, `recall`. CLIP_benchmark: its `evaluate`, its collating, a DataLoader with
          two workers; the model wrapped in its two methods, photos through transformers' image processor, because
          torchvision's transforms are not there. Plain loop: transformers in batches of 64 photos and 256 captions.
          Both pad captions to 77 tokens.
ranks     5,000 images x 25,010 captions, six recalls from the score matrix. Tools that read lists get the best 100 of
          every query, found by torch.topk, which is in their time; what mteb measures besides is, too. open_clip's
          function knows one caption an image: 5,000 x 5,000 from embeddings.
lxmert    all pairs of some captions and images, as in lxmert_pairs.py.
features  random samples, as in feature_reading.py.
report    a report's data of two Runs, as in report.py. pandas is the faster one: compiled code writes its frames as they
          are, in five times the bytes; the site's blocks are made in Python, so that a page reads little at a time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPModel

import feature_reading
import report
from encode_text import LENGTH, vit_b32
from lxmert_pairs import Contest
from measure import alternate, ratio, table, versions
from ranks import data, double_argsort, topk
from tiir.data.dataset import Dataset
from tiir.data.images import open_image
from tiir.data.sources import flickr8k
from tiir.metrics import rank_embeddings, rank_run, rank_scores, recall
from tiir.models import load
from tiir.models.dual import load_parts
from tiir.scoring.dense import score_dual

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "peers"))
import others  # noqa: E402  (what the tests compare with is what is timed)

DEPTH = 100
Ways = Mapping[str, Callable[[], Any]]


def compare(what: str, ways: Ways, rounds: int) -> None:
    """Run them in turn and print a table; the first is tiir. Recalls that a way gives must be tiir's."""
    seconds, results = alternate(ways, rounds)
    mine, ours = next(iter(seconds.values())), next(iter(results.values()))
    rows = []
    for name, spent in seconds.items():
        recalls = results[name] if isinstance(results[name], dict) else {}
        off = max((abs(value - ours[key]) for key, value in recalls.items()), default=0.0)
        assert off <= 0.2, f"{name}: recall differs by {off:.3f} points"
        rows.append(
            (name, f"{statistics.median(spent):.3g}", ratio(spent, mine) if spent is not mine else "")
        )
    table([what, "seconds", "of tiir's time"], rows)
    print()


def installed(name: str, package: str, ways: dict[str, Callable[[], Any]], way: Callable[[], Any]) -> None:
    """Add a way under its tool's version, or say that it is absent. `way` has its imports inside."""
    import importlib.metadata

    try:
        ways[f"{versions(package)}, {name}" if name else versions(package)] = way
    except importlib.metadata.PackageNotFoundError:
        print(f"left out: {package} is not installed (make peers)")


# --- clip ---


def clip(options: argparse.Namespace) -> None:
    shared = Path(os.environ.get("TIIR_SHARED", ROOT.parent / "shared")) / "flickr8k"
    if not shared.is_dir():
        print(f"left out: clip, no photos at {shared} (set TIIR_SHARED)")
        return
    n = 12 if options.small else options.photos
    with tempfile.TemporaryDirectory() as folder:
        model, where = Path(folder) / "model", Path(folder) / "data"
        whole = flickr8k.prepare(shared, split="test", images=shared / "Images")
        whole.subset(range(min(n, whole.n_images))).save(where)
        vit_b32(list(whole.captions), model, pictures=True)
        dataset = Dataset.load(where)

        def ours() -> dict[str, float]:
            found = Dataset.load(where)
            run = score_dual(load(str(model)), found, where, Path(folder) / "run", overwrite=True)
            return recall(rank_run(run, found))

        ways: dict[str, Callable[[], Any]] = {"tiir": ours}
        installed("`evaluate`", "clip-benchmark", ways, lambda: by_clip_benchmark(model, dataset))
        ways[f"{versions('transformers')}, plain loop"] = lambda: by_plain_loop(model, dataset)
        what = f"CLIP ViT-B/32, {dataset.n_images:,} photos and {dataset.n_captions:,} captions to recall"
        compare(what, ways, options.rounds)


def path_of(dataset: Dataset, i: int) -> Path:
    return Path(dataset.image_root, dataset.image_paths[i])


class Photos(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Pixels and captions of an image, as CLIP_benchmark wants them."""

    def __init__(self, dataset: Dataset, prepare: Any) -> None:
        self.paths = [path_of(dataset, i) for i in range(dataset.n_images)]
        self.captions: list[list[str]] = [[] for _ in self.paths]
        for caption, image in zip(dataset.captions, dataset.caption_image, strict=True):
            self.captions[image].append(caption)
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, list[str]]:
        return self.prepare(open_image(self.paths[i]), return_tensors="pt")["pixel_values"][0], self.captions[
            i
        ]


def collate(batch: list[Any]) -> tuple[torch.Tensor, tuple[list[str], ...]]:
    pixels, captions = zip(*batch, strict=True)
    return torch.stack(pixels), captions


def by_clip_benchmark(path: Path, dataset: Dataset) -> dict[str, float]:
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    model, prepare, tokenizer = load_parts(str(path))

    class Wrapped:
        encode_image = staticmethod(lambda pixels: model.get_image_features(pixels).pooler_output)
        encode_text = staticmethod(lambda tokens: model.get_text_features(tokens).pooler_output)

    def tokens(texts: list[str]) -> torch.Tensor:
        return tokenizer(
            texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        )["input_ids"]

    loader = torch.utils.data.DataLoader(
        Photos(dataset, prepare), batch_size=64, num_workers=2, collate_fn=collate
    )
    found = evaluate(Wrapped(), loader, tokens, "cpu", amp=False, recall_k_list=[1, 5, 10])
    sides = {"i2t": "text", "t2i": "image"}
    return {f"{s}_R@{k}": 100 * found[f"{sides[s]}_retrieval_recall@{k}"] for s in sides for k in (1, 5, 10)}


@torch.inference_mode()
def by_plain_loop(path: Path, dataset: Dataset) -> dict[str, float]:
    model: CLIPModel
    model, prepare, tokenizer = load_parts(str(path))
    images, texts = [], []
    for start in range(0, dataset.n_images, 64):
        photos = [open_image(path_of(dataset, i)) for i in range(start, min(start + 64, dataset.n_images))]
        images.append(model.get_image_features(**prepare(photos, return_tensors="pt")).pooler_output)
    for start in range(0, dataset.n_captions, 256):
        batch = list(dataset.captions[start : start + 256])
        tokens = tokenizer(
            batch, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        )
        texts.append(model.get_text_features(**tokens).pooler_output)
    sides = [torch.nn.functional.normalize(torch.cat(side), dim=-1) for side in (images, texts)]
    return topk((sides[0] @ sides[1].T).numpy(), dataset.caption_image)


# --- ranks ---


def ranks(options: argparse.Namespace) -> None:
    n, m = (200, 1001) if options.small else (5000, 25010)
    images, texts, own = data(n, m)
    scores = images @ texts.T
    ways: dict[str, Callable[[], Any]] = {
        "tiir": lambda: recall(rank_scores(scores, own)),
        "sorting twice each way, as the original study": lambda: double_argsort(scores, own),
        f"{versions('torch')}, `torch.topk` of 10, recall but no ranks": lambda: topk(scores, own),
    }

    def lists() -> Iterator[others.Side]:
        return others.as_lists(scores, own, depth=min(DEPTH, n))

    installed("`recall_at_k`", "clip-benchmark", ways, lambda: others.clip_benchmark(scores, own))
    installed("`hit_rate` and the rest", "mteb", ways, lambda: others.mteb(lists()))
    installed("`hit_rate@k`", "ranx", ways, lambda: others.ranx(lists()))
    installed("`Success@k`", "ir-measures", ways, lambda: others.ir_measures(lists()))
    installed("`compute_r_at_k`", "eccv-caption", ways, lambda: by_eccv_caption(scores, own))
    if any(name.startswith("ranx") for name in ways):  # it compiles when first called
        others.ranx(others.as_lists(scores[:20, :40], np.arange(40) % 20, depth=10))
    compare(f"recall of a {n:,} x {m:,} matrix", ways, options.rounds)
    one = np.arange(n)
    ways = {"tiir": lambda: recall(rank_embeddings(images, texts[:n], one))}
    installed("`get_clip_metrics`", "open-clip-torch", ways, lambda: others.open_clip(images, texts[:n]))
    if len(ways) > 1:
        compare(f"recall of {n:,} x {n:,} embeddings", ways, options.rounds)


def by_eccv_caption(scores: Any, own: Any) -> dict[str, float]:
    """Lists of ints, as the package wants them."""
    from eccv_caption._metrics import compute_r_at_k

    own_of: list[list[int]] = [[] for _ in scores]
    for caption, image in enumerate(own.tolist()):
        own_of[image].append(caption)
    matrix = torch.from_numpy(scores)
    sides = {"i2t": (matrix, own_of), "t2i": (matrix.T, [[image] for image in own.tolist()])}
    found = {}
    for side, (one, relevant) in sides.items():
        lists = dict(enumerate(one.topk(min(DEPTH, one.shape[1])).indices.tolist()))
        for k in (1, 5, 10):
            found[f"{side}_R@{k}"] = 100 * float(compute_r_at_k(lists, dict(enumerate(relevant)), k))
    return found


# --- lxmert, features, report ---


def lxmert(options: argparse.Namespace) -> None:
    captions, images = (4, 2) if options.small else (32, 6)
    contest = Contest(captions, images, torch.device("cpu"), torch.float32)
    ways = {
        "tiir": contest.factored,
        f"{versions('transformers')}, forward of 64 padded pairs": contest.plain,
    }
    compare(f"LXMERT-base, all {captions * images:,} pairs", ways, options.rounds)


def features(options: argparse.Namespace) -> None:
    n = 40 if options.small else 1000
    with tempfile.TemporaryDirectory() as folder:
        store, groups, ids = feature_reading.write(Path(folder), n)
        order = np.random.default_rng(0).permutation(n).tolist()
        sources = {
            "tiir": feature_reading.FromStore(store, ids),
            f"{versions('h5py')}, a group an image, as the original study": feature_reading.FromGroups(
                groups, ids, as_study=True
            ),
            f"{versions('h5py')}, a group an image, read whole": feature_reading.FromGroups(groups, ids),
        }
        warnings.filterwarnings("ignore", "Creating a tensor from a list")  # that is what the study did
        few = order[: 20 if options.small else 200]
        ways = {name: lambda s=source: feature_reading.samples(s, few) for name, source in sources.items()}
        compare(f"region features of {len(few):,} images, in random order", ways, options.rounds)


def report_(options: argparse.Namespace) -> None:
    content = report.viewed(*report.made(100 if options.small else 2000, 2))

    def in_folder(write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))

    ways = {"tiir": lambda: in_folder(lambda out: report.by_site(content, out))}
    for orient in ("records", "split"):
        ways[f'{versions("pandas")}, `to_json(orient="{orient}")`'] = lambda orient=orient: in_folder(
            lambda out: report.by_pandas(content, out, orient)
        )
    compare(f"a report's data, 2 Runs of {content.dataset.n_images:,} images", ways, options.rounds)


CLAIMS = {"clip": clip, "ranks": ranks, "lxmert": lxmert, "features": features, "report": report_}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--photos", type=int, default=100, help="of Flickr8k's 1,000 test photos")
    parser.add_argument("--small", action="store_true", help="sizes that show that it runs, nothing more")
    options = parser.parse_args()
    print(
        f"tiir {versions('tiir').split()[1]}, {versions('torch', 'transformers', 'numpy')}, {torch.get_num_threads()} threads"
    )
    for name in options.only:
        CLAIMS[name](options)


if __name__ == "__main__":
    main()
