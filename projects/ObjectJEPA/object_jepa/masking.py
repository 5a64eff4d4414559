"""Which patches a step hides, which it shows, and which it predicts.

One formula serves all modes: the hidden patches are those with the largest keys, log-weight plus
Gumbel noise plus a tier, so that every image hides exactly as many as any other. A higher tier
comes before all weights: blocks and objects are hidden first, and, below all, some patches
stay visible while others are left.

Shapes: B images, G boxes of an image (padded), N = h w patches, T blocks, K kept, H hidden and P
predicted patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .coverage import CoverageRule, ObjectPatches, find_object_patches
from .mask_blocks import block_sizes, draw_anchors, place_blocks
from .mask_noise import MaskNoise, draw_noise, gumbel

MODES = ("random", "blocks", "object_blocks", "soft", "hard", "mixture")
LOSS_SETS = ("uniform", "blocks", "objects", "only_objects")
_TIER = 1e4  # beyond the noise of any draw


class Masks(NamedTuple):
    """Patches of a step; all indices are int64, ascending, and equally many in every image.

    Attributes:
        keep: (B, K) visible patches that the context encoder sees.
        hidden: (B, H) patches that it does not see, disjoint from ``keep``.
        predicted: (B, P) of the hidden ones, those of the loss.
        object_tokens: (B, N) bool, patches of any object.
        weights: (B, P) float32 of the predicted patches in the loss of their image, 0 or 1.
        guided: (B,) bool, images whose objects guide the mask and the loss.
    """

    keep: torch.Tensor
    hidden: torch.Tensor
    predicted: torch.Tensor
    object_tokens: torch.Tensor
    weights: torch.Tensor
    guided: torch.Tensor


class _Objects(NamedTuple):
    """(B, N) each: patches of chosen objects, those to keep visible, and strengths."""

    chosen: torch.Tensor
    spared: torch.Tensor
    strength: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class MaskSampler:
    """Sampler of masks; holds no state, so that equal seeds give equal masks anywhere.

    Source: I-JEPA (arXiv 2301.08243), section 3, for the blocks; the choice by objects is this
    project's own.

    Attributes:
        mode: "random" patches; "blocks" of I-JEPA first, then random ones; "object_blocks", the
            same with blocks that lie on objects; "soft", patches of objects with the weight
            ``object_weight``; "hard", patches of objects first; "mixture", blocks first, then as
            "soft". Images without a chosen object, because they have none, only huge ones, or
            are not guided, get "random" in that mode, else "blocks".
        ratio: share of hidden patches, of all (H = round(ratio N)) or of objects, in (0, 1].
        ratio_scope: "all", or "object": of an image's n patches of chosen objects exactly
            round(ratio n) are hidden first and the others last (mode "hard" only); H, how many are
            hidden in all, then follows from ``num_context``.
        num_context: K; None for all visible patches. A smaller number chooses random ones of them.
        num_predicted: P; None for all hidden ones.
        object_weight: weight of patches of objects, > 0, where background has 1; below 1 it
            spares objects. Hidden alone, a patch of weight w is hidden with 1 - (1 - r)^w, where
            r is the ratio.
        beta: weight exp(beta q) instead of ``object_weight``, with the patch's strength q; or None.
        num_blocks: T, number of blocks.
        block_scale: smallest and largest area of a block, as shares of the grid's, in (0, 1].
        block_aspect: smallest and largest height / width of a block, > 0.
        object_share: (first, last) probability that objects guide an image that has some; rises
            linearly over the training.
        instance_share: probability of each object of a guided image to be chosen, in (0, 1].
        object_part: share of each chosen object's patches that may be hidden, rounded up, in
            (0, 1]; the others stay visible while there are other patches to hide.
        max_object_share: if objects are many, random ones are left as background, so that
            the chosen ones cover at most this share of the grid; at least ``huge_object``.
        huge_object: objects that cover more than this share of the grid are never chosen.
        loss_set: hidden patches to predict first: "uniform"; "blocks", those in blocks;
            "objects", those of objects, then those in blocks; "only_objects", the same with
            weight 0 for the others, if the image predicts any object.
        max_object_predicted: with "objects", largest share of P on objects, if there are others.
        rule: rule of coverage.
    """

    mode: str = "mixture"
    ratio: float = 0.75
    ratio_scope: str = "all"
    num_context: int | None = None
    num_predicted: int | None = None
    object_weight: float = 1.65
    beta: float | None = None
    num_blocks: int = 4
    block_scale: Sequence[float] = (0.15, 0.2)
    block_aspect: Sequence[float] = (0.75, 1.5)
    object_share: Sequence[float] = (1.0, 1.0)
    instance_share: float = 1.0
    object_part: float = 1.0
    max_object_share: float = 0.5
    huge_object: float = 0.3
    loss_set: str = "objects"
    max_object_predicted: float = 0.5
    rule: CoverageRule = CoverageRule()

    def __post_init__(self) -> None:
        """Validate the settings, and their combinations."""
        for name, value, known in (
            ("mode", self.mode, MODES),
            ("loss_set", self.loss_set, LOSS_SETS),
            ("ratio_scope", self.ratio_scope, ("all", "object")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")

        for name in ("ratio", "instance_share", "object_part", "max_object_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        if not 0 < self.huge_object <= self.max_object_share:
            raise ValueError(
                f"huge_object must lie in (0, max_object_share = {self.max_object_share}], got "
                f"{self.huge_object}"
            )
        if not all(0 <= share <= 1 for share in (*self.object_share, self.max_object_predicted)):
            raise ValueError(
                "object_share and max_object_predicted must lie in [0, 1], got "
                f"{list(self.object_share)} and {self.max_object_predicted}"
            )

        if self.object_weight <= 0 or self.num_blocks < 0:
            raise ValueError(
                "object_weight must be above 0 and num_blocks at least 0, got "
                f"{self.object_weight} and {self.num_blocks}"
            )

        scales, aspects = tuple(self.block_scale), tuple(self.block_aspect)
        if not (0 < scales[0] <= scales[1] <= 1 and 0 < aspects[0] <= aspects[1]):
            raise ValueError(
                "block_scale and block_aspect must be (smallest, largest) > 0, scales up to 1, got "
                f"{scales} and {aspects}"
            )
        if self.ratio_scope == "object" and (
            self.mode != "hard" or self.num_context is None or self.object_part < 1
        ):
            raise ValueError(
                "ratio_scope='object' needs mode='hard', object_part=1 and num_context, which says "
                f"how many patches are hidden in all; got mode={self.mode!r}, "
                f"object_part={self.object_part}, num_context={self.num_context}"
            )

    def counts(self, num_patches: int) -> tuple[int, int, int]:
        """Compute the numbers of patches of an image.

        Args:
            num_patches: N, number of patches of an image.

        Returns:
            K, H and P.

        Raises:
            ValueError: the image has too few patches; the message lists the numbers.
        """
        hidden = round(self.ratio * num_patches)
        if self.ratio_scope == "object":
            hidden = num_patches - self.num_context
        visible = num_patches - hidden
        kept = visible if self.num_context is None else self.num_context
        predicted = hidden if self.num_predicted is None else self.num_predicted

        if not (1 <= kept <= visible and 1 <= predicted <= hidden):
            raise ValueError(
                f"{num_patches} patches, {hidden} of them hidden, cannot give num_context={kept} "
                f"and num_predicted={predicted}; change these, the ratio or the image size"
            )
        return kept, hidden, predicted

    def sample(
        self,
        boxes: torch.Tensor,
        valid: torch.Tensor,
        *,
        grid: Sequence[int],
        patch_size: int,
        seeds: Sequence[int],
        progress: float = 0.0,
    ) -> Masks:
        """Draw the masks of a batch, on the CPU.

        Args:
            boxes: (B, G, 5) cx, cy, w, h in pixels, angle in degrees.
            valid: (B, G) bool, False for padding.
            grid: (h, w) patches.
            patch_size: side of a patch, pixels.
            seeds: B integers >= 0; the mask of an image depends on its own seed and boxes alone.
            progress: progress of the training, in [0, 1].

        Returns:
            The masks.

        Raises:
            ValueError: see `counts`.
        """
        num_patches = grid[0] * grid[1]
        kept, num_hidden, num_predicted = self.counts(num_patches)
        found = find_object_patches(
            boxes.cpu(), valid.cpu(), grid=grid, patch_size=patch_size, rule=self.rule
        )
        noise = draw_noise(seeds, valid.sum(dim=1).tolist(), num_patches, self.num_blocks)

        object_tokens = found.join()
        # Starts with masks that ignore objects if the schedule says so, and grows towards them.
        first, last = self.object_share
        share = first + progress * (last - first)
        guided = object_tokens.any(dim=1) & (noise.guide < share)

        objects = self._choose_objects(found, noise, guided)
        blocks = self._blocks(found, noise, guided, objects.chosen.any(dim=1), grid)
        keys = self._hiding_keys(objects, blocks, noise)
        is_hidden = _largest(keys, num_hidden)

        # Flags become indices, of which every image has as many: no padding and no truncation,
        # which in the original cuts the bottom rows.
        keep = _indices(_largest(noise.context.masked_fill(is_hidden, -1.0), kept), kept)
        predicted, weights = self._loss(
            is_hidden, object_tokens & guided[:, None], blocks, noise, num_predicted
        )
        hidden = _indices(is_hidden, num_hidden)
        return Masks(keep, hidden, predicted, object_tokens, weights, guided)

    def _choose_objects(
        self, found: ObjectPatches, noise: MaskNoise, guided: torch.Tensor
    ) -> _Objects:
        """Choose objects, and which of their patches may be hidden."""
        num_patches = found.num_patches
        order, choice = noise.objects.unbind(1)
        candidate = guided[found.image] & (found.counts <= self.huge_object * num_patches)
        candidate &= choice <= self.instance_share

        # Where objects overlap, a patch is taken by the first: sorted by that, their union grows.
        reached = torch.where(candidate, order, 2.0)[found.box]
        taken = found.reduce(reached, "amin", 2.0).sort(dim=1).values
        room = int(self.max_object_share * num_patches)
        limit = taken[:, room] if room < num_patches else taken.new_full((len(taken),), 2.0)
        chosen = (candidate & (order < limit[found.image]))[found.box]

        union = found.join(chosen)
        strength = found.reduce(torch.where(chosen, found.strength, 0.0), "amax", 0.0)
        spared = torch.zeros_like(union)
        if self.object_part < 1:
            # Each object's patches in random order: sort all by noise, then stably by object.
            draws = noise.part[found.image[found.box], found.patch]
            by_box = draws.argsort()
            by_box = by_box[found.box[by_box].argsort(stable=True)]
            ranks = torch.empty_like(by_box)
            first = found.counts.cumsum(0) - found.counts
            ranks[by_box] = torch.arange(len(by_box)) - first[found.box]
            # a little less, so that 0.1 of 30 is 3 although 0.1 * 30 is a little more
            most = (found.counts.double() * self.object_part - 1e-9).ceil().long()
            spared = found.join(chosen & (ranks >= most[found.box]))

        if self.ratio_scope == "object":
            draws = torch.where(union, noise.part, 2.0)
            count = (union.sum(dim=1).double() * self.ratio).round().long()
            spared |= union & ~_smallest(draws, count)
        return _Objects(union, spared, strength)

    def _blocks(
        self,
        found: ObjectPatches,
        noise: MaskNoise,
        guided: torch.Tensor,
        has_chosen: torch.Tensor,
        grid: Sequence[int],
    ) -> torch.Tensor:
        """Place the blocks of every image, (B, T, N) bool; none if the mode does not use them."""
        draws = noise.blocks
        sizes = block_sizes(draws[..., :2], grid, self.block_scale, self.block_aspect)
        anchors = draw_anchors(draws[..., 4:], found, guided & (self.mode == "object_blocks"))
        blocks = place_blocks(draws[..., 2:4], sizes, grid, anchors)
        if self.mode == "random":
            return torch.zeros_like(blocks)
        if self.mode in ("soft", "hard"):
            return blocks & ~has_chosen[:, None, None]

        return blocks

    def _hiding_keys(
        self, objects: _Objects, blocks: torch.Tensor, noise: MaskNoise
    ) -> torch.Tensor:
        """Compute the keys (B, N) of hiding; patches with the largest keys are hidden."""
        keys = gumbel(noise.hide)
        if self.mode in ("soft", "mixture"):
            constant = torch.full_like(keys, math.log(self.object_weight))
            gain = constant if self.beta is None else self.beta * objects.strength
            keys = torch.where(objects.chosen, keys + gain, keys)

        # the first block is hidden before the second, so that only the last one may be cut short
        ranks = torch.arange(blocks.shape[1], 0, -1)[:, None]
        tiers = (blocks * ranks).amax(dim=1) if len(ranks) else torch.zeros_like(keys)
        if self.mode == "hard":
            tiers = torch.where(objects.chosen, len(ranks) + 1, tiers)
        return keys + _TIER * torch.where(objects.spared, -1, tiers)

    def _loss(
        self,
        is_hidden: torch.Tensor,
        objects: torch.Tensor,
        blocks: torch.Tensor,
        noise: MaskNoise,
        num_predicted: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose the predicted patches and their weights, both (B, P)."""
        tiers = torch.zeros_like(noise.loss)
        if self.loss_set != "uniform":
            tiers += blocks.any(dim=1)
        if self.loss_set in ("objects", "only_objects"):
            # Objects alone would be easiest to predict as "average background"; other targets
            # keep the features from collapsing to that.
            share = self.max_object_predicted if self.loss_set == "objects" else 1.0
            hidden_objects = objects & is_hidden
            first = _largest(
                noise.loss.masked_fill(~hidden_objects, -1.0), int(share * num_predicted)
            )
            tiers = torch.where(hidden_objects, torch.where(first, 2.0, -1.0), tiers)

        # Uniform noise lies in (0, 1), so twice the tier keeps the tiers apart.
        keys = (noise.loss + 2 * tiers).masked_fill(~is_hidden, -math.inf)
        predicted = _indices(_largest(keys, num_predicted), num_predicted)
        weights = torch.ones(predicted.shape)
        if self.loss_set == "only_objects":
            # An image that predicts no object keeps all its weights instead of none.
            is_object = objects.gather(1, predicted)
            weights = (is_object | ~is_object.any(dim=1, keepdim=True)).float()

        return predicted, weights


def _largest(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Flag the ``count`` largest keys of every row."""
    return torch.zeros_like(keys, dtype=torch.bool).scatter_(1, keys.topk(count).indices, True)


def _smallest(keys: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Flag the smallest keys of every row, as many as its own count."""
    ranks = keys.argsort(dim=1).argsort(dim=1)
    return ranks < counts[:, None]


def _indices(flags: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ascending indices (B, count) int64 of flags, ``count`` in every row."""
    return flags.nonzero()[:, 1].view(len(flags), count)
