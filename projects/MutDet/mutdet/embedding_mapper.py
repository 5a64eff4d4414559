"""Pseudo-labels for training: boxes, pseudo-classes and the embedding of every object.

Shapes: N objects, D channels of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Instances

from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper


@dataclass(eq=False, kw_only=True)
class EmbeddingDatasetMapper(RotatedDatasetMapper):
    """`RotatedDatasetMapper` that adds ``gt_embeddings`` (N, D), row by row those of the boxes.

    An embedding belongs to what is in the box, whichever way the image is turned: augmentations
    change boxes only, and whatever leaves out a box leaves out its embedding.

    Attributes:
        embedding_dim: D.
    """

    embedding_dim: int

    def __post_init__(self) -> None:
        """Validate the arguments.

        Raises:
            ValueError: for a value out of range.
        """
        super().__post_init__()
        if self.embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {self.embedding_dim}.")

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which is not changed.

        Args:
            dataset_dict: see `RotatedDatasetMapper`; in training every annotation has
                ``embedding``, (D,) float32.

        Returns:
            as `RotatedDatasetMapper`; in training ``instances`` has ``gt_embeddings`` (N, D)
            float32 too.

        Raises:
            ValueError: an annotation has no embedding, or one that is not of D finite numbers;
                the message names the image and the remedy.
        """
        if self.is_train:
            for index, annotation in enumerate(dataset_dict.get("annotations", [])):
                self._check(annotation.get("embedding"), index, dataset_dict["file_name"])
        return super().__call__(dataset_dict)

    def make_instances(
        self,
        annotations: list[dict],
        boxes: np.ndarray,
        keep: np.ndarray,
        transform: T.TransformList,
        size: tuple[int, int],
    ) -> Instances:
        """The kept objects with their embeddings; see `RotatedDatasetMapper.make_instances`."""
        instances = super().make_instances(annotations, boxes, keep, transform, size)

        # Reshaped, because no object leaves an array without channels.
        kept = [a["embedding"] for a, chosen in zip(annotations, keep) if chosen]
        stacked = np.array(kept, dtype=np.float32).reshape(-1, self.embedding_dim)
        instances.gt_embeddings = torch.from_numpy(stacked)
        return instances

    def _check(self, embedding: np.ndarray | None, index: int, file_name: str) -> None:
        where = f"Annotation {index} of {file_name}"
        if embedding is None:
            raise ValueError(
                f"{where} has no embedding; run projects/MutDet/tools/extract_embeddings.py on "
                "the pseudo-labels and register the folder that it writes."
            )

        shape = np.shape(embedding)
        if shape != (self.embedding_dim,):
            raise ValueError(
                f"{where} has an embedding of shape {shape}, but the model takes "
                f"{self.embedding_dim} channels; set model.embedding_dim or extract the "
                "embeddings anew with as many components."
            )

        if not np.isfinite(embedding).all():
            raise ValueError(
                f"{where} has an embedding with a value that is not finite; extract the "
                "embeddings anew."
            )
