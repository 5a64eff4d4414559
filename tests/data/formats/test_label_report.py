"""Problems are counted exactly, stored up to a bound, and shown with their remedy."""

import logging

import pytest

from rsd2.data.formats.label_report import LabelReport


def test_counts_stay_exact_when_examples_are_bounded():
    report = LabelReport(max_stored=2)
    for line in range(5):
        report.add("fields", "a.txt", line + 1, "7 fields")
    report.add("self_crossing", "b.txt", 1, "ship", "kept")
    assert report.total == 6 and report.count("fields") == 5 and len(report.problems) == 3
    assert report.count("fields", "kept") == 0
    assert report.as_dict()["counts"] == {"fields": {"dropped": 5}, "self_crossing": {"kept": 1}}


def test_summary_names_file_line_and_remedy():
    report = LabelReport()
    for line in range(5):
        report.add("number", "a.txt", line + 1, "could not convert 'x'")
    text = report.summary(max_examples=2)
    assert "a.txt:1: could not convert 'x'" in text and "a.txt:3" not in text
    assert "plain decimal numbers" in text and "and 3 more" in text


def test_log_level_and_error(caplog):
    report = LabelReport()
    with caplog.at_level(logging.INFO):
        report.log(logging.getLogger("x"), "clean")
    assert caplog.records[-1].levelno == logging.INFO
    report.raise_if_any("clean")
    report.add("unknown_class", "a.txt", 3, "class 'plan'")
    report.raise_if_any("set", ("outside_image",))
    with pytest.raises(ValueError, match=r"(?s)set.*a\.txt:3.*class 'plan'"):
        report.raise_if_any("set")
    with caplog.at_level(logging.INFO):
        report.log(logging.getLogger("x"), "set")
    assert caplog.records[-1].levelno == logging.WARNING


def test_every_kind_needs_a_remedy():
    with pytest.raises(KeyError, match="typo"):
        LabelReport().add("typo", "a.txt", None, "")
