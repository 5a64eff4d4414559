"""Calls that workers share: all done once, also when workers die; and the same through Ray."""

from __future__ import annotations

import os
import socket
from collections import deque
from pathlib import Path

import pytest

from rsd2.io.ray_pool import Answer, Call, RayPool, check_cluster, run_calls
from tests.fake_pool import FakePool


class Doubles:
    """Doubles letters, refuses ``x`` and ends its process at the first call with a mark."""

    def start(self, device: str = "cpu") -> None:
        self.device = device

    def double(self, text: str, mark: str | None = None) -> str:
        if text == "x":
            raise ValueError("x cannot be doubled")
        if mark is not None and not Path(mark).exists():
            Path(mark).touch()
            os._exit(1)
        return 2 * text


def run(pool: object, texts: str, num_workers: int = 2, mark: str | None = None) -> dict:
    waiting = deque(Call("double", (text, mark)) for text in texts)
    calls = run_calls(lambda: waiting.popleft() if waiting else None, pool, num_workers)
    return {call.arguments[0]: answer for call, answer in calls}


@pytest.mark.parametrize("num_workers", [1, 2, 9])
@pytest.mark.parametrize("deaths", [0, 2])
def test_every_call_is_answered_although_workers_die(num_workers: int, deaths: int) -> None:
    pool = FakePool(Doubles(), "b", deaths)
    answers = run(pool, "abcx", num_workers)
    assert [answers[text].value for text in "abc"] == ["aa", "bb", "cc"]
    assert answers["x"] == Answer(None, "x cannot be doubled")
    assert pool.started == num_workers + deaths, "each dead worker is replaced by one"


def test_a_call_that_kills_every_worker_fails_and_the_others_do_not() -> None:
    answers = run(FakePool(Doubles(), "b", 99), "abc")
    assert answers["b"].value is None and "3 workers died" in answers["b"].reason
    assert answers["a"].value == "aa" and answers["c"].value == "cc"


def test_an_answer_may_lead_to_new_calls() -> None:
    waiting, done = deque([Call("double", ("a",))]), []
    for _, answer in run_calls(
        lambda: waiting.popleft() if waiting else None, FakePool(Doubles()), 3
    ):
        done.append(answer.value)
        if len(done) < 4:
            waiting.append(Call("double", (answer.value,)))
    assert done == ["a" * 2**k for k in range(1, 5)]


@pytest.mark.parametrize("deaths", [3, 2])
def test_workers_that_cannot_start_end_the_run(deaths: int) -> None:
    pool = FakePool(Doubles(), ["start"], deaths)
    if deaths == 3:
        with pytest.raises(RuntimeError, match="a worker cannot start"):
            run(pool, "a")
    else:
        assert run(pool, "a")["a"].value == "aa"


def test_workers_that_are_still_starting_are_not_waited_for() -> None:
    class SlowPool(FakePool):
        """Its second worker never becomes ready."""

        def wait(self, tickets):
            answered = [ticket for ticket in tickets if ticket[0] != 2]
            assert answered, "waits for a worker that nobody needs"
            return answered

    assert run(SlowPool(Doubles()), "ab")["b"].value == "bb"


def test_a_cluster_that_does_not_answer_is_named_at_once(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_cluster(address)
    for given in (address, f"ray://{address}"):
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {given} "):
            check_cluster(given)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConnectionError):
        check_cluster(None)
    check_cluster("auto")


def test_ray_repeats_the_call_of_a_dead_worker(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with RayPool(Doubles(), num_workers=2, device="cpu") as pool:
        answers = run(pool, "abx", 2, str(tmp_path / "died"))
    assert {k: a.value for k, a in answers.items()} == {"a": "aa", "b": "bb", "x": None}
    assert (tmp_path / "died").exists() and answers["x"].reason == "x cannot be doubled"
