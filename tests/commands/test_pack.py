"""``rsd2 pack`` and ``rsd2 card``: what a run becomes that somebody else can use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import LazyConfig, instantiate

from rsd2 import load_detector
from rsd2.commands import card, pack, predict, rank
from rsd2.config import save_config
from rsd2.study.model_card import MARKS, CardError, read_card_head, with_table
from rsd2.testing import shrink
from rsd2.weights.checkpoint import load_checkpoint
from rsd2.weights.errors import CheckpointError
from rsd2.weights.packed import find_packed

CLASSES = ["plane", "tank", "ship", "harbor", "bridge", "car", "truck"]
CARD = ["--classes", *CLASSES]
SMALL = {"window": 64, "overlap": 20, "score_threshold": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Folder of a tiny run, whose averaged weights differ from the raw ones."""
    folder = tmp_path_factory.mktemp("runs") / "port_ships"
    (folder / "inference").mkdir(parents=True)
    cfg, other = (
        LazyConfig.load(str(repository / f"configs/rotated_deformable_detr_{name}.py"))
        for name in ("small_synthetic", "lite0_hrsc")
    )
    # A model whose backbone reads a file of weights.
    cfg.model, cfg.model.num_classes = other.model, len(CLASSES)
    cfg = shrink(cfg)
    cfg.train.output_dir, cfg.train.init_checkpoint = str(folder), str(folder / "start.pth")

    torch.manual_seed(0)
    raw, averaged = (instantiate(cfg.model).state_dict() for _ in range(2))
    # That file is gone, as on another machine.
    cfg.model.backbone.weights = str(folder / "backbone.pth")
    save_config(cfg, folder / "config.yaml")
    checkpoint = {"model": raw, "ema": {"model": averaged}, "iteration": 9, "optimizer": {"a": 1}}
    torch.save(checkpoint, folder / "model_final.pth")
    results = {
        "results": {"bbox": {"AP": 20.0, "AP50": 50.0}, "ema/bbox": {"AP": 21.0, "AP50": None}},
        "config": "configs/small.py",
        "seed": 0,
        "commit": "abc",
        "iteration": 10,
        "command": ["rsd2 train", f"train.output_dir={folder}"],
        "hardware": {"device": "cpu"},
    }
    (folder / "results.json").write_text(json.dumps(results))
    metrics = {"protocol": {"name": "DOTA Task 1"}, "counts": {}, "dataset": {}}
    (folder / "inference" / "metrics_dota.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture(scope="module")
def packed(run: Path) -> Path:
    """Folder of the packed run."""
    models = run.parent / "models"
    assert pack.main(["--run", str(run), "--output", str(models), *CARD]) == 0
    return models / "port_ships"


def test_packed_model_detects_like_the_run(
    run: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 90, 3), dtype=np.uint8)
    wanted = load_detector(run / "model_final.pth", ema=True, class_names=CLASSES, **SMALL)(image)
    # By its path, its address, and its name in a folder of models; also after a move.
    moved = tmp_path / "elsewhere"
    shutil.copytree(packed, moved / "port_ships")
    monkeypatch.setenv("RSD2_MODELS", moved.as_uri())
    monkeypatch.chdir(tmp_path)
    for name in (packed, packed.as_uri(), "port_ships"):
        found = load_detector(name, **SMALL)(image)
        assert found.labels == wanted.labels and np.array_equal(found.boxes, wanted.boxes)

    assert set(load_checkpoint(packed / "model.safetensors")) == {"model"}
    text = "".join(path.read_text() for path in packed.glob("*.*") if path.suffix != ".safetensors")
    assert str(run) not in text and str(run.parent) not in text
    assert yaml.safe_load((packed / "model.json").read_text())["iteration"] == 10


def test_command_takes_a_packed_model_without_a_config(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((64, 64, 3), dtype=np.uint8))
    words = ["--weights", str(packed), "--input", str(tmp_path / "image.png"), "--device", "cpu"]
    assert predict.main([*words, "--output", str(tmp_path / "out"), "--score-threshold", "0"]) == 0
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {one["class"] for one in found["images"][0]["detections"]} <= set(CLASSES)
    assert predict.main([*words, "--output", str(tmp_path / "out"), "--ema"]) == 2
    assert "leave out --config-file and --ema" in capsys.readouterr().err


