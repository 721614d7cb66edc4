"""The layers of the bottom-up-attention Faster R-CNN, under the names that its published checkpoint gives them.

Anderson et al., "Bottom-Up and Top-Down Attention for Image Captioning and Visual Question Answering" (CVPR 2018), on
Ren et al., "Faster R-CNN" (2015), in the PyTorch form of the hub model `unc-nlp/frcnn-vg-finetuned`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiir.errors import ModelError
from tiir.models.frcnn.config import FrcnnConfig

__all__ = ["STRIDE", "FrcnnNetwork", "map_size"]

STRIDE = 16  # pixels of the resized picture a cell of res4
BLOCKS = {50: (3, 4, 6), 101: (3, 4, 23), 152: (3, 8, 36)}  # of res2, res3, res4
Sizes = Sequence[tuple[int, int]]  # (height, width) of each image of a batch, without padding


class ConvNorm(nn.Conv2d):
    """A convolution without bias and its batch norm, which `fold` takes into the weights."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ):
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.folded: Tensor | None
        self.register_buffer("folded", None, persistent=False)

    def fold(self) -> None:
        """Multiply the norm into the weights, once, in float64; the norm is then no pass over the map of its own."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        self.weight.data = (self.weight.double() * scale[:, None, None, None]).to(self.weight.dtype)
        self.folded = shift.detach().to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h', w')."""
        if self.folded is None:
            return self.norm(super().forward(x))  # type: ignore[no-any-return]
        return F.conv2d(x, self.weight, self.folded, self.stride, self.padding, self.dilation, self.groups)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut."""

    def __init__(
        self,
        inputs: int,
        middle: int,
        outputs: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        stride_in_1x1: bool = True,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.stride_first, self.stride_second = first, second
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if inputs != outputs else None
        self.conv1 = ConvNorm(inputs, middle, 1, first)
        self.conv2 = ConvNorm(middle, middle, 3, second, dilation, dilation, groups)
        self.conv3 = ConvNorm(middle, outputs, 1)

    def forward(self, x: Tensor, sizes: Sizes | None = None) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h', w'); `sizes` of the maps that `conv2` sees, where there is padding."""
        out = F.relu_(self.conv1(x))
        if sizes is not None:
            _clear(out, sizes)
        out = self.conv3(F.relu_(self.conv2(out)))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class Stem(nn.Module):
    """7x7 convolution and Caffe's max pooling."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, outputs, 7, 2, 3)

    def forward(self, x: Tensor, sizes: Sizes | None = None) -> Tensor:
        """(n, 3, h, w) -> (n, outputs, h / 4, w / 4)."""
        x = F.relu_(self.conv1(x))
        if sizes is not None:
            _clear(x, sizes)
        return F.max_pool2d(x, 3, 2, 0, ceil_mode=True)


class Backbone(nn.Module):
    """ResNet without its last stage."""

    def __init__(self, config: FrcnnConfig) -> None:
        super().__init__()
        self.stem = Stem(config.stem)
        inputs = config.stem
        for i, blocks in enumerate(BLOCKS[config.depth]):
            middle, outputs = config.groups * config.width * 2**i, config.res2 * 2**i
            stage = nn.Sequential()
            for n in range(blocks):
                stride = 2 if n == 0 and i else 1
                stage.append(
                    Bottleneck(
                        inputs,
                        middle,
                        outputs,
                        stride=stride,
                        groups=config.groups,
                        stride_in_1x1=config.stride_in_1x1,
                    )
                )
                inputs = outputs
            setattr(self, f"res{i + 2}", stage)
        self.width = inputs

    def blocks(self) -> Iterator[Bottleneck]:
        """All blocks, in order."""
        for i in range(2, 5):
            yield from getattr(self, f"res{i}")

    def forward(self, x: Tensor, sizes: Sizes) -> Tensor:
        """Pictures (n, 3, h, w) -> res4 (n, D, h / 16, w / 16), zero where an image is padded.

        `sizes` are those of the pictures without padding. Padding is zero wherever a convolution reaches over an
        image's edge, as it is where the image stands alone.
        """
        padded = any(size != tuple(x.shape[-2:]) for size in sizes)
        now = [(_conv(h, 7, 2, 3), _conv(w, 7, 2, 3)) for h, w in sizes]
        x = self.stem(x, now if padded else None)
        now = [(_caffe_pool(h), _caffe_pool(w)) for h, w in now]
        for block in self.blocks():
            now = _strided(now, block.stride_first)
            x = block(x, now if padded else None)
            now = _strided(now, block.stride_second)
        if padded:
            _clear(x, now)
        return x


class ProposalHead(nn.Module):
    """Objectness and four deltas of each anchor."""

    def __init__(self, inputs: int, hidden: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, hidden, 3, 1, 1)
        self.objectness_logits = nn.Conv2d(hidden, anchors, 1)
        self.anchor_deltas = nn.Conv2d(hidden, anchors * 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """res4 (n, D, h, w) -> objectness (n, h * w * A) and deltas (n, h * w * A, 4), anchors of a cell together."""
        n, _, h, w = x.shape
        x = F.relu_(self.conv(x))
        objectness = self.objectness_logits(x).permute(0, 2, 3, 1).reshape(n, -1)
        deltas = self.anchor_deltas(x).view(n, -1, 4, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
        return objectness, deltas


class Anchors(nn.Module):
    """The anchors of one cell, a buffer of the checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.cell_anchors = nn.ParameterList([nn.Parameter(torch.zeros(number, 4), requires_grad=False)])

    def forward(self, h: int, w: int) -> Tensor:
        """All anchors of a map, (h * w * A, 4) in pixels of the resized picture."""
        cell = self.cell_anchors[0]
        y, x = torch.meshgrid(
            torch.arange(h, device=cell.device), torch.arange(w, device=cell.device), indexing="ij"
        )
        shift = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4).to(cell.dtype) * STRIDE
        placed: Tensor = (shift + cell).reshape(-1, 4)
        return placed


