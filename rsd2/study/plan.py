"""What the studies of the projects share: command line, sizes, commands, courses of trainings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from .job_queue import Job, JobError, JobQueue
from .report import StudyReportError

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Study:
    """What a study runs, and what it says in the end.

    Attributes:
        jobs: those they need come before them.
        report: called when all jobs are done; returns the text to print, and raises
            `StudyReportError`.
        alone: jobs that run after the others and one at a time, because they measure time.
        settings: printed with the commands by ``--list``; None prints nothing.
    """

    jobs: Sequence[Job]
    report: Callable[[], str]
    alone: Sequence[Job] = ()
    settings: Any = None


def study_parser(description: str, presets: Iterable[str] | None = None) -> argparse.ArgumentParser:
    """Make the parser of the flags that every study has.

    Args:
        description: of the tool.
        presets: names of ready sizes, "study" among them: the tool takes one by ``--preset``, and
            ``name=value`` (``opts``) for `change_settings`. None: it has flags of its own.

    Returns:
        a parser of ``--output``, ``--slots`` and ``--list``, to which more may be added.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="gets everything")
    if presets is not None:
        add("--preset", choices=tuple(presets), default="study", help="sizes (default study)")
        add("opts", nargs="*", metavar="NAME=VALUE", help="sizes to change, e.g. seed=1")
    add("--slots", type=int, default=2, help="commands that run at once (default 2)")
    add("--list", action="store_true", help="print sizes and commands, run nothing")
    return parser


def run_study(
    parser: argparse.ArgumentParser,
    plan: Callable[[argparse.Namespace, Path], Study],
    argv: Sequence[str] | None,
    *,
    root: Path,
) -> int:
    """Be the main function of a study's tool.

    Args:
        parser: of `study_parser`.
        plan: makes the study from the arguments and the output folder, absolute; a ``ValueError``
            is a wrong argument. Nothing may be written.
        argv: the command line; that of the process if None.
        root: in which the commands run.

    Returns:
        0 if done, 1 if a command or the report failed, 2 for wrong arguments, 130 if interrupted;
        the message is printed.
    """
    args = parser.parse_intermixed_args(argv)
    folder = args.output.absolute()
    try:
        if args.slots < 1:
            raise ValueError(f"--slots must be at least 1, got {args.slots}")
        study = plan(args, folder)
    except ValueError as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 2
    if args.list:
        if study.settings is not None:
            print(study.settings)
        for job in (*study.jobs, *study.alone):
            print(f"{job.name}: {' '.join(job.command)}")
        return 0
    # one thread each: on small tensors two processes of one thread beat one process of two
    environment = {
        "DETECTRON2_DATASETS": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    try:
        for jobs, slots in ((study.jobs, args.slots), (study.alone, 1)):
            if jobs:
                JobQueue(jobs, folder, slots=slots, environment=environment, work_folder=root).run()
        print(study.report())
    except (JobError, StudyReportError, OSError) as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_study: interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    return 0


def python_command(*words: object) -> tuple[str, ...]:
    """Make a command of this Python.

    Args:
        words: script and arguments.

    Returns:
        program and arguments of a job.
    """
    return (sys.executable, *map(str, words))


def scene_jobs(
    folder: Path, *, train: int, val: int, size: int, options: Sequence[object] = ()
) -> list[Job]:
    """List the commands that draw the scenes of a study, the two splits of different seeds.

    Args:
        folder: of the study.
        train: number of training scenes.
        val: of held-out ones.
        size: side of the scenes, pixels.
        options: further ones of ``tools/make_synthetic.py``.

    Returns:
        the jobs ``scenes_train`` and ``scenes_val``.
    """
    jobs = []
    for split, count, seed in (("train", train, 1), ("val", val, 2)):
        target = f"data/synthetic/{split}"
        command = python_command("tools/make_synthetic.py", "--output", folder / target)
        numbers = ("--num-images", count, "--size", size, "--seed", seed)
        # one process, for this is not the only command that runs
        command += tuple(map(str, (*numbers, *options, "--num-workers", 0)))
        jobs.append(Job(f"scenes_{split}", command, makes=(f"{target}/scenes.json",)))
    return jobs


def training_command(
    config: str, target: Path, *, steps: int, batch: int, seed: int, start: Path | None = None
) -> tuple[str, ...]:
    """Make the command of a training, which continues if it was interrupted.

    Args:
        config: file of the config, from the repository root.
        target: output folder.
        steps: optimizer steps, >= 1.
        batch: images of a step.
        seed: of the training.
        start: checkpoint to start from; None for random weights.

    Returns:
        program and arguments; more overrides may follow.
    """
    initial = () if start is None else (f'train.init_checkpoint="{start}"',)
    return python_command(
        "tools/lazyconfig_train_net.py",
        "--config-file",
        config,
        "--resume",
        f'train.output_dir="{target}"',
        *initial,
        f"train.max_iter={steps}",
        f"train.seed={seed}",
        f"dataloader.train.total_batch_size={batch}",
    )


def change_settings(settings: Settings, opts: Sequence[str]) -> Settings:
    """Override fields of a frozen dataclass by ``name=value``.

    Args:
        settings: to start from. Its fields are numbers, strings or tuples that are not empty or are
            of strings.
        opts: overrides; elements of a tuple are separated by commas.

    Returns:
        the changed settings, checked by their own ``__post_init__``.

    Raises:
        ValueError: no such field, or a value of another type.
    """
    known = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changed = {}
    for opt in opts:
        name, equals, text = opt.partition("=")
        if not equals or name not in known:
            raise ValueError(f"{opt!r}: write name=value with a name of {', '.join(known)}")
        old = known[name]
        try:
            if isinstance(old, tuple):
                kind = type(old[0]) if old else str
                changed[name] = tuple(kind(part) for part in text.split(",") if part)
            else:
                changed[name] = type(old)(text)
        except ValueError as error:
            raise ValueError(f"{opt!r}: expects {type(old).__name__} like {old!r}") from error
    return replace(settings, **changed)
