"""What the report of the study says about the pre-training, from telemetry made by hand."""

import json

import pytest

from rsd2.projects.object_jepa.study_report import TELEMETRY, describe_telemetry, read_telemetry
from rsd2.study import StudyReportError, StudyRun

RUN = StudyRun("JEPA", "finetune/jepa", "finetune_jepa", stages=("pretrain_jepa",))


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "pretrain" / "jepa" / "telemetry.jsonl"
    path.parent.mkdir(parents=True)
    records = [
        {"iteration": step, **dict.fromkeys(TELEMETRY, 0.25), "auc_0_8": None, "alarms": alarms}
        for step, alarms in ((0, []), (50, ["RankMe is low"]))
    ]
    records[0]["auc"] = None
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_the_end_of_the_pre_training_is_shown_and_its_course_kept(records, tmp_path):
    details = read_telemetry(tmp_path, RUN)
    assert details["telemetry"]["iteration"] == 50
    courses = {"rank_me": [(0, 0.25), (50, 0.25)], "auc": [(50, 0.25)]}
    assert details["telemetry_courses"] == courses
    rows = [{"arm": "JEPA", "group": "", "seed": 0, **details}]
    lines = "\n".join(describe_telemetry(rows)).splitlines()
    assert "- alarm, JEPA: RankMe is low" in lines
    assert any(line.startswith("| rank_me") and "0.250" in line for line in lines)
    assert any(line.startswith("| auc_0_8") and "-" in line for line in lines)


def test_without_pre_training_there_is_none(tmp_path):
    details = read_telemetry(tmp_path, StudyRun("scratch", "finetune/scratch", "finetune_scratch"))
    assert details["telemetry"] == {}
    assert describe_telemetry([{"arm": "scratch", "group": "", "seed": 0, **details}]) == []


@pytest.mark.parametrize("content", [None, ""])
def test_what_is_missing_is_named(records, tmp_path, content):
    records.unlink()
    if content is not None:
        records.write_text(content)
    with pytest.raises(StudyReportError, match=r"jepa/telemetry\.jsonl is missing or empty"):
        read_telemetry(tmp_path, RUN)
