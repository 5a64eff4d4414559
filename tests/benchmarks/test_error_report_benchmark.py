"""The benchmark of the report of errors: its detector has errors of every kind."""

import numpy as np

from benchmarks import error_report
from rsd2.analysis.error_kinds import FALSE_KINDS, ErrorProtocol, judge_detections


def test_both_contenders_run_and_every_kind_of_error_occurs():
    (case,) = error_report.cases(num_detections=4000)
    assert 0.05 < case.peers["score_detections once"]() < 0.95
    assert all((gain >= -1e-9).any() for gain in case.ours().values())
    kinds = judge_detections(*error_report.make_data(4000), ErrorProtocol()).kind
    assert set(np.unique(kinds[kinds >= 0])) == set(range(len(FALSE_KINDS)))
