"""MICML's network against a literal version of its authors' formulas, scan by scan.

The baseline evaluates every cell on [x; h], every scan again, every frame of every layer, and pools
and mixes what the formulas say (`PlainMotion`); its 3-D convolutions are literal
(`PlainConvolution`). All other modules and all weights are the same, the deformable convolution
too. Before timing, the outputs are asserted equal. float32, eager.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

from benchmarks.harness import Case
from rsd2.config import get_config
from rsd2.layers import DeformableConv2d
from rsd2.projects.micml.dynamic import AxisConvolution
from rsd2.projects.micml.micml import MICML
from rsd2.projects.micml.motion import MotionCell, MotionModule, State

SIDE, FRAMES = 256, 5  # a quarter of the usual area in training, to save time
CHECKED_SIDE = 64  # side of the frames on which equality is asserted
LARGE_SIDE = 1024  # side of the clip whose memory is counted
KEPT = ({}, {"recompute_scans": True}, {"plain": True})  # options of `kept_bytes`
MAX_RELATIVE_DIFFERENCE = 1e-8  # in float64


class PlainMotion(MotionModule):
    """The motion module step by step, as it is defined."""

    def forward(self, x: torch.Tensor, num_outputs: int | None = None) -> torch.Tensor:
        """See `MotionModule.forward`; unrequested frames are computed too."""
        frames = x.unbind(2)
        for cell in self.cells:
            hidden = memory = torch.zeros_like(frames[0])
            outputs = []
            for frame in frames:
                hidden, memory = _plain_step(cell, frame, (hidden, memory))
                hidden = hidden + self._weights(cell, frames, (hidden, memory)).sigmoid()
                outputs.append(hidden)
            frames = tuple(outputs)
        return torch.stack(frames, dim=2)[:, :, :num_outputs]

    def _weights(
        self, cell: MotionCell, frames: tuple[torch.Tensor, ...], state: State
    ) -> torch.Tensor:
        """Compute A_t, (B, C, H, W)."""
        vision, mined = state[0], []
        for frame in frames:
            state = _plain_step(cell, frame, state)
            # Every frame is read again from the state of this one, as the formulas say.
            mined.append(torch.cat([vision, state[0]], dim=1))
        side = self.pool_size

        pooled = F.adaptive_max_pool2d(torch.cat(mined, dim=1), side)
        pattern = self.mining_attention(self.mining(pooled).relu())
        query = self.query(pattern.flatten(2))
        adapted = self.vision_attention(F.adaptive_max_pool2d(vision, side))
        identity = self.vision_identity(adapted).flatten(2)

        told = (identity + query @ self.vision_value(adapted).flatten(2)) / 2
        told = told.unflatten(2, (side, side))
        told = F.interpolate(told, vision.shape[2:], mode="bilinear", align_corners=True)
        pixels = torch.cat([vision, told], dim=1).permute(0, 2, 3, 1)
        return self.adapter[1](self.adapter[0](pixels).relu()).permute(0, 3, 1, 2)


class PlainConvolution(AxisConvolution):
    """A 3-D convolution, computed as one."""

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """See `AxisConvolution.convolve`."""
        return self.conv(x)


def _plain_step(cell: MotionCell, x: torch.Tensor, state: State) -> State:
    """Evaluate the cell once."""
    gates = cell.conv(torch.cat([x, state[0]], dim=1))
    enter, keep, leave, new = gates.chunk(4, dim=1)
    memory = keep.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def build(*, plain: bool = False, torchvision_kernel: bool = False) -> MICML:
    """Build MICML of full width with random weights, always the same.

    Args:
        plain: whether to use `PlainMotion` and `PlainConvolution`.
        torchvision_kernel: whether to use torchvision's deformable convolution on a CPU too.

    Returns:
        The model.
    """
    torch.manual_seed(0)
    model = get_config("MICML/configs/models/micml_dla34.py").model
    if plain:
        model.dynamic.motion._target_ = PlainMotion
    model = instantiate(model)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 0.0  # every step of a comparison starts from the same model
        if torchvision_kernel and isinstance(module, DeformableConv2d):
            # The same parameters under another class: no weights need copying.
            module.__class__ = DeformConv2d
        if plain and isinstance(module, AxisConvolution):
            module.__class__ = PlainConvolution

    return model


def outputs_of(model: MICML, clip: torch.Tensor, *, training: bool) -> dict[str, torch.Tensor]:
    """Compute the maps of a clip, and in training the gradients of their mean squares.

    Args:
        model: model of any kind.
        clip: (1, 3, T, H, W), newest frame first.
        training: whether to run forward and backward with motion, else forward without.

    Returns:
        Tensors by name.
    """
    model.train(training).zero_grad()
    with torch.set_grad_enabled(training):
        maps = model.predict_maps(clip, with_motion=training)
        if training:
            # Squares, because the mean alone would give every pixel the same gradient.
            sum(value.square().mean() for value in maps.values()).backward()
    return {name: value.detach() for name, value in maps.items()}


def difference(first: MICML, second: MICML, clip: torch.Tensor, *, training: bool) -> float:
    """Measure how much two models differ in their outputs, and in training in their gradients.

    Args:
        first: a model.
        second: another one with the same parameters.
        clip: (1, 3, T, H, W), newest frame first.
        training: see `outputs_of`.

    Returns:
        The largest norm of a difference over the norm of the value: of each map, and of the
        gradients of all parameters together, since those before a normalisation are zero but for
        rounding.
    """
    values = []
    for model in (first, second):
        found = outputs_of(model, clip, training=training)
        if training:
            gradients = [p.grad.flatten() for _, p in sorted(model.named_parameters())]
            found["gradients"] = torch.cat(gradients)
        values.append(found)

    return max(
        float((values[0][name] - value).norm() / value.norm()) for name, value in values[1].items()
    )


def kept_bytes(side: int, *, plain: bool = False, recompute_scans: bool = False) -> int:
    """Count what autograd keeps between the passes of a training step, as on a GPU.

    The count is over storages of tensors without content; torchvision's deformable convolution
    keeps its inputs. Parameters, their gradients and the optimizer's two moments come on top, 16
    bytes a parameter, and what the backward pass allocates for a moment.

    Args:
        side: side of the frames, pixels.
        plain: whether to count for the baseline.
        recompute_scans: see `MotionModule`.

    Returns:
        Bytes, without the parameters.
    """
    # On "meta" nothing is computed, so a clip of any size can be counted.
    model = build(plain=plain, torchvision_kernel=True).to("meta").train()
    model.dynamic.motion.recompute_scans = recompute_scans
    own = {id(parameter.untyped_storage()) for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in own:
            kept[id(storage)] = storage  # which also keeps its number from being given again
        return tensor

    clip = torch.empty(1, 3, FRAMES, side, side, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.predict_maps(clip, with_motion=True)
    return sum(storage.nbytes() for storage in kept.values())


def make_batch(side: int, num_objects: int = 25) -> list[dict]:
    """Make one random clip with objects of 6 pixels, as the mapper does.

    Args:
        side: side of the frames, pixels.
        num_objects: number of objects on the newest frame.

    Returns:
        A batch of one.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (FRAMES, 3, side, side)
    corners = torch.rand(num_objects, 2, generator=generator) * (side - 6)
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.cat([corners, corners + 6], dim=1))
    instances.gt_classes = torch.zeros(num_objects, dtype=torch.long)
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return [{"frames": frames, "instances": instances}]


