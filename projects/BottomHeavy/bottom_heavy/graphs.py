"""The detector of tiny objects as a graph of `rsd2.export`, which finds it by ``GRAPHS``."""

from __future__ import annotations

from torch import nn

from rsd2.export.description import ExportError
from rsd2.export.rcnn import FasterRcnnGraph

from .attention_rcnn import AttentionRCNN


class AttentionRcnnGraph(FasterRcnnGraph):
    """`AttentionRCNN` at one scale, from pixels to its regions; see `FasterRcnnGraph`.

    Args:
        model: the detector.
        image_format: see `DetectionGraph`.

    Raises:
        ExportError: the model averages scales, or see `FasterRcnnGraph`.
    """

    model_class = AttentionRCNN
    model: AttentionRCNN

    def __init__(self, model: nn.Module, image_format: str = "RGB") -> None:
        super().__init__(model, image_format)
        # The graph would find other objects than the model, and nothing would say so.
        if self.model.test_sizes:
            raise ExportError(
                f"an AttentionRCNN that averages the scales {list(self.model.test_sizes)} cannot "
                "be exported; set model.test_sizes=[]"
            )


GRAPHS = {"AttentionRCNN": AttentionRcnnGraph}
