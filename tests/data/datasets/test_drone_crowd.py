"""DroneCrowd: boxes and points from MAT files, wrapped as MATLAB wraps them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from rsd2.data.datasets import load_drone_crowd
from rsd2.data.formats.label_report import LabelReport

ROWS = np.array(
    [[0, 5, 10, 20, 14, 26], [0, 6, 30, 30, 33, 34], [1, 5, 11, 20, 15, 26]], dtype=np.uint16
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images, truth = tmp_path / "test_data" / "images", tmp_path / "test_data" / "ground_truth"
    images.mkdir(parents=True)
    truth.mkdir()
    for clip, frames in ((11, 3), (12, 2)):
        for frame in range(1, frames + 1):
            name = f"img{clip:03d}{frame:03d}"
            assert cv2.imwrite(str(images / f"{name}.jpg"), np.zeros((40, 60, 3), np.uint8))
            points = np.array([[12.0, 23.0, 5.0]]) if frame == 1 else np.zeros((0, 3))
            savemat(truth / f"GT_{name}.mat", {"image_info": points})
    (tmp_path / "annotations").mkdir()
    savemat(tmp_path / "annotations" / "00011.mat", {"anno": ROWS})
    savemat(tmp_path / "annotations" / "00012.mat", {"anno": ROWS[:0].reshape(0, 6)})
    return tmp_path


def test_boxes_count_frames_from_zero_and_images_from_one(root: Path) -> None:
    report = LabelReport()
    records = load_drone_crowd(root, "test", report=report)
    assert [r["image_id"] for r in records] == [
        "img011001", "img011002", "img011003", "img012001", "img012002",
    ]  # fmt: skip
    assert [[a["bbox"] for a in r["annotations"]] for r in records] == [
        [[10, 20, 4, 6], [30, 30, 3, 4]], [[11, 20, 4, 6]], [], [], [],
    ]  # fmt: skip
    assert [a["track_id"] for a in records[0]["annotations"]] == [5, 6]
    first = records[3]
    assert (first["video_id"], first["frame_id"], first["height"], first["width"]) == (
        "012", 1, 40, 60,
    )  # fmt: skip
    assert {Path(name).stem for name in first["frame_file_names"]} == {"img012001"}
    assert [Path(n).stem[-1] for n in records[2]["frame_file_names"]] == ["3", "2", "1", "1", "1"]
    assert report.total == 0 and report.objects == 3


def test_points_become_squares_around_them(root: Path) -> None:
    records = load_drone_crowd(root, "test", "points")
    (annotation,) = records[0]["annotations"]
    assert annotation["bbox"] == [2, 13, 20, 20] and annotation["track_id"] == 5
    assert records[1]["annotations"] == []
    smaller = load_drone_crowd(root, "test", "points", point_side=6.0)
    assert smaller[3]["annotations"][0]["bbox"] == [9, 20, 6, 6]


def test_points_inside_cells_and_structures_are_found(root: Path) -> None:
    path = root / "test_data" / "ground_truth" / "GT_img011001.mat"
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = {"location": np.array([[3.0, 4.0], [30.0, 20.0]]), "number": 2.0}
    savemat(path, {"image_info": cell})
    boxes = [a["bbox"] for a in load_drone_crowd(root, "test", "points")[0]["annotations"]]
    assert boxes == [[-7, -6, 20, 20], [20, 10, 20, 20]]
    assert "track_id" not in load_drone_crowd(root, "test", "points")[0]["annotations"][0]


def test_what_is_wrong_is_reported(root: Path) -> None:
    bad = np.vstack(
        [ROWS.astype(float), [0, 9, 5, 5, 5, 9], [7, 9, 5, 5, 9, 9], [0, 1, np.nan, 2, 3, 4]]
    )
    savemat(root / "annotations" / "00011.mat", {"anno": bad})
    (root / "annotations" / "00012.mat").write_bytes(b"cut off")
    cv2.imwrite(str(root / "test_data" / "images" / "overview.jpg"), np.zeros((4, 4, 3), np.uint8))
    report = LabelReport()
    records = load_drone_crowd(root, "test", report=report)
    assert {r["video_id"] for r in records} == {"011"}  # unreadable is not the same as empty
    assert report.objects == 3
    kinds = ("box_without_area", "label_without_image", "non_finite", "mat_file", "frame_number")
    assert [report.count(kind) for kind in kinds] == [1] * 5


def test_fractions_for_frames_and_tracks_are_no_numbers(root: Path) -> None:
    bad = np.vstack([ROWS.astype(float), [0.5, 9, 5, 5, 9, 9], [0, 3.5, 5, 5, 9, 9]])
    savemat(root / "annotations" / "00011.mat", {"anno": bad})
    points = np.array([[12.0, 23.0, 3.5], [20.0, 20.0, 4.0]])
    savemat(root / "test_data" / "ground_truth" / "GT_img011001.mat", {"image_info": points})
    report = LabelReport()
    assert len(load_drone_crowd(root, "test", report=report)[0]["annotations"]) == 2
    assert report.count("track_number", "dropped") == report.total == 2
    report = LabelReport()
    annotations = load_drone_crowd(root, "test", "points", report=report)[0]["annotations"]
    assert [a.get("track_id") for a in annotations] == [None, 4]
    assert report.count("track_number", "kept") == report.total == 1


def write_matlab_7_3(path: Path) -> None:
    """The header of MATLAB 7.3: its text, version 0x0200, the byte order; then HDF5's signature."""
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(116)
    path.write_bytes(
        text + bytes(8) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99)
    )


