"""Devices and processes; several processes are tested through the tool."""

import pytest
import torch
from torch import nn

from rsd2.engine import RunError, launch, select_device, wrap_distributed


def test_device_by_name():
    assert select_device("cpu") == torch.device("cpu")
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="use auto, cpu or cuda"):
        select_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="torch sees no GPU"):
        select_device("cuda")


def test_single_process_runs_here_and_wraps_nothing():
    called = []
    launch(called.append, args=("x",))
    assert called == ["x"]
    model = nn.Linear(1, 1)
    assert wrap_distributed(model, broadcast_buffers=False) is model


@pytest.fixture
def environment(monkeypatch):
    """Set variables of torchrun; those that are not given are not set."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": ""}, "RANK is '' and WORLD_SIZE is not set, but they have to be whole numbers"),
        ({"RANK": "0"}, "RANK is '0' and WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is not set and WORLD_SIZE is '2'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is '2' and WORLD_SIZE is '2'.*RANK < WORLD_SIZE"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "LOCAL_RANK and LOCAL_WORLD_SIZE are not: .* torchrun"),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, "but RANK and WORLD_SIZE are not"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "", "LOCAL_WORLD_SIZE": "1"},
            "LOCAL_RANK is ''",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            "but not MASTER_ADDR and MASTER_PORT, where the processes meet",
        ),
    ],
)
def test_half_of_torchrun_s_variables_is_a_sentence(environment, variables, message):
    environment(**variables)
    with pytest.raises(RunError, match=message):
        launch(pytest.fail, args=("the run was started",))


def test_variables_of_a_single_process_are_an_ordinary_start(environment):
    environment(RANK="0", WORLD_SIZE="1")
    called = []
    launch(called.append, args=("x",))
    assert called == ["x"]
