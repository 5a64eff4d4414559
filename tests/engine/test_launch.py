"""Devices and processes; several processes are tested through the tool."""

import pytest
import torch
from torch import nn

from rsd2.engine import launch, select_device, wrap_distributed


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
