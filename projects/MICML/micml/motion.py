"""Motion pattern mining and the motion-vision adapter, which teach the dynamic branch.

Shapes: B clips, T frames, newest first, C channels, H, W of the map; P side of the pooled maps,
S requested frames, L layers.

Repeated terms are computed once; the outputs are those of the formulas:
- A cell's convolution of [x; h] is the sum of one of x and one of h. The former does not depend on
  the state, so T of them serve all T (1 + T) evaluations of a layer, and the first state is zero.
- Frames S..T-1 of the last layer are never read, so they are not computed. Only the running
  statistics of `MotionModule.mining` differ: they average over the frames in use.
- Max-pooling acts on channels alone, so the state that occurs T times in the mined pattern is
  pooled once, and enters the 1x1 convolution once, with the sum of its T weights.
- A 1x1 convolution commutes with a resize, so the adapter's acts on the small map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

State = tuple[torch.Tensor, torch.Tensor]

PRIORS = ("learned", "random", "constant")
CONSTANT = 0.5
"""What the module adds on average before it has learned anything: the sigmoid of 0."""


class MotionCell(nn.Module):
    """A convolutional LSTM cell whose input half can be computed ahead of the recurrence.

    Source: ConvLSTM (arXiv 1506.04214), equation 3 without peepholes. Its gates are i, f, o, g.

    Args:
        channels: C of input and state.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def input_gates(self, x: torch.Tensor) -> torch.Tensor:
        """Compute what the inputs add to the gates.

        Args:
            x: (N, C, H, W).

        Returns:
            (N, 4 C, H, W), the bias included.
        """
        return F.conv2d(x, self.conv.weight[:, : self.channels], self.conv.bias, padding=1)

    def state_weight(self) -> torch.Tensor:
        """Return the weight of the state's half, (4 C, C, 3, 3), copied once for many steps."""
        return self.conv.weight[:, self.channels :].contiguous()

    def step(self, gates: torch.Tensor, state: State | None, weight: torch.Tensor) -> State:
        """Evaluate the cell once.

        Args:
            gates: (B, 4 C, H, W), from `input_gates`.
            state: hidden and cell state, (B, C, H, W) each; None for zeros.
            weight: weight from `state_weight`.

        Returns:
            The next hidden and cell state.
        """
        if state is not None:
            gates = F.conv2d(state[0], weight, padding=1).add_(gates)

        # The gates are ordered i, f, o, g: three sigmoids, then the tanh.
        width = 3 * self.channels
        enter, keep, leave = gates[:, :width].sigmoid().chunk(3, dim=1)
        memory = enter * gates[:, width:].tanh()
        if state is not None:
            memory = memory + keep * state[1]
        return leave * memory.tanh(), memory


