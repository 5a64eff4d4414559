"""Rotated DETReg: the backbone is frozen, names are the detector's, targets are what they say."""

from __future__ import annotations

import logging

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from rsd2.config import get_config
from rsd2.projects.mutdet.alignment import EmbeddingRegression, Pairs
from rsd2.projects.mutdet.detreg import DETReg
from rsd2.projects.mutdet.mutdet import MutDet
from rsd2.testing import shrink

SMALL, R50 = "detreg_small_synthetic_pretrain", "detreg_r50_dota_pretrain"
NORM = [f"model.detector.backbone.{part}.norm=BN" for part in ("stem", "stages")]
BACKBONES = {
    "small": (SMALL, ()),
    "resnet with BN": (R50, (*NORM, "model.detector.backbone.freeze_at=0")),
    "resnet as configured": (R50, ()),
}


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", ["detreg", "mutdet"])
def test_steps_leave_every_tensor_of_the_backbone_as_it_was(
    build_pretraining, make_pseudo_batch, name, method
):
    config, overrides = BACKBONES[name]
    model = build_pretraining(config.replace("detreg", method), *overrides).train()
    before = snapshot(model)
    # a decay and a rate that would show, over all parameters whether they are frozen or not
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()
        sum(model(make_pseudo_batch(4, 2)).values()).backward()
        optimizer.step()
    after = snapshot(model)
    frozen = [key for key in before if key.startswith("backbone.")]
    assert frozen
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert {"neck", "encoder", "decoder", "heads", "embedding_head"} <= {
        key.split(".")[0] for key in moved
    }


def test_backbone_keeps_no_memory_for_a_backward_pass(build_pretraining):
    model = build_pretraining(SMALL).train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.neck.training
    assert not any(p.requires_grad for p in model.backbone.parameters())
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        images = torch.randn(1, 3, 64, 64, requires_grad=True)
        features = model.backbone_features(images)
    assert not saved
    assert not any(value.requires_grad for value in features.values())


def test_names_are_those_of_the_plain_detector(build_pretraining):
    cfg = shrink(get_config(f"MutDet/configs/{SMALL}.py")).model.detector
    expected = set(instantiate(cfg).state_dict())
    added = {}
    for method in ("detreg", "mutdet"):
        names = set(build_pretraining(SMALL.replace("detreg", method)).state_dict())
        assert expected <= names
        added[method] = {name.split(".")[0] for name in names - expected}
    assert added["detreg"] == {"embedding_head"}
    assert added["mutdet"] == {"embedding_head", "token_embedding_head", "enhancement"}


@pytest.mark.parametrize("method", ["detreg", "mutdet"])
def test_detects_like_the_plain_detector(build_pretraining, make_pseudo_batch, method):
    model = build_pretraining(f"{method}_small_synthetic_pretrain").eval()
    cfg = shrink(get_config(f"MutDet/configs/{SMALL}.py")).model.detector
    cfg.num_classes = 5
    plain = instantiate(cfg).eval()
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    batch = [{"image": x["image"]} for x in make_pseudo_batch(3, 0)]
    with torch.no_grad():
        for a, b in zip(model(batch), plain(batch)):
            assert len(a["instances"]) > 0
            assert torch.equal(a["instances"].scores, b["instances"].scores)
            assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)


def test_they_are_found_by_name():
    assert META_ARCH_REGISTRY.get("DETReg") is DETReg
    assert META_ARCH_REGISTRY.get("MutDet") is MutDet


def targets_of(model, batch):
    geometry = model.image_geometry(model.preprocess(batch))
    return model.prepare_targets([x["instances"] for x in batch], geometry)


def test_a_random_choice_keeps_box_class_and_embedding_together(
    build_pretraining, make_pseudo_batch
):
    model = build_pretraining(SMALL, "model.max_objects=10", "model.detector.num_classes=30")
    batch = make_pseudo_batch(30, 4, num_classes=30)
    many, few = targets_of(model, batch)
    other = targets_of(model, batch)[0]
    assert (len(many), len(few)) == (10, 4)
    assert set(other.labels.tolist()) != set(many.labels.tolist())
    whole = targets_of(build_pretraining(SMALL, "model.detector.num_classes=30"), batch)[0]
    for label, box, embedding in zip(many.labels, many.boxes, many.embeddings):
        assert torch.equal(box, whole.boxes[label])
        assert torch.equal(embedding, whole.embeddings[label])
    others = [label for label in range(30) if label not in many.labels.tolist()]
    assert {tuple(box) for box in many.left_out.tolist()} == {
        tuple(box) for box in whole.boxes[others, :4].tolist()
    }
    assert few.left_out is whole.left_out is None


def test_the_first_objects_are_those_of_the_official_program(build_pretraining, make_pseudo_batch):
    overrides = ("model.max_objects=10", "model.choice=first", "model.detector.num_classes=30")
    targets = targets_of(
        build_pretraining(SMALL, *overrides), make_pseudo_batch(30, num_classes=30)
    )
    assert targets[0].labels.tolist() == list(range(10))
    assert targets[0].left_out is None, "they are background, as in the official program"


def test_one_class_for_all(build_pretraining, make_pseudo_batch):
    overrides = ("model.classes=one", "model.detector.num_classes=1")
    model = build_pretraining(SMALL, *overrides)
    batch = make_pseudo_batch(5)
    assert targets_of(model, batch)[0].labels.tolist() == [0] * 5
    assert batch[0]["instances"].gt_classes.tolist() == [0, 1, 2, 3, 4]
    assert torch.isfinite(sum(model.train()(batch).values()))


