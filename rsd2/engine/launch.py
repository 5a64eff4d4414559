"""Start of processes and choice of devices.

A job is one process, ``--num-gpus N`` processes, or those of ``torchrun``, on GPUs or CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .errors import RunError

# Number of this process and number of processes: in the whole job, and on this machine.
_JOB, _MACHINE = ("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


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

    Under ``torchrun`` its variables decide, and the counts given here are ignored. Otherwise
    ``num_gpus`` processes are started on this machine: on GPUs, or on CPUs if there are none.

    Args:
        main: function that can be imported by name.
        num_gpus: number of processes on each machine, >= 1.
        num_machines: number of machines, >= 1.
        machine_rank: number of this machine, in [0, num_machines).
        dist_url: address at which the processes meet; ``"auto"`` on one machine.
        args: arguments of ``main``.
        timeout: longest wait of a collective operation.

    Raises:
        RunError: there are fewer GPUs than requested, or only some of torchrun's variables are set.
    """
    if place := _place_in_torchrun(os.environ):
        _run_in_torchrun(main, args, timeout, *place)
        return

    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise RunError(
            f"--num-gpus {num_gpus}, but this machine has {torch.cuda.device_count()}; "
            "lower it, or use several machines with --num-machines"
        )

    # Several processes share the cores; a single one may take them all.
    detectron2_launch(
        _limited_to_its_threads if num_gpus > 1 else main,
        num_gpus,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
        args=(num_gpus, main, args) if num_gpus > 1 else args,
        timeout=timeout,
    )


def _place_in_torchrun(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Read (local rank, local size) from torchrun's variables; None without torchrun.

    With only some of the variables, a process would train alone and overwrite the results of the
    others, or wait for them for ever.
    """
    job = _read_pair(environment, _JOB)
    machine = _read_pair(environment, _MACHINE)
    if job is None and machine is None:
        return None

    if job is None or machine is None:
        given, absent = (_JOB, _MACHINE) if machine is None else (_MACHINE, _JOB)
        if job == (0, 1) and not any(name in environment for name in _MACHINE):
            return None  # one process: a scheduler's variables around an ordinary start
        raise RunError(
            f"{' and '.join(given)} are set, but {' and '.join(absent)} are not: start the "
            f"processes by torchrun, which sets all four, or unset {' and '.join(given)}"
        )

    missing = [name for name in _ADDRESS if not environment.get(name)]
    if missing:
        raise RunError(
            f"RANK={job[0]} and WORLD_SIZE={job[1]} are set, but not {' and '.join(missing)}, "
            "where the processes meet: start them by torchrun, or unset the variables"
        )
    return machine


def _read_pair(environment: Mapping[str, str], names: tuple[str, str]) -> tuple[int, int] | None:
    """Read the number of a process and the number of all; None if neither variable is set."""
    texts = [environment.get(name) for name in names]

    if texts == [None, None]:
        return None

    # A missing or malformed number becomes -1, which no range holds.
    numbers = [int(text) if text and text.strip().isdecimal() else -1 for text in texts]
    if not 0 <= numbers[0] < numbers[1]:
        rank, size = ("not set" if text is None else repr(text) for text in texts)
        raise RunError(
            f"{names[0]} is {rank} and {names[1]} is {size}, but they have to be whole numbers "
            f"with 0 <= {names[0]} < {names[1]}; torchrun sets both. For one process unset both"
        )
    return numbers[0], numbers[1]


def _run_in_torchrun(
    main: Callable[..., Any],
    args: tuple[Any, ...],
    timeout: timedelta,
    local_rank: int,
    local_size: int,
) -> None:
    use_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= local_size
    # Before the group is made: NCCL takes the current GPU.
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
    """Divide the machine's cores among its processes, unless OMP_NUM_THREADS is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
    main(*args)


def select_device(name: str = "auto") -> torch.device:
    """Choose this process's device.

    Args:
        name: ``"auto"`` (a GPU if there is one for every process, else the CPU), ``"cpu"``,
            ``"cuda"`` or ``"cuda:<index>"``.

    Returns:
        The device; each of several processes on GPUs has its own.

    Raises:
        RunError: the name is unknown, or a GPU is requested and there is none.
    """
    # Gloo means that the launcher found fewer GPUs than processes.
    on_gloo = dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and not on_gloo else "cpu"

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"train.device={name!r} is no device; use auto, cpu or cuda") from error

    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError(f"train.device={name}, but torch sees no GPU; use auto or cpu")

    # A device with an index, so that every process keeps its own GPU.
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def wrap_distributed(model: nn.Module, **options: Any) -> nn.Module:
    """Wrap a model in DistributedDataParallel if there are several processes.

    Args:
        model: model on its device, GPU or CPU.
        **options: options of DistributedDataParallel, e.g. ``find_unused_parameters``.

    Returns:
        The wrapped model, or ``model`` itself in a single process.
    """
    if comm.get_world_size() == 1:
        return model

    device = next(model.parameters()).device
    # Detectron2 and torch want the index of a GPU, but none for CPUs.
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, **options)