def test_images_are_ranked_by_a_packed_model(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "image.png"), np.zeros((64, 64, 3), dtype=np.uint8))
    words = ["--weights", str(packed), "--input", str(tmp_path / "images"), "--device", "cpu"]
    assert rank.main([*words, "--output", str(tmp_path / "out")]) == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["weights_sha256"] == find_packed(packed).description["weights_sha256"]


def test_damaged_and_incomplete_folders_are_refused(packed: Path, tmp_path: Path) -> None:
    assert find_packed(tmp_path) is None
    with pytest.raises(CheckpointError, match="leads to no packed model"):
        find_packed((tmp_path / "none").as_uri())

    copy = shutil.copytree(packed, tmp_path / "copy")
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="sha256 .* but model.json names"):
        load_detector(copy)
    (copy / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match="model.json is broken"):
        load_detector(copy)
    (copy / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="has no config.yaml"):
        load_detector(copy)
    with pytest.raises(ValueError, match="has its config and one kind of weights"):
        load_detector(packed, ema=True)


def test_nothing_is_packed_twice_or_without_what_the_card_needs(
    run: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(run), "--output"]
    assert pack.main([*words, str(packed.parent), *CARD]) == 1
    assert "holds a packed model" in capsys.readouterr().err

    other = shutil.copytree(run, tmp_path / "other")
    text = (other / "config.yaml").read_text().replace("synthetic_train", "dota_v1.0_train")
    (other / "config.yaml").write_text(text)
    assert pack.main(["--run", str(other), "--output", str(tmp_path / "models"), *CARD]) == 1
    assert "name it with --data-licence" in capsys.readouterr().err
    (other / "results.json").unlink()
    assert card.main(["--run", str(other), *CARD]) == 1
    assert "results.json cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_card_tells_scores_licences_and_origin(run: Path, packed: Path, tmp_path: Path) -> None:
    text = (packed / "README.md").read_text()
    head = read_card_head(packed / "README.md")
    assert head.weights == json.loads((packed / "model.json").read_text())["weights_sha256"]
    assert head.scores == "AP50 -, AP 21.0" and head.config == "small.py"
    for part in ("start.pth", "abc", "DOTA Task 1", "plane, tank", "generated by rsd2", "harbor"):
        assert part in text

    # Three seeds: the mean, and Student's interval of it, 4.303 deviations over the root of 3.
    runs = [shutil.copytree(run, tmp_path / f"seed{seed}") for seed in range(3)]
    for seed, folder in enumerate(runs):
        results = json.loads((folder / "results.json").read_text())
        results["seed"], results["results"]["ema/bbox"]["AP"] = seed, 20.0 + seed
        (folder / "results.json").write_text(json.dumps(results))
    words = ["--run", *map(str, runs), "--output", str(tmp_path / "card.md"), *CARD]
    assert card.main(words) == 0
    assert read_card_head(tmp_path / "card.md").scores == "AP50 -, AP 21.0 [18.5, 23.5]"
    assert card.main(["--run", str(run), str(run), *CARD]) == 1


def test_table_of_a_document_is_renewed_between_its_marks(packed: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    assert card.main(["--table", str(packed / "README.md"), "--markdown", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| [port_ships](" in text and "AP50 -, AP 21.0" in text
    with pytest.raises(CardError, match="needs the lines"):
        with_table("no marks", "")
    # An option of the other kind of work would change nothing.
    for words in (["--table", "a.md", "--output", "b.md"], ["--run", "a", "--markdown", "b.md"]):
        with pytest.raises(SystemExit):
            card.main(words)


def test_tables_of_the_documents_are_current(repository: Path) -> None:
    cards = sorted((repository / "docs" / "models").glob("[!R]*.md"))
    assert cards
    documents = [repository / "README.md", repository / "docs" / "models" / "README.md"]
    shown = [page for page in documents if MARKS[0] in page.read_text("utf-8")]
    assert documents[1] in shown
    for page in shown:
        text = page.read_text("utf-8")
        assert with_table(text, card.table_of(cards, page.parent)) == text, (
            f"{page}: renew its table with rsd2 card --table docs/models/*.md --markdown FILE"
        )
