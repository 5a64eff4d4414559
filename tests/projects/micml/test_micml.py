"""The detector: its variants, sizes of every kind, its losses, its boxes, its errors."""

import math

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances

from rsd2.projects.micml.micml import MICML

LOSSES = {"loss_heatmap", "loss_size", "loss_offset"}
VARIANTS = {
    "micml": {},
    "dsfnet": {"motion": False},
    "static": {"dynamic": False},
    "dynamic": {"static": False, "motion": False},
}


@pytest.fixture
def build(toy_branches):
    def build(variant="micml", **options) -> MICML:
        torch.manual_seed(1)  # with which no hidden unit of the toy is dead at the start
        return MICML(**toy_branches(**VARIANTS[variant]), head_width=8, **options)

    return build


def test_it_is_registered():
    assert META_ARCH_REGISTRY.get("MICML") is MICML


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(build, make_clips, variant):
    model = build(variant).train()
    losses = model(make_clips((32, 32), (32, 32)))
    assert losses.keys() == LOSSES and all(v.isfinite() and v.ndim == 0 for v in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    # a bias before a BatchNorm moves nothing, all else does
    still = [n for n, p in model.named_parameters() if not p.grad.abs().max() > 1e-7]
    assert all(name.endswith(".conv.bias") for name in still), still


def test_losses_are_weighted(build, make_clips):
    weights = {"heatmap_weight": 2.0, "size_weight": 3.0, "offset_weight": 0.0}
    plain = build(heatmap_weight=1.0, size_weight=1.0, offset_weight=1.0)(make_clips((32, 32)))
    found = build(**weights)(make_clips((32, 32)))
    assert found["loss_heatmap"].item() == pytest.approx(2 * plain["loss_heatmap"].item(), rel=1e-4)
    assert found["loss_size"].item() == pytest.approx(3 * plain["loss_size"].item(), rel=1e-4)
    assert plain["loss_offset"] > 0 and found["loss_offset"] == 0


def test_the_radius_rule_decides_about_the_heat_map(build, make_clips):
    """Of objects of 5 px: a radius of 1, or of 0, which spares no neighbour of a centre."""
    batch = make_clips((32, 32))
    losses = [
        build(radius_rule=rule)(batch)["loss_heatmap"].item()
        for rule in ("official", "at_least_one", "corrected")
    ]
    assert losses[0] == losses[1] < losses[2]


@pytest.mark.parametrize("num_objects", [0, 500])
def test_no_objects_and_many(build, make_clips, num_objects):
    model = build().train()
    losses = model(make_clips((48, 64), num_objects=num_objects))
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (losses["loss_size"] == 0) == (num_objects == 0)


@pytest.mark.parametrize("size", [(16, 16), (17, 50), (50, 17), (1, 1), (33, 40)])
def test_frames_of_any_size(build, make_clips, size):
    model = build()
    if min(size) > 1:
        losses = model.train()(make_clips(size, size, num_objects=1))
        assert all(value.isfinite() for value in losses.values())
    with torch.no_grad():
        (output,) = model.eval()(make_clips(size))
    found = output["instances"]
    assert found.image_size == size
    boxes = found.pred_boxes.tensor
    assert (boxes >= 0).all() and (boxes[:, 2] <= size[1]).all() and (boxes[:, 3] <= size[0]).all()


def test_clips_of_unequal_sizes_share_a_batch(build, make_clips):
    """What is found on a clip does not depend on the others, whose size decides the padding."""
    model = build("dsfnet", score_floor=0.05).eval()
    batch = make_clips((32, 32), (64, 48))
    with torch.no_grad():
        model.heads["wh"][2].bias.fill_(5.0)
        together = model(batch)
        alone = [model([x])[0] for x in batch]
    found, expected = together[1]["instances"], alone[1]["instances"]
    assert len(found) == len(expected) > 0
    assert torch.allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3)
    assert together[0]["instances"].image_size == (32, 32)
    model.train()
    assert all(value.isfinite() for value in model(batch).values())


