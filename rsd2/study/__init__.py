"""Studies: commands that depend on each other, run once, and the report of what they measured."""

from .job_queue import Job, JobError, JobQueue, read_markers
from .plan import (
    Study,
    change_settings,
    python_command,
    run_study,
    scene_jobs,
    study_parser,
    training_command,
)
from .report import (
    StudyReportError,
    change_over_last_fifth,
    describe_origins,
    read_course,
    read_records,
    read_results,
    write_rows,
)

__all__ = [
    "Job",
    "JobError",
    "JobQueue",
    "Study",
    "StudyReportError",
    "change_over_last_fifth",
    "change_settings",
    "describe_origins",
    "python_command",
    "read_course",
    "read_markers",
    "read_records",
    "read_results",
    "run_study",
    "scene_jobs",
    "study_parser",
    "training_command",
    "write_rows",
]
