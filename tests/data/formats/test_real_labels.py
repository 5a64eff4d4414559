"""Labels of real Sentinel-2 ports as a label tool wrote them; skipped where they are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import LABEL_FORMATS, detect_format


@pytest.fixture
def ports(repository: Path) -> Path:
    root = os.environ.get("RSD2_REAL_DATA") or repository.parent / "shared" / "data" / "real"
    folder = Path(root) / "sen2ships"
    if not folder.is_dir():
        pytest.skip(f"no real scenes at {folder}; name their parent in RSD2_REAL_DATA")
    return folder


def check_against_pycocotools(path: Path, read: list) -> int:
    """Every object encloses its mask tightly; returns the number of objects."""
    content = json.loads(path.read_text())
    objects = [one for image in read for one in image.objects]
    annotations = sorted(
        content["annotations"],
        key=lambda a: next(i["file_name"] for i in content["images"] if i["id"] == a["image_id"]),
    )
    assert len(objects) == len(annotations)
    for one, entry in zip(objects, annotations):
        size = entry["segmentation"]["size"]
        mask = coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], *size))
        ys, xs = np.nonzero(mask)
        low, high = one.polygon.min(0), one.polygon.max(0)
        sides = np.linalg.norm(np.roll(one.polygon, -1, axis=0) - one.polygon, axis=1)
        assert len(xs) - 1e-6 <= sides[0] * sides[1] <= np.ptp(xs + 0.0) * np.ptp(ys + 0.0) * 2 + 9
        assert (low <= [xs.max() + 1, ys.max() + 1]).all() and (high >= [xs.min(), ys.min()]).all()
    return len(objects)


def test_masks_of_ports_are_read_with_and_without_their_images(ports: Path) -> None:
    number = 0
    for path in sorted(ports.glob("t*/*.json")):
        assert detect_format(path).name == "coco"
        report = LabelReport()
        read = LABEL_FORMATS["coco"].read(path, report=report)
        assert report.total == report.count("duplicate_object") and len(read) == 1
        number += check_against_pycocotools(path, read)
        assert all(one.difficult == 0 and one.name == "ship" for one in read[0].objects)
    assert number == 202 + 85


def test_a_file_as_the_label_tool_wrote_it(ports: Path) -> None:
    path = ports / "bands" / "busan_cvat_coco.json"
    if not path.is_file():
        pytest.skip("the file of the label tool is not among the real scenes here")
    report = LabelReport()
    read = detect_format(path).read(path, report=report)
    assert report.count("label_entry") == report.count("unknown_image") == 0, report.summary()
    assert len(read) == 2 and sorted(bool(image.objects) for image in read) == [False, True]
    assert {one.difficult for image in read for one in image.objects} == {0}
    assert check_against_pycocotools(path, read) == 54
