"""Telemetry of a running pre-training: measured on fixed images, recorded, plotted, with alarms.

Shapes: B images of a batch, I images in all, N = h w tokens, P predicted tokens, D channels, G
boxes of an image (padded), M valid boxes of all images.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from matplotlib.figure import Figure
from torch import nn

from rsd2.engine.hooks import unwrap
from rsd2.engine.random_state import preserved_random_state
from rsd2.io.figures import save_figure
from rsd2.io.files import write_atomically

from .alarms import CollapseAlarms
from .coverage import CoverageRule, find_object_patches
from .object_jepa import pad_boxes
from .telemetry import (
    describe_features,
    explained,
    gather_tokens,
    mean_where,
    neighbour_means,
    position_means,
)

_logger = logging.getLogger(__name__)
RECORDS_FILE = "telemetry.jsonl"
PLOT_FILE = "telemetry.png"
_LOSS_PERIOD = 20
_PANELS = (
    ("loss_object", "loss_background"),
    ("r2_mean_object", "r2_place_object", "r2_neighbours_object"),
    ("r2_mean_background", "r2_place_background", "r2_neighbours_background"),
    ("rank_me", "effective_rank"),
    ("token_std", "dead_channels", "cosine_in_image", "cosine_at_place", "variance_ratio"),
    ("auc", "auc_0_8", "auc_8_16", "auc_16_32", "auc_32_inf"),
)


def label_tokens(
    boxes: torch.Tensor,
    valid: torch.Tensor,
    classes: torch.Tensor,
    *,
    grid: Sequence[int],
    patch_size: int,
    rule: CoverageRule | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the object that each token shows, the smallest one of several.

    Args:
        boxes: (B, G, 5) cx, cy, w, h in pixels, angle in degrees.
        valid: (B, G) bool, False for padding.
        classes: (B, G) int64 classes of the boxes.
        grid: (h, w) tokens.
        patch_size: side of a patch, pixels.
        rule: rule of coverage; None for its defaults.

    Returns:
        (B, N) float64 sizes, square root of the object's area in pixels, 0 for background; (B, N)
        int64 classes, -1 for background.
    """
    found = find_object_patches(
        boxes, valid, grid=grid, patch_size=patch_size, rule=rule or CoverageRule()
    )

    area = boxes[valid].double()[:, 2] * boxes[valid].double()[:, 3]
    sizes = torch.zeros(len(boxes), found.member.shape[1], dtype=torch.float64)
    labels = torch.full(sizes.shape, -1)

    # From the largest to the smallest, so that the smallest overwrites the others.
    for index in area.argsort(descending=True).tolist():
        image, member = int(found.image[index]), found.member[index]
        sizes[image, member] = area[index].clamp(min=0).sqrt()
        labels[image, member] = classes[valid][index]
    return sizes, labels


