"""The tool: a run that is killed, its messages and exit codes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from rsd2.commands import prepare_dota as tool
from rsd2.testing import write_tiny_dota


def _arguments(folder, output, *more):
    labels, images = folder
    named = ["--images", str(images), "--labels", str(labels), "--output", str(output)]
    return [*named, "--window", "48", "--overlap", "16", *more]


def _tree(output):
    files = [path for path in output.rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_counts_and_problems_are_printed(tmp_path, capsys):
    folder = write_tiny_dota(tmp_path / "full")
    with (folder[0] / "P0000.txt").open("a") as stream:
        stream.write("not a label\n")
    assert tool.main(_arguments(folder, tmp_path / "t", "--num-workers", "0")) == 0
    printed = capsys.readouterr().out
    assert "tiles: 16" in printed and "PROBLEM fields (1 dropped)" in printed
    assert "P0000.txt:6: 3 fields" in printed and "tiles.json" in printed


def test_wrong_input_is_one_line_and_exit_code_two(tmp_path, capsys):
    folder = write_tiny_dota(tmp_path / "full")
    for more, what in (
        (["--overlap", "48"], "overlap"),
        (["--images", str(tmp_path / "absent")], "no image folder"),
        (["--min-object-fraction", "70"], "fraction"),
    ):
        assert tool.main(_arguments(folder, tmp_path / "t", *more)) == 2
        message = capsys.readouterr().err
        assert message.startswith("prepare_dota: ") and what in message
        assert more[1] in message and len(message.splitlines()) == 1
    assert not (tmp_path / "t").exists()


def test_options_reach_the_tiles(tmp_path):
    folder = write_tiny_dota(tmp_path / "full", image_size=(40, 100))
    options = ["--rates", "1", "0.5", "--no-padding", "--drop-empty", "--num-workers", "0"]
    assert tool.main(_arguments(folder, tmp_path / "t", *options)) == 0
    names = {path.stem.split("__")[1] for path in (tmp_path / "t" / "images").iterdir()}
    assert names == {"48", "96"}
    heights = {Image.open(path).size[1] for path in (tmp_path / "t" / "images").iterdir()}
    assert heights == {40}
    assert not any(path.name.startswith("P0003") for path in (tmp_path / "t" / "images").iterdir())


def test_killed_run_resumes_to_the_same_tree(repository, tmp_path):
    labels, images = write_tiny_dota(tmp_path / "full", num_images=8)
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    for path in images.iterdir():
        Image.fromarray(noise).save(path, compress_level=0)
    arguments = _arguments((labels, images), tmp_path / "t", "--num-workers", "2")
    command = [sys.executable, str(repository / "tools/prepare_dota.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((tmp_path / "t" / "images").glob("*.png"))) > 20:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while time.monotonic() < deadline and _group_is_alive(process.pid):
        time.sleep(0.05)
    assert not _group_is_alive(process.pid), "the workers leave with their parent"
    assert not (tmp_path / "t" / "tiles.json").exists(), "it was killed while it worked"
    resumed = _arguments((labels, images), tmp_path / "t", "--num-workers", "0")
    whole = _arguments((labels, images), tmp_path / "whole", "--num-workers", "0")
    assert tool.main(resumed) == tool.main(whole) == 0
    assert _tree(tmp_path / "t") == _tree(tmp_path / "whole")


def _group_is_alive(group):
    """Whether a process of the group still runs; reads Linux's /proc, elsewhere assumes none."""
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{entry}/stat") as stream:
                state, _, pgrp = stream.read().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state != "Z":
            return True
    return False
