"""The whole detector, tiny: it learns, survives extreme inputs, and reports the right frame."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.structures import Instances, RotatedBoxes
from torch import nn

from rsd2.modeling import DetectorQuirks, RotatedDeformableDETR
from rsd2.modeling.matcher import Predictions
from rsd2.ops import paired_iou_rotated
from rsd2.structures import canonicalize
from rsd2.testing import random_rotated_boxes

BOXES = [(20.0, 22.0, 24.0, 10.0, 30.0), (44.0, 40.0, 12.0, 8.0, -60.0)]


@pytest.fixture
def pair(make_input):
    return [make_input(BOXES, [0, 2]), make_input(BOXES[:1], [1], seed=1)]


def train_losses(detector, inputs, seed=7):
    detector.train()
    torch.manual_seed(seed)
    return detector(inputs)


def bfloat16():
    """Mixed precision without oneDNN, which crashes where AMX is announced and absent."""
    return torch.backends.mkldnn.flags(enabled=False), torch.autocast("cpu", dtype=torch.bfloat16)


def assert_same(a: Instances, b: Instances, tolerance: float) -> None:
    assert torch.equal(a.pred_classes, b.pred_classes)
    assert torch.allclose(a.scores, b.scores, atol=tolerance)
    assert torch.allclose(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=100 * tolerance)


def test_loss_falls_on_one_batch(build_detector, pair):
    detector = build_detector()
    totals = []
    for _ in range(12):
        detector.zero_grad()
        total = sum(train_losses(detector, pair).values())
        total.backward()
        totals.append(total.item())
        with torch.no_grad():
            for parameter in detector.parameters():
                parameter.sub_(1e-3 * parameter.grad.sign())
    assert min(totals[-3:]) < 0.75 * totals[0]


def test_same_seed_gives_the_same_losses(build_detector, pair):
    detector = build_detector()
    first, second = (train_losses(detector, pair, seed=3) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_losses_have_one_name_per_layer_and_kind(build_detector, pair):
    kinds = [f"loss_{kind}" for kind in ("class", "l1", "giou", "angle")]
    suffixes = ["", "_0", "_enc", "_dn", "_dn_0"]
    expected = {kind + suffix for kind in kinds for suffix in suffixes}
    assert set(train_losses(build_detector(), pair)) == expected
    without = train_losses(build_detector(num_denoising_queries=0), pair)
    assert set(without) == {name for name in expected if "_dn" not in name}
    assert all(value.dim() == 0 for value in without.values())


def test_state_dict_round_trip(build_detector, pair):
    one, two = build_detector(seed=1).eval(), build_detector(seed=2).eval()
    with torch.no_grad():
        before = one(pair)
        assert not torch.equal(two(pair)[0]["instances"].scores, before[0]["instances"].scores)
        two.load_state_dict(one.state_dict())
        after = two(pair)
    for a, b in zip(before, after):
        assert_same(a["instances"], b["instances"], 0.0)


def test_detections_are_canonical_rotated_boxes_in_the_frame_of_the_dict(build_detector, pair):
    detector = build_detector().eval()
    with torch.no_grad():
        plain = detector(pair)[0]["instances"]
        doubled = detector([pair[0] | {"height": 128, "width": 128}])[0]["instances"]
        pair[0].pop("height"), pair[0].pop("width")
        default = detector(pair[:1])[0]["instances"]
    boxes = plain.pred_boxes
    assert isinstance(boxes, RotatedBoxes)
    assert len(boxes) == len(plain.scores) == len(plain.pred_classes) == 20
    assert torch.equal(boxes.tensor, canonicalize(boxes.tensor))
    assert (boxes.tensor[:, 2] >= boxes.tensor[:, 3]).all()
    assert (plain.scores[:-1] >= plain.scores[1:]).all()
    assert plain.pred_classes.min() >= 0
    assert plain.pred_classes.max() < 3
    assert plain.image_size == default.image_size == (64, 64)
    assert doubled.image_size == (128, 128)
    assert torch.allclose(doubled.pred_boxes.tensor[:, :4], 2 * boxes.tensor[:, :4], atol=1e-3)
    assert torch.allclose(default.pred_boxes.tensor, boxes.tensor, atol=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (40, 100), (97, 33)])
@pytest.mark.parametrize("zoom", [1.0, 2.5])
def test_targets_come_back_as_the_same_boxes(build_detector, make_input, size, zoom):
    """Perfect predictions in the detector's units are the annotations, also if not square."""
    detector = build_detector(max_detections=2)
    boxes = canonicalize(torch.tensor(BOXES) * torch.tensor([0.5, 0.5, 0.5, 0.5, 1]))
    inputs = [make_input(boxes, [0, 2], size), make_input([], size=(128, 96))]
    images = detector.preprocess(inputs)
    geometry = detector.image_geometry(images)
    (target, _) = detector.prepare_targets([x["instances"] for x in inputs], geometry)
    perfect = Predictions(
        torch.nn.functional.one_hot(target.labels, 3)[None].float() * 20 - 10,
        target.boxes[None, :, :4],
        target.angle_targets[None],
    )
    output_size = (round(size[0] * zoom), round(size[1] * zoom))
    found = detector.postprocessor(perfect, 0, geometry.output_scale[0], size, output_size)
    order = found.pred_classes.argsort()
    expected = boxes * torch.tensor([zoom, zoom, zoom, zoom, 1.0])
    exact = [output_size[i] / size[i] == zoom for i in (0, 1)]
    tolerance = 0.05 if all(exact) else 1.0
    assert torch.allclose(found.pred_boxes.tensor[order, :4], expected[:, :4], atol=tolerance)
    assert torch.allclose(found.pred_boxes.tensor[order, 4], expected[:, 4], atol=0.55 + tolerance)
    assert paired_iou_rotated(found.pred_boxes.tensor[order], expected).min() > 0.85


