"""The detector: its losses, its errors, and what it is without attention."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from rsd2.commands.export import all_graphs
from rsd2.config import get_config
from rsd2.export.description import ExportError
from rsd2.export.kinds import graph_of
from rsd2.projects.bottom_heavy import AttentionRCNN
from rsd2.testing import shrink


@pytest.fixture
def cfg():
    cfg = get_config("BottomHeavy/configs/models/faster_rcnn_bh50_sspnet.py")
    cfg = shrink(cfg)
    cfg.model.backbone.bottom_up.norm_eval = False
    return cfg.model


def batch(*images_boxes, size=(64, 96), label=0):
    result = []
    for boxes in images_boxes:
        instances = Instances(size)
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.full((len(boxes),), label)
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        result.append({"image": image, "instances": instances})
    return result


def losses_of(model, inputs):
    with EventStorage():
        return model.train()(inputs)


def test_adds_the_attention_loss_to_detectron2_s(cfg):
    model = instantiate(cfg)
    inputs = batch([[5, 5, 15, 20]], [])
    torch.manual_seed(1)
    found = losses_of(model, inputs)
    attention = {"loss_attention_bce", "loss_attention_dice"}
    assert found.keys() == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"} | attention
    model.attention_loss = None
    torch.manual_seed(1)
    rest = losses_of(model, inputs)
    torch.manual_seed(1)
    with EventStorage():
        theirs = GeneralizedRCNN.forward(model, inputs)
    assert rest.keys() == theirs.keys() == found.keys() - attention
    # the same samples were drawn each time
    assert all(torch.equal(rest[name], theirs[name]) for name in rest)


def test_attention_loss_reaches_only_what_gives_attention(cfg):
    model = instantiate(cfg)
    losses = losses_of(model, batch([[5, 5, 15, 20]]))
    (losses["loss_attention_bce"] + losses["loss_attention_dice"]).backward()
    learning = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {
        "bottom_up", "context_attention", *(f"fpn_lateral{i}" for i in (2, 3, 4, 5))
    }  # fmt: skip


def test_images_without_any_object_train(cfg):
    losses = losses_of(instantiate(cfg), batch([], []))
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()


def test_an_ordinary_pyramid_needs_no_attention_loss(cfg):
    cfg.backbone = L(FPN)(
        bottom_up=cfg.backbone.bottom_up,
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=32,
        top_block=L(LastLevelMaxPool)(),
    )
    model = instantiate(cfg)
    with pytest.raises(
        ValueError, match="FPN returns no attention maps; use SSPNet, or set model.attention"
    ):
        losses_of(model, batch([[5, 5, 15, 20]]))
    model.attention_loss = None
    assert len(losses_of(model, batch([[5, 5, 15, 20]]))) == 4


@pytest.mark.parametrize("label", [-1, 1])
def test_a_label_beyond_the_classes_is_refused(cfg, label):
    with pytest.raises(ValueError, match=f"a label is {label} but the model has 1 classes"):
        losses_of(instantiate(cfg), batch([[5, 5, 15, 20]], label=label))


def test_detections_are_in_the_frame_of_the_original_image(cfg):
    cfg.roi_heads.box_predictor.test_score_thresh = 0.0
    model = instantiate(cfg).eval()
    (x,) = batch([])
    with torch.no_grad():
        (small,) = model([{"image": x["image"]}])
        (large,) = model([{"image": x["image"], "height": 128, "width": 192}])
    assert len(small["instances"]) > 0
    assert large["instances"].image_size == (128, 192)
    a, b = (r["instances"].pred_boxes.tensor for r in (small, large))
    assert torch.allclose(2 * a, b, atol=1e-3)


def test_learns_to_find_a_bright_square(cfg):
    cfg.roi_heads.box_predictor.test_score_thresh = 0.0
    model = instantiate(cfg)
    inputs = batch([[24, 20, 36, 32]])
    inputs[0]["image"] = torch.full((3, 64, 96), 60, dtype=torch.uint8)
    inputs[0]["image"][:, 20:32, 24:36] = 220
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    with EventStorage():
        for _ in range(60):
            total = sum(model.train()(inputs).values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    with torch.no_grad():
        # with the statistics of this very image, which sixty steps do not average well
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        with EventStorage():
            model(inputs)
        (found,) = model.eval()(inputs)
    best = found["instances"].pred_boxes.tensor[0]
    assert (best - torch.tensor([24.0, 20, 36, 32])).abs().max() < 3


def test_is_found_by_name():
    assert META_ARCH_REGISTRY.get("AttentionRCNN") is AttentionRCNN


def detections_of(model, *inputs):
    with torch.no_grad():
        found = [one["instances"] for one in model.eval()(list(inputs))]
    return [torch.cat([one.pred_boxes.tensor, one.scores[:, None]], dim=1) for one in found]


@pytest.fixture
def detector(cfg):
    torch.manual_seed(0)
    model = instantiate(cfg)
    # A random model is sure of nothing: all that it finds counts.
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    return model


def test_one_scale_is_the_model_on_the_resized_image(detector):
    (one,) = batch([])
    # Proposals are merged over all levels, which without suppression changes nothing.
    detector.proposal_generator.nms_thresh = 1.0
    large = torch.nn.functional.interpolate(one["image"][None].float(), (128, 192), mode="bilinear")
    (plain,) = detections_of(detector, {"image": large[0], "height": 64, "width": 96})
    detector.test_sizes = ((128, 192),)
    (found,) = detections_of(detector, one)
    assert len(found) > 10
    torch.testing.assert_close(found, plain, atol=1e-3, rtol=1e-4)


def test_scales_are_averaged(detector, monkeypatch):
    (one,) = batch([])
    detector.test_sizes = ((64, 96),)
    (once,) = detections_of(detector, one)
    detector.test_sizes = ((64, 96), (64, 96))
    (twice,) = detections_of(detector, one)
    torch.testing.assert_close(twice, once)

    predictor, seen = detector.roi_heads.box_predictor, []
    judge = predictor.predict_probs
    monkeypatch.setattr(
        predictor, "predict_probs", lambda *args: seen.append(judge(*args)[0]) or [seen[-1]]
    )
    detector.test_sizes = ((64, 96), (96, 144))
    (both,) = detections_of(detector, one)
    first, second = seen
    assert not torch.equal(first, second)
    # Scores of the objects come first, that of the background last.
    means = ((first + second) / 2)[:, :-1]
    assert all((means - score).abs().min() < 1e-6 for score in both[:, 4])
    assert both[:, [0, 2]].max() <= 96 and both[:, [1, 3]].max() <= 64


def test_a_detector_of_several_scales_is_not_exported_as_one_of_a_single_scale(detector):
    assert graph_of(detector, "RGB", all_graphs()).num_classes == detector.roi_heads.num_classes
    detector.test_sizes = ((64, 96), (96, 144))
    with pytest.raises(ExportError, match=r"averages the scales .* set model.test_sizes="):
        graph_of(detector, "RGB", all_graphs())
