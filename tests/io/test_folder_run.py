"""Runs of parts, and every writer of folders that is one: killed, shared, resumed, refused."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from rsd2.commands import make_synthetic, prepare_dota
from rsd2.data.formats.pseudo_labels import read_folder
from rsd2.data.windows.tile_writer import write_tiles
from rsd2.data.windows.tiling import TilingParameters
from rsd2.io.folder_run import (
    FolderRun,
    FolderTakenError,
    make_run_id,
    parse_shard,
    run_command,
    shard_from_environment,
)
from rsd2.io.program import program_name
from rsd2.projects.mutdet import embedding_run
from rsd2.projects.mutdet.embedding_run import EmbeddingRun, FitSettings, embed_folder
from rsd2.projects.mutdet.label_run import Labeller, label_folder
from rsd2.projects.mutdet.proposals import FelzenszwalbProposals
from rsd2.synthetic import (
    SceneConfig,
    TinySceneConfig,
    VideoConfig,
    write_dota_scenes,
    write_tiny_scenes,
    write_videos,
)
from rsd2.testing import write_tiny_dota


class Extractor:
    """Features of boxes that tell which image and box they are of."""

    def __init__(self, name: str) -> None:
        self.name = name

    def settings(self) -> dict[str, Any]:
        return {"backbone": self.name}

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        x, y, w, _, angle = boxes.T[..., None]
        level = np.full((len(boxes), 1), float(image[0, 0, 0]))
        return np.hstack([level, x, y + level, w * angle, np.sin(x)]).astype(np.float32)


def tiles(inputs: Path, output: Path, changed: bool, **options: Any) -> None:
    folders = [inputs / "dota" / "images"], [inputs / "dota" / "labelTxt"]
    write_tiles(*folders, output, TilingParameters(48, 8 if changed else 16), **options)


def scenes(inputs: Path, output: Path, changed: bool, **options: Any) -> None:
    write_dota_scenes(output, 5, SceneConfig(size=96), seed=int(changed), **options)


def tiny(inputs: Path, output: Path, changed: bool, **options: Any) -> None:
    write_tiny_scenes(output, 5, TinySceneConfig(size=(96, 128)), seed=int(changed), **options)


def videos(inputs: Path, output: Path, changed: bool, **options: Any) -> None:
    config = VideoConfig(size=(64, 80), num_frames=4, density=12.0)
    write_videos(output, "test", 3, config, seed=int(changed), **options)


def boxes(inputs: Path, output: Path, changed: bool, **options: Any) -> None:
    labeller = Labeller(FelzenszwalbProposals(sigma=0.7 if changed else 0.8))
    label_folder(inputs / "scenes" / "images", output, labeller, part_size=1, **options)


def embeddings(
    inputs: Path, output: Path, changed: bool, progress: bool, shard: tuple[int, int] = (0, 1)
) -> None:
    extractor = Extractor("another" if changed else "by box")
    run = EmbeddingRun(inputs / "boxes", inputs / "scenes" / "images", output, extractor)
    embed_folder(run, FitSettings(3, 4), shard=shard, report=lambda text: None)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def labels_of(folder: Path) -> tuple:
    """What the shards hold together: each shard of a run of boxes is a file of its own."""
    records, header = read_folder(folder)
    found = [(record.file_name, record.boxes.tobytes()) for record in records]
    return found, header.run_id, header.counts


@dataclass(frozen=True)
class User:
    """A writer of folders.

    Attributes:
        write: runs it.
        markers: pattern of the files that stand for parts.
        index: pattern of files that are there when the whole run is finished.
        record: file with the parameters, where the folder has one all the time.
        strangers: folder that must be empty before.
        has_workers: whether it takes ``num_workers``.
        content: what all divisions of the work must agree in.
    """

    write: Callable[..., None]
    markers: str
    index: str
    record: str | None = None
    strangers: str | None = None
    has_workers: bool = True
    content: Callable[[Path], Any] = tree


USERS = [
    User(tiles, ".records/P*.json", "tiles.json", ".records/parameters.json", "images"),
    User(scenes, "labelTxt/S*.txt", "scenes.json", "scenes.json", "labelTxt"),
    User(tiny, "records/S*.json", "annotations.json", "scenes.json", "images"),
    User(
        videos,
        "records/test/*.json",
        "annotations/*.json",
        "videos_test.json",
        "images/test1024/001",
    ),
    User(boxes, ".parts-*/part-*.npz", "shard-*.npz", content=labels_of),
    User(embeddings, ".features/shard-*.npz", "shard-*.npz", has_workers=False),
]
WITH_RECORD = [user for user in USERS if user.record]


def over(users: list[User]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("user", users, ids=lambda user: user.write.__name__)


@pytest.fixture(autouse=True)
def single_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A forked process must not wait for threads that only its parent has."""
    monkeypatch.setattr(embedding_run, "_PART_SIZE", 2)
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with threadpool_limits(1):
        yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_dota(folder / "dota", image_size=(100, 130), objects_per_image=6)
    scenes(folder, folder / "scenes", changed=False, progress=False)
    boxes(folder, folder / "boxes", changed=False, progress=False)
    return folder


