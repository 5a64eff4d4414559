"""The study on real images: its sets, and the jobs that make pseudo-labels of them.

Every arm starts from ImageNet's EfficientNet-Lite0, which makes the embeddings too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsd2.study import Job, module_command

from .label_statistics import PAGE
from .unlabelled_images import PAGE as COUNTS

CONFIGS = "lite0_hrsc"
"""End of the names of the configs, before ``_pretrain.py`` and ``_finetune.py``."""
TEST = "hrsc_test"
IMAGES, LABELS = "data/unlabelled", "data/pseudo/unlabelled"
_BOXES = "data/pseudo/boxes"
_PACKAGE = "rsd2.projects.mutdet"
_IMAGE_SIZE = 320
# A ship is made of many segments; the best ranked, large and in contrast, are whole ones.
_BOX_OPTIONS = ("--top-k", 60, "--min-side", 6, "--num-workers", 0)


def real_label_jobs(
    folder: Path, sets: Sequence[str], weights: str, *, dim: int, clusters: int, seed: int
) -> list[Job]:
    """List the jobs that copy the images without labels, propose boxes and embed them.

    Args:
        folder: output folder of the study, absolute.
        sets: names of registered datasets, each with ``:N`` for at most N images.
        weights: file of ``rsd2 get-weights efficientnet_lite0``.
        dim: components of the embeddings.
        clusters: number of pseudo-classes.
        seed: seed of the clusters.

    Returns:
        The jobs ``images``, ``pseudo_boxes`` and ``embeddings``.
    """
    images, boxes, labels = (folder / name for name in (IMAGES, _BOXES, LABELS))
    copies = module_command(
        f"{_PACKAGE}.unlabelled_images",
        *("--output", images, "--datasets", *sets, "--size", _IMAGE_SIZE),
    )
    proposals = module_command(
        f"{_PACKAGE}.make_pseudo_labels", "--images", images, "--output", boxes, *_BOX_OPTIONS
    )
    embeddings = module_command(
        f"{_PACKAGE}.extract_embeddings",
        *("--boxes", boxes, "--images", images, "--output", labels),
        *("--backbone", "efficientnet_lite0", "--weights", weights, "--crop-size", 64),
        *("--dim", dim, "--clusters", clusters, "--seed", seed),
    )
    return [
        Job("images", copies, makes=(f"{IMAGES}/{COUNTS}",)),
        Job("pseudo_boxes", proposals, ("images",), (f"{_BOXES}/{PAGE}",)),
        Job("embeddings", embeddings, ("pseudo_boxes",), (f"{LABELS}/{PAGE}",)),
    ]