@torch.no_grad()
def measure(
    model: nn.Module, batches: Iterable[Sequence[Mapping[str, Any]]], seed: int = 0
) -> dict[str, float]:
    """Measure a pre-training model on images.

    Args:
        model: an ``ObjectJEPA``; its mode and the random generators are restored.
        batches: lists of inputs with ``instances`` of ``gt_boxes`` and ``gt_classes``; all images
            of one size, 2 or more in all.
        seed: seed of the masks.

    Returns:
        ``loss_object`` and ``loss_background``, means over the predicted tokens; ``r2_mean_*``,
        ``r2_place_*`` and ``r2_neighbours_*``, for objects and background: the share that
        predictions explain beyond the mean of all targets, beyond the mean of the other images at
        the same place, and beyond the interpolation of the visible tokens' targets; the numbers of
        `describe_features` for the target encoder, and of the context encoder under names that
        begin with ``context_``.
    """
    training, generator = model.training, torch.Generator().manual_seed(seed)
    parts: list[dict[str, torch.Tensor]] = []
    model.eval()
    try:
        for batch in batches:
            parts.append(_measure_batch(model, list(batch), generator))
            grid = tuple(side // model.context_encoder.patch_size for side in _sides(batch))
    finally:
        model.train(training)

    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    result = _describe_predictions(found, grid)
    for name, prefix in (("target_tokens", ""), ("context_tokens", "context_")):
        described = describe_features(found[name], found["sizes"], found["classes"])
        result |= {f"{prefix}{key}": value for key, value in described.items()}
    return result


def _sides(batch: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    return tuple(batch[0]["image"].shape[-2:])


def _measure_batch(
    model: nn.Module, batch: list[dict[str, Any]], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Compute the tensors of a batch, one row per image, on the CPU."""
    output = model.analyze(batch, generator)
    images = model.preprocess(batch)
    size = model.context_encoder.patch_size
    grid = tuple(side // size for side in _sides(batch))
    boxes, valid = pad_boxes(batch)
    classes = nn.utils.rnn.pad_sequence([one["instances"].gt_classes for one in batch], True)
    sizes, labels = label_tokens(boxes, valid, classes, grid=grid, patch_size=size)

    found = {
        "sizes": sizes,
        "classes": labels,
        "target_tokens": model.target_encoder.encode(images),
        "context_tokens": model.context_encoder.encode(images),
        "target": output.target,
        "prediction": output.prediction,
        "token_loss": output.token_loss,
        "keep": output.masks.keep,
        "predicted": output.masks.predicted,
        "object_tokens": output.masks.object_tokens,
    }
    return {
        name: value.float().cpu() if value.is_floating_point() else value.cpu()
        for name, value in found.items()
    }


def _describe_predictions(
    found: Mapping[str, torch.Tensor], grid: tuple[int, int]
) -> dict[str, float]:
    predicted, target = found["predicted"], found["target"]
    is_object = gather_tokens(found["object_tokens"], predicted)
    wanted = gather_tokens(target, predicted)
    baselines = {
        "mean": target.mean(dim=(0, 1)),
        "place": gather_tokens(position_means(target), predicted),
        "neighbours": gather_tokens(neighbour_means(target, found["keep"], grid), predicted),
    }

    result = {}
    for what, chosen in (("object", is_object), ("background", ~is_object)):
        result[f"loss_{what}"] = mean_where(found["token_loss"], chosen)
        for name, baseline in baselines.items():
            value = explained(found["prediction"], wanted, baseline, chosen)
            result[f"r2_{name}_{what}"] = value
    return result


class TelemetryHook(HookBase):
    """Measure the model periodically, record and plot the numbers, and warn of a collapse.

    The images are the same each time, loaded once by the training's own or another mapper. Their
    boxes serve only the measurement, so they may come from a split that is not trained
    on.
    """

    def __init__(
        self,
        dataset: Sequence[Mapping[str, Any]],
        mapper: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        output_dir: str | Path,
        period: int = 1000,
        num_images: int = 64,
        batch_size: int = 8,
        seed: int = 0,
        alarms: CollapseAlarms | None = None,
    ) -> None:
        """Keep the settings; nothing is loaded yet.

        Args:
            dataset: dataset dicts, from which evenly spread ones are taken.
            mapper: makes inputs of the model with ``instances``; called with generators seeded by
                ``seed``, so that a random one gives the same images in every run.
            output_dir: folder for `RECORDS_FILE`, a JSON line per measurement, and `PLOT_FILE`.
            period: number of steps between measurements, >= 1; one more before training and one at
                its end.
            num_images: number of images, at least 4.
            batch_size: number of images measured at once.
            seed: seed of images and masks.
            alarms: alarms with their limits; the defaults if None.

        Raises:
            ValueError: a number is out of range.
        """
        if period < 1 or num_images < 4 or batch_size < 1:
            raise ValueError(
                "telemetry needs period >= 1, num_images >= 4 and batch_size >= 1, got "
                f"{period}, {num_images} and {batch_size}"
            )

        self._dataset, self._mapper, self._seed = dataset, mapper, seed
        self._folder, self._period = Path(output_dir), period
        self._num_images, self._batch_size = num_images, batch_size
        self._alarms = CollapseAlarms() if alarms is None else alarms
        self._batches: list[list[Mapping[str, Any]]] = []
        self._records: list[dict[str, Any]] = []
        self._rung: list[str] = []

    def before_train(self) -> None:
        """Load the images, and the records of a resumed training."""
        if not comm.is_main_process():
            return

        with preserved_random_state():
            seed_all_rng(self._seed)
            places = torch.linspace(0, len(self._dataset) - 1, self._num_images).round().long()
            inputs = [self._mapper(self._dataset[i]) for i in places.unique().tolist()]

        steps = range(0, len(inputs), self._batch_size)
        self._batches = [inputs[i : i + self._batch_size] for i in steps]
        start, path = self.trainer.start_iter, self._folder / RECORDS_FILE
        lines = path.read_text().splitlines() if start and path.is_file() else []
        # A resumed training may have measured beyond its checkpoint: later records would appear
        # twice.
        self._records = [one for one in map(json.loads, lines) if one["iteration"] <= start]
        for record in self._records:
            self._alarms.see_features(record["iteration"], _with_nan(record))
        if not self._records:
            self._measure(start)

    def after_step(self) -> None:
        """Check the loss, and measure when it is time."""
        if not comm.is_main_process():
            return

        done = self.trainer.iter + 1
        if done % _LOSS_PERIOD == 0:
            loss = self.trainer.storage.history("total_loss").median(_LOSS_PERIOD)
            message = self._alarms.see_loss(self.trainer.iter, loss)
            if message:
                self._rung.append(message)
                _logger.warning("telemetry: %s", message)

        if done % self._period == 0 or done == self.trainer.max_iter:
            self._measure(done)

    def _measure(self, done: int) -> None:
        model = unwrap(self.trainer.model)
        with preserved_random_state():
            numbers = measure(model, self._batches, self._seed)

        alarms = [*self._rung, *self._alarms.see_features(done, numbers)]
        self._rung = []
        for message in alarms:
            _logger.warning("telemetry after %d steps: %s", done, message)

        finite = {key: value for key, value in numbers.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(
            **{f"telemetry/{key}": value for key, value in finite.items()}, smoothing_hint=False
        )
        plain = {key: finite.get(key) for key in numbers}

        self._records.append({"iteration": done, **plain, "alarms": alarms})
        # The whole file again, so that it never ends in half a line.
        text = "".join(json.dumps(record) + "\n" for record in self._records)
        write_atomically(self._folder / RECORDS_FILE, text.encode())
        plot_telemetry(self._records, self._folder / PLOT_FILE)


def _with_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in record.items()}


def plot_telemetry(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the course of all numbers.

    Args:
        records: lines of `RECORDS_FILE`; undefined numbers are None.
        path: PNG to write.
    """
    figure = Figure(figsize=(16, 8), layout="constrained")
    axes = figure.subplots(2, 3)
    steps = [record["iteration"] for record in records]
    for axis, names in zip(axes.flat, _PANELS):
        for name in names:
            values = [math.nan if one[name] is None else one[name] for one in records]
            axis.plot(steps, values, marker=".", label=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        axis.set_xlabel("step")
    save_figure(figure, path, dpi=100)
