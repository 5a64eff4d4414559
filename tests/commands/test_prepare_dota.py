"""The tool: a run that is killed, its messages and exit codes."""

from PIL import Image

from rsd2.commands import prepare_dota as tool
from rsd2.io.program import program_name
from rsd2.testing import write_tiny_dota


def _arguments(folder, output, *more):
    labels, images = folder
    named = ["--images", str(images), "--labels", str(labels), "--output", str(output)]
    return [*named, "--window", "48", "--overlap", "16", *more]


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
        assert message.startswith(f"{program_name()}: error: ") and what in message
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
