"""Helpers shared by the tests of rsd2 and by users who test their own extensions.

Shapes: N boxes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

import rsd2.projects

if TYPE_CHECKING:
    from omegaconf import DictConfig

TINY_CLASSES = ("plane", "ship")
_TINY_SIDE = 64


def random_rotated_boxes(
    num_boxes: int,
    image_size: float = 1000.0,
    min_side: float = 4.0,
    max_side: float = 300.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Draw random rotated boxes with log-uniform sides and uniform centres and angles.

    Args:
        num_boxes: N >= 0.
        image_size: centres lie in [0, image_size) pixels on both axes.
        min_side: smallest side, pixels, > 0.
        max_side: largest side, pixels, >= ``min_side``.
        seed: seed of the generator; equal seeds give equal boxes.
        dtype: dtype of the result.

    Returns:
        (N, 5) boxes (cx, cy, w, h, angle in degrees in [-180, 180)), not canonical.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(num_boxes, 5, generator=generator, dtype=torch.float64)

    # Drawn in float64, so that one seed gives the same boxes in every dtype.
    centers = uniform[:, :2] * image_size
    sides = min_side * (max_side / min_side) ** uniform[:, 2:4]
    angles = uniform[:, 4:] * 360 - 180
    return torch.cat([centers, sides, angles], dim=1).to(dtype)


def write_tiny_dota(
    folder: str | Path,
    num_images: int = 4,
    image_size: tuple[int, int] = (64, 64),
    objects_per_image: int = 3,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write a DOTA-format folder of filled rotated rectangles: bright planes, dark ships.

    The last image has no object when ``num_images`` > 1, because real data has empty tiles.

    Args:
        folder: gets ``images/*.png`` and ``labelTxt/*.txt``.
        num_images: >= 1.
        image_size: (height, width) in pixels.
        objects_per_image: rectangles in each image that is not the empty one.
        seed: seed of the generator.

    Returns:
        (labels folder, images folder).
    """
    rng = np.random.default_rng(seed)
    labels_dir, images_dir = Path(folder) / "labelTxt", Path(folder) / "images"
    labels_dir.mkdir(parents=True, exist_ok=True)
    images_dir.mkdir(parents=True, exist_ok=True)

    height, width = image_size
    for index in range(num_images):
        image = rng.integers(110, 140, size=(height, width, 3), dtype=np.uint8)
        lines = ["imagesource:synthetic", "gsd:null"]
        empty = num_images > 1 and index == num_images - 1

        for k in range(0 if empty else objects_per_image):
            label = k % len(TINY_CLASSES)
            # Away from the border, so that no box is cut whatever its angle.
            w, h = rng.uniform(0.2, 0.35) * width, rng.uniform(0.1, 0.15) * height
            cx, cy = rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * height
            theta = rng.uniform(-np.pi / 2, np.pi / 2)
            cos, sin = np.cos(theta), np.sin(theta)
            local = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
            corners = local @ np.array([[cos, -sin], [sin, cos]]) + (cx, cy)

            color = (230, 230, 230) if label == 0 else (20, 20, 60)
            cv2.fillPoly(image, [np.round(corners).astype(np.int32)], color)
            numbers = " ".join(f"{value:.2f}" for value in corners.reshape(-1))
            lines.append(f"{numbers} {TINY_CLASSES[label]} 0")

        cv2.imwrite(str(images_dir / f"P{index:04d}.png"), image)
        (labels_dir / f"P{index:04d}.txt").write_text("\n".join(lines) + "\n")
    return labels_dir, images_dir


def shrink(cfg: DictConfig) -> DictConfig:
    """Make an experiment so small that it trains and detects on one CPU core in a second.

    Widths, depths, numbers of queries, image sizes, batch, workers and iterations become small;
    the subject of an experiment (modules, norm, losses, augmentations, learning rates, classes)
    stays, and so does every interpolation. Known are models of the kind of
    ``RotatedDeformableDETR`` (subclasses too) on Detectron2's ``ResNet``, ``small_resnet``, a
    ``TimmBackbone`` or a ``SimplePyramid``, ``GeneralizedRCNN`` on an ``FPN`` or a
    ``SimplePyramid``, and those of the projects that bring a module ``shrinking`` with a dict
    ``MODEL_RULES``, from the name of a class to a function that makes its config smaller in place,
    and, if they have backbones of their own, another one, ``BACKBONE_RULES``.

    Args:
        cfg: a loaded LazyConfig with at least ``model``; not changed.

    Returns:
        A smaller copy. Images are to have about 64 x 64 pixels.

    Raises:
        ValueError: the model or its backbone is of a kind without a rule here; its name and the
            known ones are given.
    """
    cfg = copy.deepcopy(cfg)
    shrink_model(cfg.model)

    for key, value in _TINY_VALUES.items():
        for node in mappings(cfg.get("dataloader")):
            if node.get(key) is not None:
                replace_values(node, {key: value})

    if "train" in cfg:
        cfg.train.max_iter, cfg.train.epochs = 2, None
        replace_values(cfg.train, {"eval_period": 2, "log_period": 1, "device": "cpu"})
        if "amp" in cfg.train:  # CPUs have no float16
            cfg.train.amp.enabled = False
    return cfg