def _work(
    model: Callable[[], MICML], side: int, *, training: bool
) -> Callable[[], dict[str, torch.Tensor] | list]:
    """Make a training step with Adam, or an inference, that builds the model at its first call."""
    # A rate of 0 leaves the weights alone, so every round measures the same step.
    optimizer = cache(lambda: torch.optim.Adam(model().parameters(), lr=0.0))
    batch = cache(lambda: make_batch(side))

    def run() -> dict[str, torch.Tensor] | list:
        net = model().train(training)
        with torch.set_grad_enabled(training):
            result = net(batch())

        if training:
            optimizer().zero_grad()
            sum(result.values()).backward()
            optimizer().step()
            result = {name: value.detach() for name, value in result.items()}
        return result

    return run


def _case(side: int, *, training: bool) -> Case:
    """Make a case whose first call asserts that its contenders agree."""
    ours, plain, kernel = (
        cache(lambda o=options: build(**o))
        for options in ({}, {"plain": True}, {"plain": True, "torchvision_kernel": True})
    )

    @cache
    def checked() -> MICML:
        # In float64: rounding must not hide a difference of the formulas.
        pair = build().double(), build(plain=True).double()
        clip = pair[0].preprocess(make_batch(CHECKED_SIDE)).tensor.transpose(1, 2)
        found = difference(*pair, clip, training=training)
        # Not ">=", because NaN must fail too.
        if not found < MAX_RELATIVE_DIFFERENCE:
            raise RuntimeError(f"the baseline's results differ by {found:.1e}, relatively")
        return ours()

    note = "motion in training only, as released; outputs"
    if training:
        kept = (f"{kept_bytes(LARGE_SIDE, **options) / 1e9:.1f}" for options in KEPT)
        note += " and gradients asserted equal; the backward pass of a clip of {} px keeps {} GB, "
        note += "{} with recompute_scans, the formulas {}"
        note = note.format(LARGE_SIDE, *kept)
    else:
        note += " asserted equal"

    return Case(
        f"MICML {'training step' if training else 'inference'}",
        f"1 clip of {FRAMES} frames of {side} px",
        _work(checked, side, training=training),
        {
            "the formulas, scan by scan": _work(plain, side, training=training),
            "the same with torchvision's deformable convolution": _work(
                kernel, side, training=training
            ),
        },
        note=note,
        is_slow=True,
    )


def cases(side: int = SIDE) -> list[Case]:
    """List a training step and an inference.

    Args:
        side: side of the frames, pixels.
    """
    return [_case(side, training=True), _case(side, training=False)]
