"""Graphs compute what the models compute, and can be traced without changing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from rsd2.export.description import ExportError
from rsd2.export.kinds import GRAPHS, graph_of
from rsd2.export.onnx_detector import FINISHERS
from rsd2.export.onnx_file import attention_by_grid_sample, trace
from rsd2.inference.image_detector import ImageDetector
from rsd2.ops import ms_deform_attn
from rsd2.testing import shrink

DETR = "configs/rotated_deformable_detr_small_synthetic.py"
CONFIGS = [
    DETR,
    "projects/ObjectJEPA/configs/rotated_deformable_detr_vit_small_synthetic_finetune.py",
    "projects/ObjectJEPA/configs/faster_rcnn_vit_small_synthetic_finetune.py",
    "projects/BottomHeavy/configs/faster_rcnn_r18_fpn_synthetic_tiny.py",
    "projects/BottomHeavy/configs/faster_rcnn_bh18_sspnet_synthetic_tiny.py",
    "projects/BottomHeavy/configs/faster_rcnn_bh50_antialias_sspnet_tiny_person.py",
]


def tiny_model(config: Path) -> nn.Module:
    torch.manual_seed(0)
    model = instantiate(shrink(LazyConfig.load(str(config))).model).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def random_pixels(count: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: Path(path).stem)
@pytest.mark.parametrize(("side", "image_format"), [(64, "RGB"), (72, "BGR")])
def test_a_graph_and_what_follows_it_are_the_detector(
    config: str, side: int, image_format: str, repository: Path
) -> None:
    model = tiny_model(repository / config)
    pixels = random_pixels(2, side)
    expected = ImageDetector(model, [], image_format)(
        [np.ascontiguousarray(x.permute(1, 2, 0).numpy()) for x in pixels]
    )

    graph = graph_of(model, image_format)
    with torch.no_grad():
        tensors = graph(pixels)
    assert len(tensors) == len(graph.output_names)
    for image, (boxes, scores, classes) in enumerate(expected):
        own = [x[image] for x in tensors]
        found = FINISHERS[graph.outputs](own, (side, side), (side, side), graph.finishing())
        assert len(found) == len(boxes) > 0
        # One image at a time or two together: the sums may round differently.
        torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.pred_boxes.tensor, boxes, atol=2e-3, rtol=0)
        assert torch.equal(found.pred_classes, classes)


@pytest.mark.slow
def test_tracing_keeps_the_operator_and_every_bit(repository: Path) -> None:
    graph = graph_of(tiny_model(repository / DETR))
    program = trace(graph, (64, 64), batch=None)
    operators = {str(node.target) for node in program.graph.nodes}
    assert "rsd2.ms_deform_attn.default" in operators

    run = program.module()
    for count in (1, 3):
        pixels = random_pixels(count, 64)
        with torch.no_grad():
            for traced, eager in zip(run(pixels), graph(pixels)):
                assert torch.equal(traced, eager)


def test_attention_in_the_form_of_the_graph_equals_the_operator() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 5), (3, 2), (1, 1)]
    value = torch.randn(2, 37, 4, 8, generator=generator)
    # Inside, across the border, and far away.
    spread = torch.tensor([1.0, 3.0, 1e6])[:, None, None]
    locations = torch.rand(2, 9, 4, 3, 3, 2, generator=generator) * spread - 0.3 * spread
    weights = torch.rand(2, 9, 4, 3, 3, generator=generator)
    expected = ms_deform_attn(value, shapes, locations, weights)
    flat = [side for shape in shapes for side in shape]
    found = attention_by_grid_sample(value, flat, locations, weights)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_models_without_a_graph_are_refused() -> None:
    with pytest.raises(ExportError, match="a Linear cannot be exported; supported are Rotated"):
        graph_of(nn.Linear(1, 1))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_model_that_only_bears_the_name_is_refused(name: str) -> None:
    foreign = type(name, (nn.Module,), {})
    with pytest.raises(ExportError, match=f"is not the {name} of"):
        graph_of(foreign())


@pytest.mark.parametrize(
    ("stage", "needed"), [("proposal_generator", "an RPN"), ("roi_heads", "StandardROIHeads")]
)
def test_other_stages_are_refused(stage: str, needed: str, repository: Path) -> None:
    model = tiny_model(repository / CONFIGS[3])
    setattr(model, stage, nn.Identity())
    with pytest.raises(
        ExportError, match=f"with Identity cannot be exported; .* must (be|have) {needed}"
    ):
        graph_of(model)


def test_rotated_stages_are_refused(repository: Path) -> None:
    """Their regions have five numbers, which the graph of upright boxes would cut otherwise."""
    model = tiny_model(repository / "configs/rotated_faster_rcnn_small_synthetic.py")
    with pytest.raises(ExportError, match="cannot be exported"):
        graph_of(model)


def test_an_open_number_of_images_is_refused_where_the_graph_has_one(repository: Path) -> None:
    graph = graph_of(tiny_model(repository / CONFIGS[3]))
    with pytest.raises(ExportError, match="--batch 1"):
        trace(graph, (64, 64), batch=None)
