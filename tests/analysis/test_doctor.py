"""The doctor finds each defect with file and line, and nothing in a clean set."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rsd2.analysis.doctor import ModelLimits, examine
from rsd2.analysis.doctor_data import read_data_set
from rsd2.analysis.doctor_images import check_images, find_leaks
from rsd2.analysis.findings import NOTES, Finding, Findings
from rsd2.commands.doctor import main
from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.data.datasets import register_dota_instances, register_virtual_tiles
from rsd2.data.formats.registry import LABEL_FORMATS
from rsd2.synthetic.scenes.scene import SceneConfig
from rsd2.synthetic.writer import write_dota_scenes

SIZE = 192
LINE = 3  # the first object, below two lines of header


@pytest.fixture(scope="module")
def clean_sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two generated sets of different seeds."""
    folder, config = tmp_path_factory.mktemp("clean"), SceneConfig(size=SIZE)
    return [
        write_dota_scenes(folder / f"set{seed}", 6, config, seed=seed, progress=False)
        for seed in (1, 2)
    ]


@pytest.fixture
def folder(clean_sets: list[Path], tmp_path: Path) -> Path:
    """A copy of a clean set, to be spoilt."""
    return Path(shutil.copytree(clean_sets[0], tmp_path / "set"))


def found_in(*sources: str | Path, **limits) -> dict[str, list[Finding]]:
    """Findings that count, by kind."""
    sets = [read_data_set(str(one), format="dota") for one in sources]
    result = examine(sets[:1], sets[1:], limits=ModelLimits(**limits), progress=False)
    return {kind: found for kind, found in result.findings.first.items() if kind not in NOTES}


def test_clean_sets_have_no_findings_and_share_nothing(clean_sets: list[Path]) -> None:
    assert found_in(*clean_sets) == {}


@pytest.mark.parametrize("name", list(LABEL_FORMATS))
def test_clean_set_is_clean_in_every_format(name: str, clean_sets: list[Path], tmp_path) -> None:
    images = clean_sets[0] / "images"
    read = LABEL_FORMATS["dota"].read(clean_sets[0] / "labelTxt", images)
    labels = tmp_path / "labels"
    # Formats with one file for all images do not know the folder of label files.
    if not hasattr(LABEL_FORMATS[name], "sub_folder"):
        labels = labels.with_suffix(".xml" if name == "cvat" else ".json")
    LABEL_FORMATS[name].write(labels, read)
    data = read_data_set(f"{labels}::{images}", format=name)
    assert sum(len(p.image.objects) for p in data.pictures) == sum(len(i.objects) for i in read)
    findings = examine([data], progress=False).findings
    assert {k: n for k, n in findings.counts.items() if k not in NOTES} == {}


def spoil_object(change: Callable[[np.ndarray], np.ndarray], name: str = "") -> Callable:
    """Change the first object of the first label file."""

    def spoil(folder: Path) -> tuple[Path, int]:
        path = folder / "labelTxt" / "S000000.txt"
        lines = path.read_text().splitlines()
        *numbers, old, flag = lines[LINE - 1].split()
        polygon = change(np.array(numbers, float).reshape(4, 2))
        text = " ".join(f"{value:.2f}" for value in polygon.reshape(-1))
        lines[LINE - 1] = f"{text} {name or old} {flag}"
        path.write_text("\n".join(lines) + "\n")
        return path, LINE

    return spoil


def repeat_object(shift: float) -> Callable:
    """Repeat the first object at the end of its file."""

    def spoil(folder: Path) -> tuple[Path, int]:
        path = folder / "labelTxt" / "S000000.txt"
        lines = path.read_text().splitlines()
        *numbers, name, flag = lines[LINE - 1].split()
        moved = " ".join(f"{float(number) + shift}" if shift else number for number in numbers)
        path.write_text("\n".join([*lines, f"{moved} {name} {flag}"]) + "\n")
        return path, len(lines) + 1

    return spoil


def spoil_image(change: Callable[[Path], None], label: bool = False) -> Callable:
    """Change the second image, or its label file."""

    def spoil(folder: Path) -> tuple[Path, None]:
        path = folder / ("labelTxt/S000001.txt" if label else "images/S000001.png")
        other = folder / ("images/S000001.png" if label else "labelTxt/S000001.txt")
        change(path)
        return (path, None) if path.exists() else (other, None)

    return spoil


def save_with(mode: str, **options) -> Callable[[Path], None]:
    """Save an image in another mode, under its own name."""

    def save(path: Path) -> None:
        with Image.open(path) as image:
            changed = image.convert(mode)
        changed.save(path, **options)

    return save


