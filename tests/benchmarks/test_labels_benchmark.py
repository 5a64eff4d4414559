"""The benchmark of label files: both sides read the same objects."""

from benchmarks import labels


def test_both_contenders_read_all_objects():
    for case in labels.cases(num_files=20, num_of_each=20):
        totals = {name: work() for name, work in case.contenders().items()}
        assert len(set(totals.values())) == 1 and min(totals.values()) > 100
