"""Parts that the projects' studies share: settings, command line, and commands of their jobs."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .job_queue import Job, JobError, JobQueue
from .report import StudyReportError

_ROOT = Path(__file__).resolve().parents[2]
_WORK_FOLDER = _ROOT if (_ROOT / "setup.py").is_file() else None
"""Where commands run: the root of a checkout, to which its configs are relative; else anywhere."""


@dataclass(frozen=True)
class StudySettings:
    """Sizes of a study; a project derives a class with its own.

    Attributes:
        known_arms: names of the arms that the study knows; belongs to the class, not to a size.
        arms: names of the arms to run, one at least.
        seeds: seeds of all trainings; with several, arms are compared seed by seed.
        overrides: overrides of every training's config, ``key.sub=value``.
    """

    known_arms: ClassVar[tuple[str, ...]] = ()
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not self.arms or not set(self.arms) <= set(self.known_arms):
            raise ValueError(
                f"arms are some of {', '.join(self.known_arms)}, got {list(self.arms)}"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds must be different numbers, at least one, got {list(self.seeds)}"
            )
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{one.name} must be at least 1, got {value}")

    def suffix(self, seed: int) -> str:
        """Tell the jobs of several seeds apart; those of the first seed have the plain name.

        Args:
            seed: one of ``seeds``.

        Returns:
            The end of the name of a job or a folder.
        """
        return "" if seed == self.seeds[0] else f"_seed{seed}"


Settings = TypeVar("Settings", bound=StudySettings)


@dataclass(frozen=True)
class Study:
    """The jobs of a study and its report.

    Attributes:
        jobs: jobs, each after those that it needs.
        report: called when all jobs are done; returns the text to print, and raises
            `StudyReportError`.
        alone: jobs that run after the others and one at a time, because they measure time.
        cpu_minutes: kind of job -> CPU minutes that all of them are expected to take, for
            ``--list``; empty if nobody measured that.
        datasets: folder of the datasets that the jobs see as ``$DETECTRON2_DATASETS``; None for
            ``data`` in the output folder, into which they are drawn.
    """

    jobs: Sequence[Job]
    report: Callable[[], str]
    alone: Sequence[Job] = ()
    cpu_minutes: Mapping[str, float] = field(default_factory=dict)
    datasets: Path | None = None


def run_study(
    description: str | None,
    presets: Mapping[str, Settings],
    plan: Callable[[Settings, Path], Study],
    argv: Sequence[str] | None,
) -> int:
    """Entry point shared by the study tools of the projects.

    Args:
        description: text of ``--help``.
        presets: name of a ready size -> settings; "study" is among them.
        plan: makes the study from settings and output folder, absolute, and writes nothing.
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 1 if a command or the report failed, 2 for wrong arguments, 130 if interrupted;
        the message is printed.
    """
    # Intermixed, because NAME=VALUE may stand before and after the options.
    args = _study_parser(description, tuple(presets)).parse_intermixed_args(argv)
    folder = args.output.absolute()
    try:
        if args.slots < 1:
            raise ValueError(f"--slots must be at least 1, got {args.slots}")
        settings = change_settings(presets[args.preset], args.opts)
    except ValueError as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 2

    study = plan(settings, folder)
    if args.list:
        print(settings)
        for job in (*study.jobs, *study.alone):
            print(f"{job.name}: {' '.join(job.command)}")
        for kind, minutes in study.cpu_minutes.items():
            print(f"about {minutes:.0f} CPU min: {kind}")
        return 0

    # A terminated study ends its commands too, as an interrupted one does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Timed jobs come last and alone, or they would measure their neighbours too.
        for jobs, slots in ((study.jobs, args.slots), (study.alone, 1)):
            run_jobs(jobs, folder, slots, study.datasets)
        print(study.report())
    except (JobError, StudyReportError, OSError) as error:
        print(f"run_study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_study: interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)

    return 0


def _study_parser(description: str | None, presets: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="gets everything")
    add("--preset", choices=presets, default="study", help="sizes (default study)")
    add("--slots", type=int, default=2, help="commands that run at once (default 2)")
    add("--list", action="store_true", help="print sizes and commands, run nothing")
    text = "sizes to change, e.g. seeds=0,1,2; a name with a dot is one of every training's config"
    add("opts", nargs="*", metavar="NAME=VALUE", help=text)
    return parser


def run_jobs(jobs: Sequence[Job], folder: Path, slots: int, datasets: Path | None = None) -> None:
    """Run jobs under one folder; those that are done are not repeated.

    Args:
        jobs: jobs, each after those that it needs.
        folder: output folder, absolute.
        slots: number of commands that run at once, >= 1.
        datasets: folder of the datasets; None for ``data`` in the output folder.

    Raises:
        JobError: a job failed, or its marker is of another command.
    """
    # One thread each: on small tensors two processes of one thread beat one process of two.
    environment = {
        "DETECTRON2_DATASETS": str((datasets or folder / "data").absolute()),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if jobs:
        JobQueue(jobs, folder, slots=slots, environment=environment, work_folder=_WORK_FOLDER).run()


def module_command(module: str, *words: object) -> tuple[str, ...]:
    """Make a command that runs a module with this Python, from a checkout or a wheel.

    Args:
        module: dotted name; ``rsd2`` takes a verb as first word.
        words: arguments.

    Returns:
        Program and arguments of a job.
    """
    return (sys.executable, "-m", module, *map(str, words))


def project_config(module_file: str, name: str) -> str:
    """Find a config of a project.

    Args:
        module_file: ``__file__`` of a module of the project's package.
        name: name of the config, like ``"micml_dla34_viso.py"``.

    Returns:
        Path from the root of the checkout, so that rows and markers are true on any machine; of an
        installed project the absolute path.
    """
    package = Path(module_file).resolve().parent
    # Beside the package in a checkout, and inside it in a wheel.
    home = package.parent if (package.parent / "configs").is_dir() else package
    path = home / "configs" / name
    return path.relative_to(_WORK_FOLDER).as_posix() if _WORK_FOLDER else str(path)


def drawing_job(
    name: str,
    folder: Path,
    target: str,
    made: str,
    *,
    images: int,
    seed: int,
    options: Sequence[object],
) -> Job:
    """Make the job that draws one split of generated data.

    Args:
        name: name of the job.
        folder: folder of the study.
        target: folder to draw into, relative to ``folder``.
        made: file in ``target`` that is written last.
        images: number of images or videos.
        seed: seed of the scenes; splits have different ones.
        options: further options of ``rsd2 synthesize``.

    Returns:
        The job.
    """
    words = ("--output", folder / target, "--num-images", images, "--seed", seed, *options)
    return Job(name, module_command("rsd2", "synthesize", *words), makes=(f"{target}/{made}",))


def scene_jobs(
    folder: Path, *, train: int, val: int, size: int, options: Sequence[object] = ()
) -> list[Job]:
    """List the jobs that draw scenes of rotated objects, the two splits of different seeds.

    Args:
        folder: folder of the study.
        train: number of training scenes.
        val: number of held-out scenes.
        size: side of the scenes, pixels.
        options: further options of ``rsd2 synthesize``.

    Returns:
        The jobs ``scenes_train`` and ``scenes_val``.
    """
    # One process, because this is not the only command that runs.
    options = ("--size", size, *options, "--num-workers", 0)
    return [
        drawing_job(
            f"scenes_{split}",
            folder,
            f"data/synthetic/{split}",
            "scenes.json",
            images=images,
            seed=seed,
            options=options,
        )
        for split, images, seed in (("train", train, 1), ("val", val, 2))
    ]


def training_command(
    config: str,
    target: Path,
    *overrides: str,
    steps: int,
    seed: int,
    batch: int | None = None,
    start: Path | None = None,
) -> tuple[str, ...]:
    """Make the command of a training, which continues if it was interrupted.

    Args:
        config: path of the config, see `project_config`.
        target: output folder.
        overrides: further overrides of the config, ``key.sub=value``.
        steps: optimizer steps, >= 1.
        seed: seed of the training.
        batch: images of a step; as the config says if None.
        start: checkpoint to start from; None for random weights.

    Returns:
        Program and arguments.
    """
    # Quotes, because a folder's name may contain characters that an override gives a meaning.
    words = [f'train.output_dir="{target}"', f"train.max_iter={steps}", f"train.seed={seed}"]
    if batch is not None:
        words.append(f"dataloader.train.total_batch_size={batch}")
    if start is not None:
        words.append(f'train.init_checkpoint="{start}"')
    return module_command("rsd2", "train", "--config-file", config, "--resume", *words, *overrides)


def change_settings(settings: Settings, opts: Sequence[str]) -> Settings:
    """Override settings by ``name=value``.

    Args:
        settings: settings to start from. Fields are numbers, strings or tuples; a tuple is not
            empty or holds strings.
        opts: overrides; commas separate the elements of a tuple. One whose name has a dot is added
            to ``overrides``.

    Returns:
        The changed settings, checked by their own ``__post_init__``.

    Raises:
        ValueError: there is no such field, or its value has another type.
    """
    known = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changed: dict[str, Any] = {}
    of_config = []
    for opt in opts:
        name, equals, text = opt.partition("=")
        # A dot belongs to a config: no field of the settings has one.
        if equals and "." in name:
            of_config.append(opt)
            continue
        if not equals or name not in known:
            raise ValueError(f"{opt!r}: write name=value with a name of {', '.join(known)}")

        old = known[name]
        try:
            if isinstance(old, tuple):
                # The type of the present value is the type to read.
                kind = type(old[0]) if old else str
                changed[name] = tuple(kind(part) for part in text.split(",") if part)
            else:
                changed[name] = type(old)(text)
        except ValueError as error:
            raise ValueError(f"{opt!r}: expects {type(old).__name__} like {old!r}") from error

    if of_config:
        changed["overrides"] = (*changed.get("overrides", settings.overrides), *of_config)
    return replace(settings, **changed)