Run = Callable[..., None]


@pytest.fixture
def run(user: User, inputs: Path) -> Run:
    return partial(user.write, inputs, changed=False, progress=False)


def moves_of(run: Run, output: Path, patch: pytest.MonkeyPatch, stop: int = -1) -> list[Path]:
    """Files that a run writes, in order; it kills its own process before number ``stop``."""
    move, moved = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if len(moved) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        move(source, target)
        moved.append(Path(target))

    with patch.context() as patched:
        patched.setattr(os, "replace", replace)
        run(output=output)
    return moved


def run_until_killed(run: Run, output: Path, patch: pytest.MonkeyPatch, stop: int) -> None:
    work = partial(moves_of, run, output, patch, stop)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(timeout=60)
    process.kill()
    assert process.exitcode == -signal.SIGKILL


@over(USERS)
@pytest.mark.parametrize("share", [0, 0.1, 0.4, 0.7, 0.95])
def test_killed_at_any_write_and_resumed_gives_the_same_bytes(
    user: User, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    moves = moves_of(run, tmp_path / "whole", monkeypatch)
    output = tmp_path / "killed"
    run_until_killed(run, output, monkeypatch, int(share * len(moves)))
    done = set(output.glob(user.markers))
    again = moves_of(run, output, monkeypatch)
    assert tree(output) == tree(tmp_path / "whole")
    assert not done & set(again), "finished parts are not made again"
    assert len(done) + len(again) < len(moves) + 3
    third = moves_of(run, output, monkeypatch)
    assert not {path for path in third if path.match(user.markers)}
    assert tree(output) == tree(tmp_path / "whole")


@over([user for user in USERS if user.has_workers])
def test_killed_with_its_workers_and_resumed_gives_the_same_bytes(
    user: User, run: Run, tmp_path: Path
) -> None:
    run(output=tmp_path / "whole")
    output, deadline = tmp_path / "killed", time.monotonic() + 100
    process = multiprocessing.get_context("fork").Process(
        target=lambda: (os.setsid(), run(output=output, num_workers=2))
    )
    process.start()
    while time.monotonic() < deadline and not list(output.glob(user.markers)):
        time.sleep(0.002)
    process.kill()
    process.join()
    while time.monotonic() < deadline and _group_is_alive(process.pid):
        time.sleep(0.02)
    assert not _group_is_alive(process.pid), "the workers leave with their parent"
    assert process.exitcode == -signal.SIGKILL, "it was killed while it worked"
    run(output=output)
    assert tree(output) == tree(tmp_path / "whole")


def _group_is_alive(group: int) -> bool:
    """Whether a process of the group still runs; reads Linux's /proc, elsewhere assumes none."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(found) == group and state != "Z":
            return True
    return False


@over(USERS)
def test_shards_and_workers_do_not_change_the_result(user: User, run: Run, tmp_path: Path) -> None:
    run(output=tmp_path / "one")
    one = user.content(tmp_path / "one")
    shards = tmp_path / "shards"
    for rank in (2, 0, 1):
        if user.write in (tiles, tiny, videos, embeddings):
            assert not list(shards.glob(user.index)), "not before the last process is done"
        run(output=shards, shard=(rank, 3))
    assert user.content(shards) == one
    if user.has_workers:
        run(output=tmp_path / "workers", num_workers=2)
        assert tree(tmp_path / "workers") == tree(tmp_path / "one")


@over(USERS)
@pytest.mark.parametrize("finished", [False, True])
def test_other_parameters_are_refused(
    user: User,
    run: Run,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
) -> None:
    if finished:
        run(output=tmp_path)
    else:
        moves = moves_of(run, tmp_path / "whole", monkeypatch)
        run_until_killed(run, tmp_path / "half", monkeypatch, int(0.6 * len(moves)))
    output = tmp_path if finished else tmp_path / "half"
    before = tree(output)
    with pytest.raises(FolderTakenError, match="there, .* asked for.*choose another folder"):
        user.write(inputs, output, changed=True, progress=False)
    assert tree(output) == before


@over(WITH_RECORD)
def test_files_of_another_origin_and_broken_records_are_refused(
    user: User, run: Run, tmp_path: Path
) -> None:
    foreign = tmp_path / user.strangers / "precious.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"a real image")
    with pytest.raises(FolderTakenError, match="for example .*choose an empty folder"):
        run(output=tmp_path)
    assert list(tree(tmp_path).values()) == [b"a real image"]
    record = tmp_path / user.record
    record.parent.mkdir(exist_ok=True)
    record.write_text('{"half')
    with pytest.raises(FolderTakenError, match="cannot be read"):
        run(output=tmp_path)
    assert foreign.read_bytes() == b"a real image"


@over(USERS)
def test_shards_that_do_not_exist_are_refused(user: User, run: Run, tmp_path: Path) -> None:
    for shard in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="0 <= rank < number"):
            run(output=tmp_path / "out", shard=shard)
    assert not list((tmp_path / "out").glob(user.markers))


@pytest.mark.parametrize(("write", "config"), [
    (write_dota_scenes, SceneConfig(size=64)),
    (write_tiny_scenes, TinySceneConfig(size=64)),
    (lambda folder, *rest, **more: write_videos(folder, "train", *rest, **more),
     VideoConfig(size=(64, 80), num_frames=3)),
])  # fmt: skip
def test_generated_folders_may_grow_but_not_shrink(
    write: Callable, config: Any, tmp_path: Path
) -> None:
    write(tmp_path / "a", 3, config, progress=False)
    kept = tree(tmp_path / "a")
    with pytest.raises(FolderTakenError, match="knows 3 .* more than the 2.*at least 3"):
        write(tmp_path / "a", 2, config, progress=False)
    assert tree(tmp_path / "a") == kept
    write(tmp_path / "a", 4, config, progress=False)
    write(tmp_path / "b", 4, config, progress=False)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    for number, more in ((0, {}), (1, {"seed": -1}), (1, {"num_workers": -1})):
        with pytest.raises(ValueError, match="must be >= 1, seed >= 0"):
            write(tmp_path / "x", number, config, **more)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_failed_part_is_listed_and_stops_no_other(tmp_path: Path, num_workers: int) -> None:
    paths = [tmp_path / name for name in ("a", "b", "gone/c", "d")]
    run, options = FolderRun(paths, Path.is_file), {"title": "scene", "unit": "band"}
    options |= {"progress": False, "num_workers": num_workers}
    assert run.mine == run.missing == paths
    ((failed, reason),) = run.make(Path.touch, survivable=(OSError,), **options)
    assert failed == paths[2] and reason.startswith("FileNotFoundError: ")
    assert [path.is_file() for path in paths] == [True, True, False, True]
    assert not run.is_finished()
    again = FolderRun(paths, Path.is_file)
    assert again.missing == [paths[2]]
    with pytest.raises(FileNotFoundError, match="gone"):
        again.make(Path.touch, **options)
    (tmp_path / "gone").mkdir()
    assert again.make(Path.touch, **options) == [] and again.is_finished()


def test_the_bar_counts_what_was_done_before(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "1").touch()
    run = FolderRun([tmp_path / str(number) for number in range(1, 4)], Path.is_file)
    run.make(Path.touch, title="images", unit="image", size=lambda path: int(path.name))
    err = capsys.readouterr().err
    assert "images" in err and "1/6" in err and "6/6" in err


def test_shards_of_command_lines() -> None:
    assert parse_shard("0/1") == (0, 1) and parse_shard("03/12") == (3, 12)
    for text in ("1/1", "1", "/2", "1/", "a/b", "-1/2", "0/0", "0/1/2", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="INDEX/NUMBER"):
            parse_shard(text)


def test_shards_of_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shard_from_environment({}) == (0, 1)
    assert shard_from_environment({"RANK": "2", "WORLD_SIZE": "3"}) == (2, 3)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shard_from_environment() == (1, 2)
    for variables, said in (
        ({"RANK": "", "WORLD_SIZE": ""}, "RANK is '' and WORLD_SIZE is ''"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1'"),
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "--array=0-3"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            shard_from_environment(variables)
        assert len(str(error.value).splitlines()) == 1


def test_a_run_is_named_by_what_decides_its_result() -> None:
    base = make_run_id({"a": 1, "b": [2]}, ["x", "y"])
    assert base == make_run_id({"b": [2], "a": 1}, ["x", "y"]) and len(base) == 16
    others = [({"a": 2, "b": [2]}, ["x", "y"]), ({"a": 1, "b": [2]}, ["y", "x"])]
    assert base not in {make_run_id(*other) for other in others}


def test_errors_become_a_line_and_a_status(capsys: pytest.CaptureFixture) -> None:
    def fail(error: BaseException) -> None:
        raise error

    assert run_command(lambda: None) == 0
    for error in (ValueError("bad"), FileNotFoundError("bad"), ImportError("bad")):
        assert run_command(partial(fail, error)) == 2
        assert capsys.readouterr().err == f"{program_name()}: error: bad\n"
    assert run_command(partial(fail, KeyboardInterrupt())) == 130
    assert "same command" in capsys.readouterr().err
    with pytest.raises(AssertionError):  # our own mistakes keep their trace
        run_command(partial(fail, AssertionError()))


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (prepare_dota.main, ["--images", "x"]),
        (make_synthetic.main, ["--num-images", "2", "--size", "64"]),
    ],
    ids=("prepare_dota", "make_synthetic"),
)
def test_commands_refuse_a_rank_beyond_the_others_before_they_write(
    main: Callable, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "0 <= RANK < WORLD_SIZE" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
