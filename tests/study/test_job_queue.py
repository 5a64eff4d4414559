"""The queue of commands: order, costs, what is done stays done, failures and other settings."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from rsd2.study.job_queue import Job, JobError, JobQueue, read_markers


def python(code, *arguments):
    return (sys.executable, "-c", code, *map(str, arguments))


APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"


def run(jobs, folder, slots=2):
    JobQueue(jobs, folder, slots=slots, environment={"GREETING": "hello"}).run()


def jobs_of(folder):
    order = folder / "order.txt"
    return [
        Job("first", python(APPEND, order, "1"), makes=("order.txt",)),
        Job("second", python(APPEND, order, "2"), needs=("first",)),
        Job("third", python(APPEND, order, "3"), needs=("first", "second")),
    ]


def test_order_markers_and_nothing_is_done_twice(tmp_path):
    for _ in range(2):
        run(jobs_of(tmp_path), tmp_path)
    assert (tmp_path / "order.txt").read_text() == "123"
    markers = read_markers(tmp_path)
    assert set(markers) == {"first", "second", "third"}
    assert markers["third"]["attempts"] == 1 and markers["third"]["cpu_seconds"] >= 0
    assert markers["first"]["command"][-2:] == ["OUTPUT/order.txt", "1"]


def test_folder_can_be_moved(tmp_path):
    run(jobs_of(tmp_path / "a"), tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    run(jobs_of(tmp_path / "b"), tmp_path / "b")
    assert (tmp_path / "b" / "order.txt").read_text() == "123"


def test_cost_is_that_of_the_command(tmp_path):
    burn = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    run([Job("busy", python(burn)), Job("idle", python("import time; time.sleep(0.5)"))], tmp_path)
    markers = read_markers(tmp_path)
    assert markers["busy"]["cpu_seconds"] >= 0.5 > markers["idle"]["cpu_seconds"]


def test_failure_names_its_log_and_keeps_what_was_done(tmp_path):
    flag = tmp_path / "mended"
    code = (
        "import os, sys; print(os.environ['GREETING']); sys.exit(not os.path.exists(sys.argv[1]))"
    )
    jobs = [*jobs_of(tmp_path)[:1], Job("broken", python(code, flag)), *jobs_of(tmp_path)[1:]]
    jobs.append(Job("last", python("pass"), needs=("broken",)))
    with pytest.raises(JobError, match=r"broken failed; see the end of .*jobs/broken\.log"):
        run(jobs, tmp_path, slots=1)
    assert "hello" in (tmp_path / "jobs" / "broken.log").read_text()
    assert "last" not in read_markers(tmp_path)
    flag.write_text("")
    run(jobs, tmp_path)
    assert (tmp_path / "order.txt").read_text() == "123"
    assert read_markers(tmp_path)["broken"]["attempts"] == 2


def test_a_job_that_does_not_make_its_file_has_failed(tmp_path):
    with pytest.raises(JobError, match="lazy failed"):
        run([Job("lazy", python("pass"), makes=("work.txt",))], tmp_path)


def test_results_of_other_settings_are_refused(tmp_path):
    run(jobs_of(tmp_path), tmp_path)
    changed = [Job("first", python(APPEND, tmp_path / "order.txt", "7"), makes=("order.txt",))]
    with pytest.raises(JobError, match=r"first\.json is of another command"):
        run(changed, tmp_path)
    os.remove(tmp_path / "order.txt")
    run(changed, tmp_path)  # what it made is gone, so there is nothing to mix with
    marker = json.loads((tmp_path / "jobs" / "first.json").read_text())
    assert marker["command"][-1] == "7" and (tmp_path / "order.txt").read_text() == "7"


@pytest.mark.parametrize(
    ("before", "now", "is_equal"),
    [
        ("tools/lazyconfig_train_net.py --resume --config-file c a.b=1", "", True),
        ('tools/lazyconfig_train_net.py --config-file c --resume a.b="1"', "", True),
        ("tools/lazyconfig_train_net.py --config-file c --resume a.b=2 a.b=1", "", True),
        ("tools/lazyconfig_train_net.py --config-file c --resume a.b=1 a.b=2", "", False),
        ("tools/lazyconfig_train_net.py --config-file c a.b=1", "", False),
        ("tools/lazyconfig_train_net.py --config-file d --resume a.b=1", "", False),
        ("projects/X/tools/measure.py --size 2 3", "-m rsd2.projects.x.measure --size 2 3", True),
        ("projects/X/tools/measure.py --size 2 3", "-m rsd2.projects.x.measure --size 3 2", False),
        ("tools/make_synthetic.py --seed 1", "-m rsd2 synthesize --seed 1", True),
        ("tools/make_synthetic.py --seed 1", "-m rsd2 train --seed 1", False),
    ],
)
def test_results_of_a_command_that_was_put_together_otherwise_are_kept(
    tmp_path, before, now, is_equal
):
    now = now or "-m rsd2 train --config-file c --resume a.b=1"
    (tmp_path / "jobs").mkdir()
    marker = json.dumps({"name": "job", "command": ["python", *before.split()]})
    (tmp_path / "jobs" / "job.json").write_text(marker)
    job = Job("job", (sys.executable, *now.split()))
    if is_equal:
        run([job], tmp_path)  # starts nothing
        assert not (tmp_path / "jobs" / "job.log").exists()
    else:
        with pytest.raises(JobError, match="is of another command"):
            run([job], tmp_path)


def test_interruption_stops_the_commands(tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("rsd2.study.job_queue.time.sleep", interrupt)
    code = "import sys, time; time.sleep(30); open(sys.argv[1], 'w')"
    with pytest.raises(KeyboardInterrupt):
        run([Job("slow", python(code, tmp_path / "late"), makes=("late",))], tmp_path)
    assert read_markers(tmp_path) == {} and not (tmp_path / "late").exists()


def test_a_command_that_outlived_its_queue_is_not_started_twice(tmp_path):
    (tmp_path / "jobs").mkdir()
    job = Job("slow", python("pass"))
    with (tmp_path / "jobs" / "slow.log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        orphan = subprocess.Popen(python("input()"), stdin=subprocess.PIPE, stdout=log)
    with pytest.raises(JobError, match=r"slow still runs from an earlier start .*slow\.log"):
        run([job], tmp_path)
    orphan.communicate(b"\n")
    run([job], tmp_path)
    assert read_markers(tmp_path)["slow"]["attempts"] == 1