def save_as_16_bit(path: Path) -> None:
    assert cv2.imwrite(str(path), cv2.imread(str(path), 0).astype(np.uint16) * 257)


def square(*points: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda _: np.array(points, float).reshape(4, 2)


EXIF = Image.Exif()
EXIF[0x0112] = 6
DEFECTS = {
    "self_crossing": spoil_object(lambda p: p[[0, 2, 1, 3]]),
    "reversed_vertices": spoil_object(lambda p: p[::-1]),
    "outside_image": spoil_object(lambda p: p + 1000),
    "zero_area": spoil_object(lambda p: p[:1] + np.arange(4)[:, None]),
    "duplicate_object": repeat_object(0),
    "nearly_equal_object": repeat_object(0.1),
    "class_typo": spoil_object(lambda p: p, "large-vehicel"),
    "short_side": spoil_object(square(20, 30, 50, 30, 50, 31.5, 20, 31.5)),
    "long_thin": spoil_object(square(10, 30, 170, 30, 170, 33, 10, 33)),
    "odd_shape": spoil_object(square(60, 60, 110, 60, 65, 65, 60, 110)),
    "foreign_format": spoil_object(lambda p: p / 1000),
    "non_finite": spoil_object(lambda p: p * np.nan),
    "image_without_label": spoil_image(Path.unlink, label=True),
    "label_without_image": spoil_image(Path.unlink),
    "unreadable_image": spoil_image(lambda path: path.write_bytes(path.read_bytes()[:2000])),
    "sixteen_bit_image": spoil_image(save_as_16_bit),
    "alpha_channel": spoil_image(save_with("RGBA")),
    "exif_orientation": spoil_image(save_with("RGB", exif=EXIF)),
}


@pytest.mark.parametrize("kind", DEFECTS)
def test_one_defect_is_found_with_file_and_line(kind: str, folder: Path) -> None:
    path, line = DEFECTS[kind](folder)
    found = found_in(folder)
    assert set(found) == {kind}
    [one] = found[kind]
    assert (Path(one.file), one.line) == (path, line)


def test_classes_of_the_list_are_all_used_and_misspelt_ones_get_the_nearest(folder: Path) -> None:
    path, line = DEFECTS["class_typo"](folder)
    data = read_data_set(str(folder), classes=[*SYNTHETIC_CLASSES, "dirigible"])
    found = examine([data], progress=False).findings.first
    assert found["class_typo"][0].where == f"{path}:{line}"
    assert "'large-vehicle'" in found["class_typo"][0].message
    assert ["'dirigible'" in one.message for one in found["unused_class"]].count(True) == 1


def test_label_of_another_size_is_found(clean_sets: list[Path], tmp_path: Path) -> None:
    images = Path(shutil.copytree(clean_sets[0] / "images", tmp_path / "images"))
    read = LABEL_FORMATS["dota"].read(clean_sets[0] / "labelTxt", images)
    LABEL_FORMATS["rolabelimg"].write(tmp_path / "labels", read)
    image = cv2.imread(str(images / "S000002.png"))
    cv2.imwrite(str(images / "S000002.png"), cv2.resize(image, (2 * SIZE, 2 * SIZE)))
    data = read_data_set(f"{tmp_path / 'labels'}::{images}")
    findings = examine([data], progress=False).findings
    assert {k: n for k, n in findings.counts.items() if k not in NOTES} == {"image_size": 1}
    assert Path(findings.first["image_size"][0].file).stem == "S000002"


@pytest.mark.parametrize(
    ("degrees", "kind"), [(0.0, "upright_boxes"), (1.0, "angles_in_radians"), (30.0, None)]
)
def test_angles_that_were_lost_or_have_another_unit(degrees, kind, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((900, 900, 3), np.uint8))
    lines = []
    for k in range(60):
        turn = np.radians(degrees * np.sin(k))
        corners = np.array([(-20, -5), (20, -5), (20, 5), (-20, 5)])
        matrix = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
        place = corners @ matrix + (60 + 90 * (k % 9), 60 + 110 * (k // 9))
        lines.append(" ".join(f"{v:.3f}" for v in place.reshape(-1)) + " ship 0\n")
    (tmp_path / "labelTxt" / "a.txt").write_text("".join(lines))
    data = read_data_set(str(tmp_path))
    assert set(examine([data], progress=False).findings.counts) == ({kind} if kind else set())


def test_queries_windows_and_objects_are_compared(clean_sets: list[Path]) -> None:
    data = read_data_set(str(clean_sets[0]))
    most = max(len(p.image.objects) for p in data.pictures)
    source = str(clean_sets[0])
    assert "many_objects" not in found_in(source, num_queries=most)
    assert len(found_in(source, num_queries=most - 1)["many_objects"]) >= 1
    # Windows of 16 pixels show no larger object whole.
    assert len(found_in(source, window=16, overlap=2)["object_without_window"]) > 10


def test_registered_sets_are_examined_under_their_name(folder: Path, request) -> None:
    name = f"doctor_{request.node.name}"
    metadata = {"thing_classes": list(SYNTHETIC_CLASSES)}
    register_dota_instances(name, metadata, folder / "labelTxt", folder / "images")
    register_virtual_tiles(f"{name}_tiles", name, window=128, overlap=64)
    path, line = DEFECTS["short_side"](folder)
    assert found_in(name)["short_side"][0].where == f"{path}:{line}"

    # Windows that the loader cuts have no label files: the image and its object are named.
    one = found_in(f"{name}_tiles")["short_side"][0]
    assert one.file.endswith("S000000.png") and "S000000__128__0___0" in one.message
    with pytest.raises(ValueError, match=name):
        read_data_set(name[:-1])


def test_command_writes_page_and_json_and_says_how_it_went(
    clean_sets: list[Path], folder: Path, tmp_path: Path, capsys
) -> None:
    output = ["--num-workers", "0", "--output", str(tmp_path / "out")]
    assert main([str(clean_sets[0]), *output]) == 0
    assert "0 findings" in capsys.readouterr().out

    path, line = DEFECTS["self_crossing"](folder)
    assert main([str(folder), *output]) == 1
    assert f"{path}:{line}" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "doctor.json").read_text("utf-8"))
    assert content["findings"] == 1 and content["counts"]["self_crossing"]["number"] == 1
    [problem] = [one for one in content["problems"] if one["kind"] == "self_crossing"]
    assert (problem["file"], problem["line"]) == (str(path), line)
    assert (tmp_path / "out" / "doctor.html").read_text("utf-8").count('class="picture"') >= 1

    assert main([str(folder), "--ignore", "self_crossing", *output]) == 0
    for wrong in (["--ignore", "no_such"], ["--overlap", "2000"], ["--test", str(folder)]):
        assert main([str(folder), *wrong, *output]) == 2
    assert main([str(tmp_path / "nowhere"), *output]) == 2


@pytest.mark.parametrize(
    ("classes", "code"),
    [(SYNTHETIC_CLASSES, 0), (SYNTHETIC_CLASSES[::-1], 1), (SYNTHETIC_CLASSES[:-1], 1)],
)
def test_classes_of_a_checkpoint_are_those_of_the_data(
    classes, code, clean_sets: list[Path], tmp_path: Path, capsys
) -> None:
    weights = tmp_path / "model.pth"
    settings = {"data.classes": ", ".join(classes)}
    torch.save({"model": {"w": torch.zeros(1)}, "trainer": {"settings": settings}}, weights)
    arguments = [str(clean_sets[0]), "--classes", *SYNTHETIC_CLASSES, "--weights", str(weights)]
    arguments += ["--ignore", "unused_class", "--num-workers", "0", "--output", str(tmp_path / "o")]
    assert main(arguments) == code
    assert ("class_order" in capsys.readouterr().out) == bool(code)


def test_memory_for_findings_is_bounded() -> None:
    findings = Findings(max_stored=10)
    for line in range(1000):
        findings.add(Finding("short_side", "set", "a.txt", line, "1 pixel"))
    assert findings.count() == 1000 and len(findings.first["short_side"]) == 10
    assert findings.count(["short_side"]) == 0


@pytest.mark.slow
def test_random_split_of_real_images_leaks_and_the_given_one_does_not(repository: Path) -> None:
    root = os.environ.get("RSD2_REAL_DATA") or repository.parent / "shared" / "data" / "real"
    folders = [Path(root) / "hrsc" / split for split in ("train", "test")]
    if not all(one.is_dir() for one in folders):
        pytest.skip(f"no real images at {folders[0]}; name their parent in RSD2_REAL_DATA")

    findings = Findings()
    train, test = sets = [read_data_set(str(one)) for one in folders]
    seen = [check_images(one, findings, with_prints=True, progress=False) for one in sets]
    facts = (seen[0][0] | seen[1][0], seen[0][1] | seen[1][1])
    find_leaks([train], [test], *facts, findings, progress=False)
    assert findings.counts == {}

    pictures = train.pictures + test.pictures
    share = round(0.85 * len(pictures))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pictures))
        train.pictures = [pictures[k] for k in order[:share]]
        test.pictures = [pictures[k] for k in order[share:]]
        findings = Findings()
        find_leaks([train], [test], *facts, findings, progress=False)
        assert set(findings.counts) == {"near_copy"} and findings.count() >= 5
