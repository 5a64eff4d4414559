"""Files of generated scenes, scored twice by programs that share no line, give equal scores."""

import numpy as np
import pytest

from rsd2.commands.make_synthetic import main as draw
from rsd2.data.class_orders import SYNTHETIC_CLASSES as NAMES
from rsd2.data.datasets import load_dota_instances
from rsd2.evaluation import Detections, score_task1
from rsd2.evaluation.files.task1 import write_task1_zip
from rsd2.evaluation.scoring.dota import COCO_IOU_THRESHOLDS

from .slow_judge import score_files


def guess(records, rng):
    """Find most objects, some twice, with errors of all sizes, and things that are not there."""
    rows = []
    for image, record in enumerate(records):
        for annotation in record["annotations"]:
            for _ in range(rng.integers(0, 3)):
                box = np.array(annotation["bbox"])
                box += rng.normal(0, 1, 5) * [2, 2, 2, 1, 8] * rng.random()
                box[2:4] = np.maximum(box[2:4], 1)
                rows.append((image, annotation["category_id"], box))
        for _ in range(4):
            rows.append(
                (image, rng.integers(0, 7), [*rng.uniform(5, 120, 4), rng.uniform(-90, 90)])
            )
    images, labels, boxes = zip(*rows)
    # Few distinct scores, so that many are equal.
    scores = rng.integers(1, 40, len(rows)) / 40
    return Detections(np.array(images), np.array(labels), scores, boxes=np.array(boxes))


@pytest.mark.parametrize("method", ["voc07", "area"])
def test_label_files_and_results_of_generated_scenes_score_alike(tmp_path, method):
    words = ["--num-images", "12", "--size", "128", "--seed", "5", "--num-workers", "0"]
    assert draw(["--output", str(tmp_path), *words]) == 0
    records = load_dota_instances(tmp_path / "labelTxt", tmp_path / "images", NAMES)
    results = tmp_path / "Task1.zip"
    image_ids = [record["image_id"] for record in records]
    write_task1_zip(results, image_ids, NAMES, guess(records, np.random.default_rng(0)))

    found = score_task1(results, records, NAMES, ap_method=method).ap
    slow = score_files(tmp_path / "labelTxt", results, NAMES, COCO_IOU_THRESHOLDS, method)
    np.testing.assert_allclose(found, slow, rtol=0, atol=1e-9, equal_nan=True)
    assert 0.05 < np.nanmean(found[5]) < np.nanmean(found[0]) < 0.95
