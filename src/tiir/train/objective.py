"""What a step of LXMERT's training computes: which pairs of a batch are scored, and their loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiir.models.factored import Side, cross_padded, encode_captions, encode_images
from tiir.train.config import LxmertTrainConfig
from tiir.train.losses import binary_loss, hinge_loss, infonce_loss

if TYPE_CHECKING:
    from tiir.models.lxmert import LxmertMatcher

__all__ = ["Matching"]

CHUNK = 64  # pairs that go through the cross layers together: on a CPU, activations that stay in the cache
WIDE_CHUNK = 1024  # elsewhere: work for all of a GPU


class Matching(nn.Module):
    """A matcher whose forward pass gives the loss of a batch (see `RegionCollator`).

    Args:
        matcher: to be trained; `align` adds two projections and a temperature that are not part of it.
        config: the objective.
    """

    def __init__(self, matcher: LxmertMatcher, config: LxmertTrainConfig) -> None:
        super().__init__()
        self.matcher = matcher
        self.settings = config  # not "config": the Trainer would write to it
        if config.align:
            width = matcher.config.hidden_size
            self.project_image, self.project_caption = nn.Linear(width, width), nn.Linear(width, width)
            self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(
        self,
        regions: Tensor,
        boxes: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        owner: Tensor,
        true: Tensor,
        image: Tensor,
        caption: Tensor,
        matched: Tensor,
    ) -> Tensor:
        """The loss, a scalar."""
        images = encode_images(self.matcher.lxmert, regions, boxes)
        captions = encode_captions(self.matcher.lxmert, input_ids, attention_mask)
        loss, close = torch.zeros((), device=regions.device), None
        at_home = (owner >= 0).nonzero()[:, 0]  # captions whose image is in the batch
        if self.settings.align and len(at_home):
            close = self._similarity(images, captions)  # (B, M)
            of = (close[:, at_home], owner[at_home])
            loss = self.settings.align * infonce_loss(*of, true=true[:, at_home])
        if self.settings.objective == "binary":
            return loss + binary_loss(self._score(images, captions, image, caption), matched)
        if self.settings.rivals is None:
            wanted = torch.ones_like(true)
        else:
            assert close is not None
            wanted = _rivals(close.detach(), owner, true, self.settings.rivals)
        row, column = wanted.nonzero(as_tuple=True)
        scored = self._score(images, captions, row, column)
        scores = scored.new_full(true.shape, float("-inf")).index_put((row, column), scored)  # (B, M)
        if self.settings.loss == "hinge":
            return loss + hinge_loss(
                scores,
                owner,
                margin=self.settings.margin,
                top=self.settings.top_violations,
                true=true | ~wanted,
            )
        return loss + infonce_loss(scores, owner, scale=self.settings.scale, true=true | ~wanted)

    def _score(self, images: Side, captions: Side, image: Tensor, caption: Tensor) -> Tensor:
        chunk = CHUNK if image.device.type == "cpu" else WIDE_CHUNK
        pooled = cross_padded(self.matcher.lxmert, images, captions, image, caption, chunk=chunk)  # (P, h)
        return self.matcher.head(pooled)  # (P,)

    def _similarity(self, images: Side, captions: Side) -> Tensor:
        assert captions.mask is not None
        words = captions.mask[:, 0, 0, :, None]  # (M, T, 1)
        told = (captions.states * words).sum(1) / words.sum(1)  # (M, h)
        seen, told = self.project_image(images.states.mean(1)), self.project_caption(told)
        # The parameter is clamped, not the scale: beyond the limit the scale would have no gradient to come back by.
        self.log_scale.data.clamp_(max=math.log(100))
        cosine: Tensor = F.normalize(seen.float(), dim=-1) @ F.normalize(told.float(), dim=-1).T
        return self.log_scale.exp() * cosine


def _rivals(close: Tensor, owner: Tensor, true: Tensor, number: int) -> Tensor:
    """True pairs, and for each caption and each image `number` negatives, drawn by how close they are.

    Args:
        close: (B, M) similarities.
        owner: (M,) the row of each caption's image.
        true: (B, M) pairs that are no negatives.
        number: negatives each way; fewer where there are fewer.

    Returns:
        bool (B, M).
    """
    wanted = torch.zeros_like(true)
    wanted[owner, torch.arange(len(owner), device=owner.device)] = True
    masked = close.float().masked_fill(true, float("-inf"))
    for scores, chosen in [(masked, wanted), (masked.T, wanted.T)]:
        # Gumbel noise makes the best `number` a draw without replacement (Kool et al. 2019, arXiv:1903.06059).
        noise = -torch.empty_like(scores).exponential_().log()
        best = (scores + noise).topk(min(number, scores.shape[1]), dim=1)
        chosen.scatter_(1, best.indices, torch.isfinite(best.values) | chosen.gather(1, best.indices))
    return wanted
