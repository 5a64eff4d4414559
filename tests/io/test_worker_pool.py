"""Work in processes: the order and the results of work in one process, and clear deaths."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsd2.io.worker_pool import run_in_processes


def test_no_worker_and_one_item_stay_in_this_process() -> None:
    for items, workers in (([1, 2, 3], 0), ([1], 4), ([], 4)):
        results = list(run_in_processes(lambda item: (item, os.getpid()), items, workers))
        assert results == [(item, os.getpid()) for item in items]


def test_processes_keep_the_order_and_pass_errors_on() -> None:
    assert list(run_in_processes(abs, [-3, 2, -1], 2)) == [3, 2, 1]
    with pytest.raises(ValueError, match="invalid literal"):
        list(run_in_processes(int, ["1", "x"], 2))


def test_a_dead_worker_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RuntimeError, match="fewer --num-workers"):
        list(run_in_processes(os._exit, [3, 3], 2))


def test_workers_leave_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from rsd2.io.worker_pool import run_in_processes\n"
        "def work(index):\n"
        "    pathlib.Path(sys.argv[1], str(os.getpid())).touch()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    list(run_in_processes(work, [0, 1], 2))\n"
    )
    started = tmp_path / "started"
    started.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(started)])
    deadline = time.monotonic() + 60
    while len(list(started.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in started.iterdir()]
    assert len(workers) == 2
    while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    """Whether a process is there and is more than the memory of its exit status."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
