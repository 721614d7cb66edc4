"""Images per second of the full-size Faster R-CNN: tiir's detector against a plain sequential pass of the same network.

    python benchmarks/frcnn.py [--images 2] [--rounds 1] [--device cuda --batch-size 8]

Random weights of the published shape (ResNet-101, 1,600 objects, 400 attributes), pictures of 800 x 1333, 36 boxes.
The rival is the same network as the reference runs it: one image at a time, norms not folded, memory in the
order of channels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from measure import ratio, table
from tiir.models.frcnn.config import FrcnnConfig
from tiir.models.frcnn.detect import Found, detect
from tiir.models.frcnn.network import FrcnnNetwork
from tiir.models.frcnn.ops import torchvision_ops
from tiir.models.loading import exact_convolutions

HEIGHT, WIDTH, BOXES = 800, 1333, 36
SIDES = (64, 128, 256, 512)
CONFIG = FrcnnConfig(
    depth=101, stem=64, groups=1, width=64, res2=256, stride_in_1x1=True, shortest=800, longest=1333,
    mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0), anchors=12, hidden=512, rpn_weights=(1.0,) * 4,
    box_weights=(10.0, 10.0, 5.0, 5.0), min_size=0.0, proposals_before=6000, proposals=300, proposal_nms=0.7,
    classes=1600, attributes=400, pooled=14, nms=(0.6,), least=BOXES, most=BOXES,
)  # fmt: skip


def network() -> FrcnnNetwork:
    """Random weights under which the maps neither die out nor explode, and anchors of the published sizes."""
    torch.manual_seed(0)
    made = FrcnnNetwork(CONFIG).eval()
    with torch.no_grad():
        for name, module in made.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            if name.endswith("conv3.norm"):
                module.weight.fill_(0.2)
        made.backbone.stem.conv1.weight.mul_(0.02)
        made.proposal_generator.rpn_head.anchor_deltas.weight.mul_(0.1)
        boxes = [
            (-((s * s / r) ** 0.5) / 2, -r * (s * s / r) ** 0.5 / 2) for s in SIDES for r in (0.5, 1.0, 2.0)
        ]
        made.proposal_generator.anchor_generator.cell_anchors[0].copy_(
            torch.tensor([[x, y, -x, -y] for x, y in boxes])
        )
    return made


def timed(run: Callable[[], list[Found]], device: torch.device) -> tuple[float, list[Found]]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device in float32, for the share of it")
    options = parser.parse_args()
    device = torch.device(options.device)
    pictures = [torch.randn(3, HEIGHT, WIDTH, device=device) * 60 for _ in range(options.images)]
    plain = network().to(device)
    fast = network()
    fast.fold()
    fast.to(device, memory_format=torch.channels_last)

    def sequential() -> list[Found]:
        found = []
        for one in pictures:
            found += detect(plain, CONFIG, [one], BOXES, BOXES)
        return found

    def batched() -> list[Found]:
        found = []
        for start in range(0, len(pictures), options.batch_size):
            found += detect(fast, CONFIG, pictures[start : start + options.batch_size], BOXES, BOXES)
        return found

    with torch.inference_mode(), exact_convolutions():
        counter = FlopCounterMode(display=False)
        with counter:
            detect(fast, CONFIG, pictures[:1], BOXES, BOXES)  # also warms up
        detect(plain, CONFIG, pictures[:1], BOXES, BOXES)
        work = counter.get_total_flops() / 1e12
        seconds: dict[str, list[float]] = {"plain, one at a time": [], "tiir": []}
        for _ in range(options.rounds):
            took, slow_found = timed(sequential, device)
            seconds["plain, one at a time"].append(took)
            took, fast_found = timed(batched, device)
            seconds["tiir"].append(took)
        size = 4096
        square = torch.randn(size, size, device=device)
        product = min(timed(lambda: [square @ square], device)[0] for _ in range(3))  # type: ignore[list-item, return-value]
    rate = {name: options.images / statistics.median(took) for name, took in seconds.items()}
    print(f"{options.images} images of {HEIGHT} x {WIDTH}, {work:.2f} TFLOP each, {device}, "
          f"{torch.get_num_threads()} threads, kernels of {'torch' if torchvision_ops() is None else 'torchvision'}")  # fmt: skip
    slow, fast = seconds.values()
    rows = [
        (name, f"{rate[name]:.3f}", f"{rate[name] * work:.2f}", ratio(slow, took))
        for name, took in seconds.items()
    ]
    table(["", "images/s", "TFLOP/s", "faster than plain"], rows)
    matrix = 2 * size**3 / product / 1e12
    print(
        f"share of a large matrix product's rate ({matrix:.2f} TFLOP/s): {rate['tiir'] * work / matrix:.0%}"
    )
    if options.peak:
        print(f"share of the device's peak: {rate['tiir'] * work / options.peak:.0%}")
    same = max(
        float((a.boxes - b.boxes).abs().max()) if a.objects.tolist() == b.objects.tolist() else float("nan")
        for a, b in zip(slow_found, fast_found, strict=True)
    )
    print(f"largest difference of a box: {same:.1e} pixels")


if __name__ == "__main__":
    main()
