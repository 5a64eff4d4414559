"""Segment Anything as a source of proposals, with the user's checkpoint.

Source: "Segment Anything" (arXiv 2304.02643), appendix B, by the package ``segment-anything``; the
defaults are those of the package, which MutDet's script uses. The package is an extra:
``pip install segment-anything``.

Shapes: H, W height and width of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from rsd2.weights.tensor_files import read_tensors, tensors_digest

from .proposals import MaskProposal

if TYPE_CHECKING:
    from types import ModuleType

    from segment_anything.modeling import Sam

AMP_DTYPES = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHOWN = 6


@dataclass(frozen=True)
class SamSettings:
    """Arguments of ``SamAutomaticMaskGenerator``, by its names and with its defaults.

    Attributes:
        points_per_side: points per side of the grid of prompts on the image.
        points_per_batch: number of prompts decoded at once; affects memory and speed, not the
            result.
        pred_iou_thresh: lowest predicted quality of a mask.
        stability_score_thresh: lowest stability of a mask under changes of its threshold.
        stability_score_offset: shift of the threshold for that test.
        box_nms_thresh: horizontal IoU above which the worse of two masks is dropped.
        crop_n_layers: number of further runs on ever smaller crops; 0 for none.
        crop_nms_thresh: the same between masks of different crops.
        crop_overlap_ratio: overlap of neighbouring crops.
        crop_n_points_downscale_factor: factor by which each layer of crops thins the grid.
        min_mask_region_area: holes and islands below this many pixels are filled and removed.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0


class SamProposals:
    """The masks of ``SamAutomaticMaskGenerator``; their score is the predicted IoU."""

    def __init__(
        self, model: Sam, generator: SamSettings | None = None, *, amp: str = "none", name: str = ""
    ) -> None:
        """Build the mask generator.

        Args:
            model: SAM on its device; it is put into evaluation mode, and with ``amp`` its encoder
                and decoder are wrapped.
            generator: settings of the mask generator; its defaults if None.
            amp: ``"none"``, ``"bfloat16"`` or ``"float16"``: precision of the image encoder, where
                nearly all of the time goes, and of the mask decoder. Masks and scores come back in
                float32. Masks differ slightly from those of full precision.
            name: name of this model and its weights, for the run's settings.

        Raises:
            ImportError: if the package is not installed.
            ValueError: for an unknown ``amp``.
        """
        if amp not in AMP_DTYPES:
            raise ValueError(f"amp must be one of {tuple(AMP_DTYPES)}, got {amp!r}")
        self._settings, self._amp, self._name = generator or SamSettings(), amp, name

        model.eval()
        if AMP_DTYPES[amp] is not None:
            for part in (model.image_encoder, model.mask_decoder):
                _autocast(part, model.device.type, AMP_DTYPES[amp])

        package = import_segment_anything()
        self._generator = package.SamAutomaticMaskGenerator(model, **asdict(self._settings))

    def settings(self) -> dict[str, Any]:
        """Return model, precision and all settings but the harmless ``points_per_batch``."""
        generator = asdict(self._settings)
        del generator["points_per_batch"]
        return {"source": "sam", "model": self._name, "amp": self._amp, **generator}

    def __call__(self, image: np.ndarray) -> list[MaskProposal]:
        """Propose masks on an image (H, W, 3) uint8 RGB."""
        proposals = []
        for found in self._generator.generate(image):
            mask = found["segmentation"]
            # SAM returns masks of the whole image; a window around each saves memory when there
            # are hundreds.
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))

            if not len(rows):
                continue
            window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
            score = float(found["predicted_iou"])
            proposals.append(MaskProposal(window, int(columns[0]), int(rows[0]), score))
        return proposals


def load_sam(
    model_type: str,
    checkpoint: str | Path,
    *,
    device: str = "cpu",
    build: Callable[[], Sam] | None = None,
) -> tuple[Sam, str]:
    """Build a SAM and load its weights, after checking that they fit the model.

    Args:
        model_type: name in the package's registry: ``"vit_h"``, ``"vit_l"``, ``"vit_b"``.
        checkpoint: file of the weights, read without running any of its code.
        device: device of the model.
        build: builds the model instead of the registry; ``model_type`` is then only its name.

    Returns:
        (the model in evaluation mode, a name made of its type and the hash of its weights).

    Raises:
        ImportError: if the package is not installed.
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown type, a file that cannot be read, or weights of another model;
            the message names the type in the file.
    """
    registry = import_segment_anything().sam_model_registry
    if build is None and model_type not in registry:
        raise ValueError(f"model_type must be one of {sorted(registry)}, got {model_type!r}")

    state = read_tensors(checkpoint)
    build = build or registry[model_type]
    with torch.device("meta"):  # shapes alone: vit_h would take gigabytes
        expected = {key: tuple(value.shape) for key, value in build().state_dict().items()}
    _check_weights(expected, state, model_type, checkpoint)

    model = build()
    model.load_state_dict(state)
    return model.to(device).eval(), f"{model_type}-{tensors_digest(state)[:16]}"


def import_segment_anything() -> ModuleType:
    """Import the package ``segment_anything``.

    Returns:
        The module.

    Raises:
        ImportError: if it is not installed; the message says how to install it.
    """
    try:
        import segment_anything
    except ImportError as error:
        raise ImportError(
            "the source 'sam' needs the package segment-anything, which is not installed: "
            "pip install segment-anything; or take --source felzenszwalb, which needs no weights"
        ) from error
    return segment_anything


def _check_weights(
    expected: dict[str, tuple[int, ...]],
    state: dict[str, torch.Tensor],
    model_type: str,
    path: str | Path,
) -> None:
    """Check that weights are exactly those of the model."""
    missing, unknown = (
        sorted(expected.keys() - state.keys()),
        sorted(state.keys() - expected.keys()),
    )
    shapes = [
        f"{key} {tuple(state[key].shape)}, expected {expected[key]}"
        for key in sorted(expected.keys() & state.keys())
        if tuple(state[key].shape) != expected[key]
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for what, keys in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", shapes),
        )
        if keys
    ]

    if problems:
        raise ValueError(
            f"{path} does not hold a SAM of type {model_type!r}, but {_describe(state)}; give "
            f"--sam-model and --sam-checkpoint that belong together ({'; '.join(problems)})"
        )


def _describe(state: dict[str, torch.Tensor]) -> str:
    """Describe what a state dict seems to be."""
    position = state.get("image_encoder.pos_embed")
    if position is None:
        return "something that is no SAM"
    width = position.shape[-1]
    depth = len({key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")})
    known = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
    return f"{known.get(width, 'one of no known type')} (width {width}, {depth} blocks)"


def _autocast(module: nn.Module, device_type: str, dtype: torch.dtype) -> None:
    """Run a module in lower precision, with results in float32 as the next module expects."""
    inner = module.forward

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, dtype):
            result = inner(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(value.float() for value in result)
        return result.float()

    module.forward = forward