def test_geometry_by_hand(build_detector, make_input):
    """The unit is the long side on both axes, so that a turned box keeps its shape."""
    detector = build_detector()
    images = detector.preprocess([make_input(size=(40, 100)), make_input(size=(90, 60))])
    geometry = detector.image_geometry(images)
    assert images.tensor.shape[2:] == (96, 128)
    assert geometry.box_scale.tolist() == [[100.0] * 4, [90.0] * 4]
    assert geometry.output_scale.tolist() == [[100.0] * 4, [90.0] * 4]
    expected = torch.tensor([[100 / 128, 100 / 96], [90 / 128, 90 / 96]])
    assert torch.allclose(geometry.box_to_image, expected)
    expected = torch.tensor([[100 / 128, 40 / 96], [60 / 128, 90 / 96]])
    assert torch.allclose(geometry.valid_extent, expected)


def test_official_normalisation_equals_ours_on_squares_only(build_detector, make_input):
    ours = build_detector()
    theirs = build_detector(quirks=DetectorQuirks(boxes_per_axis=True))
    for size, same in (((64, 64), True), ((64, 96), False)):
        image = [make_input(BOXES, size=size)]
        a, b = (
            torch.cat([getattr(m.image_geometry(m.preprocess(image)), name) for name in names], 1)
            for m in (ours, theirs)
            for names in [("box_scale", "output_scale", "box_to_image", "valid_extent")]
        )
        assert torch.equal(a, b) == same


def without_norm(detector: RotatedDeformableDETR) -> RotatedDeformableDETR:
    """Drop GroupNorm, whose statistics run over the padding too, as in every published DETR."""
    for level in [*detector.neck.projections, *detector.neck.extra]:
        level[1] = nn.Identity()
    return detector.eval()


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (128, 64), (52, 60)])
def test_larger_neighbour_in_the_batch_changes_nothing(build_detector, make_input, size):
    detector = without_norm(build_detector())
    image, large = make_input(size=size), make_input(size=(192, 128), seed=2)
    if size == (52, 60):
        # the batch's side is padded to 64 either way
        pad = torch.zeros(3, *size)
        image["image"] = pad + image["image"]
    with torch.no_grad():
        alone = detector([image])[0]["instances"]
        together = detector([image, large])[0]["instances"]
        swapped = detector([large, image])[1]["instances"]
    assert_same(alone, together, 1e-5)
    assert_same(alone, swapped, 1e-5)


def test_what_is_in_the_padding_does_not_matter(build_detector, make_input):
    """The mask, and not the zeros, keeps the padding out."""
    detector = without_norm(build_detector())
    inputs = [make_input(size=(64, 64)), make_input(size=(128, 128), seed=2)]
    images = detector.preprocess(inputs)
    with torch.no_grad():
        clean = detector.encode(images)
        images.tensor[0, :, 64:] = 3.0
        images.tensor[0, :, :, 64:] = -3.0
        dirty = detector.encode(images)
        before = detector.detect(clean, None).layers[-1]
        after = detector.detect(dirty, None).layers[-1]
    # only the 3 x 3 convolution of the last level, at stride 64, sees across the border
    assert torch.allclose(before.class_logits, after.class_logits, atol=2e-2)
    assert torch.equal(before.class_logits[1], after.class_logits[1])


def test_padding_mask_is_left_out_for_images_of_one_padded_size(build_detector, make_input):
    detector = build_detector().eval()
    same = [make_input(size=(64, 96), seed=i) for i in range(2)]
    assert detector.encode(detector.preprocess(same)).padding_mask is None
    other = [make_input(size=(64, 96)), make_input(size=(32, 96))]
    assert detector.encode(detector.preprocess(other)).padding_mask[1].any()


