"""Studies: commands that depend on each other and run once, and the report of the results."""

from .comparison import change_over_last_fifth as change_over_last_fifth
from .comparison import crossed_bootstrap as crossed_bootstrap
from .comparison import judge_baseline as judge_baseline
from .comparison import paired_bootstrap as paired_bootstrap
from .comparison import paired_differences as paired_differences
from .job_queue import Job as Job
from .job_queue import JobError as JobError
from .job_queue import JobQueue as JobQueue
from .job_queue import read_markers as read_markers
from .plan import Study as Study
from .plan import StudySettings as StudySettings
from .plan import change_settings as change_settings
from .plan import drawing_job as drawing_job
from .plan import module_command as module_command
from .plan import project_config as project_config
from .plan import run_jobs as run_jobs
from .plan import run_study as run_study
from .plan import scene_jobs as scene_jobs
from .plan import training_command as training_command
from .report import StudyReport as StudyReport
from .report import StudyReportError as StudyReportError
from .report import StudyRun as StudyRun
from .report import write_report as write_report
