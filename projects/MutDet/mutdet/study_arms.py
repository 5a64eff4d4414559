"""The arms of the study: no pre-training, DETReg, MutDet as published, and with its mends."""

from __future__ import annotations

from dataclasses import dataclass

BASELINE = "none"
"""Arm without pre-training."""


@dataclass(frozen=True)
class Arm:
    """One way to pre-train.

    Attributes:
        title: name in the tables.
        method: stem of its config, ``<method>_small_synthetic_pretrain.py``; empty for none.
        overrides: overrides of that config.
        equal_compute: whether it takes as many steps as cost what MutDet's steps cost.
        whitened: whether the components of its embeddings are whitened, before they are clustered.
    """

    title: str
    method: str = ""
    overrides: tuple[str, ...] = ()
    equal_compute: bool = False
    whitened: bool = True


_IMAGE = "model.alignment.negatives=image"
_ZERO = "model.enhancement.zero_init=true"
# A sum over the channels instead of a mean.
_SUM = "model.alignment.weight=${model.embedding_dim}"

ARMS = {
    BASELINE: Arm(BASELINE),
    "detreg": Arm("DETReg", "detreg"),
    "detreg_sum": Arm("DETReg, sum", "detreg", (_SUM,)),
    "detreg_compute": Arm("DETReg, sum, MutDet's compute", "detreg", (_SUM,), equal_compute=True),
    "mutdet": Arm("MutDet", "mutdet"),
    "within": Arm("MutDet, within", "mutdet", (_IMAGE,)),
    "zero": Arm("MutDet, zero", "mutdet", (_ZERO,)),
    "both": Arm("MutDet, within + zero", "mutdet", (_IMAGE, _ZERO)),
    "both_10": Arm(
        "MutDet, within + zero, weight 10", "mutdet", (_IMAGE, _ZERO, "model.alignment.weight=10")
    ),
    "no_whiten": Arm(
        "MutDet, within + zero, not whitened", "mutdet", (_IMAGE, _ZERO), whitened=False
    ),
    "raw": Arm("MutDet, raw embeddings", "mutdet", ("model.enhance_embeddings=false",)),
    "anchored": Arm("MutDet, anchored", "mutdet", ("model.anchored=true",)),
    "detached": Arm("MutDet, detached", "mutdet", ("model.enhancement.detach_objects=true",)),
}
"""Name of an arm -> the arm; the order is that of the tables."""
SWEEP = ("mutdet", "within", "zero", "both", "both_10", "raw", "anchored", "detached")
"""Arms whose pre-trainings alone are compared, one change of the published method at a time."""
