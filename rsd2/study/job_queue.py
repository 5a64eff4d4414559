"""Commands that depend on each other, run a few at a time, each done once and resumed if killed.

Every job leaves a marker with its command and cost when it has succeeded. A second run skips what
has a marker, and refuses a marker of another command: results of two settings never mix.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rsd2.io.files import make_output_folder, write_atomically

_POLL_SECONDS = 0.2
_FOLDER = "OUTPUT"
_OVERRIDE = re.compile(r"[\w.]+=")
_VERBS = {"lazyconfig_train_net": "train", "make_synthetic": "synthesize"}
"""Scripts that studies ran before -> verb of ``rsd2`` that they run now."""


class JobError(RuntimeError):
    """A job failed or cannot be taken over; the message names its log or marker."""


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: name of the job, its log and its marker.
        command: program and arguments; paths under the output folder begin with it.
        needs: names of the jobs that have to be done before this one.
        makes: files under the output folder that exist when the job is done.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


class JobQueue:
    """Runs jobs under one output folder."""

    def __init__(
        self,
        jobs: Sequence[Job],
        folder: Path,
        *,
        slots: int,
        environment: Mapping[str, str],
        work_folder: Path | None = None,
    ) -> None:
        """Check the jobs against what the folder already holds.

        Args:
            jobs: jobs with different names, each after those that it needs.
            folder: gets ``jobs/<name>.json`` (markers) and ``jobs/<name>.log``.
            slots: number of commands that run at once, >= 1.
            environment: variables for the commands, besides those of this process.
            work_folder: folder in which the commands run; that of this process if None.

        Raises:
            JobError: a marker is of another command.
        """
        known: set[str] = set()
        for job in jobs:
            assert known.issuperset(job.needs) and job.name not in known, job.name
            known.add(job.name)

        self._jobs, self._folder, self._slots = list(jobs), folder, slots
        self._environment, self._work_folder = {**os.environ, **environment}, work_folder
        make_output_folder(folder / "jobs")
        self._done = {job.name for job in self._jobs if self._is_done(job)}

    def run(self) -> None:
        """Run what is not done; what runs already is waited for if one fails.

        Raises:
            JobError: a job failed, or still runs from an earlier start; the others that were
                running are done or continue next time.
        """
        waiting = [job for job in self._jobs if job.name not in self._done]
        running: dict[int, tuple[Job, subprocess.Popen, float]] = {}
        failed: list[str] = []
        bar = tqdm(total=len(self._jobs), initial=len(self._done), desc="study", unit="job")

        try:
            while running or (waiting and not failed):
                for job in [j for j in waiting if self._done.issuperset(j.needs)]:
                    if len(running) < self._slots and not failed:
                        waiting.remove(job)
                        process = self._start(job)
                        running[process.pid] = (job, process, time.monotonic())

                bar.set_postfix_str(", ".join(job.name for job, _, _ in running.values()))
                finished = self._poll(running)
                if finished is None:
                    time.sleep(_POLL_SECONDS)
                elif self._finish(*finished):
                    bar.update()
                else:
                    failed.append(finished[0].name)
        finally:
            bar.close()
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.wait()

        if failed:
            logs = ", ".join(str(self._folder / "jobs" / f"{name}.log") for name in failed)
            raise JobError(f"{', '.join(failed)} failed; see the end of {logs}")

    def _start(self, job: Job) -> subprocess.Popen:
        log = self._folder / "jobs" / f"{job.name}.log"
        with log.open("ab") as stream:
            try:
                # The command inherits the lock: whoever restarts a killed queue finds it running.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobError(
                    f"{job.name} still runs from an earlier start and writes {log}; wait for it "
                    "or end it"
                ) from None

            with (self._folder / "jobs" / f"{job.name}.started").open("a") as starts:
                starts.write(f"{time.time():.0f}\n")
            stream.write(f"$ {' '.join(job.command)}\n".encode())
            stream.flush()
            return subprocess.Popen(
                job.command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._work_folder,
            )

    @staticmethod
    def _poll(
        running: dict[int, tuple[Job, subprocess.Popen, float]],
    ) -> tuple[Job, int, float, float] | None:
        """One job that has ended: its exit code, CPU and wall seconds; None if all still run."""
        for pid, (job, process, start) in running.items():
            # wait4 instead of Popen.poll, because it tells what the process cost.
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                del running[pid]
                cpu = usage.ru_utime + usage.ru_stime
                return job, process.returncode, cpu, time.monotonic() - start
        return None

    def _finish(self, job: Job, code: int, cpu_seconds: float, wall_seconds: float) -> bool:
        missing = [name for name in job.makes if not (self._folder / name).exists()]
        if code or missing:
            reason = f"exit code {code}" if code else f"it did not make {', '.join(missing)}"
            tqdm.write(f"{job.name}: {reason}")
            return False

        starts = (self._folder / "jobs" / f"{job.name}.started").read_text().split()
        record = {
            "name": job.name,
            "command": self._portable(job.command),
            "cpu_seconds": round(cpu_seconds, 1),
            "wall_seconds": round(wall_seconds, 1),
            # The two numbers above leave out what attempts before the last one cost.
            "attempts": len(starts),
        }
        write_atomically(self._marker(job), (json.dumps(record, indent=1) + "\n").encode())
        self._done.add(job.name)
        return True

    def _is_done(self, job: Job) -> bool:
        marker = self._marker(job)
        if not marker.is_file() or not all((self._folder / name).exists() for name in job.makes):
            return False

        before = json.loads(marker.read_text())["command"]
        if _meaning(before) != _meaning(self._portable(job.command)):
            raise JobError(
                f"{marker} is of another command:\n  {' '.join(before)}\ninstead of\n  "
                f"{' '.join(self._portable(job.command))}\nChoose another output folder, or "
                "delete this one"
            )
        return True

    def _marker(self, job: Job) -> Path:
        return self._folder / "jobs" / f"{job.name}.json"

    def _portable(self, command: Sequence[str]) -> list[str]:
        """The command without the place of the output folder and of Python."""
        words = [word.replace(str(self._folder), _FOLDER) for word in command]
        return [Path(words[0]).name, *words[1:]]


def _meaning(command: Sequence[str]) -> tuple[str, dict[str, str], list[list[str]]]:
    """Take a command apart, such that two which do the same are equal.

    The tool may be a script or a module, options come in any order, and of an override that is
    given twice the last one counts: a folder of an earlier version, whose commands were put
    together in another way, is continued.
    """
    tool, *words = command[1:]
    if tool == "-m":
        tool, *words = words
        if tool == "rsd2":
            tool, *words = words
        name = tool.rpartition(".")[2]
    else:
        name = Path(tool).stem

    overrides: dict[str, str] = {}
    options: list[list[str]] = [[]]  # those before the first flag, then each flag with its values
    for word in words:
        if _OVERRIDE.match(word):
            key, _, value = word.partition("=")
            overrides[key] = value.strip('"')
        elif word.startswith("--"):
            options.append([word])
        else:
            options[-1].append(word)

    return _VERBS.get(name, name), overrides, [options[0], *sorted(options[1:])]


def read_markers(folder: Path) -> dict[str, dict]:
    """Read what finished jobs cost.

    Args:
        folder: output folder of a `JobQueue`.

    Returns:
        Name of the job -> ``command``, ``cpu_seconds``, ``wall_seconds``, ``attempts``.
    """
    markers = (json.loads(path.read_text()) for path in sorted((folder / "jobs").glob("*.json")))
    return {marker["name"]: marker for marker in markers}