@pytest.mark.parametrize("denoising", [0, 6])
@pytest.mark.parametrize("counts", [(0, 0), (0, 2)], ids=["none", "some"])
def test_images_without_objects(build_detector, make_input, counts, denoising):
    detector = build_detector(num_denoising_queries=denoising)
    inputs = [make_input(BOXES[:n], [0, 1][:n], seed=i) for i, n in enumerate(counts)]
    losses = train_losses(detector, inputs)
    full = train_losses(detector, [make_input(BOXES, [0, 1]), make_input(BOXES, [0, 1], seed=1)])
    assert list(losses) == list(full)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_every_parameter_learns_from_a_batch_with_objects(build_detector, pair):
    detector = build_detector()
    torch.manual_seed(1)
    for head in detector.heads.box_heads:
        nn.init.normal_(head.layers[-1].weight, std=0.1)
    for module in detector.modules():
        if hasattr(module, "sampling_offsets"):
            nn.init.normal_(module.sampling_offsets.weight, std=0.05)
            nn.init.normal_(module.attention_weights.weight, std=0.05)
    sum(train_losses(detector, pair).values()).backward()
    silent = [n for n, p in detector.named_parameters() if not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize(
    "boxes",
    [
        [(32.0, 32.0, 1.0, 1.0, 0.0), (5.0, 5.0, 1.0, 0.5, 45.0)],
        [(32.0, 32.0, 64.0, 64.0, 0.0), (32.0, 32.0, 90.0, 90.0, -45.0)],
        [(-20.0, 80.0, 30.0, 10.0, 12.0), (32.0, 32.0, 500.0, 2.0, 89.999)],
        [(32.0, 32.0, 10.0, 0.0, 0.0), (32.0, 32.0, 0.0, 0.0, 10.0)],
        random_rotated_boxes(3000, 64.0, 1.0, 40.0),
    ],
    ids=["one pixel", "whole image", "outside", "no area", "3000 objects"],
)
def test_extreme_objects(build_detector, make_input, boxes):
    detector = build_detector(num_classes=1)
    losses = train_losses(detector, [make_input(boxes)])
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


@pytest.mark.parametrize("label", [3, 17, -1])
def test_label_that_is_no_class_is_an_error(build_detector, make_input, label):
    inputs = [make_input(BOXES, [0, label])]
    with pytest.raises(ValueError, match=rf"{label} .*3 classes.*num_classes"):
        train_losses(build_detector(), inputs)


def test_wrong_arguments_are_refused(build_detector):
    with pytest.raises(ValueError, match="num_classes.*0"):
        build_detector(num_classes=0)


def test_mixed_precision_is_finite_and_close(build_detector, pair):
    detector = build_detector()
    exact = train_losses(detector, pair)
    no_onednn, autocast = bfloat16()
    with no_onednn:
        with autocast:
            lowered = train_losses(detector, pair)
        sum(lowered.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())
    assert all(value.dtype == torch.float32 for value in lowered.values())
    # one match may flip, so that the sum is compared closely and each loss loosely
    total, other = sum(exact.values()).item(), sum(lowered.values()).item()
    assert other == pytest.approx(total, rel=0.02)
    for name, value in exact.items():
        assert lowered[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.02), name


def test_mixed_precision_inference(build_detector, pair):
    detector = build_detector().eval()
    no_onednn, autocast = bfloat16()
    with no_onednn, autocast, torch.no_grad():
        instances = detector(pair)[0]["instances"]
    assert instances.scores.dtype == instances.pred_boxes.tensor.dtype == torch.float32
    assert torch.isfinite(instances.pred_boxes.tensor).all()


def test_fewer_tokens_than_queries(build_detector, make_input):
    detector = build_detector(num_queries=200, max_detections=1000)
    losses = train_losses(detector, [make_input(BOXES, [0, 1])])
    assert torch.isfinite(sum(losses.values()))
    with torch.no_grad():
        found = detector.eval()([make_input(BOXES, [0, 1])])[0]["instances"]
    # 64 + 16 + 4 + 1 tokens of 3 classes
    assert len(found) <= 85 * 3


def test_tiny_and_odd_image_sizes(build_detector, make_input):
    detector = build_detector()
    inputs = [make_input([(0.5, 3.5, 1.0, 1.0, 0.0)], size=(7, 1)), make_input(size=(33, 65))]
    assert torch.isfinite(sum(train_losses(detector, inputs).values()))
    with torch.no_grad():
        results = detector.eval()(inputs)
    assert all(torch.isfinite(r["instances"].pred_boxes.tensor).all() for r in results)


def test_detectron2_resnet_as_backbone(build_detector, pair):
    stem = BasicStem(in_channels=3, out_channels=8, norm="BN")
    widths = (8, 12, 16, 24, 32)
    stages = [
        ResNet.make_stage(
            BasicBlock, 1, in_channels=before, out_channels=after, stride=stride, norm="BN"
        )
        for before, after, stride in zip(widths, widths[1:], (1, 2, 2, 2))
    ]
    backbone = ResNet(stem, stages, out_features=["res3", "res4", "res5"])
    detector = build_detector(backbone=backbone)
    losses = train_losses(detector, pair)
    sum(losses.values()).backward()
    assert backbone.stem.conv1.weight.grad.abs().sum() > 0
    assert len(detector.eval()(pair)) == 2


def test_it_is_found_by_name():
    assert META_ARCH_REGISTRY.get("RotatedDeformableDETR") is RotatedDeformableDETR


def test_constants_are_not_in_the_checkpoint(build_detector):
    detector = build_detector()
    assert not [name for name in detector.state_dict() if name.startswith("pixel_")]
    assert detector.device == torch.device("cpu")