def test_wrong_arguments(build_pretraining):
    with pytest.raises(ValueError, match="needs a detector with num_classes=1, got 5"):
        build_pretraining(SMALL, "model.classes=one")
    with pytest.raises(ValueError, match="classes must be one of .*'some'"):
        build_pretraining(SMALL, "model.classes=some")
    with pytest.raises(ValueError, match="max_objects must be at least 1 or None, got 0"):
        build_pretraining(SMALL, "model.max_objects=0")
    with pytest.raises(ValueError, match="choice must be one of .*'last'"):
        build_pretraining(SMALL, "model.choice=last")


def test_labels_without_embeddings_or_of_another_width(build_pretraining, make_pseudo_batch):
    model, batch = build_pretraining(SMALL).train(), make_pseudo_batch(3)
    batch[0]["instances"].gt_embeddings = torch.zeros(3, 7)
    with pytest.raises(ValueError, match="7 channels.*embedding_dim=16; set model.embedding_dim"):
        model(batch)
    batch[0]["instances"].remove("gt_embeddings")
    with pytest.raises(ValueError, match="no gt_embeddings; .*EmbeddingDatasetMapper"):
        model(batch)


def test_embedding_loss_is_the_distance_to_the_matched_objects(
    build_pretraining, make_pseudo_batch
):
    """All objects share one embedding, so that the matches do not matter."""
    model = build_pretraining(SMALL, "model.alignment.weight=2.0").train()
    batch = make_pseudo_batch(3, 2)
    for x in batch:
        x["instances"].gt_embeddings = F.one_hot(torch.zeros(len(x["instances"])).long(), 16)
    for layer in model.embedding_head.layers:
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.ones_(model.embedding_head.layers[-1].bias)
    value = 16**-0.5
    expected = 2.0 * ((1 - value) ** 2 + 15 * value**2) / 16
    assert model(batch)["loss_embedding"].item() == pytest.approx(expected, rel=1e-5)


def test_loss_falls_on_one_batch(build_pretraining, make_pseudo_batch):
    model, batch = build_pretraining(SMALL).train(), make_pseudo_batch(4, 3)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    history = []
    for _ in range(25):
        torch.manual_seed(0)
        losses = model(batch)
        history.append(losses["loss_embedding"].item())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert history[-1] < 0.8 * history[0]


def test_retrieval_is_logged(build_pretraining, make_pseudo_batch):
    model = build_pretraining("mutdet_small_synthetic_pretrain").train()
    with EventStorage() as storage:
        model(make_pseudo_batch(4, 2))
        logged = {name: value for name, (value, _) in storage.latest().items()}
        within = ("image_retrieval", "image_chance", "target_cosine")
        assert set(logged) == {
            f"{run}_{what}"
            for run in ("decoder", "enhanced_decoder", "enhanced_encoder")
            for what in ("retrieval", "cosine", *within)
        }
    assert all(0 <= logged[name] <= 1 for name in logged if name.endswith("retrieval"))
    assert logged["decoder_image_chance"] == pytest.approx((4 / 4 + 2 / 2) / 6)
    with EventStorage() as storage:
        model(make_pseudo_batch(0, 0))
        assert not storage.latest()


def test_retrieval_counts_own_objects_that_are_nearest(build_pretraining):
    model = build_pretraining(SMALL)
    embeddings = torch.eye(4, 12)
    predicted = embeddings[[0, 1, 3, 2]][None] * 3.0
    pairs = Pairs(predicted, embeddings, torch.arange(4), torch.tensor([0, 1, 1, 2]))
    with EventStorage() as storage:
        model.align(torch.nn.Identity(), pairs, 4.0, "x")
        latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["x_retrieval"] == 0.5
    assert latest["x_cosine"] == pytest.approx(0.5)
    # Objects 1 and 2 share an image: object 2 resembles none of the two, and the first is taken.
    assert (latest["x_image_retrieval"], latest["x_image_chance"]) == (0.5, 0.5)
    assert latest["x_target_cosine"] == 0


def test_targets_that_became_one_vector_are_warned_of_once(build_pretraining, caplog):
    caplog.set_level(logging.WARNING)
    model, images = build_pretraining(SMALL), torch.zeros(4, dtype=torch.int64)
    apart, alike = torch.eye(4, 12), torch.ones(4, 12) + 0.1 * torch.eye(4, 12)
    with EventStorage():
        for targets, warnings in ((apart, 0), (alike, 1), (alike, 1)):
            pairs = Pairs(targets[None], targets, torch.arange(4), images)
            model.align(torch.nn.Identity(), pairs, 4.0, "x")
            assert caplog.text.count("alarm above 0.95") == warnings


def test_random_backbone_is_warned_of_once(build_pretraining, make_pseudo_batch, caplog):
    caplog.set_level(logging.WARNING)
    model, batch = build_pretraining(SMALL).train(), make_pseudo_batch(1)
    model(batch), model(batch)
    assert caplog.text.count("set train.init_checkpoint") == 1
    caplog.clear()
    trained = build_pretraining(SMALL).train()
    for name, buffer in trained.backbone.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(0.1)
    trained(batch)
    assert "init_checkpoint" not in caplog.text


def test_l1_is_an_option(build_pretraining):
    model = build_pretraining(SMALL, "model.alignment.distance=l1")
    assert isinstance(model.alignment, EmbeddingRegression)
    assert model.alignment.distance == "l1"
