"""Spreads work over processes that end when their parent does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    start_worker: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Call a function for each item, here or in processes, in the order of the items.

    Args:
        work: function to call; it and its results must be picklable. Each process works with one
            OpenCV thread.
        items: arguments of the calls.
        num_workers: number of processes; 0 works in this one.
        start_worker: function called once in each new process, to set up anything else.

    Yields:
        The results, in the order of the items.

    Raises:
        RuntimeError: if a process dies; errors of the work are raised unchanged.
    """
    if num_workers <= 0 or len(items) <= 1:
        yield from map(work, items)
        return

    # Spawned, not forked: a forked child would keep its siblings' pipes open, and outlive a parent
    # that is killed.
    context, workers = multiprocessing.get_context("spawn"), min(num_workers, len(items))
    with ProcessPoolExecutor(workers, context, _start_worker, (start_worker,)) as pool:
        try:
            yield from pool.map(work, items)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"One of {workers} worker processes died, probably for want of memory: each holds "
                "a decoded image. Use fewer --num-workers and run again; finished images stay."
            ) from error


def _start_worker(then: Callable[[], None] | None) -> None:
    """Limit the process to one OpenCV thread, and make it leave when its parent is gone."""
    cv2.setNumThreads(1)
    # Ctrl-C goes to all processes at once; the parent alone says what was interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process has no parent to leave with; call it in worker processes")

    def leave_with_parent() -> None:
        parent.join()
        # Not sys.exit, which would end this thread and not the process.
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    if then is not None:
        then()
