"""A pool of workers without a cluster, for tests of what the workers share."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from rsd2.io.ray_pool import Answer, Call, WorkerDiedError


class FakePool:
    """Workers in this process, which get pickled copies and die when they are told to.

    Args:
        target: object of the workers.
        deadly: methods or first arguments of the calls that kill.
        deaths: number of workers that die.
    """

    def __init__(self, target: object, deadly: Sequence[str] = (), deaths: int = 0) -> None:
        self.target = pickle.loads(pickle.dumps(target))
        self.deadly, self.deaths = deadly, deaths
        self.started = 0

    def start(self) -> tuple[int, object]:
        self.started += 1
        return self.started, self.call(self.started, Call("start", ("cpu",)))

    def call(self, worker: int, call: Call) -> tuple[int, Call]:
        return worker, call

    def wait(self, tickets: Sequence[tuple[int, Call]]) -> Sequence[tuple[int, Call]]:
        return tickets[-1:]

    def answer(self, ticket: tuple[int, Call]) -> Answer:
        _, call = ticket
        is_deadly = any(name in self.deadly for name in (call.method, *call.arguments[:1]))
        if self.deaths > 0 and is_deadly:
            self.deaths -= 1
            raise WorkerDiedError("killed")
        try:
            arguments = pickle.loads(pickle.dumps(call.arguments))
            return pickle.loads(pickle.dumps(Answer(getattr(self.target, call.method)(*arguments))))
        except (ValueError, OSError) as error:
            return Answer(None, str(error))
