"""The telemetry hook: fixed images, no trace in the training, records that survive a stop."""

from __future__ import annotations

import json
import logging
import math

import cv2
import numpy as np
import pytest
import torch

from rsd2.engine import TargetUpdate, Trainer
from rsd2.projects.object_jepa.alarms import CollapseAlarms
from rsd2.projects.object_jepa.telemetry_hook import (
    PLOT_FILE,
    RECORDS_FILE,
    TelemetryHook,
    label_tokens,
    measure,
)


def test_a_token_shows_the_smallest_of_its_objects():
    # a grid of 2 x 4 patches of 10 px: a large box over the left half, a small one in its corner
    boxes = torch.tensor([[[5.0, 5, 6, 6, 0], [10, 10, 20, 20, 0], [35, 15, 30, 30, 0]]])
    valid = torch.tensor([[True, True, False]])
    classes = torch.tensor([[4, 7, 1]])
    sizes, labels = label_tokens(boxes, valid, classes, grid=(2, 4), patch_size=10)
    assert sizes.tolist() == [[6, 20, 0, 0, 20, 20, 0, 0]]
    assert labels.tolist() == [[4, 7, -1, -1, 7, 7, -1, -1]]
    turned = boxes.flip(1), valid.flip(1), classes.flip(1)
    again = label_tokens(*turned, grid=(2, 4), patch_size=10)
    assert torch.equal(again[0], sizes) and torch.equal(again[1], labels)


def test_images_without_objects_are_background():
    empty = torch.zeros(2, 0, 5), torch.zeros(2, 0, dtype=torch.bool), torch.zeros(2, 0).long()
    sizes, labels = label_tokens(*empty, grid=(2, 3), patch_size=8)
    assert (sizes == 0).all() and (labels == -1).all() and sizes.shape == (2, 6)


def test_measurement_is_repeatable_whatever_the_batches_and_leaves_no_trace(build_jepa, make_crops):
    model, crops = build_jepa().train(), make_crops(3, 0, 5, 2, 4, 1)
    state = torch.get_rng_state()
    one = measure(model, [crops])
    assert model.training and not model.target_encoder.training
    assert torch.equal(state, torch.get_rng_state())
    two = measure(model, [crops[:2], crops[2:]])
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "auc" not in name:  # the fit of the probe amplifies rounding
            assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name
    assert measure(model, [crops], seed=1)["loss_object"] != one["loss_object"]


def test_perfect_predictions_explain_everything(build_jepa, make_crops, monkeypatch):
    model, crops = build_jepa(), make_crops(3, 2, 5, 4)
    own = model.analyze

    def know(batch, generator):
        output = own(batch, generator)
        index = output.masks.predicted[..., None].expand(-1, -1, output.target.shape[2])
        return output._replace(prediction=output.target.gather(1, index))

    monkeypatch.setattr(model, "analyze", know)
    found = measure(model, [crops])
    for name in ("mean", "place", "neighbours"):
        assert found[f"r2_{name}_object"] == found[f"r2_{name}_background"] == 1


def test_predicting_the_mean_is_worth_nothing(build_jepa, make_crops, monkeypatch):
    model, crops = build_jepa(), make_crops(3, 2, 5, 4)
    own = model.analyze
    mean = own(crops, torch.Generator().manual_seed(0)).target.mean(dim=(0, 1))

    def guess(batch, generator):
        output = own(batch, generator)
        return output._replace(prediction=mean.expand_as(output.prediction))

    monkeypatch.setattr(model, "analyze", guess)
    found = measure(model, [crops])
    assert found["r2_mean_object"] == pytest.approx(0, abs=1e-6)
    assert found["r2_mean_background"] == pytest.approx(0, abs=1e-6)


class Numbers:
    """A mapper that draws its crops from numpy's generator, as the real ones do."""

    def __init__(self, make_crops):
        self._make = make_crops
        self.noises = []

    def __call__(self, record):
        crop = self._make(record["objects"])[0]
        self.noises.append(float(np.random.rand()))
        return {**crop, "image": (crop["image"] * self.noises[-1]).to(torch.uint8)}


