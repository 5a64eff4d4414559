"""The embedder: its loss by hand, views that show their crop, runs that continue.

Shapes: B crops of a batch, S side of the views.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from rsd2.commands import train
from rsd2.config import get_config
from rsd2.engine import build_optimizer
from rsd2.projects.mutdet.embedder import load_backbone
from rsd2.projects.mutdet.embedder_data import (
    CropViewMapper,
    draw_crops,
    draw_objects,
    list_crops,
    make_views,
)
from rsd2.projects.mutdet.embedder_pretraining import (
    ContrastiveEmbedder,
    NeighbourEvaluator,
    contrast,
    neighbour_accuracy,
)
from rsd2.weights.checkpoint import load_checkpoint
from rsd2.weights.inheritance import Inheritance

CONFIG = "MutDet/configs/embedder_small_synthetic_pretrain.py"
TINY = (
    "dataloader.train.dataset.scenes=3",
    "dataloader.train.dataset.image_size=64",
    "dataloader.train.mapper.size=16",
    "dataloader.train.total_batch_size=6",
    "dataloader.test.dataset.scenes=6",
    "train.max_iter=4",
    "train.checkpointer.period=2",
    "train.checkpointer.max_to_keep=2",
    "train.log_period=1",
    "train.device=cpu",
)


@pytest.fixture
def embedder() -> ContrastiveEmbedder:
    """The model of the small config, in training."""
    return instantiate(get_config(CONFIG).model).train()


@pytest.fixture
def train_tiny(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Function that runs the training tool at toy size in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        config = str(repository / "projects" / CONFIG)
        train.run_process(train.parse_arguments(["--config-file", config, *arguments, *TINY]))

    return run


def test_loss_by_hand() -> None:
    # Two crops along two axes, the views of each agreeing: the partner has similarity 1 / t, the
    # two views of the other crop 0.
    vectors = torch.tensor([[1.0, 0], [0, 3], [2, 0], [0, 1]])
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert contrast(vectors, 0.5).item() == pytest.approx(expected, rel=1e-5)
    # all alike: a guess among the three others
    assert contrast(torch.ones(4, 2), 0.5).item() == pytest.approx(math.log(3), rel=1e-5)


def test_loss_of_a_batch_is_the_formula_over_its_projections(embedder) -> None:
    batch = [{"views": torch.randn(2, 3, 16, 16)} for _ in range(3)]
    loss = embedder(batch)["loss_contrast"].item()

    ordered = torch.cat([torch.stack([x["views"][k] for x in batch]) for k in (0, 1)])
    features = embedder.backbone(ordered)["res5"].mean(dim=(2, 3))
    vectors = embedder.head(features).detach().double().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    terms = []
    for i, partner in enumerate([3, 4, 5, 0, 1, 2]):
        weights = np.exp(vectors @ vectors[i] / 0.2)
        terms.append(-np.log(weights[partner] / (weights.sum() - weights[i])))
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)

    with pytest.raises(ValueError, match="at least two.*raise dataloader.train.total_batch_size"):
        embedder(batch[:1])
    assert [x["features"].shape for x in embedder.eval()(batch)] == [(2, 256)] * 3
    with pytest.raises(ValueError, match="temperature has to be > 0"):
        ContrastiveEmbedder(backbone=embedder.backbone, temperature=0.0)


def test_views_are_of_their_own_crop_and_differ() -> None:
    box = torch.tensor([20.0, 20, 12, 6, 30])
    for strongest in range(3):
        image = torch.zeros(3, 40, 40, dtype=torch.uint8)
        image[strongest] = 200
        torch.manual_seed(strongest)
        views = make_views(image, box, 16, count=20)
        assert views.shape == (20, 3, 16, 16) and torch.isfinite(views).all()
        # unless it became grey, the strongest colour is that of the scene
        assert (views.mean(dim=(2, 3)).argmax(dim=1) == strongest).float().mean() > 0.7

        assert not torch.equal(views[0], views[1])
        torch.manual_seed(strongest)
        assert torch.equal(views, make_views(image, box, 16, count=20))


def test_learning_brings_views_of_a_crop_together(embedder) -> None:
    """With views that differ little, a few steps have to be enough."""
    patterns = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    optimizer = build_optimizer(get_config(CONFIG).optimizer, embedder)
    losses = []
    for _ in range(30):
        views = torch.stack([patterns + 0.3 * torch.randn_like(patterns) for _ in range(2)], dim=1)
        losses.append(embedder([{"views": one} for one in views])["loss_contrast"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    values = torch.stack(losses).detach()
    assert values[-5:].mean() < 0.7 * values[:5].mean()


def test_an_interrupted_training_continues_and_starts_embedding_and_detector(train_tiny) -> None:
    train_tiny("train.output_dir=whole")
    Path("killed").mkdir()
    shutil.copy("whole/model_0000001.pth", "killed")
    Path("killed/last_checkpoint").write_text("model_0000001.pth")
    train_tiny("--resume", "train.output_dir=killed")
    saved = load_checkpoint("whole/model_final.pth")["model"]
    killed = load_checkpoint("killed/model_final.pth")["model"]
    assert saved.keys() == killed.keys()
    assert all(torch.equal(killed[key], value) for key, value in saved.items())
    results = json.loads(Path("whole/results.json").read_text())["results"]
    assert results["neighbours"]["objects"] > 5
    assert 0 <= results["neighbours"]["whitened_accuracy"] <= 1

    backbone, _ = load_backbone("small", "whole/model_final.pth")
    assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, 256)

    model = get_config("common/models/rotated_deformable_detr_small.py").model
    model.num_classes = 3
    detector = instantiate(model)
    own = {key for key in detector.state_dict() if key.startswith("backbone.")}
    report = Inheritance(parts=["backbone"]).load(detector, {"model": saved}, "embedder")
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    assert own - counters <= report.inherited.keys() and not report.errors
    state = detector.state_dict()
    assert all(torch.equal(state[key], saved[key]) for key in own - counters)


def test_drawing_is_reproducible_and_uses_no_label() -> None:
    first, second, other = draw_crops(3, 64, 1), draw_crops(3, 64, 1), draw_crops(3, 64, 2)
    assert len(first) > 6
    for one, same in zip(first, second, strict=True):
        assert np.array_equal(one["pixels"], same["pixels"]) and "label" not in one
        assert np.array_equal(one["box"], same["box"]) and one["pixels"].shape == (64, 64, 3)
    assert not np.array_equal(first[0]["pixels"], other[0]["pixels"])

    objects = draw_objects(3, 64, 1)
    assert any(np.array_equal(objects[0]["pixels"], one["pixels"]) for one in first)
    assert all(one["label"] for one in objects)
    with pytest.raises(ValueError, match="cannot fill a batch of 5000; take more images"):
        draw_crops(3, 64, 1, min_crops=5000)


def test_crops_of_a_data_set_are_its_boxes() -> None:
    boxes = [[8.0, 8, 6, 3, 10], [9.0, 9, 3, 6, 0], [7.0, 7, 2, 2, 0]]
    dataset = [
        {"file_name": "a.png", "annotations": [{"bbox": boxes[0]}, {"bbox": boxes[1]}]},
        {"file_name": "b.png", "annotations": []},
        {"file_name": "c.png", "annotations": [{"bbox": boxes[2]}]},
    ]
    crops = list_crops(dataset)
    assert [x["file_name"] for x in crops] == ["a.png", "a.png", "c.png"]
    assert [x["box"] for x in crops] == boxes
    with pytest.raises(ValueError, match="3 crops of 3 images cannot fill a batch of 4"):
        list_crops(dataset, min_crops=4)

    views = CropViewMapper(16, is_train=True)(
        {"pixels": np.zeros((20, 20, 3), np.uint8), **crops[0]}
    )
    assert views["views"].shape == (2, 3, 16, 16) and views["file_name"] == "a.png"
    with pytest.raises(ValueError, match="at least 8 pixels"):
        CropViewMapper(4, is_train=True)


def test_neighbours_by_hand() -> None:
    rng = np.random.default_rng(0)
    centers = np.array([[9.0, 0], [-5, 8], [-5, -8]])
    directions = np.repeat(centers, 10, axis=0) + 0.1 * rng.standard_normal((30, 2))
    names = np.repeat(["a", "b", "c"], 10)
    for whiten in (False, True):
        assert neighbour_accuracy(directions, names, whiten=whiten) == {
            "accuracy": 1,
            "mean_class_accuracy": 1,
        }
    names[:2] = "b"  # two of thirty in the wrong place
    found = neighbour_accuracy(directions, names, whiten=True)
    assert found["accuracy"] == pytest.approx(28 / 30)
    assert found["mean_class_accuracy"] == pytest.approx((1 + 10 / 12 + 1) / 3)

    evaluator = NeighbourEvaluator()
    outputs = [{"features": torch.from_numpy(one)[None]} for one in directions]
    evaluator.process([{"label": name} for name in names], outputs)
    measured = evaluator.evaluate()["neighbours"]
    assert measured["objects"] == 30
    assert measured["whitened_accuracy"] == pytest.approx(found["accuracy"])
    evaluator.reset()
    evaluator.process([{"label": "a"}], outputs)
    assert math.isnan(evaluator.evaluate()["neighbours"]["accuracy"])
