"""Overlaps of rotated boxes come from rsd2.ops alone, in the forms that keep no N x M matrix."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

# What rsd2 and its projects have no use for, and what takes its place.
MATRIX = "keeps N x M numbers: take the paired, sparse or greatest IoU"
GEOMETRY = "is another geometry of rotated boxes than that of rsd2.ops"
REFUSED = {
    "rsd2.ops.box_iou_rotated": MATRIX,
    "rsd2.ops.box_polygon_iou": MATRIX,
    "detectron2.structures.pairwise_iou_rotated": GEOMETRY,
    "detectron2.layers.nms_rotated": GEOMETRY,
    "detectron2.layers.batched_nms_rotated": GEOMETRY,
    "detectron2.layers.ROIAlignRotated": GEOMETRY,
    "cv2.rotatedRectangleIntersection": GEOMETRY,
    "cv2.intersectConvexConvex": GEOMETRY,
    "cv2.dnn.NMSBoxesRotated": GEOMETRY,
    "shapely.intersection": GEOMETRY,
    "torchvision.ops.box_iou": GEOMETRY,
}
EXCEPTIONS = {
    # Anchors in portions of bounded memory: each anchor and each object needs its best partner.
    ("rsd2/modeling/anchor_sampling.py", "rsd2.ops.box_iou_rotated"),
    # Parts of boxes that two windows share, which are no rectangles.
    ("rsd2/inference/seams.py", "shapely.intersection"),
    # Labels and detections of any shape with the outline of a scene, and with the date line.
    ("rsd2/geo/labels.py", "shapely.intersection"),
    ("rsd2/geo/vector_files.py", "shapely.intersection"),
    # Labels as somebody drew them, which may cross themselves.
    ("rsd2/analysis/doctor_labels.py", "shapely.intersection"),
    # Polygons with windows, to cut them.
    ("rsd2/data/windows/tiling.py", "shapely.intersection"),
    # How much of an object's outline lies in the drawn frame.
    ("rsd2/synthetic/scenes/site.py", "cv2.intersectConvexConvex"),
}


def used_names(source: str) -> set[str]:
    """Full names of what a module imports, and of what it takes from imported modules."""
    tree = ast.parse(source)
    found, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                modules[alias.asname or whole] = whole
    found |= set(modules.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            found.add(f"{modules.get(first, first)}.{rest}")
    return found


def refused_uses(root: Path) -> set[tuple[str, str]]:
    """(file, name) of what is refused in rsd2, its operators aside, and in the projects."""
    files = [*root.glob("rsd2/**/*.py"), *root.glob("projects/**/*.py")]
    return {
        (file.relative_to(root).as_posix(), name)
        for file in files
        if file.parent != root / "rsd2" / "ops"
        for name in used_names(file.read_text("utf-8")) & set(REFUSED)
    }


def test_overlaps_come_from_the_operators(repository: Path) -> None:
    assert (repository / "rsd2" / "evaluation" / "merging.py").is_file()
    # An exception that nobody needs any more is a mistake too.
    assert refused_uses(repository) == EXCEPTIONS


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from rsd2.ops import box_iou_rotated as iou", "rsd2.ops.box_iou_rotated"),
        ("from rsd2 import ops\nops.box_iou_rotated(1, 2)", "rsd2.ops.box_iou_rotated"),
        ("import rsd2.ops\nrsd2.ops.box_polygon_iou(1, 2)", "rsd2.ops.box_polygon_iou"),
        ("import shapely as s\ns.intersection(1, 2)", "shapely.intersection"),
        ("import cv2\ncv2.dnn.NMSBoxesRotated(1)", "cv2.dnn.NMSBoxesRotated"),
    ],
)
def test_checker_catches(tmp_path: Path, line: str, name: str) -> None:
    for folder in ("rsd2/ops", "rsd2/data", "projects/X/x"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text(line + "\n")
    assert refused_uses(tmp_path) == {("rsd2/data/a.py", name), ("projects/X/x/a.py", name)}


def test_checker_allows_the_other_forms() -> None:
    names = used_names("from rsd2.ops import max_iou_rotated\nkept = {1}.intersection({2})\n")
    assert "rsd2.ops.max_iou_rotated" in names and not names & set(REFUSED)
