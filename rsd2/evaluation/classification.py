"""Evaluator of classifiers of images.

Shapes: K classes.
"""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm


class ClassificationEvaluator(DatasetEvaluator):
    """Share of images whose class has the best score, or among the five best.

    Classes of equal score count against the model, so that constant scores earn nothing; so do
    scores that are NaN.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._counts = [0, 0, 0]

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch.

        Args:
            inputs: dicts with ``label``.
            outputs: dicts with ``scores`` (K,).
        """
        for x, output in zip(inputs, outputs):
            scores = output["scores"]
            # 1 is the best. "Not less", because NaN is not greater either and would be first.
            rank = int((~(scores < scores[int(x["label"])])).sum())
            self._counts = [
                n + int(hit) for n, hit in zip(self._counts, (True, rank <= 1, rank <= 5))
            ]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Sum the counts of all processes.

        Returns:
            ``{"classification": {"top1", "top5" (0-100, nan without images), "images"}}`` on the
            main process, an empty dict elsewhere.
        """
        gathered = comm.gather(self._counts)
        if not comm.is_main_process():
            return {}
        images, first, five = (sum(column) for column in zip(*gathered))
        top1, top5 = (100 * n / images if images else float("nan") for n in (first, five))
        return {"classification": {"top1": top1, "top5": top5, "images": images}}
