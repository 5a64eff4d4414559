"""What the report of the study says about the pre-training."""

import json
import math

from rsd2.projects.mutdet.study_report import _plain, read_last


def test_values_are_means_over_the_last_fifth_of_each_step_once(tmp_path):
    lines = [{"iteration": i, "lr": 1.0 if i < 80 else 2.0} for i in range(100)]
    lines += lines[85:90]  # a resumed training
    lines.append({"iteration": 99, "bbox/AP50": 1.0, "retrieval_decoder": 0.5, "lr": 2.0})
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    assert read_last(tmp_path, ["retrieval", "lr"]) == {"lr": 1.9524, "retrieval_decoder": 0.5}


def test_numbers_of_all_depths_are_written():
    telemetry = {"boxes": 1 / 3, "chance": math.nan, "deep": {"n": 2, "none": None}}
    assert _plain(telemetry) == "boxes 0.333, chance -, deep n 2, none -"