def shrink_model(model: DictConfig, path: str = "model") -> None:
    """Apply the rule of a model's class, or of the nearest class that it inherits from.

    Args:
        model: config of the model; changed.
        path: path of the node in the config, for messages.

    Raises:
        ValueError: no rule, see :func:`shrink`.
    """
    rules = dict(_MODEL_RULES)
    # Projects come last, so that one of them may replace a rule.
    for module in rsd2.projects.find_modules("shrinking"):
        rules.update(module.MODEL_RULES)
    _shrink_node(model, path, rules)


def shrink_backbone(backbone: DictConfig, path: str = "model.backbone") -> None:
    """Apply the rule of a backbone's class, or of the nearest class that it inherits from.

    Args:
        backbone: config of the backbone; changed.
        path: path of the node in the config, for messages.

    Raises:
        ValueError: no rule, see :func:`shrink`.
    """
    rules = dict(_BACKBONE_RULES)
    for module in rsd2.projects.find_modules("shrinking"):
        rules.update(getattr(module, "BACKBONE_RULES", {}))
    _shrink_node(backbone, path, rules)


_TINY_VALUES = {
    "short_edge_length": _TINY_SIDE,
    "max_size": _TINY_SIDE,
    "crop_size": [_TINY_SIDE, _TINY_SIDE],
    "target_height": _TINY_SIDE,
    "target_width": _TINY_SIDE,
    "size": _TINY_SIDE,
    "batch_size": 2,
    "total_batch_size": 2,
    "num_workers": 0,
}


def _shrink_node(node: DictConfig, path: str, rules: dict[str, Callable[..., None]]) -> None:
    """Apply the rule of a node's target, or of the nearest class that it inherits from."""
    from detectron2.utils.registry import locate

    target = node.get("_target_")
    located = locate(target) if isinstance(target, str) else target
    # From the class upwards, so that the nearest rule counts.
    names = [c.__name__ for c in inspect.getmro(located)] if inspect.isclass(located) else []
    for name in names or [getattr(located, "__name__", str(target))]:
        if name in rules:
            rules[name](node)
            return
    raise ValueError(
        f"shrink has no rule for {path} = {getattr(located, '__qualname__', target)}; it knows "
        f"{', '.join(rules)}. Add a rule to rsd2/testing.py, or to the shrinking.py of its project"
    )


def _shrink_deformable_detr(model: DictConfig) -> None:
    from detectron2.config import instantiate

    shrink_backbone(model.backbone)
    # The neck must be told the new widths, which only the built backbone knows.
    channels = {k: v.channels for k, v in instantiate(model.backbone).output_shape().items()}
    for name, shape in model.neck.input_shapes.items():
        shape.channels = channels[name]

    model.neck.num_norm_groups = 8
    model.embed_dim = 32
    for layers in (model.encoder, model.decoder):
        replace_values(layers, {"num_layers": 1, "feedforward_dim": 64, "embed_dim": 32})

    sizes = {"num_queries": 10, "max_detections": 20}
    if model.get("num_denoising_queries", 1):  # 0 is no size: it switches denoising off
        sizes["num_denoising_queries"] = 6
    replace_values(model, sizes)


def _shrink_rcnn(model: DictConfig) -> None:
    shrink_backbone(model.backbone)
    replace_values(
        model.proposal_generator,
        {"batch_size_per_image": 32, "pre_nms_topk": (50, 50), "post_nms_topk": (30, 30)},
    )
    model.roi_heads.batch_size_per_image = 16
    head = model.roi_heads.box_head
    head.conv_dims = [16] * len(head.get("conv_dims", ()))
    model.roi_heads.box_head.fc_dims = [16] * len(model.roi_heads.box_head.fc_dims)


def _shrink_classifier(model: DictConfig) -> None:
    shrink_backbone(model.backbone)


def _shrink_fpn(backbone: DictConfig) -> None:
    shrink_backbone(backbone.bottom_up, "model.backbone.bottom_up")
    backbone.out_channels = 32  # GroupNorm's groups


def _shrink_bottom_heavy_resnet(backbone: DictConfig) -> None:
    backbone.width = 32 if backbone.get("norm") == "GN" else 8
    backbone.depths = [1] * len(backbone.get("depths", [1] * 4))
    # Behind a norm that starts at zero, the first step would reach no weight.
    backbone.zero_init_residual = False


