"""A pre-training step of ObjectJEPA against a straightforward one in the style of I-JEPA.

The peer follows the method's description: attention by two products and a softmax between them,
each target block in a separate sequence that repeats the context, the moving average parameter by
parameter, the optimizer not fused. Both sides: ViT-S/16 at 448 pixels, a quarter of the tokens as
context, the same predictor, equally many predicted tokens, the same images; forward, backward,
optimizer and average. A second peer has blocks of I-JEPA's size, and so predicts more.

Shapes: B images, N tokens of an image, K tokens of the context, T target blocks of S tokens each,
D and P channels of encoder and predictor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial

import torch
from detectron2.config import instantiate
from detectron2.structures import Instances, RotatedBoxes
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional as F

from benchmarks.harness import Case
from rsd2.config import get_config
from rsd2.layers.position_encoding import sincos_positions_2d
from rsd2.testing import random_rotated_boxes

SIDE, NUM_IMAGES, NUM_OBJECTS = 448, 2, 20
NUM_BLOCKS = 4
I_JEPA_BLOCK = (11, 12)  # of 28 x 28 tokens: 0.17 of the area, the middle of I-JEPA's range
CONFIG = "ObjectJEPA/configs/object_jepa_vit_s_dota_pretrain.py"
MOMENTUM = 0.996


class PlainAttention(nn.Module):
    """Attention as in the textbook."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, N, D) to (B, N, D)."""
        batch, count, dim = x.shape
        parts = self.qkv(x).reshape(batch, count, 3, self.num_heads, dim // self.num_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)

        # Both products are materialised, unlike in a fused kernel.
        weights = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
        mixed = weights.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class PlainBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = PlainAttention(dim, num_heads)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, N, D) to (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainEncoder(nn.Module):
    """A plain ViT that drops tokens after it has added the positions."""

    def __init__(self, patch_size: int, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, patch_size, patch_size)
        self.blocks = nn.ModuleList(PlainBlock(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, 3, H, W) and (B, K) or None to (B, K or N, D)."""
        maps = self.patch_embed.proj(images)
        x = maps.flatten(2).transpose(1, 2)
        x = x + sincos_positions_2d(tuple(maps.shape[-2:]), x.shape[-1]).to(x)
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))

        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PlainPredictor(nn.Module):
    """Predict the tokens of each target block in a separate sequence."""

    def __init__(self, in_dim: int, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.embed, self.proj = nn.Linear(in_dim, dim), nn.Linear(dim, in_dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(PlainBlock(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self, context: torch.Tensor, keep: torch.Tensor, blocks: torch.Tensor, grid: tuple[int, int]
    ) -> torch.Tensor:
        """Map (B, K, D), (B, K) and (B, T, S) to (B T, S, D)."""
        count = blocks.shape[1]
        positions = sincos_positions_2d(grid, self.mask_token.shape[0]).to(context)
        seen = self.embed(context) + positions[keep]
        wanted = self.mask_token + positions[blocks.flatten(0, 1)]
        # Every block repeats the context: this is the cost that one joint sequence saves.
        x = torch.cat([seen.repeat_interleave(count, dim=0), wanted], dim=1)

        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x)[:, -blocks.shape[2] :])


def draw_blocks(
    num_images: int, grid: tuple[int, int], sides: tuple[int, int], num_context: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Place target blocks and draw the context from the remaining tokens.

    Args:
        num_images: B, number of images.
        grid: rows and columns of tokens.
        sides: rows and columns of a block.
        num_context: K, at most what `NUM_BLOCKS` blocks leave if none overlap.

    Returns:
        (B, K) kept tokens and (B, T, S) tokens of the blocks, int64.
    """
    places = torch.arange(grid[0] * grid[1]).view(grid)
    keeps, found = [], []
    for _ in range(num_images):
        free, blocks = torch.ones(grid[0] * grid[1], dtype=torch.bool), []
        for _ in range(NUM_BLOCKS):
            top, left = (int(torch.randint(g - s + 1, ())) for g, s in zip(grid, sides))
            blocks.append(places[top : top + sides[0], left : left + sides[1]].flatten())
            free[blocks[-1]] = False

        left_over = free.nonzero().flatten()
        keeps.append(left_over[torch.randperm(len(left_over))[:num_context]].sort().values)
        found.append(torch.stack(blocks))
    return torch.stack(keeps), torch.stack(found)


class PlainJEPA(nn.Module):
    """I-JEPA as described."""

    def __init__(
        self, encoder: PlainEncoder, predictor: PlainPredictor, sides: tuple[int, int], context: int
    ) -> None:
        super().__init__()
        self.context_encoder, self.predictor = encoder, predictor
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.sides, self.num_context = sides, context
        self.register_buffer("mean", torch.tensor([103.53, 116.28, 123.675]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor([57.375, 57.12, 58.395]).view(-1, 1, 1))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        """Compute the loss of a batch."""
        images = torch.stack([(one["image"] - self.mean) / self.std for one in batch])
        stride = self.context_encoder.patch_embed.proj.stride[0]
        grid = (images.shape[-2] // stride, images.shape[-1] // stride)
        keep, blocks = draw_blocks(len(images), grid, self.sides, self.num_context)

        with torch.no_grad():
            target = self.target_encoder(images)
            target = F.layer_norm(target, target.shape[-1:])
            rows = torch.arange(len(images))[:, None, None]
            target = target[rows, blocks].flatten(0, 1)

        context = self.context_encoder(images, keep)
        return {"loss": F.smooth_l1_loss(self.predictor(context, keep, blocks, grid), target)}

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target encoder towards the context encoder."""
        pairs = zip(self.target_encoder.parameters(), self.context_encoder.parameters())
        # Parameter by parameter, as a plain implementation does.
        for average, current in pairs:
            average.mul_(MOMENTUM).add_((1 - MOMENTUM) * current)


def make_batch(num_images: int, side: int, num_objects: int) -> list[dict]:
    """Make random images with objects, as the mapper does.

    Args:
        num_images: B, number of images.
        side: side of the images, pixels.
        num_objects: number of objects on each image.

    Returns:
        A batch.
    """
    batch = []
    for index in range(num_images):
        generator = torch.Generator().manual_seed(index)
        instances = Instances((side, side))
        instances.gt_boxes = RotatedBoxes(
            random_rotated_boxes(num_objects, side, 8, side / 8, index)
        )
        instances.gt_classes = torch.zeros(num_objects, dtype=torch.int64)
        image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        # The seed of the mask is fixed, so every round hides the same tokens.
        batch.append({"image": image, "instances": instances, "mask_seed": index})
    return batch


def build_plain(cfg: DictConfig, side: int, sides: tuple[int, int] | None = None) -> PlainJEPA:
    """Build the peer of the same sizes.

    Args:
        cfg: ``model`` of the config.
        side: side of the images, pixels.
        sides: rows and columns of a target block; None for square ones that together have as many
            tokens as the config predicts.

    Returns:
        The model.
    """
    own, predictor = cfg.encoder, cfg.predictor
    width = own.embed_dim
    encoder = PlainEncoder(own.patch_size, width, own.depth, own.num_heads)
    plain = PlainPredictor(width, predictor.embed_dim, predictor.depth, predictor.num_heads)

    num_tokens = (side // own.patch_size) ** 2
    # Square blocks that together have as many tokens as ours predicts.
    block = round((cfg.masks.num_predicted / NUM_BLOCKS) ** 0.5)
    context = num_tokens - round(cfg.masks.ratio * num_tokens)
    return PlainJEPA(encoder, plain, sides or (block, block), context)


def training_step(
    build: Callable[[], nn.Module],
    side: int,
    num_images: int,
    *,
    update: Callable[[nn.Module], None],
    fused: bool = False,
) -> Callable[[], torch.Tensor]:
    """Make a step as a function without arguments; its first call builds the model.

    Args:
        build: function that makes a pre-training model.
        side: side of the images, pixels.
        num_images: number of images of a step.
        update: function that moves the target encoder.
        fused: whether the optimizer steps all parameters in one kernel.

    Returns:
        The function; it returns the loss.
    """

    @cache
    def prepare() -> tuple[nn.Module, torch.optim.Optimizer, list[dict]]:
        torch.manual_seed(0)
        model = build().train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        batch = make_batch(num_images, side, NUM_OBJECTS)
        return model, torch.optim.AdamW(parameters, lr=1e-6, fused=fused), batch

    def step() -> torch.Tensor:
        model, optimizer, batch = prepare()
        optimizer.zero_grad()
        total = sum(model(batch).values())
        total.backward()
        optimizer.step()
        update(model)
        return total.detach()

    return step


def cases() -> list[Case]:
    """List the step with the predictor of the recipe, and with that of I-JEPA's ViT-S."""
    found = []
    for width in (192, 384):
        recipe = get_config(CONFIG)
        cfg = recipe.model
        cfg.predictor.embed_dim = width
        plain = {
            "I-JEPA style, as many tokens": partial(build_plain, cfg, SIDE),
            "I-JEPA style, its own blocks": partial(build_plain, cfg, SIDE, I_JEPA_BLOCK),
        }
        case = Case(
            name=f"ObjectJEPA step, predictor {width}",
            size=f"{NUM_IMAGES} images of {SIDE} px, ViT-S/16",
            ours=training_step(
                partial(instantiate, cfg),
                SIDE,
                NUM_IMAGES,
                update=lambda model: model.update_target(MOMENTUM),
                fused=recipe.optimizer.fused,
            ),
            peers={
                name: training_step(build, SIDE, NUM_IMAGES, update=PlainJEPA.update_target)
                for name, build in plain.items()
            },
            note="a quarter of the tokens is context; goal: 1.5 times as fast as the peer",
        )
        found.append(case)

    return found
