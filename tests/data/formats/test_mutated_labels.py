"""Published label files of annotation tools, mutated: read right, or named with file and line.

As ``test_mutated_files.py`` does with the formats of datasets: encodings, truncation, wrong types
and single bytes; never an error that names no file, never an object that no valid file has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsd2.data.formats.label_format import FileForAll, LabelFormat
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.registry import ALL_FORMATS
from tests.data.formats.mutations import byte_changes, change_bytes, put_strange_value, retype
from tests.data.formats.published_labels import HEIGHT, PUBLISHED, WIDTH, write_place

NAMES = list(PUBLISHED)
JSON = [name for name in NAMES if next(iter(PUBLISHED[name]())).endswith("json")]
many = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Reader:
    """Labels with one file to mutate."""

    one: LabelFormat
    file: Path
    path: Path
    images: Path
    valid: bytes
    objects: list[Any] = field(default_factory=list)

    def read(self, report: LabelReport) -> list[Any]:
        found = self.one.read(self.path, self.images, report=report)
        return [
            (i.file_name, o.name, o.difficult, o.score, *o.polygon.round(4).reshape(-1).tolist())
            for i in found
            for o in i.objects
        ]

    def outcome(self, content: bytes) -> tuple[list[Any], list[str]]:
        """Objects and problems of a mutated file; every one names a file."""
        self.file.write_bytes(content)
        report = LabelReport()
        self.one.detect(self.path)  # which never raises
        try:
            self.one.class_names(self.path)
            objects = self.read(report)
            problems = [str(problem) for problem in report.problems]
        except (ValueError, FileNotFoundError) as error:
            objects, problems = [], [str(error)]
        if problems:
            place = re.escape(self.file.name)
            images = "image_without_label|absent_image|label_without_image|image_size"
            named = rf"{place}|{images}|empty\.|a b\.|data\.yaml"
            assert all(re.search(named, problem) for problem in problems), problems
            assert any(place_of in problems[0] for place_of in (self.file.name, "a b", "empty"))
        return objects, problems


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Reader]:
    """Function that builds the reader of a format, and checks that it reads its valid file."""
    monkeypatch.delenv("RSD2_TEXT_ENCODINGS", raising=False)
    image = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()

    def build(name: str) -> Reader:
        if name == "geojson":
            pytest.importorskip("rasterio")
        one, folder, files = ALL_FORMATS[name], tmp_path / "labels", PUBLISHED[name]()
        for image_name in ("images/harbour/a b.png", "images/empty.png"):
            (tmp_path / image_name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / image_name).write_bytes(image)
            write_place(tmp_path / image_name)
        for label_name, text in files.items():
            (folder / label_name).parent.mkdir(parents=True, exist_ok=True)
            (folder / label_name).write_text(text, encoding="utf-8")
        file = folder / next(iter(files))
        path = file if isinstance(one, FileForAll) else folder
        reader = Reader(one, file, path, tmp_path / "images", file.read_bytes())
        report = LabelReport()
        reader.objects = reader.read(report)
        assert len(reader.objects) == 2 and report.total == 0, report.summary()
        return reader

    return build


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "gb18030"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_change_nothing(make, name, encoding, line_end) -> None:
    reader = make(name)
    text = reader.valid.decode().replace("\n", line_end)
    assert reader.outcome(text.encode(encoding)) == (reader.objects, [])


@pytest.mark.parametrize("name", JSON)
@given(seed=st.integers(0, 10**6))
@many
def test_the_order_of_keys_and_the_types_of_values_do_not_matter(make, name, seed) -> None:
    reader = make(name)
    assert reader.outcome(retype(reader.valid, seed)) == (reader.objects, [])


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
@many
def test_values_of_wrong_types_are_right_or_named(make, name, data) -> None:
    reader = make(name)
    content, value = put_strange_value(reader.valid, data)
    objects, problems = reader.outcome(content)
    changed = [one for one in objects if one not in reader.objects]
    lost = [one for one in reader.objects if one not in objects]
    # A value in the place of another one may be as good, or name another image: then objects are
    # other ones. Whatever is gone without another one in its place is named; but an empty list
    # says that there is nothing.
    assert problems or value == [] or len(lost) <= len(changed), (objects, problems)
    assert len(objects) <= len(reader.objects)


@pytest.mark.parametrize("name", NAMES)
@given(share=st.floats(0, 1))
@many
def test_truncated_files_are_right_or_named(make, name, share) -> None:
    reader = make(name)
    content = reader.valid[: int(share * len(reader.valid))]
    objects, problems = reader.outcome(content)
    if name == "yolo-obb" and not content.endswith(b"\n"):
        objects = objects[:-1]  # nothing tells whether the last number has lost digits
    if name == "dota":  # nor whether the last name has lost letters
        objects = [one for one in objects if one[1] in ("渔船", "storage tank")]
        objects = [one[:2] + (1,) + one[3:] if one[1] == "渔船" else one for one in objects]
    assert problems or all(one in reader.objects for one in objects)


@pytest.mark.parametrize("name", NAMES)
@given(**byte_changes)
@many
def test_changed_bytes_end_in_no_other_error(make, name, share, length, inserted) -> None:
    reader = make(name)
    reader.outcome(change_bytes(reader.valid, share, length, inserted))


@pytest.mark.parametrize("name", ["rolabelimg", "cvat", "hrsc", "fair1m", "yolo-obb", "dota"])
def test_problems_of_objects_name_their_line(make, name) -> None:
    reader = make(name)
    old = {"cvat": "80.00", "fair1m": "82.3", "yolo-obb": "0.4", "dota": "82.3"}.get(name, "40")
    text = reader.valid.decode().replace(old, "x", 1)
    _, problems = reader.outcome(text.encode())
    assert any(re.search(rf"{re.escape(reader.file.name)}:[1-9]\d*: ", p) for p in problems)
