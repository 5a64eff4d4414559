"""Detectron2's own rotated machinery, uncompiled, on the registered operators."""

import os
import subprocess
import sys

import pytest
import torch

from rsd2.ops import (
    batched_nms_rotated,
    box_iou_rotated,
    nms_rotated,
    register_detectron2_ops,
    roi_align_rotated,
)
from rsd2.testing import random_rotated_boxes

NAMES = (
    "box_iou_rotated",
    "nms_rotated",
    "roi_align_rotated_forward",
    "roi_align_rotated_backward",
)


def run_python(code: str) -> str:
    """Run code in a fresh interpreter; its standard output."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


class TestRegistration:
    def test_names_exist_and_a_second_call_adds_nothing(self):
        for name in NAMES:
            assert hasattr(torch.ops.detectron2, name)
        assert register_detectron2_ops() == ()

    def test_schemas(self):
        schema = str(torch.ops.detectron2.nms_rotated.default._schema)
        assert schema.endswith("(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        backward = torch.ops.detectron2.roi_align_rotated_backward.default._schema
        kinds = [str(argument.type) for argument in backward.arguments]
        assert kinds == ["Tensor", "Tensor", "float", *["int"] * 7]

    def test_works_without_detectron2(self):
        code = (
            "import sys; sys.modules['detectron2'] = None\n"
            "import torch, rsd2.ops, rsd2.structures\n"
            "box = torch.tensor([[0., 0, 4, 2, 0]])\n"
            "print(torch.ops.detectron2.box_iou_rotated(box, box).item())\n"
        )
        assert run_python(code) == "1.0"

    def test_operators_that_exist_win(self):
        code = (
            "import torch\n"
            "mine = torch.library.Library('detectron2', 'DEF')\n"
            "mine.define('nms_rotated(Tensor a, Tensor b, float c) -> Tensor')\n"
            "mine.impl('nms_rotated', lambda a, b, c: b, 'CompositeImplicitAutograd')\n"
            "import rsd2.ops\n"
            "print(torch.ops.detectron2.nms_rotated(torch.zeros(1, 5), torch.ones(1), .5).item())\n"
            "print(hasattr(torch.ops.detectron2, 'box_iou_rotated'))\n"
            "import sys, rsd2.structures\n"
            "print(any(name.startswith('detectron2') for name in sys.modules))\n"
        )
        # The last: importing our operators does not pull Detectron2 in.
        assert run_python(code).split() == ["1.0", "True", "False"]

    def test_wrong_grad_shape_is_named(self):
        rois = torch.tensor([[0, 4.0, 4, 4, 4, 0]])
        with pytest.raises(ValueError, match="grad must be"):
            torch.ops.detectron2.roi_align_rotated_backward(
                torch.zeros(1, 2, 3, 3), rois, 1.0, 3, 3, 1, 5, 8, 8, 2
            )


class TestLayers:
    @pytest.fixture(autouse=True)
    def needs_detectron2(self):
        pytest.importorskip("detectron2")

    def test_pairwise_iou(self):
        from detectron2.structures import RotatedBoxes, pairwise_iou_rotated

        one, two = random_rotated_boxes(20, 200.0, seed=1), random_rotated_boxes(30, 200.0, seed=2)
        iou = pairwise_iou_rotated(RotatedBoxes(one), RotatedBoxes(two))
        assert torch.equal(iou, box_iou_rotated(one, two))

    def test_nms(self):
        from detectron2.layers import batched_nms_rotated as theirs
        from detectron2.layers import nms_rotated as theirs_single

        boxes, scores = random_rotated_boxes(100, 200.0), torch.rand(100)
        idxs = torch.arange(100) % 3
        expected = batched_nms_rotated(boxes, scores, idxs, 0.3)
        assert torch.equal(theirs(boxes, scores, idxs, 0.3), expected)
        assert torch.equal(theirs_single(boxes, scores, 0.3), nms_rotated(boxes, scores, 0.3))

    def test_roi_align_layer_forward_and_backward(self):
        from detectron2.layers import ROIAlignRotated

        features = torch.randn(2, 3, 16, 20, requires_grad=True)
        rois = torch.tensor([[0, 20.0, 16, 20, 8, 30], [1, 10, 12, 9, 14, -70]])
        for ratio in (0, 2):
            pooled = ROIAlignRotated((3, 4), 0.5, ratio)(features, rois)
            expected = roi_align_rotated(features, rois, (3, 4), 0.5, ratio)
            torch.testing.assert_close(pooled, expected)
            grad = torch.randn_like(pooled)
            (theirs,) = torch.autograd.grad(pooled, features, grad)
            (ours,) = torch.autograd.grad(expected, features, grad)
            torch.testing.assert_close(theirs, ours)


def rotated_faster_rcnn():
    """A small rotated Faster R-CNN as a user of Detectron2's yacs configs would build it."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    levels = ["p2", "p3", "p4"]
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0]]
    cfg.MODEL.ANCHOR_GENERATOR.ANGLES = [[-60, 0, 60]]
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RRPN"
    cfg.MODEL.RPN.HEAD_NAME = "StandardRPNHead"
    cfg.MODEL.RPN.IN_FEATURES = levels
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0)
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 200
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.ROI_HEADS.NAME = "RROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = levels
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignRotated"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0, 1.0)
    return build_model(cfg)


