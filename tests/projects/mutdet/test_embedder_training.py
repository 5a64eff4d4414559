"""The small backbone: its loss by hand, views that show their crop, runs that continue.

Shapes: B crops of a batch, S side of the views.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import get_config
from rsd2.projects.mutdet import embedder_training
from rsd2.projects.mutdet.embedder import load_backbone
from rsd2.projects.mutdet.embedder_training import (
    CropBank,
    EmbedderSettings,
    contrast,
    draw_crops,
    find_finished,
    make_views,
    neighbour_accuracy,
    train_embedder,
)
from rsd2.weights.checkpoint import load_checkpoint
from rsd2.weights.errors import CheckpointError
from rsd2.weights.inheritance import Inheritance

TINY = EmbedderSettings(steps=4, batch_size=6, view_size=16, scenes=3, image_size=64)


@pytest.fixture(scope="module")
def bank() -> CropBank:
    """Four scenes of one colour each, three boxes on each."""
    images = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
    for index, color in enumerate(([200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 90])):
        images[index] = torch.tensor(color, dtype=torch.uint8).view(3, 1, 1)
    boxes = torch.tensor([[20.0, 20, 12, 6, 30]]).repeat(12, 1)
    return CropBank(images, torch.arange(4).repeat_interleave(3), boxes)


def test_loss_by_hand() -> None:
    # Two crops along two axes, the views of each agreeing: the partner has similarity 1 / t, the
    # two views of the other crop 0.
    vectors = torch.tensor([[1.0, 0], [0, 3], [2, 0], [0, 1]])
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert contrast(vectors, 0.5).item() == pytest.approx(expected, rel=1e-5)
    # all alike: a guess among the three others
    assert contrast(torch.ones(4, 2), 0.5).item() == pytest.approx(math.log(3), rel=1e-5)


def test_views_are_of_their_own_crop_and_differ(bank: CropBank) -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.tensor([0, 4, 8] * 20)
    views = make_views(bank, chosen, 16, generator)
    assert views.shape == (60, 3, 16, 16) and torch.isfinite(views).all()
    # unless it became grey, the strongest colour is that of the scene
    strongest = views.mean(dim=(2, 3)).argmax(dim=1)
    assert (strongest == bank.scene[chosen]).float().mean() > 0.7
    again = make_views(bank, chosen, 16, generator)
    assert not torch.equal(views, again)
    assert torch.equal(views, make_views(bank, chosen, 16, torch.Generator().manual_seed(0)))


def test_an_interrupted_training_ends_with_the_same_weights(bank: CropBank, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.pth", tmp_path / "deep" / "killed.pth"
    train_embedder(bank, TINY, whole)
    calls = []

    def die_at_the_third(step: int, settings: EmbedderSettings) -> float:
        calls.append(step)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return rate(step, settings)

    rate = embedder_training._rate
    with (
        patch.object(embedder_training, "_rate", die_at_the_third),
        pytest.raises(KeyboardInterrupt),
    ):
        train_embedder(bank, TINY, killed, save_every=2)
    assert not killed.exists() and find_finished(killed, TINY) is None
    with pytest.raises(CheckpointError, match="made with other settings.*'steps': 5"):
        train_embedder(bank, replace(TINY, steps=5), killed)
    with patch.object(embedder_training, "_rate", die_at_the_third):
        about = train_embedder(bank, TINY, killed, save_every=2)
    assert calls == [0, 1, 2, 3, 2, 3]
    one, two = load_checkpoint(whole), load_checkpoint(killed)
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-4, atol=1e-6)
    assert find_finished(killed, TINY) == about and about["crops"] == 12
    assert [p.name for p in killed.parent.iterdir()] == ["killed.pth"]
    with pytest.raises(CheckpointError, match="choose another --output"):
        find_finished(killed, replace(TINY, seed=1))


def test_the_checkpoint_starts_detector_and_embedding(bank: CropBank, tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    train_embedder(bank, TINY, path)
    model = get_config("common/models/rotated_deformable_detr_small.py").model
    model.num_classes = 3
    detector = instantiate(model)
    report = Inheritance(parts=["backbone"]).load(detector, load_checkpoint(path), str(path))
    own = {key for key in detector.state_dict() if key.startswith("backbone.")}
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    assert own - counters <= report.inherited.keys() and not report.errors and not report.dropped
    saved = load_checkpoint(path)["model"]
    state = detector.state_dict()
    assert all(torch.equal(state[key], saved[key]) for key in own - counters)
    backbone, _ = load_backbone("small", path)
    assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, 256)


def test_learning_brings_views_of_a_crop_together(tmp_path: Path) -> None:
    """With views that differ little, a few steps have to be enough."""
    patterns = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    bank = CropBank(patterns, torch.arange(8), torch.ones(8, 5))
    losses = []

    def easy_views(bank: CropBank, chosen: torch.Tensor, *args: object) -> torch.Tensor:
        # every crop once: chosen at random, two of a batch may be the same
        return bank.images + 0.3 * torch.randn(8, 3, 16, 16)

    def recorded(projections: torch.Tensor, temperature: float) -> torch.Tensor:
        losses.append(contrast(projections, temperature))
        return losses[-1]

    with (
        patch.object(embedder_training, "make_views", easy_views),
        patch.object(embedder_training, "contrast", recorded),
    ):
        train_embedder(bank, replace(TINY, steps=30, batch_size=8), tmp_path / "b.pth")
    values = torch.stack(losses).detach()
    assert values[-5:].mean() < 0.7 * values[:5].mean()


def test_drawing_is_reproducible_and_too_few_crops_are_an_error() -> None:
    first, second = draw_crops(TINY), draw_crops(TINY)
    assert torch.equal(first.images, second.images) and torch.equal(first.boxes, second.boxes)
    assert first.images.shape == (3, 3, 64, 64) and int(first.scene.max()) <= 2
    other = draw_crops(replace(TINY, scene_seed=5))
    assert not torch.equal(first.images, other.images)
    with pytest.raises(ValueError, match="cannot fill a batch of 5000; draw more scenes"):
        draw_crops(replace(TINY, batch_size=5000))


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


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 1}, {"temperature": 0.0}])
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(TINY, **wrong)
