"""tools/report_run.py on a small run made by hand: curve, pictures, table, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.commands import report_run as tool
from rsd2.config import load_config, save_config
from rsd2.data.datasets import register_dota_instances
from rsd2.evaluation import AitodEvaluator
from rsd2.evaluation.files.task1 import write_task1_zip
from rsd2.evaluation.scoring.dota import Detections, GroundTruth
from rsd2.io.program import program_name
from rsd2.testing import TINY_CLASSES, shrink, write_tiny_dota

ROOT = Path(__file__).resolve().parents[2]
NAME = "tiny_to_report"
RESULTS = {
    "results": {
        "bbox": {"AP50": 61.25, "AP50-ship": None},
        "ema/bbox": {"AP50": 70.0, "AP50-plane": 12.34},
    },
    "seed": 3,
    "command": ["train.py", "--resume"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with config, metrics, results and a checkpoint with averaged weights."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_tiny_dota(folder / "data", num_images=3)
    register_dota_instances(NAME, {"thing_classes": list(TINY_CLASSES)}, *data)
    cfg = LazyConfig.load(str(ROOT / "configs" / "rotated_deformable_detr_small_synthetic.py"))
    cfg = shrink(cfg)
    cfg.model.num_classes = len(TINY_CLASSES)
    cfg.dataloader.test.dataset.names = NAME
    save_config(cfg, folder / "config.yaml")
    torch.manual_seed(0)
    state = instantiate(cfg.model).state_dict()
    torch.save(
        {"model": state, "ema": {"model": state, "updates": 1}, "iteration": 9},
        folder / "model_final.pth",
    )
    lines = [
        {"iteration": i, "total_loss": 9 / (i + 1), "loss_l1": 1.0, "loss_l1_0": 2.0, "lr": 0.1}
        for i in (0, 1, 2, 1, 2, 3)
    ]
    text = "\n".join(map(json.dumps, [*lines, {"iteration": 3, "bbox/AP50": 1.0}]))
    (folder / "metrics.json").write_text(text + '\n{"iteration": 4, "tot')
    (folder / "results.json").write_text(json.dumps(RESULTS))
    yield folder
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run without the checkpoint, to be damaged."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "metrics.json", "results.json"):
        (folder / name).write_bytes((trained / name).read_bytes())
    return folder


def test_pictures_and_table(trained, tmp_path, capsys):
    arguments = ["--run", str(trained), "--images", "2", "--weights", "ema"]
    for output, threshold in (("all", "0"), ("none", "1")):
        flags = ["--output", str(tmp_path / output), "--score-threshold", threshold]
        tool.main([*arguments, *flags])
    names = ["loss_curve.png", "predictions.png", "results.md"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names
    assert (tmp_path / "all" / "results.md").read_text() == (
        "| metric | bbox | ema/bbox |\n"
        "|---|---|---|\n"
        "| AP50 | 61.2 | 70.0 |\n"
        "| AP50-ship | - | - |\n"
        "| AP50-plane | - | 12.3 |\n"
        "\n"
        "- seed: 3\n"
        "- command: train.py --resume\n"
    )
    assert "| AP50 | 61.2 | 70.0 |" in capsys.readouterr().out
    found, nothing = (cv2.imread(str(tmp_path / x / "predictions.png")) for x in ("all", "none"))
    assert found.shape == nothing.shape == (404, 4 * 384, 3)
    differs = (found != nothing).any(axis=(0, 2)).reshape(4, 384).any(axis=1)
    assert differs.tolist() == [False, True, False, True], "truth stands left of predictions"


def test_curve_shows_each_iteration_once(trained, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = {}
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, label: drawn.update({label: (x, y)}))
    monkeypatch.setattr(Axes, "legend", lambda self: None)
    tool.plot_losses(tool.read_json_lines(trained / "metrics.json"), tmp_path / "curve.png")
    assert set(drawn) == {"total_loss", "loss_l1", "lr"}, "losses of earlier layers are left out"
    assert drawn["total_loss"] == ((0, 1, 2, 3), (9.0, 4.5, 3.0, 2.25))
    assert np.ptp(cv2.imread(str(tmp_path / "curve.png"))) > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "metrics.json is missing: give --run the train.output_dir"),
        ("metrics.json", '{"lr": 1}\n{"lr\n{"lr": 1}\n', "metrics.json:2: not JSON"),
        ("metrics.json", '{"iteration": 1, "lr": 1}\n', "no total_loss; was anything trained"),
        ("results.json", None, "results.json is missing: evaluate the run first"),
        ("results.json", '{"results": ', "results.json is not JSON"),
        ("results.json", "[]", "results.json holds no results of an evaluation"),
        ("results.json", '{"bbox": {"AP": 1.0}}', "results.json holds no results of an evaluation"),
        ("config.yaml", None, "no config file"),
        ("model_final.pth", None, "no checkpoint"),
    ],
)
def test_what_is_missing_or_broken_is_named(run, tmp_path, capsys, name, content, message):
    if content is not None:
        (run / name).write_text(content)
    else:
        (run / name).unlink(missing_ok=True)
    assert tool.main(["--run", str(run), "--output", str(tmp_path / "out")]) == 1
    assert re.match(f"{re.escape(program_name())}: error: .*{message}", capsys.readouterr().err)


def test_evaluation_in_a_folder_of_its_own(trained, run, tmp_path):
    (run / "metrics.json").unlink()
    evaluated = {**RESULTS, "checkpoint": str(trained / "model_final.pth")}
    (run / "results.json").write_text(json.dumps(evaluated))

    output = tmp_path / "out"
    assert tool.main(["--run", str(run), "--images", "1", "--output", str(output)]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["predictions.png", "results.md"]


def test_pictures_are_of_the_weights_that_were_scored(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "model_0000099.pth"
    elsewhere.touch()
    assert tool.weights_of(run, None) == run / "model_final.pth"
    assert tool.weights_of(run, str(elsewhere)) == elsewhere
    # The run was moved since, with its checkpoints.
    assert tool.weights_of(run, "before/model_0000099.pth") == run / "model_0000099.pth"


def test_test_set_that_is_not_built_in(trained, tmp_path):
    cfg = LazyConfig.load(str(trained / "config.yaml"))
    cfg.dataloader.test.dataset.names = ["nobody_registered_this"]
    with pytest.raises(tool.ReportError, match="nobody_registered_this is not registered"):
        tool.draw_predictions(cfg, torch.nn.Identity(), tmp_path / "a.png", 1, 0.5)
    assert list(tmp_path.iterdir()) == []


def test_intervals_come_from_the_submission_of_the_chosen_weights(run):
    cfg = load_config(run / "config.yaml")
    with pytest.raises(tool.ReportError, match=r"ema.Task1\.zip is missing: --intervals needs"):
        tool.intervals_of(cfg, run, "ema")

    truth = GroundTruth.from_dicts(DatasetCatalog.get(NAME), TINY_CLASSES)
    perfect = Detections(
        truth.image_index,
        truth.class_index,
        np.ones(len(truth.image_index)),
        polygons=truth.polygons,
    )
    (run / "inference").mkdir()
    path = run / "inference" / "Task1.zip"
    write_task1_zip(path, truth.image_ids, TINY_CLASSES, perfect)
    table = tool.intervals_of(cfg, run, "model")
    assert "| area | 100.0 (100.0 to 100.0) |" in table
    text = tool.write_table(RESULTS, run / "results.md", table)
    assert table in text and "| AP50 | 61.2 | 70.0 |" in text


def test_pictures_show_the_scores_of_the_best_f1(trained, run, tmp_path, capsys):
    cfg = load_config(run / "config.yaml")
    assert tool.drawn_from(cfg, run, "ema") == tool.DRAWN_FROM, "nothing was evaluated"
    assert "the best F1 is not known: there are no predictions at" in capsys.readouterr().out

    # One object is found with a low score, a false box has a lower one, and one object is missed.
    truth = GroundTruth.from_dicts(DatasetCatalog.get(NAME), TINY_CLASSES)
    polygons = np.stack([truth.polygons[0], truth.polygons[0] + 1000])
    images, classes = truth.image_index[[0, 0]], truth.class_index[[0, 0]]
    found = Detections(images, classes, np.array([0.125, 0.0625]), polygons=polygons)
    (run / "inference" / "ema").mkdir(parents=True)
    write_task1_zip(run / "inference" / "ema" / "Task1.zip", truth.image_ids, TINY_CLASSES, found)
    assert tool.drawn_from(cfg, run, "ema") == 0.125
    assert tool.drawn_from(cfg, run, "model") == tool.DRAWN_FROM, "of these weights nothing is"

    (run / "inference" / "Task1.zip").write_bytes(b"PK, and then the disk was full")
    assert tool.drawn_from(cfg, run, "model") == tool.DRAWN_FROM
    assert re.search(r"the best F1 is not known: .*Task1\.zip", capsys.readouterr().out)

    (run / "model_final.pth").write_bytes((trained / "model_final.pth").read_bytes())
    flags = ["--run", str(run), "--weights", "ema", "--images", "1", "--output"]
    assert tool.main([*flags, str(tmp_path / "best")]) == 0
    assert "its pictures show scores of 0.12 and more" in capsys.readouterr().out
    assert tool.main([*flags, str(tmp_path / "all"), "--score-threshold", "0"]) == 0
    assert "its pictures show scores of 0.00 and more" in capsys.readouterr().out


def test_upright_boxes_are_scored_by_the_evaluator_of_the_run(run, register):
    box = {"bbox": [4, 5, 9, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    image = {"file_name": "a.png", "image_id": "a", "height": 20, "width": 20}
    register("upright_to_report", [{**image, "annotations": [box]}], ["plane"])
    cfg = load_config(run / "config.yaml")
    cfg.dataloader.test.dataset.names = "upright_to_report"
    cfg.dataloader.evaluator = LazyCall(AitodEvaluator)(
        dataset_name="${..test.dataset.names}", output_dir="folder/of/another/machine"
    )
    (run / "inference" / "ema").mkdir(parents=True)
    found = [{"image_id": 1, "category_id": 1, "bbox": box["bbox"], "score": 0.9}]
    (run / "inference" / "ema" / "coco_instances_results.json").write_text(json.dumps(found))
    assert "| AP75 | 100.0 (100.0 to 100.0) |" in tool.intervals_of(cfg, run, "ema")
    assert not Path("folder").exists(), "the report writes into its own folder alone"