def _shrink_resnet(backbone: DictConfig) -> None:
    stages = backbone.stages
    kept = {k: v for k, v in stages.items() if k not in ("_target_", "depth", "block_class")}
    if "depth" not in stages:
        raise ValueError(
            "shrink knows a ResNet whose stages come from ResNet.make_default_stages(depth=...), "
            f"got {stages}. Add a rule to rsd2/testing.py"
        )
    backbone.stem.out_channels = 32
    backbone.stages = {"_target_": tiny_resnet_stages, "bottleneck": stages.depth >= 50, **kept}


def tiny_resnet_stages(bottleneck: bool, **options: Any) -> list[list[torch.nn.Module]]:
    """Four stages of one block each, behind a stem of 32 channels: the ResNet of :func:`shrink`.

    Args:
        bottleneck: blocks of ResNet-50 and deeper, else basic ones.
        options: options of the blocks, as ``ResNet.make_default_stages`` takes them, like ``norm``.

    Returns:
        The stages, of 32, 64, 96 and 128 channels (multiples of 32, as GroupNorm needs).
    """
    from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, ResNet

    widths = [32, 32, 64, 96, 128]
    if bottleneck:
        options = {**options, "bottleneck_channels": 32}
    return [
        ResNet.make_stage(
            BottleneckBlock if bottleneck else BasicBlock,
            1,
            stride_per_block=[1 if index == 0 else 2],
            in_channels=widths[index],
            out_channels=widths[index + 1],
            **options,
        )
        for index in range(4)
    ]


def _shrink_small_resnet(backbone: DictConfig) -> None:
    # GroupNorm has 32 groups, each of one channel at least.
    width = 32 if backbone.get("norm") == "GN" else 8
    backbone.width = width
    backbone.blocks = [1] * len(backbone.get("blocks", [1] * 4))


def _shrink_simple_pyramid(backbone: DictConfig) -> None:
    shrink_backbone(backbone.net, "model.backbone.net")
    backbone.out_channels = 32


def _shrink_vit(encoder: DictConfig) -> None:
    from omegaconf import OmegaConf

    replace_values(encoder, {"embed_dim": 32, "num_heads": 2, "depth": 2})
    if OmegaConf.select(encoder, "global_blocks"):
        encoder.global_blocks = [1]
    if OmegaConf.select(encoder, "window_size"):
        encoder.window_size = 3


def _shrink_timm_backbone(backbone: DictConfig) -> None:
    from detectron2.config import instantiate

    # timm keeps models of a few hundred thousand parameters for tests, one for each kind of maps.
    everything = {**backbone, "out_features": None, "weights": None, "pretrained": False}
    with torch.device("meta"):
        strides = [shape.stride for shape in instantiate(everything).output_shape().values()]
    is_plain, is_early = len(strides) == 1, min(strides) < 4
    name = "test_vit" if is_plain else "test_resnet" if is_early else "test_convnext"

    options = backbone.get("options") or {}
    # Other options, like sizes of images, belong to the model that is replaced.
    options = {key: value for key, value in options.items() if key == "drop_path_rate"}
    if name == "test_convnext":
        # Behind a scale that starts near zero, the first step would reach no weight.
        options["ls_init_value"] = 1.0
    backbone.update(name=name, options=options, weights=None, pretrained=False)
    backbone.freeze_at = min(backbone.get("freeze_at", 0), 2)


_MODEL_RULES = {
    "RotatedDeformableDETR": _shrink_deformable_detr,
    "GeneralizedRCNN": _shrink_rcnn,
    "ImageClassifier": _shrink_classifier,
}
_BACKBONE_RULES = {  # of a class and its subclasses: the nearest one counts
    "ResNet": _shrink_resnet,
    "small_resnet": _shrink_small_resnet,
    "FPN": _shrink_fpn,
    "BottomHeavyResNet": _shrink_bottom_heavy_resnet,
    "SimpleFeaturePyramid": _shrink_simple_pyramid,
    "VisionTransformer": _shrink_vit,
    "TimmBackbone": _shrink_timm_backbone,
}


def mappings(node: Any) -> Iterator[DictConfig]:
    """Walk through every mapping in a config, without following interpolations.

    Args:
        node: node of a config; anything but a mapping or a list yields nothing.

    Yields:
        The mapping itself if ``node`` is one, then those inside.
    """
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(node, DictConfig):
        yield node
    if isinstance(node, (DictConfig, ListConfig)):
        for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
            if not OmegaConf.is_interpolation(node, key):
                yield from mappings(node[key])


def replace_values(node: DictConfig, values: dict[str, Any]) -> None:
    """Set values, but leave alone what follows another value by interpolation.

    Args:
        node: mapping of a config; changed.
        values: values to set, by key.
    """
    from omegaconf import OmegaConf

    for key, value in values.items():
        if not OmegaConf.is_interpolation(node, key):
            node[key] = value
