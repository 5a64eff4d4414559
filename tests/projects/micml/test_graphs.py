"""The graph of a clip detector and what follows it find what the model finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rsd2.commands.export import all_graphs
from rsd2.export.description import ExportError
from rsd2.export.kinds import graph_of
from rsd2.export.onnx_detector import FINISHERS
from rsd2.inference.clip_detector import ClipDetector
from rsd2.projects.micml.micml import MICML


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        ({"static": False, "motion": False}, {}),
        ({"dynamic": False}, {}),
        ({"motion": False}, {"num_classes": 2, "score_floor": 0.05}),
        ({}, {"motion_at_eval": True, "soft_nms": False}),
        ({}, {}),
    ],
)
@pytest.mark.parametrize("size", [(32, 48), (40, 30)])
def test_a_graph_and_what_follows_it_are_the_detector(toy_branches, parts, options, size) -> None:
    torch.manual_seed(0)
    model = MICML(**toy_branches(**parts), head_width=8, top_k=12, **options)
    nn.init.normal_(model.heads["hm"][-1].weight, std=3.0)
    nn.init.constant_(model.heads["wh"][-1].bias, 4.0)  # empty boxes would be dropped
    # Channels of different mean, so that a swapped order would show.
    model.pixel_mean += torch.tensor([-20.0, 0.0, 20.0])[:, None, None]
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, *size, 3), dtype=np.uint8)
    expected = ClipDetector(model)([list(clip) for clip in clips])

    graph = graph_of(model, "BGR", all_graphs())
    with torch.no_grad():
        tensors = graph(torch.from_numpy(clips).permute(0, 1, 4, 2, 3))
    assert len(tensors) == len(graph.output_names) and tensors[0].shape == (2, 12, 4)
    for index, (boxes, scores, classes) in enumerate(expected):
        own = [x[index] for x in tensors]
        found = FINISHERS[graph.outputs](own, size, size, graph.finishing())
        assert len(found) == len(boxes) > 0
        torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.pred_boxes.tensor, boxes, atol=1e-3, rtol=0)
        assert torch.equal(found.pred_classes, classes)


def test_a_model_that_only_bears_the_name_is_refused() -> None:
    with pytest.raises(ExportError, match="is not the MICML of rsd2.projects"):
        graph_of(type("MICML", (nn.Module,), {})(), "BGR", all_graphs())
