"""A detector of boxes in shares of its image says so when images show more or less than before."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2 import load_detector
from rsd2.commands import export, extent_checks, pack, predict, train
from rsd2.config import load_config, save_config
from rsd2.data.datasets import register_dota_instances, register_virtual_tiles
from rsd2.data.mappers.transforms import RandomObjectCrop
from rsd2.testing import shrink, write_tiny_dota

NAME, WINDOWS = "extent_checks", "extent_checks_64_16_virtual"
CLASSES = ["plane", "ship"]
WHOLE, PARTS = [f"dataloader.test.dataset.names={name}" for name in (NAME, WINDOWS)]
FAULT = "measures boxes in shares of its image"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, repository: Path):
    """Folder of a training on parts of 64 pixels, and the images of 160 that they come from."""
    folder = tmp_path_factory.mktemp("extents")
    labels, images = write_tiny_dota(folder / "data", 3, (128, 160), objects_per_image=8)
    register_dota_instances(NAME, {"thing_classes": CLASSES}, labels, images)
    register_virtual_tiles(WINDOWS, NAME, window=64, overlap=16)

    cfg = shrink(
        load_config(str(repository / "configs" / "rotated_deformable_detr_small_synthetic.py"))
    )
    cfg.model.num_classes = len(CLASSES)
    cfg.dataloader.train.mapper.augmentations = [L(RandomObjectCrop)(crop_size=[64, 64])]
    cfg.dataloader.test.mapper.augmentations = [
        L(T.ResizeShortestEdge)(short_edge_length=80, max_size=200)
    ]
    cfg.dataloader.train.dataset.names = NAME
    cfg.dataloader.test.dataset.names = WINDOWS
    cfg.train.output_dir = str(folder / "run")
    cfg.train.eval_period = 0
    save_config(cfg, folder / "config.yaml")
    _train(folder / "config.yaml")
    yield folder
    for name in (NAME, WINDOWS):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _train(config: Path, *opts: str) -> None:
    train.run_process(train.parse_arguments(["--config-file", str(config), *opts]))


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if FAULT in r.getMessage()]


def test_a_training_says_it_before_its_first_step(run, tmp_path, caplog, monkeypatch):
    class FirstStep(Exception):
        pass

    def stop(*_):
        raise FirstStep

    monkeypatch.setattr("rsd2.engine.train_loop.Trainer.train", stop)
    for opts, expected in (([WHOLE], 1), ([PARTS], 0)):
        caplog.clear()
        with pytest.raises(FirstStep):
            _train(run / "config.yaml", *opts, f"train.output_dir={tmp_path}")
        assert len(_warnings(caplog)) == expected, opts
        if expected:
            (text,) = _warnings(caplog)
            assert "showed 64 pixels" in text and "shows 160" in text and NAME in text
            assert "too large" in text and "register_virtual_tiles" in text


@pytest.mark.parametrize(("names", "expected"), [(WHOLE, 1), (PARTS, 0)])
def test_an_evaluation_says_it_too(run, tmp_path, caplog, names, expected):
    weights = f"train.init_checkpoint={run / 'run' / 'model_final.pth'}"
    opts = ["--eval-only", names, weights, f"train.output_dir={tmp_path}"]
    _train(run / "config.yaml", *opts)
    assert len(_warnings(caplog)) == expected


def _predict(run: Path, output: Path, *flags: str) -> None:
    arguments = ["--config-file", str(run / "run" / "config.yaml"), "--input"]
    arguments += [str(run / "data" / "images"), "--output", str(output), "--device", "cpu"]
    assert predict.main([*arguments, *flags]) == 0


def test_predictions_name_the_first_image_and_the_window_to_use(run, tmp_path, capsys):
    weights = ["--weights", str(run / "run" / "model_final.pth")]
    _predict(run, tmp_path / "whole", *weights)
    text = capsys.readouterr().err
    assert text.count(FAULT) == 1 and "P0000.png" in text and "--window 64" in text

    _predict(run, tmp_path / "parts", *weights, "--window", "64", "--overlap", "16")
    assert FAULT not in capsys.readouterr().err
    # Windows of 32 are as wrong as whole images.
    _predict(run, tmp_path / "small", *weights, "--window", "32", "--overlap", "8")
    assert "too small" in capsys.readouterr().err


@pytest.mark.parametrize(("window", "is_noted"), [(64, False), (128, True)])
def test_an_export_for_other_windows_says_it(run, tmp_path, capsys, monkeypatch, window, is_noted):
    class Tracing(Exception):
        pass

    def stop(*_):
        raise Tracing

    monkeypatch.setattr(export, "graph_of", stop)
    flags = ["--config-file", str(run / "run" / "config.yaml"), "--window", str(window)]
    flags += ["--weights", str(run / "run" / "model_final.pth")]
    args = export.get_parser().parse_args([*flags, "--output", str(tmp_path / "model.onnx")])
    args.device = "cpu"
    with pytest.raises(Tracing):
        export.export(args, load_config(args.config_file))
    assert (FAULT in capsys.readouterr().err) == is_noted


def test_a_packed_model_and_a_program_know_it(run, tmp_path, caplog):
    licence = ["--data-licence", "own", "--classes", *CLASSES, "--name", "ships"]
    results = {"results": {"bbox": {"AP50": 1.0}}, "config": "small.py", "seed": 0}
    results |= {"commit": "a", "iteration": 2, "command": [], "hardware": {"device": "cpu"}}
    (run / "run" / "results.json").write_text(json.dumps(results))
    assert pack.main(["--run", str(run / "run"), "--output", str(tmp_path), *licence]) == 0
    described = json.loads((tmp_path / "ships" / "model.json").read_text())
    assert described["extents"] == [64, 64]

    image = next((run / "data" / "images").glob("*.png"))
    for window, expected in ((1024, 1), (64, 0)):
        caplog.clear()
        load_detector(tmp_path / "ships", window=window, overlap=16, device="cpu")(image)
        assert len(_warnings(caplog)) == expected, window


def test_checkpoints_of_earlier_versions_say_nothing_and_are_resumed(run, tmp_path, caplog):
    shutil.copytree(run / "run", tmp_path / "old")
    path = tmp_path / "old" / "model_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    for key in ("data.least_extent", "data.greatest_extent"):
        assert checkpoint["trainer"]["settings"].pop(key) == 64
    torch.save(checkpoint, path)
    assert extent_checks.recorded_extents(checkpoint, path) is None

    with caplog.at_level(logging.INFO):
        opts = ["train.max_iter=3", f"train.output_dir={tmp_path / 'old'}"]
        _train(run / "config.yaml", "--resume", *opts)
    assert not any("other settings" in r.getMessage() and "extent" in r.getMessage()
                   for r in caplog.records)  # fmt: skip
    assert torch.load(path, weights_only=True)["trainer"]["settings"]["data.least_extent"] == 64


def test_augmentations_that_want_more_than_an_image_are_left_alone(caplog):
    sized = [{"height": 64, "width": 64}]

    def extents(mapper, records):
        cfg = OmegaConf.create({"dataloader": {"train": {"mapper": mapper}}})
        return extent_checks.extents_of(cfg, "train", records)

    assert extents({"augmentations": []}, sized) == (64, 64)
    with caplog.at_level(logging.INFO):
        assert extents({"augmentations": [L(NeedsMasks)()]}, sized) is None
    assert "could not be measured" in caplog.text
    # Data without sizes, no data, and mappers without augmentations have no extent either.
    assert extents({"augmentations": []}, [{}]) is None
    assert extents({"augmentations": []}, None) is None
    assert extents({}, sized) is None


class NeedsMasks(T.Augmentation):
    """An augmentation of a user, which reads more than an image."""

    def get_transform(self, image, masks):
        """Never reached."""
        raise NotImplementedError