def test_padding_is_neither_trained_nor_searched(build, make_clips):
    """A peak that the network sees everywhere is found inside the frame alone."""
    model = build(score_floor=0.5).eval()
    with torch.no_grad():
        model.heads["hm"][2].bias.fill_(10.0)
        model.heads["hm"][2].weight.zero_()
        model.heads["wh"][2].weight.zero_()
        model.heads["wh"][2].bias.fill_(0.5)
        model.heads["reg"][2].weight.zero_()
    model.top_k = 10_000
    with torch.no_grad():
        found = model(make_clips((20, 18)))[0]["instances"]
    assert len(found) == 20 * 18
    model.train()
    loss = model(make_clips((20, 18), num_objects=0))["loss_heatmap"]
    p = torch.tensor(10.0).sigmoid().clamp(max=1 - 1e-4)
    assert loss.item() == pytest.approx(20 * 18 * (-(p**2) * (1 - p).log()).item(), rel=1e-3)


def test_boxes_are_in_pixels_of_the_original_frame(build, make_clips):
    """Peaks by hand: the maps say one object of 6 x 4 px at (10.25, 7.5) in a frame of 32 px."""
    model = build(score_floor=0.3).eval()
    maps = {"hm": torch.full((1, 1, 32, 32), -9.0), "wh": torch.zeros(1, 2, 32, 32)}
    maps["reg"] = torch.zeros(1, 2, 32, 32)
    maps["hm"][0, 0, 7, 10] = 2.0
    maps["wh"][0, :, 7, 10] = torch.tensor([6.0, 4.0])
    maps["reg"][0, :, 7, 10] = torch.tensor([0.25, 0.5])
    model.predict_maps = lambda clips, *, with_motion: maps
    (x,) = make_clips((32, 32))
    x |= {"height": 64, "width": 96}
    found = model([x])[0]["instances"]
    assert found.image_size == (64, 96)
    expected = torch.tensor([[7.25 * 3, 5.5 * 2, 13.25 * 3, 9.5 * 2]])
    assert torch.allclose(found.pred_boxes.tensor, expected, atol=1e-4)
    assert found.scores.item() == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    assert found.pred_classes.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({"soft_nms": False}, [0.9, 0.8, 0.2]),
        ({"soft_nms": True}, [0.9, 0.8 * 0.73, 0.2]),
        ({"soft_nms": False, "score_floor": 0.3}, [0.9, 0.8]),
        ({"soft_nms": False, "top_k": 1}, [0.9]),
    ],
    ids=str,
)
def test_arguments_of_decoding(build, make_clips, options, scores):
    """Two objects of 6 px that are 3 px apart, and one far away."""
    model = build(**options).eval()
    maps = {"hm": torch.full((1, 1, 32, 32), -20.0), "wh": torch.full((1, 2, 32, 32), 6.0)}
    maps["reg"] = torch.zeros(1, 2, 32, 32)
    for x, score in ((10, 0.9), (13, 0.8), (25, 0.2)):
        maps["hm"][0, 0, 8, x] = math.log(score / (1 - score))
    model.predict_maps = lambda clips, *, with_motion: maps
    found = model(make_clips((32, 32)))[0]["instances"].scores
    assert found[found > 1e-3].tolist() == pytest.approx(scores, abs=5e-3)


def test_normalised_frames_are_taken_as_they_are(build, make_clips):
    model = build()
    (raw,) = make_clips((16, 16))
    ready = {"frames": (raw["frames"] - 127.4) / 21.05, "normalized": True}
    a, b = (model.preprocess([x]).tensor for x in (raw, ready))
    assert torch.allclose(a, b, atol=1e-5) and a.shape == (1, 5, 3, 16, 16)


def test_motion_in_inference_is_a_choice(build, make_clips):
    model, batch = build("micml"), make_clips((32, 32))
    calls = []
    model.dynamic.motion.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model.eval()(batch)
        assert not calls
        model.motion_at_eval = True
        model(batch)
        assert len(calls) == 1
    model.motion_at_eval = False
    model.train()(batch)
    assert len(calls) == 2


@pytest.mark.parametrize("num_frames", [3, 4])
def test_shorter_clips_in_inference(build, make_clips, num_frames):
    batch = make_clips((32, 32), num_frames=num_frames)
    with torch.no_grad():
        assert build().eval()(batch)[0]["instances"].image_size == (32, 32)
        with pytest.raises(ValueError, match=f"made for 5 frames, got {num_frames}"):
            build(motion_at_eval=True).eval()(batch)


