"""Spreads calls over the workers of a Ray cluster, and repeats those whose worker died.

Each worker holds one object, such as a trained model, and calls its methods. Ray places workers on
machines, starts them and notices their death. The caller knows what is to be called and what is
done already, usually by the markers of a folder run (`rsd2.io.folder_run`).
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import cv2

from .extras import import_extra

ATTEMPTS = 3
"""How many workers may die of a call, or at their start, before it counts as failed."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a method of the object that the workers hold.

    Attributes:
        method: name of the method.
        arguments: its arguments, which can be pickled.
    """

    method: str
    arguments: tuple[Any, ...] = ()


class Answer(NamedTuple):
    """What became of a call.

    Args:
        value: what the method returned; None if it failed.
        reason: why it failed; None if it did not.
    """

    value: Any
    reason: str | None = None


class WorkerDiedError(Exception):
    """A worker is gone, and so is the call that it had."""


class Pool(Protocol):
    """Workers that `run_calls` gives its calls to; workers and tickets are objects of the pool."""

    def start(self) -> tuple[Any, Any]:
        """Ask for one more worker; return it and a ticket for its answer that it is ready."""

    def call(self, worker: Any, call: Call) -> Any:
        """Give a call to a worker; return a ticket for its answer."""

    def wait(self, tickets: Sequence[Any]) -> Sequence[Any]:
        """Wait until some tickets have an answer, and return those."""

    def answer(self, ticket: Any) -> Answer:
        """Return the answer of a ticket; raise `WorkerDiedError` if there will be none."""


def run_calls(
    next_call: Callable[[], Call | None], pool: Pool, num_workers: int
) -> Iterator[tuple[Call, Answer]]:
    """Give every idle worker a call until there are no more.

    A new worker replaces one that died. The call that it had goes to any other worker, so it never
    waits for a machine that does not come back.

    Args:
        next_call: gives the next call, or None if there is none at this moment. It is asked again
            after each answer, so an answer may lead to new calls.
        pool: where the workers are.
        num_workers: number of workers, >= 1. Work begins with the first one that is ready.

    Yields:
        Each call with its answer, in the order of the answers.

    Raises:
        RuntimeError: workers cannot be started.
    """
    running: dict[Any, tuple[Any, Call | None]] = {}
    idle: list[Any] = []
    again: list[Call] = []
    deaths: Counter[Call | None] = Counter()

    def start() -> None:
        worker, ticket = pool.start()
        running[ticket] = worker, None

    for _ in range(num_workers):
        start()

    while True:
        while idle and (call := again.pop() if again else next_call()) is not None:
            worker = idle.pop()
            running[pool.call(worker, call)] = worker, call
        # Workers that are still starting are not waited for when nothing is left to do.
        if idle and all(call is None for _, call in running.values()):
            return

        for ticket in pool.wait(list(running)):
            worker, call = running.pop(ticket)
            try:
                answer = pool.answer(ticket)
            except WorkerDiedError as error:
                deaths[call] += 1
                reason = f"{deaths[call]} workers died of it, probably for want of memory: {error}"
                answer = Answer(None, reason)
                start()
                if deaths[call] < ATTEMPTS:
                    if call is not None:
                        again.append(call)
                    continue
            else:
                idle.append(worker)

            if call is not None:
                yield call, answer
            elif answer.reason is not None:
                raise RuntimeError(f"a worker cannot start: {answer.reason}")
            else:
                del deaths[None]


def check_cluster(address: str | None) -> None:
    """Check that something listens where a cluster is said to be.

    Ray itself keeps trying for minutes.

    Args:
        address: address of `RayPool`; "auto", "local" and None are not checked.

    Raises:
        ConnectionError: nothing answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); start one with ray start --head, or "
            "give no address, and workers start on this machine"
        ) from error


def import_ray() -> ModuleType:
    """Import Ray.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_extra("ray")
    except ImportError as error:
        raise ImportError(
            f"this needs Ray, which is missing here ({error}); install it with: "
            "pip install 'rsd2[fleet]'"
        ) from error


class RayPool:
    """Context manager with workers on a Ray cluster.

    Args:
        target: object that each worker gets a copy of; its method ``start(device)`` is called
            first.
        num_workers: number of workers; None for one on each CPU, or GPU, that the cluster has now.
        address: an existing cluster, as ``ray.init`` takes it; None starts one on this machine, or
            takes that of the environment variable ``RAY_ADDRESS``.
        device: ``"cuda"`` gives each worker a GPU of its own, ``"cpu"`` none; ``"auto"`` decides
            by what the cluster has.
        survivable: errors of a call that do not end the run.

    Attributes:
        num_workers: number of workers.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """

    def __init__(
        self,
        target: object,
        num_workers: int | None = None,
        address: str | None = None,
        device: str = "auto",
        survivable: tuple[type[Exception], ...] = (ValueError, OSError),
    ) -> None:
        ray = self._ray = import_ray()
        # Ray reports the use of a cluster to its makers unless told otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        local = {"num_cpus": num_workers, "include_dashboard": False}
        ray.init(address, logging_level="ERROR", **(local if address == "local" else {}))

        has = ray.cluster_resources()
        self.device = ("cuda" if has.get("GPU") else "cpu") if device == "auto" else device
        kind = "GPU" if self.device == "cuda" else "CPU"
        self.num_workers = num_workers or max(1, int(has.get(kind, 1)))

        # Ray restarts no worker itself: the call of a lost machine would wait until it comes back.
        actor = ray.remote(num_cpus=1, num_gpus=int(kind == "GPU"), max_restarts=0)(_Worker)
        shared = ray.put(target)
        self._new = lambda: actor.remote(shared, os.getcwd(), survivable)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def start(self) -> tuple[Any, Any]:
        """Ask for one more worker."""
        worker = self._new()
        return worker, self.call(worker, Call("start", (self.device,)))

    def call(self, worker: Any, call: Call) -> Any:
        """Give a call to a worker."""
        return worker.call.remote(call.method, call.arguments)

    def wait(self, tickets: Sequence[Any]) -> Sequence[Any]:
        """Wait for the first answer."""
        return self._ray.wait(list(tickets), num_returns=1)[0]

    def answer(self, ticket: Any) -> Answer:
        """Return the answer of a ticket."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ticket)
        except (errors.RayActorError, errors.OutOfMemoryError) as error:
            raise WorkerDiedError(str(error).strip().splitlines()[-1]) from error


class _Worker:
    """The object in a process of the cluster."""

    def __init__(
        self, target: object, folder: str, survivable: tuple[type[Exception], ...]
    ) -> None:
        # Relative paths mean the same files as in the process that started the run.
        os.chdir(folder)
        # As many workers as CPUs: each works with one thread.
        cv2.setNumThreads(1)
        self._target, self._survivable = target, survivable

    def call(self, method: str, arguments: tuple[Any, ...]) -> Answer:
        """Call a method of the object."""
        try:
            return Answer(getattr(self._target, method)(*arguments))
        except self._survivable as error:
            return Answer(None, str(error))
