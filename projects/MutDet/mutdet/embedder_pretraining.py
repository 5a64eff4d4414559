"""A backbone that learns from unlabelled crops: it plays ImageNet's part where there is none.

Source: SimCLR (arXiv 2002.05709), section 2.1: two views of a crop have to find each other among
those of all other crops of the batch (NT-Xent). No label of any kind enters, neither the classes of
the detector nor others, so a study that starts all its arms from this backbone favours none.

Shapes: B crops of a batch, V views of a crop, S side of the views, F features, N objects.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.utils import comm
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from .reduction import unit

_NEIGHBOURS = 5
_DIM = 128


@META_ARCH_REGISTRY.register()
class ContrastiveEmbedder(nn.Module):
    """A backbone, the mean of its last map, and a projection that only the training needs.

    Its checkpoints embed boxes (``extract_embeddings.py --weights FILE``) and start detectors
    (``train.init_checkpoint=FILE train.init_inherit.parts=[backbone]``).
    """

    def __init__(
        self, *, backbone: Backbone, output: str = "res5", temperature: float = 0.2
    ) -> None:
        """Put a projection behind the backbone.

        Args:
            backbone: gives the map ``output`` of F channels.
            output: name of the map.
            temperature: of the loss, > 0.

        Raises:
            ValueError: ``temperature`` is out of range.
        """
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature has to be > 0, got {temperature}")
        self.backbone, self.output, self.temperature = backbone, output, temperature
        width = backbone.output_shape()[output].channels
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width // 2)
        )

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute the loss in training, features otherwise.

        Args:
            batched_inputs: B dicts with ``views`` (V, 3, S, S), normalised; V is 2 in training.

        Returns:
            Training: ``{"loss_contrast": scalar}``. Otherwise: a list of ``{"features": (V, F)}``.

        Raises:
            ValueError: a training batch has a single crop.
        """
        device = self.head[0].weight.device
        # All first views, then all second ones in the same order, as the loss takes them.
        views = torch.stack([x["views"] for x in batched_inputs], dim=1).to(device)
        features = self.backbone(views.flatten(0, 1))[self.output].mean(dim=(2, 3))

        if not self.training:
            by_crop = features.view(*views.shape[:2], -1).unbind(dim=1)
            return [{"features": one} for one in by_crop]
        if len(batched_inputs) < 2:
            raise ValueError(
                "a crop has to be told from others, so every process needs at least two of them; "
                "raise dataloader.train.total_batch_size"
            )
        return {"loss_contrast": contrast(self.head(features), self.temperature)}


def contrast(projections: Tensor, temperature: float) -> Tensor:
    """Compute the loss of two views of each crop: NT-Xent, equation 1 of SimCLR.

    Args:
        projections: (2B, D), the first views, then the second ones in the same order.
        temperature: > 0.

    Returns:
        Scalar, the mean over all 2B views.
    """
    count = len(projections) // 2
    # In full precision: a view's similarity to itself is what half precision rounds.
    vectors = F.normalize(projections.float(), dim=1)
    similarity = vectors @ vectors.T / temperature

    itself = torch.eye(2 * count, dtype=torch.bool, device=vectors.device)
    partner = torch.arange(2 * count, device=vectors.device).roll(count)
    return F.cross_entropy(similarity.masked_fill(itself, -math.inf), partner)


class NeighbourEvaluator(DatasetEvaluator):
    """Measures how well features tell the classes of objects, which the training never saw.

    Random weights go a long way where classes differ in colour and shape. To measure them too:
    ``optimizer.lr=0 train.max_iter=1``.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._objects: list[tuple[np.ndarray, str]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep the features of a batch.

        Args:
            inputs: dicts with ``label``.
            outputs: dicts with ``features`` (1, F).
        """
        for x, output in zip(inputs, outputs):
            self._objects.append((output["features"][0].float().cpu().numpy(), x["label"]))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Name every object by its neighbours, see `neighbour_accuracy`.

        Returns:
            ``{"neighbours": {"objects", "accuracy", "mean_class_accuracy", and both with
            "whitened_"}}`` on the main process, empty on others; nan with too few objects.
        """
        objects = [one for part in comm.gather(self._objects) for one in part]
        if not comm.is_main_process():
            return {}
        found: dict[str, float] = {"objects": len(objects)}
        for prefix in ("", "whitened_"):
            accuracy = {"accuracy": math.nan, "mean_class_accuracy": math.nan}
            if len(objects) > _NEIGHBOURS:
                features, names = (np.array(part) for part in zip(*objects))
                accuracy = neighbour_accuracy(features, names, whiten=bool(prefix))
            found.update({f"{prefix}{key}": value for key, value in accuracy.items()})
        return {"neighbours": found}


def neighbour_accuracy(
    features: np.ndarray, names: np.ndarray, *, whiten: bool
) -> dict[str, float]:
    """Name every object by its nearest neighbours among the others, and count what is right.

    Near is the cosine of embeddings as ``extract_embeddings.py`` makes them, fitted on these
    features; the five nearest vote.

    Args:
        features: (N, F), N > 5.
        names: (N,) classes.
        whiten: divide the components by their deviations.

    Returns:
        ``accuracy``: of all objects; ``mean_class_accuracy``: the mean over the classes.
    """
    dim = min(_DIM, features.shape[1], len(features) - 1)
    vectors = unit(PCA(dim, whiten=whiten, svd_solver="full").fit_transform(features))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)

    nearest = names[np.argsort(-similarity, axis=1, kind="stable")[:, :_NEIGHBOURS]]
    classes = np.unique(names)
    votes = (nearest[:, :, None] == classes).sum(axis=1)
    right = classes[votes.argmax(axis=1)] == names
    by_class = [right[names == name].mean() for name in classes]
    return {"accuracy": float(right.mean()), "mean_class_accuracy": float(np.mean(by_class))}
