"""What the offline commands share: shards from texts, one line for each error."""

from __future__ import annotations

import argparse

import pytest

from rsd2.projects.mutdet.command_line import parse_shard, run_guarded, torchrun_shard


def test_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_shard("0/1") == (0, 1) and parse_shard("03/12") == (3, 12)
    for text in ("1/1", "1", "/2", "1/", "a/b", "-1/2", "0/0", "0/1/2"):
        with pytest.raises(argparse.ArgumentTypeError, match="INDEX/NUMBER"):
            parse_shard(text)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert torchrun_shard() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert torchrun_shard() == (2, 3)


def test_errors_become_a_line_and_a_status(capsys: pytest.CaptureFixture) -> None:
    def fail(error: BaseException) -> None:
        raise error

    assert run_guarded("x", lambda: None) == 0
    for error in (ValueError("bad"), FileNotFoundError("bad"), ImportError("bad")):
        assert run_guarded("x", lambda error=error: fail(error)) == 2
        assert capsys.readouterr().err == "x: bad\n"
    assert run_guarded("x", lambda: fail(KeyboardInterrupt())) == 130
    assert "same command" in capsys.readouterr().err
    with pytest.raises(AssertionError):  # our own mistakes keep their trace
        run_guarded("x", lambda: fail(AssertionError()))