def test_a_clip_of_one_frame(build, make_clips):
    batch = make_clips((32, 32), num_frames=1)
    with torch.no_grad():
        assert "instances" in build("static").eval()(batch)[0]
        with pytest.raises(ValueError, match="3 to 5 frames, got 1"):
            build("dsfnet").eval()(batch)


def test_several_classes(build, make_clips):
    model, batch = build(num_classes=3), make_clips((32, 32))
    batch[0]["instances"].gt_classes = torch.tensor([0, 2, 1])
    assert all(value.isfinite() for value in model.train()(batch).values())
    batch[0]["instances"].gt_classes = torch.tensor([0, 3, 1])
    with pytest.raises(ValueError, match="a label is 3 but the model has 3 classes"):
        model(batch)


@pytest.mark.parametrize(
    "shapes",
    [[(5, 3, 16, 16), (4, 3, 16, 16)], [(5, 1, 16, 16)], [(3, 16, 16)], [(5, 3, 0, 16)]],
    ids=str,
)
def test_frames_of_another_shape_are_an_error(build, shapes):
    with pytest.raises(ValueError, match=r"frames must be \(T, 3, H, W\)"):
        build().eval()([{"frames": torch.zeros(shape)} for shape in shapes])


@pytest.mark.parametrize("head", ["hm", "wh", "reg"])
def test_diverged_weights_are_an_error(build, make_clips, head):
    """Else there would be nothing where scores are not finite, as if nothing moved."""
    model = build().eval()
    with torch.no_grad():
        model.heads[head][2].bias.fill_(math.nan)
        with pytest.raises(ValueError, match="not finite: its weights have diverged"):
            model(make_clips((32, 32)))


def test_wrong_parts_are_an_error(toy_branches):
    with pytest.raises(ValueError, match="a static branch, a dynamic branch, or both"):
        MICML(**toy_branches(static=False, dynamic=False))
    branches = toy_branches()
    branches["static"].channels = (4, 6, 9)
    with pytest.raises(ValueError, match=r"\(4, 6, 9\) and \(4, 6, 8\)"):
        MICML(**branches)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        MICML(**toy_branches(), num_classes=0)
    with pytest.raises(ValueError, match="radius_rule"):
        MICML(**toy_branches(), radius_rule="bold")
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        MICML(**toy_branches(), top_k=0)


def test_it_learns_one_clip(build):
    """A bright square on noise, found again after a few steps."""
    generator = torch.Generator().manual_seed(0)
    frames = 100 + 20 * torch.rand(5, 3, 32, 32, generator=generator)
    for t in range(5):
        frames[t, :, 12:17, 16 - t : 21 - t] = 220
    instances = Instances((32, 32))
    instances.gt_boxes = Boxes(torch.tensor([[16.0, 12.0, 21.0, 17.0]]))
    instances.gt_classes = torch.zeros(1, dtype=torch.long)
    model = build(motion_at_eval=True).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    totals = []
    for _ in range(30):
        optimizer.zero_grad()
        losses = model([{"frames": frames, "instances": instances}])
        totals.append(sum(losses.values()))
        totals[-1].backward()
        optimizer.step()
    assert min(totals[-5:]) < totals[0] / 3
    for module in model.modules():  # a few steps are too few for running statistics
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = None
    with torch.no_grad():
        found = model.eval()([{"frames": frames}])[0]["instances"]
    assert (found.pred_boxes.tensor[0] - instances.gt_boxes.tensor[0]).abs().max() < 2.5


def test_half_precision_trains_like_single(build, make_clips):
    """bfloat16 has 8 bits: losses agree to some percent, offsets and decoding stay float32."""
    model, batch = build().train(), make_clips((32, 32), (32, 32))
    single = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    assert all(value.dtype == torch.float32 for value in half.values())
    for name, value in single.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.1), name
    sum(half.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_double_precision_stays_double(build, make_clips):
    model = build().double().train()
    assert all(value.dtype == torch.float64 for value in model(make_clips((32, 32))).values())