class TestModel:
    def test_rotated_faster_rcnn_trains_and_infers(self):
        pytest.importorskip("detectron2")
        from detectron2.structures import Instances, RotatedBoxes
        from detectron2.utils.events import EventStorage

        torch.manual_seed(0)
        model = rotated_faster_rcnn()
        truth = Instances((128, 128))
        truth.gt_boxes = RotatedBoxes(random_rotated_boxes(5, 128.0, 12.0, 50.0))
        truth.gt_classes = torch.tensor([0, 1, 0, 1, 1])
        image = torch.randint(0, 255, (3, 128, 128), dtype=torch.uint8)
        inputs = [{"image": image, "instances": truth, "height": 128, "width": 128}]

        with EventStorage():
            losses = model(inputs)
        names = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
        assert names <= set(losses)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert all(g is None or g.isfinite().all() for g in gradients.values())
        stem = gradients["backbone.bottom_up.stem.conv1.weight"]
        assert stem is not None and stem.abs().sum() > 0

        model.eval()
        with torch.no_grad():
            (output,) = model(inputs)
        found = output["instances"]
        assert len(found) > 0 and found.pred_boxes.tensor.shape[1] == 5
        iou = box_iou_rotated(found.pred_boxes.tensor, found.pred_boxes.tensor)
        same = found.pred_classes[:, None] == found.pred_classes[None]
        assert (iou.fill_diagonal_(0)[same] <= 0.5 + 1e-4).all()


class TestEvaluator:
    def test_rotated_coco_evaluator_scores_perfect_boxes_with_100(self, tmp_path):
        pytest.importorskip("detectron2")
        from detectron2.data import DatasetCatalog, MetadataCatalog
        from detectron2.evaluation import RotatedCOCOEvaluator
        from detectron2.structures import BoxMode, Instances, RotatedBoxes

        boxes = random_rotated_boxes(6, 200.0, 20.0, 60.0)
        classes = torch.arange(6) % 2
        record = {"file_name": "1.png", "image_id": 1, "height": 200, "width": 200}
        record["annotations"] = [
            {
                "bbox": box.tolist(),
                "bbox_mode": BoxMode.XYWHA_ABS,
                "category_id": int(label),
                "iscrowd": 0,
            }
            for box, label in zip(boxes, classes)
        ]
        name = f"rotated_coco_test_{tmp_path.name}"
        DatasetCatalog.register(name, lambda: [record])
        MetadataCatalog.get(name).set(thing_classes=["plane", "ship"])
        try:
            evaluator = RotatedCOCOEvaluator(
                name, tasks=("bbox",), distributed=False, output_dir=str(tmp_path)
            )
            evaluator.reset()
            found = Instances((200, 200))
            found.pred_boxes = RotatedBoxes(boxes + torch.tensor([0, 0, 0, 0, 180.0]))
            found.scores, found.pred_classes = torch.ones(6), classes
            evaluator.process([record], [{"instances": found}])
            assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100.0)
        finally:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
