"""Classification: loss, scores, errors, and the step from a classifier to a detector."""

import math

import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import get_config
from rsd2.evaluation import ClassificationEvaluator
from rsd2.modeling import BottomHeavyResNet, ImageClassifier
from rsd2.testing import shrink
from rsd2.weights.checkpoint import load_weights


def make(num_classes=4, **options):
    backbone = BottomHeavyResNet(
        depths=(1, 1, 1, 1), bottleneck=False, width=8, out_features=("res5",)
    )
    return ImageClassifier(backbone=backbone, num_classes=num_classes, **options)


def images(*labels, size=32):
    return [
        {"image": torch.randint(0, 256, (3, size, size), dtype=torch.uint8), "label": label}
        for label in labels
    ]


def test_loss_is_the_mean_cross_entropy_of_its_scores():
    model, batch = make(), images(0, 3, 2)
    model.backbone.eval()  # one set of statistics for both
    loss = model(batch)["loss_classification"]
    scores = torch.stack([x["scores"] for x in model.eval()(batch)])
    expected = -scores[torch.arange(3), torch.tensor([0, 3, 2])].log().mean()
    assert torch.allclose(loss, expected, atol=1e-5)
    assert torch.allclose(scores.sum(dim=1), torch.ones(3))


def test_smoothed_labels_have_a_floor():
    model = make(label_smoothing=0.2)
    model.head.weight.data.zero_()
    model.head.bias.data = torch.tensor([50.0, 0, 0, 0])
    # three of four classes have 0.05 of the label and a log probability of -50
    loss = model(images(0, 0))["loss_classification"]
    assert loss.item() == pytest.approx(3 * 0.05 * 50, rel=1e-4)


def test_a_32_px_image_ends_as_one_pixel():
    model = make()
    assert model.eval().backbone(torch.zeros(1, 3, 32, 32))["res5"].shape[-2:] == (1, 1)


def test_different_sizes_and_wrong_labels_are_refused():
    with pytest.raises(ValueError, match="images of one size"):
        make()(images(0) + images(0, size=64))
    for label in (-1, 4):
        with pytest.raises(ValueError, match="do not fit model.num_classes=4"):
            make()(images(0, label))


def test_learns_two_colours():
    model = make(2)
    batch = images(0, 1, 0, 1)
    for x in batch:
        x["image"] = torch.full((3, 32, 32), 80 + 90 * x["label"], dtype=torch.uint8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        loss = model(batch)["loss_classification"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * math.log(2)


def test_evaluator_by_hand():
    evaluator = ClassificationEvaluator()
    scores = torch.tensor([0.3, 0.25, 0.2, 0.1, 0.08, 0.07])
    evaluator.process([{"label": i} for i in (0, 1, 4, 5)], [{"scores": scores}] * 4)
    evaluator.process([{"label": 2}], [{"scores": torch.full((6,), 1 / 6)}])  # ties earn nothing
    found = evaluator.evaluate()["classification"]
    assert found == {"top1": 20.0, "top5": 60.0, "images": 5}
    evaluator.reset()
    evaluator.process([{"label": 0}], [{"scores": torch.full((6,), math.nan)}])
    assert evaluator.evaluate()["classification"] == {"top1": 0, "top5": 0, "images": 1}
    evaluator.reset()
    found = evaluator.evaluate()["classification"]
    assert math.isnan(found["top1"]) and found["images"] == 0


def test_a_classifier_s_checkpoint_starts_a_detector(tmp_path):
    classifier = instantiate(
        shrink(get_config("BottomHeavy/configs/models/classifier_bh50.py")).model
    )
    torch.save({"model": classifier.state_dict()}, tmp_path / "classifier.pth")
    detector = instantiate(
        shrink(get_config("BottomHeavy/configs/models/faster_rcnn_bh50_sspnet.py")).model
    )
    load_weights(detector, tmp_path / "classifier.pth", strict=False)
    found = detector.backbone.bottom_up.state_dict()
    expected = classifier.backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
