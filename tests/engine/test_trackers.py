"""``train.writers``: what MLflow and Weights & Biases are told, by modules that record calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rsd2.commands import train
from rsd2.engine import RunError


class MlflowException(Exception):
    """Stands for the error of that name."""


class Recorder(ModuleType):
    """Module of either library: keeps what is logged under the id of each run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.logged: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.ended: list[str] = []
        self.files: list[str] = []
        self.exceptions = SimpleNamespace(MlflowException=MlflowException)
        self.fails_at: int | None = None

    def _begin(self, run_id: str | None) -> str:
        self.current = run_id or f"run{len(self.logged)}"
        self.logged.setdefault(self.current, [])
        return self.current

    def start_run(self, run_id: str | None, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=self._begin(run_id)))

    def log_artifact(self, path: str) -> None:
        self.files.append(path)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise MlflowException("no answer")
        self.logged[self.current].append((step, metrics))

    def end_run(self) -> None:
        self.ended.append(self.current)

    def init(self, id: str | None, resume: str | None, name: str, dir: str) -> Any:
        assert (resume == "allow") == (id is not None)
        return SimpleNamespace(
            id=self._begin(id),
            define_metric=lambda *_, step_metric: None,
            save=lambda path, **_: self.files.append(path),
            log=lambda row: self.logged[self.current].append((row.pop("iteration"), row)),
            finish=self.end_run,
        )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Train the toy detector with the given overrides in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import toy

    (tmp_path / "config.py").write_text(toy.CONFIG)

    def run(*opts: str) -> None:
        train.run_process(train.parse_arguments(["--config-file", "config.py", *opts]))

    return run


@pytest.fixture(params=["mlflow", "wandb"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(request.param)
    monkeypatch.setitem(sys.modules, request.param, recorder)
    return recorder


def test_a_resumed_training_continues_its_run(run, library):
    options = f"train.writers=[{library.__name__}]", "train.output_dir=out"
    run(*options, "train.max_iter=4")
    run("--resume", *options, "train.max_iter=6")
    run(*options, "train.max_iter=2")

    # The training that began anew in the same folder is another run.
    steps = {name: [step for step, _ in rows] for name, rows in library.logged.items()}
    # The scores come after the last step and count as those of the next iteration.
    assert sorted(set(steps["run0"])) == list(range(7)) and sorted(set(steps["run1"])) == [0, 1, 2]
    names = {name for _, row in library.logged["run0"] for name in row}
    assert {"total_loss", "lr", "bbox/AP"} <= names
    assert library.ended == ["run0", "run0", "run1"]
    assert [Path(path).name for path in library.files] == ["config.yaml"] * 3


def test_a_missing_library_is_one_sentence_before_the_first_step(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match=r"wandb, which cannot be imported .*rsd2\[trackers\]"):
        run("train.writers=[wandb]")
    with pytest.raises(RunError, match="the writers are mlflow, wandb"):
        run("train.writers=[tensorbord]")
    assert not Path("output/metrics.json").exists()


def test_a_server_that_stops_answering_ends_the_tracking_alone(run, monkeypatch, caplog):
    library = Recorder("mlflow")
    library.fails_at = 2
    monkeypatch.setitem(sys.modules, "mlflow", library)
    run("train.writers=[mlflow]", "train.output_dir=out")
    assert {step for step, _ in library.logged["run0"]} == {0, 1}
    assert Path("out/model_final.pth").is_file() and Path("out/results.json").is_file()