class Proposals(nn.Module):
    """The proposal network."""

    def __init__(self, inputs: int, config: FrcnnConfig) -> None:
        super().__init__()
        self.anchor_generator = Anchors(config.anchors)
        self.rpn_head = ProposalHead(inputs, config.hidden, config.anchors)


class Predictor(nn.Module):
    """Object class, box and attribute of a region's feature."""

    def __init__(self, inputs: int, config: FrcnnConfig) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, config.classes + 1)
        self.bbox_pred = nn.Linear(inputs, config.classes * 4)
        self.cls_embedding = nn.Embedding(config.classes + 1, inputs // 8)
        self.fc_attr = nn.Linear(inputs + inputs // 8, inputs // 4)
        self.attr_score = nn.Linear(inputs // 4, config.attributes + 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (r, D) -> object logits (r, C + 1), deltas (r, C, 4), attribute logits (r, A + 1); background last."""
        objects = self.cls_score(x)
        deltas = self.bbox_pred(x).view(len(x), -1, 4)
        named = torch.cat([x, self.cls_embedding(objects.argmax(1))], 1)
        return objects, deltas, self.attr_score(F.relu_(self.fc_attr(named)))


class Heads(nn.Module):
    """res5, dilated and without stride, and the predictor."""

    def __init__(self, inputs: int, config: FrcnnConfig) -> None:
        super().__init__()
        middle, self.width = config.groups * config.width * 8, config.res2 * 8
        self.res5 = nn.Sequential(
            *(
                Bottleneck(
                    inputs if n == 0 else self.width, middle, self.width, dilation=2, groups=config.groups
                )
                for n in range(3)
            )
        )
        self.box_predictor = Predictor(self.width, config)

    def features(self, pooled: Tensor) -> Tensor:
        """Pooled regions (r, inputs, p, p) -> features (r, D)."""
        out: Tensor = self.res5(pooled).mean((2, 3))
        return out


class FrcnnNetwork(nn.Module):
    """The whole detector; its state dict has the published checkpoint's keys and shapes."""

    def __init__(self, config: FrcnnConfig) -> None:
        super().__init__()
        if config.depth not in BLOCKS:
            raise ModelError(f"RESNETS.DEPTH {config.depth}", hint=f"one of: {', '.join(map(str, BLOCKS))}")
        self.backbone = Backbone(config)
        self.proposal_generator = Proposals(self.backbone.width, config)
        self.roi_heads = Heads(self.backbone.width, config)

    def fold(self) -> None:
        """Take every norm into its convolution; only for inference, and not to be saved afterwards."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()


def map_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of res4 of a resized picture.

    Example:
        >>> map_size(800, 1333)
        (50, 84)
    """

    def side(pixels: int) -> int:
        return -(-_caffe_pool(_conv(pixels, 7, 2, 3)) // 4)

    return side(height), side(width)


def _conv(pixels: int, kernel: int, stride: int, padding: int) -> int:
    return (pixels + 2 * padding - kernel) // stride + 1


def _caffe_pool(pixels: int) -> int:
    return -(-(pixels - 3) // 2) + 1  # its last window may reach over the edge


def _strided(sizes: Sizes, stride: int) -> list[tuple[int, int]]:
    return [(-(-h // stride), -(-w // stride)) for h, w in sizes]


def _clear(x: Tensor, sizes: Sizes) -> None:
    # Zero what lies beyond each image's own edge.
    for one, (h, w) in zip(x, sizes, strict=True):
        one[:, h:] = 0
        one[:, :, w:] = 0
