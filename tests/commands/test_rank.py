"""``rsd2 rank``: the order of images, what it leaves out, and how it continues."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rsd2.commands import rank
from rsd2.data.splits import read_split
from rsd2.inference.detector import Detector
from rsd2.inference.sliding_window import WindowParameters
from rsd2.io.image_io import write_image


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Five images whose only grey value is what the fake detector finds in them."""
    for name, grey in (("sure", 250), ("open", 128), ("half", 180), ("none", 0), ("known", 128)):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, np.full((40, 40, 3), grey, dtype=np.uint8))
    return tmp_path


@pytest.fixture
def run(pool: Path, monkeypatch: pytest.MonkeyPatch):
    """Rank with a detector of one box, scored by the image's grey; returns code and images seen."""
    (pool / "model.pth").write_bytes(b"weights")
    (pool / "config.yaml").write_text("model: {}\n")
    seen: list[int] = []

    def load(*_: object, ema: bool, **__: object) -> Detector:
        def detect(images):
            seen.extend(int(image[0, 0, 0]) for image in images)
            results = []
            for image in images:
                score = image[0, 0, 0] / 255 * (0.9 if ema else 1)
                box = torch.tensor([[20.0, 20, 10, 8, 0]])[: int(score > 0)]
                results.append((box, torch.tensor([score])[: len(box)], torch.zeros(len(box))))
            return results

        return Detector(detect, WindowParameters(64, 20))

    monkeypatch.setattr(rank, "load_detector", load)

    def run(*arguments: object) -> tuple[int, list[int]]:
        seen.clear()
        flags = ["--weights", pool / "model.pth", "--input", pool / "images"]
        flags += ["--output", pool / "out", *arguments]
        return rank.main(list(map(str, flags))), list(seen)

    return run


def names(pool: Path) -> list[str]:
    with (pool / "out" / "ranking.csv").open() as stream:
        return [Path(row["image"]).stem for row in csv.DictReader(stream)]


def test_most_uncertain_images_come_first(run, pool):
    (pool / "labelled").mkdir()
    (pool / "labelled" / "known.txt").touch()
    code, _ = run("--labelled", pool / "labelled", "--count", 2, "--contact-sheet", 3)
    assert code == 0 and names(pool) == ["open", "half", "sure", "none"]
    assert read_split(pool / "out" / "next.txt") == ["half", "open"]
    assert (pool / "out" / "next.png").is_file()
    record = json.loads((pool / "out" / "ranking.json").read_text())
    assert [row["rank"] for row in record["images"]] == [1, 2, 3, 4]
    assert record["images"][-1]["entropy"] == record["images"][-1]["detections"] == 0


def test_disagreement_compares_both_weights(run, pool):
    code, seen = run("--by", "disagreement")
    # The averaged weights score a tenth lower, so the greatest score differs most.
    assert code == 0 and len(seen) == 10 and names(pool)[0] == "sure"


def test_a_second_run_measures_only_what_is_new(run, pool):
    assert run()[0] == 0
    write_image(pool / "images" / "new.png", np.full((40, 40, 3), 120, dtype=np.uint8))
    assert run("--by", "margin", "--summary", "max") == (0, [120])
    assert names(pool)[0] in ("known", "open") and "new" in names(pool)
    # Other weights would mix two detectors in one list.
    (pool / "model.pth").write_bytes(b"others")
    assert run()[0] == 2


def test_an_unreadable_image_is_named_and_the_others_are_ranked(run, pool, capsys):
    (pool / "images" / "broken.png").write_bytes(b"no image")
    assert run()[0] == 2
    assert "broken.png" in capsys.readouterr().err and len(names(pool)) == 5


def test_processes_share_the_images(run, pool, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert len(run()[1]) == 3 and not (pool / "out" / "ranking.csv").exists()
    monkeypatch.setenv("RANK", "1")
    assert len(run()[1]) == 2 and len(names(pool)) == 5
