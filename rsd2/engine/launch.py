"""Processes and devices: one process, ``--num-gpus N``, or ``torchrun``; GPUs or CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .errors import RunError

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def launch(
    main: Callable[..., Any],
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple[Any, ...] = (),
    timeout: timedelta = timedelta(minutes=30),
) -> None:
    """Run ``main(*args)`` in every process of the job.

    Under ``torchrun`` its variables decide and the counts given here are ignored. Otherwise
    ``num_gpus`` processes are started on this machine: on GPUs, or on CPUs where there are none.

    Args:
        main: importable function.
        num_gpus: processes on each machine, >= 1.
        num_machines: machines, >= 1.
        machine_rank: of this one, in [0, num_machines).
        dist_url: rendezvous, ``"auto"`` on one machine.
        args: of ``main``.
        timeout: of collective operations.

    Raises:
        RunError: fewer GPUs than asked for.
    """
    if all(name in os.environ for name in _TORCHRUN_VARIABLES):
        _run_in_torchrun(main, args, timeout)
        return
    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise RunError(
            f"--num-gpus {num_gpus}, but this machine has {torch.cuda.device_count()}; "
            "lower it, or use several machines with --num-machines"
        )
    detectron2_launch(
        _limited_to_its_threads if num_gpus > 1 else main,
        num_gpus,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
        args=(num_gpus, main, args) if num_gpus > 1 else args,
        timeout=timeout,
    )


def _run_in_torchrun(main: Callable[..., Any], args: tuple[Any, ...], timeout: timedelta) -> None:
    local_rank = int(os.environ["LOCAL_RANK"])
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    use_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= local_size
    if use_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if use_gpu else "gloo", timeout=timeout)
    try:
        comm.create_local_process_group(local_size)
        comm.synchronize()
        _limited_to_its_threads(local_size, main, args)
    finally:
        dist.destroy_process_group()


def _limited_to_its_threads(
    local_size: int, main: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Share the machine's cores between its processes, unless the user says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
    main(*args)


def select_device(name: str = "auto") -> torch.device:
    """Choose this process's device.

    Args:
        name: ``"auto"`` (a GPU if there is one for every process, else the CPU), ``"cpu"``,
            ``"cuda"`` or ``"cuda:<index>"``.

    Returns:
        The device; of several processes on GPUs each has its own.

    Raises:
        RunError: unknown name, or a GPU was asked for and there is none.
    """
    on_gloo = dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and not on_gloo else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"train.device={name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError(f"train.device={name}, but torch sees no GPU; use auto or cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def wrap_distributed(model: nn.Module, **options: Any) -> nn.Module:
    """Wrap a model in DistributedDataParallel if there are several processes.

    Args:
        model: on its device, GPU or CPU.
        **options: of DistributedDataParallel, e.g. ``find_unused_parameters``.

    Returns:
        The wrapped model, or ``model`` itself in a single process.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, **options)