def test_files_of_matlab_7_3_are_named_with_what_to_do(root: Path) -> None:
    write_matlab_7_3(root / "annotations" / "00012.mat")
    report = LabelReport()
    records = load_drone_crowd(root, "test", report=report)
    assert {r["video_id"] for r in records} == {"011"}
    (problem,) = report.problems
    assert (problem.kind, problem.fate) == ("mat_version", "dropped")
    assert problem.file.endswith("annotations/00012.mat") and "MATLAB 7.3" in problem.message
    assert "save(..., '-v7')" in report.summary()


def test_nothing_readable_is_an_error_and_no_empty_data_set(root: Path) -> None:
    for clip in ("00011", "00012"):
        write_matlab_7_3(root / "annotations" / f"{clip}.mat")
    with pytest.raises(ValueError, match=r"(?s)-v7.*annotations/00011\.mat: .*00012\.mat: "):
        load_drone_crowd(root, "test")
    (root / "train_data" / "images").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="train_data/images holds no frame"):
        load_drone_crowd(root, "train")


def test_objects_of_matlab_s_classes_are_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SciPy gives a MATLAB table as a record of bytes; SciPy cannot write one."""
    opaque = np.array([(b"anno", b"MCOS", b"table")], dtype=[(f"s{k}", object) for k in range(3)])
    monkeypatch.setattr(
        "rsd2.io.mat_tables.loadmat",
        lambda path: {"anno": opaque if path.stem == "00012" else ROWS},
    )
    report = LabelReport()
    assert len(load_drone_crowd(root, "test", report=report)) == 3
    assert report.count("mat_file") == 1


def test_second_file_of_a_frame_is_reported(root: Path) -> None:
    images, report = root / "test_data" / "images", LabelReport()
    cv2.imwrite(str(images / "img011002.png"), np.zeros((40, 60, 3), np.uint8))
    records = load_drone_crowd(root, "test", report=report)
    assert Path(records[1]["file_name"]).name == "img011002.jpg" and len(records) == 5
    (problem,) = report.problems
    assert problem.kind == "duplicate_image" and problem.file.endswith("img011002.png")


def test_missing_files_and_wrong_arguments(root: Path) -> None:
    (root / "annotations" / "00012.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations/00012\.mat"):
        load_drone_crowd(root, "test")
    with pytest.raises(FileNotFoundError, match="train_data/images"):
        load_drone_crowd(root, "train")
    for options in ({"split": "all"}, {"source": "heads"}, {"point_side": 0.0}):
        with pytest.raises(ValueError, match="split must be one of"):
            load_drone_crowd(**{"root": root, "split": "test", **options})
