"""MICML, DSFNet and its two halves as one meta-architecture.

Shapes: B clips, T frames, newest first, K classes, H, W height and width of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from rsd2.layers import at_least_float32

from .center_losses import center_losses
from .center_targets import check_radius_rule, draw_targets
from .decode import check_decoding, decode
from .dla import IDAUp, StaticBranch
from .dynamic import DynamicBranch

OUTPUTS = {"hm": 1, "wh": 2, "reg": 2}  # channels; the heat map has one per class
FRAME_MULTIPLE = 16


@META_ARCH_REGISTRY.register()
class MICML(nn.Module):
    """Detector of moving objects in the newest frame of a clip.

    Source: MICPL (TNNLS 2024) and its released program. Without ``motion`` in the dynamic branch it
    is DSFNet (GRSL 2021), with one branch alone DSFNet's static or dynamic variant.

    Args:
        static: branch of the newest frame; None for the dynamic variant.
        dynamic: branch of all frames; None for the static variant.
        num_classes: K, number of classes.
        head_width: channels of the heads' hidden layers.
        motion_at_eval: whether to run the motion module in inference too. The released program
            does not, and its normalisations have only seen features with motion.
        radius_rule: rule of the heat map's radii, see `gaussian_radius`.
        heatmap_weight: weight of the heat map's loss.
        size_weight: weight of the loss of width and height.
        offset_weight: weight of the loss of the offset.
        top_k: number of peaks to keep per frame, >= 1.
        score_floor: peaks must score more than this, in [0, 1).
        soft_nms: whether to lower the scores of boxes that overlap better ones, see `decode`.
        pixel_mean: mean of each channel, 0-255, BGR.
        pixel_std: standard deviation of each channel, 0-255, BGR.

    Raises:
        ValueError: there is no branch, the branches' channels differ, there is no class, the radius
            rule is unknown, or no peak could ever be kept.
    """

    def __init__(
        self,
        *,
        static: StaticBranch | None,
        dynamic: DynamicBranch | None,
        num_classes: int = 1,
        head_width: int = 128,
        motion_at_eval: bool = False,
        radius_rule: str = "official",
        heatmap_weight: float = 1.0,
        size_weight: float = 0.1,
        offset_weight: float = 1.0,
        top_k: int = 100,
        score_floor: float = 0.0,
        soft_nms: bool = True,
        pixel_mean: Sequence[float] = (127.4, 127.4, 127.4),
        pixel_std: Sequence[float] = (21.05, 21.05, 21.05),
    ) -> None:
        super().__init__()
        branches = [branch for branch in (static, dynamic) if branch is not None]
        if not branches:
            raise ValueError("the model needs a static branch, a dynamic branch, or both")
        if len({branch.channels for branch in branches}) > 1:
            raise ValueError(
                f"the branches are added level by level, but have {static.channels} and "
                f"{dynamic.channels} channels"
            )
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")

        check_radius_rule(radius_rule)
        check_decoding(top_k, score_floor)
        channels = branches[0].channels
        self.static, self.dynamic = static, dynamic
        self.fusion = IDAUp(channels, [2**level for level in range(1, len(channels))])
        self.heads = nn.ModuleDict(
            {
                name: _head(channels[0], head_width, width * (num_classes if name == "hm" else 1))
                for name, width in OUTPUTS.items()
            }
        )
        nn.init.constant_(self.heads["hm"][-1].bias, -2.19)  # a prior of 0.1

        self.num_classes, self.motion_at_eval = num_classes, motion_at_eval
        self.radius_rule = radius_rule
        self.loss_weights = {
            "loss_heatmap": heatmap_weight,
            "loss_size": size_weight,
            "loss_offset": offset_weight,
        }
        self.top_k, self.score_floor, self.soft_nms = top_k, score_floor, soft_nms
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute the losses in training, the detections otherwise.

        Args:
            batched_inputs: B dicts with ``frames`` (T, 3, H, W) BGR 0-255, newest first, or
                normalised already where ``normalized`` is true; ``instances`` with ``gt_boxes``
                (``Boxes``, pixels of the newest frame) and ``gt_classes`` in training; ``height``
                and ``width`` of the original frame (default: the size of ``frames``). Sizes may
                differ between clips and need not be multiples of anything.

        Returns:
            Training: dict of the scalar losses ``loss_heatmap``, ``loss_size``, ``loss_offset``,
            already weighted. Otherwise: a list of ``{"instances": Instances}`` with
            ``pred_boxes``, ``scores``, ``pred_classes`` in pixels of the original frame.

        Raises:
            ValueError: frames have another shape, clips differ in length, a label is not a class of
                the model, or an output in inference is not finite.
        """
        clips = self.preprocess(batched_inputs)
        # The released program never runs the motion module in inference: it regularises training.
        with_motion = self.training or self.motion_at_eval
        outputs = self.predict_maps(clips.tensor.transpose(1, 2), with_motion=with_motion)
        if self.training:
            return self._losses(outputs, clips, batched_inputs)
        return self._detections(outputs, clips, batched_inputs)

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the clips and pad them to one size.

        Args:
            batched_inputs: see `forward`.

        Returns:
            (B, T, 3, H, W) with H and W multiples of 16, padded with the mean colour below and to
            the right.

        Raises:
            ValueError: see `forward`.
        """
        shapes = [tuple(x["frames"].shape) for x in batched_inputs]
        wrong = [s for s in shapes if len(s) != 4 or s[1] != 3 or s[0] != shapes[0][0] or 0 in s]
        if wrong:
            raise ValueError(
                "frames must be (T, 3, H, W) with T equal in a batch, got "
                f"{', '.join(map(str, shapes))}"
            )

        clips = []
        for x in batched_inputs:
            frames = x["frames"].to(self.device)
            if not x.get("normalized", False):
                frames = (frames - self.pixel_mean) / self.pixel_std
            clips.append(frames.to(self.pixel_mean.dtype))

        # Zero is the mean colour of normalised frames, so the padding is neutral.
        return ImageList.from_tensors(clips, size_divisibility=FRAME_MULTIPLE)

    def predict_maps(self, clips: torch.Tensor, *, with_motion: bool) -> dict[str, torch.Tensor]:
        """Run the network.

        Args:
            clips: (B, 3, T, H, W), normalised, newest frame first; H and W multiples of 16.
            with_motion: run the motion module, if there is one.

        Returns:
            ``hm`` (B, K, H, W) logits of the centres, ``wh`` (B, 2, H, W) width and height in
            pixels, ``reg`` (B, 2, H, W) offset (x, y) of the centre inside its pixel.

        Raises:
            ValueError: the dynamic branch or its motion module does not accept clips of T frames.
        """
        levels = []
        if self.static is not None:
            levels.append(self.static(clips[:, :, 0]))
        if self.dynamic is not None:
            levels.append(self.dynamic(clips, with_motion=with_motion))

        # Branches are fused by a sum per level, then aggregated to stride 1.
        features = self.fusion([sum(maps[1:], maps[0]) for maps in zip(*levels)])[-1]
        return {name: head(features) for name, head in self.heads.items()}

    def _losses(
        self,
        outputs: Mapping[str, torch.Tensor],
        clips: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> dict[str, torch.Tensor]:
        """Compute the weighted losses on the area of the largest frame."""
        height, width = (max(sides) for sides in zip(*clips.image_sizes))
        outputs = {
            # Half precision cannot hold the sum over all pixels that the focal loss takes.
            name: at_least_float32(value[:, :, :height, :width])
            for name, value in outputs.items()
        }

        instances = [x["instances"] for x in batched_inputs]
        self._check_labels(instances)
        targets = draw_targets(
            instances, (height, width), self.num_classes, self.device, self.radius_rule
        )
        losses = center_losses(outputs, targets)
        return {name: self.loss_weights[name] * value for name, value in losses.items()}

    def _detections(
        self,
        outputs: Mapping[str, torch.Tensor],
        clips: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> list[dict[str, Instances]]:
        """Decode the detections of each frame, without its padding."""
        found = []
        for index, (x, (height, width)) in enumerate(zip(batched_inputs, clips.image_sizes)):
            own = {
                name: at_least_float32(value[index : index + 1, :, :height, :width])
                for name, value in outputs.items()
            }
            # One test for all maps: each comparison costs the GPU a synchronisation.
            if not torch.stack([value.isfinite().all() for value in own.values()]).all():
                raise ValueError(
                    "the model's output for a clip is not finite: its weights have diverged or "
                    "belong to another model; take an earlier checkpoint"
                )

            ((boxes, scores, classes),) = decode(
                own, top_k=self.top_k, score_floor=self.score_floor, soft_nms=self.soft_nms
            )
            instances = Instances((height, width))
            instances.pred_boxes, instances.scores = Boxes(boxes), scores
            instances.pred_classes = classes
            size = x.get("height", height), x.get("width", width)
            found.append({"instances": detector_postprocess(instances, *size)})

        return found

    def _check_labels(self, instances: list[Instances]) -> None:
        """Validate the labels against the channels of the heat map."""
        # A label out of range would stop a GPU with an assertion far from its cause.
        labels = torch.cat([x.gt_classes for x in instances])
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(wrong):
            raise ValueError(
                f"a label is {int(wrong[0])} but the model has {self.num_classes} classes, 0 to "
                f"{self.num_classes - 1}; set model.num_classes to that of the dataset"
            )


def _head(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """Make two convolutions that predict a map."""
    head = nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, out_channels, 1),
    )
    nn.init.zeros_(head[-1].bias)
    return head