@pytest.fixture
def train(build_jepa, make_crops, tmp_path):
    """Trains for some steps with a hook; returns the model, the hook's mapper and its records."""

    def run(steps, start=0, model=None, alarms=None, telemetry=True):
        model = build_jepa() if model is None else model
        batch = make_crops(2, 3)
        optimizer = torch.optim.SGD(model.context_encoder.parameters(), lr=0.05)
        trainer = Trainer(model.train(), iter(lambda: batch, None), optimizer)
        mapper = Numbers(make_crops)
        dataset = [{"objects": count} for count in (3, 0, 4, 2, 5, 1)]
        hook = TelemetryHook(
            dataset,
            mapper,
            output_dir=tmp_path,
            period=2,
            num_images=5,
            batch_size=2,
            alarms=alarms,
        )
        trainer.register_hooks([TargetUpdate(0.9), *([hook] if telemetry else [])])
        torch.manual_seed(5)
        trainer.train(start, steps)
        path = tmp_path / RECORDS_FILE
        lines = path.read_text().splitlines() if path.is_file() else []
        return model, mapper, [json.loads(line) for line in lines]

    return run


def test_records_come_at_the_start_each_period_and_the_end(train, tmp_path):
    _, mapper, records = train(5)
    assert [record["iteration"] for record in records] == [0, 2, 4, 5]
    assert len(mapper.noises) == 5  # evenly spread images, loaded once
    assert all(record["rank_me"] > 1 and record["alarms"] == [] for record in records)
    assert records[-1]["loss_object"] != records[0]["loss_object"]
    assert np.ptp(cv2.imread(str(tmp_path / PLOT_FILE))) > 0
    assert {one.name for one in tmp_path.iterdir()} == {RECORDS_FILE, PLOT_FILE}


def test_training_is_the_same_with_and_without(train):
    watched, plain = train(4)[0], train(4, telemetry=False)[0]
    for one, two in zip(watched.parameters(), plain.parameters()):
        assert torch.equal(one, two)


def test_images_are_the_same_in_a_resumed_run_which_keeps_the_records(train):
    model, first, before = train(4)
    _, second, after = train(6, start=4, model=model)
    assert first.noises == second.noises
    assert after[: len(before)] == before
    assert [record["iteration"] for record in after] == [0, 2, 4, 6]
    assert train(2)[2][-1]["iteration"] == 2  # a new run starts a new file


def test_a_collapsed_target_rings(train, build_jepa, caplog):
    model = build_jepa()
    with torch.no_grad():
        for parameter in (*model.target_encoder.norm.parameters(), model.context_encoder.norm.bias):
            parameter.fill_(0.0)
        model.target_encoder.norm.bias.fill_(1.0)
    with caplog.at_level(logging.WARNING):
        records = train(2, model=model)[2]
    assert records[0]["cosine_in_image"] == pytest.approx(1)
    assert any("cosine_in_image" in message for message in records[0]["alarms"])
    assert "cosine_in_image" in caplog.text


def test_a_falling_loss_rings(train, monkeypatch):
    monkeypatch.setattr("rsd2.projects.object_jepa.telemetry_hook._LOSS_PERIOD", 1)
    rung = []
    alarms = CollapseAlarms(grace=0)
    monkeypatch.setattr(alarms, "see_loss", lambda i, loss: rung.append(loss) or f"fell at {i}")
    records = train(2, alarms=alarms)[2]
    assert len(rung) == 2 and all(math.isfinite(loss) for loss in rung)
    assert records[-1]["alarms"][:2] == ["fell at 0", "fell at 1"]


@pytest.mark.parametrize("wrong", [{"period": 0}, {"num_images": 3}, {"batch_size": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        TelemetryHook([], None, output_dir="out", **wrong)
