"""Limit torch to one thread for many small steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def serial_torch() -> Iterator[None]:
    """Run the body with one torch thread, then restore the number of threads.

    On shared cores the threads of a small step wait for each other ten times longer than the
    step takes; evaluation consists of such steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
