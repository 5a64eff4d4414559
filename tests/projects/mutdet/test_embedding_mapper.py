"""Box and embedding stay in step through every augmentation; bad embeddings are named."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from rsd2.data.mappers.transforms import Random90Rotation, RandomFlipDirection
from rsd2.projects.mutdet.embedding_mapper import EmbeddingDatasetMapper

SIDE, D = 64, 4
# the side of a square box in pixels; its embedding says the same number
SIDES = [4, 6, 8, 10, 12, 14, 16, 20]


@pytest.fixture
def record(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    annotations = [
        {
            "bbox": [*rng.uniform(10, SIDE - 10, 2), side, side / 2, rng.uniform(-90, 90)],
            "bbox_mode": BoxMode.XYWHA_ABS,
            "category_id": index,
            "embedding": np.array([side, index, 0, 0], dtype=np.float32),
        }
        for index, side in enumerate(SIDES)
    ]
    return {
        "file_name": str(path),
        "height": SIDE,
        "width": SIDE,
        "image_id": "scene",
        "annotations": annotations,
    }


def mapper(augmentations=(), **options):
    return EmbeddingDatasetMapper(True, embedding_dim=D, augmentations=augmentations, **options)


@pytest.mark.parametrize("seed", range(8))
def test_embedding_stays_with_its_box(record, seed):
    np.random.seed(seed)
    augmentations = [
        RandomFlipDirection(horizontal=0.25, vertical=0.25, diagonal=0.25),
        Random90Rotation(),
        T.RandomCrop("absolute", (40, 40)),
    ]
    instances = mapper(augmentations)(record)["instances"]
    assert 0 < len(instances) < len(SIDES)
    sides, indices = instances.gt_embeddings[:, 0], instances.gt_embeddings[:, 1]
    assert torch.allclose(instances.gt_boxes.tensor[:, 2], sides, atol=1e-3)
    assert torch.equal(instances.gt_classes.float(), indices)


def test_filtered_boxes_take_their_embeddings_along(record):
    record["annotations"][4]["iscrowd"] = 1
    instances = mapper(min_side=4.5)(record)["instances"]
    assert instances.gt_embeddings[:, 0].tolist() == [10, 14, 16, 20]
    assert torch.allclose(instances.gt_boxes.tensor[:, 2], instances.gt_embeddings[:, 0], atol=1e-3)


def test_image_without_objects_keeps_the_width(record):
    record["annotations"] = []
    instances = mapper()(record)["instances"]
    assert instances.gt_embeddings.shape == (0, D)
    assert instances.gt_embeddings.dtype == torch.float32


def test_inference_needs_no_embeddings(record):
    for annotation in record["annotations"]:
        del annotation["embedding"]
    result = EmbeddingDatasetMapper(False, embedding_dim=D, augmentations=[])(record)
    assert "instances" not in result


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (None, "Annotation 3 of .*scene.png has no embedding; run .*extract_embeddings.py"),
        (np.zeros(7), r"Annotation 3 of .*scene.png .*shape \(7,\), .*4 channels; set model.emb"),
        (np.full(D, np.nan), "Annotation 3 of .*scene.png .*not finite; extract"),
    ],
)
def test_bad_embedding_names_file_and_remedy(record, embedding, message):
    record["annotations"][3]["embedding"] = embedding
    with pytest.raises(ValueError, match=message):
        mapper()(record)


def test_width_must_be_positive():
    with pytest.raises(ValueError, match="embedding_dim must be at least 1, got 0"):
        EmbeddingDatasetMapper(True, embedding_dim=0, augmentations=[])
