"""Choose the exported graph that fits a model's class."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .description import ExportError
from .graphs import DetectionGraph, RotatedDetrGraph
from .rcnn import FasterRcnnGraph

GRAPHS: dict[str, type[DetectionGraph]] = {
    "RotatedDeformableDETR": RotatedDetrGraph,
    "GeneralizedRCNN": FasterRcnnGraph,
}


def graph_of(
    model: nn.Module,
    image_format: str = "RGB",
    graphs: Mapping[str, type[DetectionGraph]] = GRAPHS,
) -> DetectionGraph:
    """Choose the graph of a model's class, or of the nearest class that it inherits from.

    Args:
        model: a detector.
        image_format: channel order that the model was trained with, "RGB" or "BGR".
        graphs: name of a class -> its graph.

    Returns:
        The graph, in eval mode.

    Raises:
        ExportError: no graph exists for the model's class.
    """
    # By name: a class of another package with the same name reaches its graph, whose error says so.
    for kind in type(model).__mro__:
        if kind.__name__ in graphs:
            return graphs[kind.__name__](model, image_format).eval()

    raise ExportError(
        f"a {type(model).__name__} cannot be exported; supported are {', '.join(graphs)}"
    )
