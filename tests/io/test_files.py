"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsd2.io.files import replaced_file, write_atomically


def test_content_is_bytes_or_text(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"\x00\xff")
    write_atomically(tmp_path / "b", "\u00e9\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_bytes() == "\u00e9\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_move_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_debris_of_a_killed_run_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".a.0.partial").write_text("left by a process that was killed")
    write_atomically(tmp_path / "a", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    with replaced_file(path, 1) as one, replaced_file(path, 2) as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_a_library_that_goes_by_the_suffix_sees_it(tmp_path: Path) -> None:
    with replaced_file(tmp_path / "film.mp4", keep_suffix=True) as temporary:
        assert temporary.suffix == ".mp4" and temporary.name.startswith(".")
        temporary.write_text("frames")
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