class SqueezeExcitation(nn.Module):
    """Scale the channels by a function of all channels' means.

    Source: arXiv 1709.01507, section 3, without biases.

    Args:
        channels: C, channels of the map.
        reduction: divisor of the hidden width.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        scale = self.excite(F.relu_(self.squeeze(x.mean(dim=(2, 3))))).sigmoid()
        return x * scale[:, :, None, None]


class MotionModule(nn.Module):
    """Layers of motion cells; each frame's state learns of the motion in the whole clip.

    Source: MICPL (TNNLS 2024) and its released program, with the symbols used below. The cells are
    per layer, all else is shared by layers and frames.

    Args:
        channels: C, channels of input and output.
        pool_size: P, side of the pooled maps.
        num_layers: L, number of layers.
        num_frames: T, number of frames of a clip.
        recompute_scans: whether to run the scans again in the backward pass instead of keeping
            them: less memory, more time, the same gradients.
        prior: what the module adds: ``"learned"``, as published; ``"random"``, the same module
            frozen at its initial weights; ``"constant"``, the number `CONSTANT`, without any
            parameters. The last two are controls: where they serve as well, nothing was mined.
        shuffled_scan: whether the scan of the mining reads the frames in an order that is drawn
            anew for each batch of a training; the recurrence keeps theirs. A control as well.

    Raises:
        ValueError: the prior is unknown.
    """

    def __init__(
        self,
        channels: int = 64,
        pool_size: int = 64,
        num_layers: int = 3,
        num_frames: int = 5,
        *,
        recompute_scans: bool = False,
        prior: str = "learned",
        shuffled_scan: bool = False,
    ) -> None:
        super().__init__()
        if prior not in PRIORS:
            raise ValueError(f"prior must be one of {', '.join(PRIORS)}, got {prior!r}")

        self.channels, self.pool_size = channels, pool_size
        self.num_frames, self.recompute_scans = num_frames, recompute_scans
        self.prior, self.shuffled_scan = prior, shuffled_scan
        # Parameters that nothing reads would get no gradient, which DDP refuses.
        if prior == "constant":
            return

        self.cells = nn.ModuleList(MotionCell(channels) for _ in range(num_layers))
        self.mining = nn.Sequential(
            nn.Conv2d(2 * num_frames * channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

        self.mining_attention = SqueezeExcitation(channels)
        self.query = nn.Linear(pool_size**2, channels)
        self.vision_attention = SqueezeExcitation(channels)

        self.vision_identity = nn.Linear(pool_size, pool_size)
        self.vision_value = nn.Linear(pool_size, pool_size)
        self.adapter = nn.ModuleList(
            nn.Linear(width, channels, bias=False) for width in (2 * channels, channels)
        )
        if prior == "random":
            self.requires_grad_(False)

    def forward(self, x: torch.Tensor, num_outputs: int | None = None) -> torch.Tensor:
        """Compute what the module adds to the features of the clip.

        Args:
            x: (B, C, T, H, W).
            num_outputs: S, number of newest frames to compute; None for T.

        Returns:
            (B, C, S, H, W).

        Raises:
            ValueError: the clip has another number of frames.
        """
        if x.shape[2] != self.num_frames:
            raise ValueError(
                f"the motion module is made for {self.num_frames} frames, got {x.shape[2]}; set "
                "num_frames of the mapper, or evaluate with model.motion_at_eval=false"
            )

        if self.prior == "constant":
            return torch.full_like(x[:, :, :num_outputs], CONSTANT)

        # Inference keeps the order, so that it gives the same result each time.
        is_shuffled = self.shuffled_scan and self.training
        order: Sequence[int] = range(self.num_frames)
        if is_shuffled:
            order = torch.randperm(self.num_frames).tolist()
        frames: Sequence[torch.Tensor] = x.unbind(2)
        for index, cell in enumerate(self.cells):
            is_last = index == len(self.cells) - 1
            count = num_outputs if is_last and num_outputs is not None else self.num_frames
            frames = self._run_layer(cell, frames, count, order)
        return torch.stack(list(frames), dim=2)

    def _run_layer(
        self, cell: MotionCell, frames: Sequence[torch.Tensor], count: int, order: Sequence[int]
    ) -> list[torch.Tensor]:
        """Compute the first ``count`` hidden states of a layer, (B, C, H, W) each."""
        # One convolution for all frames: the input's half does not depend on the state.
        gates = cell.input_gates(torch.cat(list(frames))).chunk(self.num_frames)
        scanned = [gates[place] for place in order]
        weight = cell.state_weight()
        outputs: list[torch.Tensor] = []
        state: State | None = None

        # Newest to oldest, the order in which the released program reads the clip.
        for t in range(count):
            hidden, memory = cell.step(gates[t], state, weight)
            hidden = hidden + self._adapt(
                hidden, self._mine(cell, scanned, (hidden, memory), weight)
            )
            # The adapter changes the hidden state only; the memory passes unaltered.
            state = hidden, memory
            outputs.append(hidden)
        return outputs

    def _scan(
        self, cell: MotionCell, weight: torch.Tensor, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Scan all frames from the state ``tensors[:2]`` on; return the pooled hidden states."""
        state, pooled = (tensors[0], tensors[1]), []
        for gates in tensors[2:]:
            state = cell.step(gates, state, weight)
            pooled.append(self._pool(state[0]))
        return tuple(pooled)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_max_pool2d(x, self.pool_size)

    def _mine(
        self, cell: MotionCell, gates: Sequence[torch.Tensor], state: State, weight: torch.Tensor
    ) -> torch.Tensor:
        """Compute Z_t, the motion seen from a frame in terms of its vision, (B, C, P, P)."""
        if self.recompute_scans and torch.is_grad_enabled():
            scanned = checkpoint(self._scan, cell, weight, *state, *gates, use_reentrant=False)
        else:
            scanned = self._scan(cell, weight, *state, *gates)

        vision = self._pool(state[0])
        convolution, norm = self.mining
        # the channels are (frame, H~_t or h, C); H~_t is the same for every frame
        kernel = convolution.weight.unflatten(1, (self.num_frames, 2, self.channels))
        kernel = torch.cat([kernel[:, :, 0].sum(dim=1), kernel[:, :, 1].flatten(1, 2)], dim=1)
        pattern = F.relu_(norm(F.conv2d(torch.cat([vision, *scanned], dim=1), kernel)))

        query = self.query(self.mining_attention(pattern).flatten(2))  # Q_t: (B, C, C)
        vision = self.vision_attention(vision)  # U_t: (B, C, P, P)
        # Linear layers act on the image columns, as the released program's view of the map does.
        value = self.vision_value(vision).flatten(2)
        told = (self.vision_identity(vision).flatten(2) + query @ value) / 2
        return told.unflatten(2, (self.pool_size, self.pool_size))

    def _adapt(self, hidden: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        """Compute what a frame's state (B, C, H, W) gains from its motion (B, C, P, P)."""
        first, second = (layer.weight[:, :, None, None] for layer in self.adapter)
        # The first layer works on [H~; Z~]: split it, and convolve the motion before it grows.
        motion = F.conv2d(motion, first[:, self.channels :])
        motion = F.interpolate(motion, hidden.shape[2:], mode="bilinear", align_corners=True)
        mixed = F.conv2d(hidden, first[:, : self.channels]) + motion
        return F.conv2d(F.relu_(mixed), second).sigmoid()
