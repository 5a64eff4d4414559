"""Studies: commands that depend on each other, run once, and the report of what they measured."""

from .comparison import change_over_last_fifth, judge_baseline, paired_differences
from .job_queue import Job, JobError, JobQueue, read_markers
from .plan import (
    Study,
    StudySettings,
    change_settings,
    drawing_job,
    module_command,
    project_config,
    run_study,
    scene_jobs,
    training_command,
)
from .report import StudyReport, StudyReportError, StudyRun, write_report

__all__ = [
    "Job",
    "JobError",
    "JobQueue",
    "Study",
    "StudyReport",
    "StudyReportError",
    "StudyRun",
    "StudySettings",
    "change_over_last_fifth",
    "change_settings",
    "drawing_job",
    "judge_baseline",
    "module_command",
    "paired_differences",
    "project_config",
    "read_markers",
    "run_study",
    "scene_jobs",
    "training_command",
    "write_report",
]
