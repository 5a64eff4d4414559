"""Writers that copy a training's metrics to an experiment tracker: MLflow or Weights & Biases.

Each library is imported when its writer is asked for (``train.writers``), and takes its server,
project and mode from its own environment variables, such as MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT and WANDB_MODE.
"""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils.events import EventWriter, get_event_storage

from rsd2.io.extras import import_extra

from .errors import RunError

_logger = logging.getLogger(__name__)
_WINDOW = 20  # values that a smoothed metric is the median of, as in Detectron2's own writers


class TrackerWriter(EventWriter):
    """Base of the writers to one tracker.

    Attributes:
        run_id: the tracker's name of the run; None before it was started.
    """

    library: ClassVar[str]

    def __init__(self, output_dir: str) -> None:
        """Import the library.

        Args:
            output_dir: folder of the training; its name is that of the tracker's run, and its
                ``config.yaml`` is kept there.

        Raises:
            RunError: the library is not installed.
        """
        try:
            self._library: Any = import_extra(self.library)
        except ImportError as error:
            raise RunError(
                f"train.writers names {self.library}, which cannot be imported ({error}); install "
                f"it by `pip install 'rsd2[trackers]'`, or take it out of train.writers"
            ) from error
        self._folder = Path(output_dir).absolute()
        self._written = -1
        self.run_id: str | None = None

    @abstractmethod
    def start(self) -> None:
        """Start the run, or continue the one that ``run_id`` names."""

    @abstractmethod
    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Send the metrics of one iteration."""

    def write(self) -> None:
        """Send all metrics that are newer than those sent before."""
        latest = get_event_storage().latest_with_smoothing_hint(_WINDOW)
        new: dict[int, dict[str, float]] = defaultdict(dict)
        # Metrics of one call may be of several iterations: losses of each, scores of some.
        for name, (value, iteration) in latest.items():
            if iteration > self._written:
                new[iteration][name] = float(value)

        for iteration in sorted(new):
            self.log(new[iteration], iteration)
            self._written = iteration


class MLflowWriter(TrackerWriter):
    """Writes to MLflow; a server that no longer answers ends the tracking, not the training."""

    library = "mlflow"
    _is_open = True

    def start(self) -> None:
        """Start or continue the run, see `TrackerWriter.start`."""
        run = self._library.start_run(run_id=self.run_id, run_name=self._folder.name)
        self.run_id = run.info.run_id
        self._library.log_artifact(str(self._folder / "config.yaml"))

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Send the metrics of one iteration; MLflow allows few signs in their names."""
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in metrics.items()}
        if not self._is_open:
            return
        try:
            self._library.log_metrics(named, step=iteration)
        except self._library.exceptions.MlflowException as error:
            self._is_open = False
            _logger.warning(
                "MLflow takes no more metrics (%s); metrics.json has the rest, and --resume "
                "tries the same run again",
                error,
            )

    def close(self) -> None:
        """End the run."""
        if self._is_open:
            self._library.end_run()


class WandbWriter(TrackerWriter):
    """Writes to Weights & Biases, over the metric ``iteration``.

    Its own steps must grow, and a training that continues from a checkpoint may repeat some.
    """

    library = "wandb"
    _run: Any = None

    def start(self) -> None:
        """Start or continue the run, see `TrackerWriter.start`."""
        self._run = self._library.init(
            id=self.run_id,
            resume="allow" if self.run_id else None,
            name=self._folder.name,
            dir=str(self._folder),
        )
        self.run_id = self._run.id
        self._run.define_metric("*", step_metric="iteration")
        self._run.save(str(self._folder / "config.yaml"), base_path=str(self._folder), policy="now")

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Send the metrics of one iteration."""
        self._run.log({**metrics, "iteration": iteration})

    def close(self) -> None:
        """End the run, if it began."""
        if self._run is not None:
            self._run.finish()


TRACKERS: dict[str, type[TrackerWriter]] = {"mlflow": MLflowWriter, "wandb": WandbWriter}
"""Name in ``train.writers`` -> writer."""


def build_trackers(names: Sequence[str], output_dir: str) -> list[TrackerWriter]:
    """Build the writers that a config names; their runs begin with the training.

    Args:
        names: keys of `TRACKERS`.
        output_dir: folder of the training.

    Returns:
        A writer for each name.

    Raises:
        RunError: there is no such writer, or its library is not installed.
    """
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise RunError(f"train.writers={unknown}: the writers are {', '.join(TRACKERS)}")
    return [TRACKERS[name](output_dir) for name in names]


class MetricWriters(PeriodicWriter):
    """Hook that calls all writers; checkpoints keep the trackers' runs, which --resume continues.

    A training that starts anew has no such state, and so begins new runs.
    """

    def before_train(self) -> None:
        """Start the trackers' runs before the first step, where a wrong key or server shows."""
        for tracker in self._trackers():
            tracker.start()

    def state_dict(self) -> dict[str, str | None]:
        """Return library -> id of its run."""
        return {tracker.library: tracker.run_id for tracker in self._trackers()}

    def load_state_dict(self, state: dict[str, str | None]) -> None:
        """Take over the ids of runs, as far as their trackers are still asked for."""
        for tracker in self._trackers():
            tracker.run_id = state.get(tracker.library)

    def _trackers(self) -> list[TrackerWriter]:
        return [writer for writer in self._writers if isinstance(writer, TrackerWriter)]
