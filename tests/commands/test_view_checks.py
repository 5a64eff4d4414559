"""A detector says so when objects have other sizes for it than in training."""

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
from rsd2.commands import export, pack, predict, train, view_checks
from rsd2.config import load_config, save_config
from rsd2.data.datasets import register_dota_instances, register_virtual_tiles
from rsd2.data.mappers.transforms import RandomObjectCrop
from rsd2.data.mappers.views import Views
from rsd2.testing import shrink, write_tiny_dota

NAME, WINDOWS = "view_checks", "view_checks_64_16_virtual"
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


def test_predictions_use_the_windows_of_the_training_and_note_others(run, tmp_path, capsys):
    weights = ["--weights", str(run / "run" / "model_final.pth")]
    _predict(run, tmp_path / "parts", *weights)
    assert FAULT not in capsys.readouterr().err
    protocol = json.loads((tmp_path / "parts" / "detections.json").read_text())["protocol"]
    assert (protocol["window"], protocol["overlap"]) == (64, 16)

    _predict(run, tmp_path / "whole", *weights, "--window", "1024")
    text = capsys.readouterr().err
    assert text.count(FAULT) == 1 and "P0000.png" in text and "--window 64" in text
    # Windows of 32 are as wrong as whole images.
    _predict(run, tmp_path / "small", *weights, "--window", "32", "--overlap", "8")
    assert "too small" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "windows"), [([], (64, 16)), (["--window", "300"], (300, 200))])
def test_scenes_use_them_too(run, tmp_path, flags, windows):
    predict_scene = pytest.importorskip("rsd2.commands.predict_scene")
    arguments = ["--config-file", str(run / "run" / "config.yaml"), "--output", str(tmp_path)]
    arguments += ["--weights", str(run / "run" / "model_final.pth"), "--device", "cpu", *flags]
    arguments += ["--input", str(run / "data" / "images" / "P0000.png")]
    found, _, _ = predict_scene.prepare(predict_scene.get_parser().parse_args(arguments))
    assert (found.parameters.window, found.parameters.overlap) == windows


@pytest.mark.parametrize(("window", "is_noted"), [(None, False), (128, True)])
def test_an_export_for_other_windows_says_it(run, tmp_path, capsys, monkeypatch, window, is_noted):
    class Tracing(Exception):
        pass

    def stop(*_):
        raise Tracing

    monkeypatch.setattr(export, "graph_of", stop)
    flags = ["--config-file", str(run / "run" / "config.yaml")]
    flags += [] if window is None else ["--window", str(window)]
    flags += ["--weights", str(run / "run" / "model_final.pth")]
    args = export.get_parser().parse_args([*flags, "--output", str(tmp_path / "model.onnx")])
    args.device = "cpu"
    with pytest.raises(Tracing):
        export.export(args, load_config(args.config_file))
    assert (FAULT in capsys.readouterr().err) == is_noted and args.window == (window or 64)


def test_a_packed_model_and_a_program_know_it(run, tmp_path, caplog):
    licence = ["--data-licence", "own", "--classes", *CLASSES, "--name", "ships"]
    results = {"results": {"bbox": {"AP50": 1.0}}, "config": "small.py", "seed": 0}
    results |= {"commit": "a", "iteration": 2, "command": [], "hardware": {"device": "cpu"}}
    (run / "run" / "results.json").write_text(json.dumps(results))
    assert pack.main(["--run", str(run / "run"), "--output", str(tmp_path), *licence]) == 0
    described = json.loads((tmp_path / "ships" / "model.json").read_text())
    assert described["views"]["data.greatest_extent"] == 64

    image = next((run / "data" / "images").glob("*.png"))
    for window, used, expected in ((None, 64, 0), (1024, 1024, 1)):
        caplog.clear()
        detector = load_detector(tmp_path / "ships", window=window, device="cpu")
        assert detector.parameters.window == used
        # Once, not for each image.
        detector(image), detector(image)
        assert len(_warnings(caplog)) == expected, window


def test_checkpoints_of_earlier_versions_say_nothing_and_are_resumed(run, tmp_path, caplog):
    shutil.copytree(run / "run", tmp_path / "old")
    path = tmp_path / "old" / "model_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    for key, value in (("extent", 64), ("scale", 1)):
        for bound in ("least", "greatest"):
            assert checkpoint["trainer"]["settings"].pop(f"data.{bound}_{key}") == value
    torch.save(checkpoint, path)
    assert view_checks.recorded_views(checkpoint, path) is None

    with caplog.at_level(logging.INFO):
        opts = ["train.max_iter=3", f"train.output_dir={tmp_path / 'old'}"]
        _train(run / "config.yaml", "--resume", *opts)
    assert not any("other settings" in r.getMessage() and "extent" in r.getMessage()
                   for r in caplog.records)  # fmt: skip
    assert torch.load(path, weights_only=True)["trainer"]["settings"]["data.least_extent"] == 64


def test_a_model_of_boxes_in_pixels_is_warned_of_another_scale(caplog):
    cfg = OmegaConf.create({"dataloader": {"test": {"dataset": {"names": "ports"}}}})
    trained = Views((512, 512), (0.5, 0.8))
    for scale, expected in ((0.6, 0), (0.3, 1)):
        # Its extent does not matter.
        tested = Views((2000, 2000), (scale, scale))
        view_checks.warn_of_other_views(cfg, torch.nn.Identity(), trained, tested)
        assert caplog.text.count("too small for what it has learned") == expected
    assert "dataloader.test: ports" in caplog.text


def test_augmentations_that_want_more_than_an_image_are_left_alone(caplog):
    sized = [{"height": 64, "width": 64}]

    def views(mapper, records):
        cfg = OmegaConf.create({"dataloader": {"train": {"mapper": mapper}}})
        return view_checks.views_of(cfg, "train", records)

    assert views({"augmentations": []}, sized) == Views((64, 64), (1, 1))
    with caplog.at_level(logging.INFO):
        assert views({"augmentations": [L(NeedsMasks)()]}, sized) is None
    assert "could not be measured" in caplog.text
    # Data without sizes, no data, and mappers without augmentations have no views either.
    assert views({"augmentations": []}, [{}]) is None
    assert views({"augmentations": []}, None) is None
    assert views({}, sized) is None


class NeedsMasks(T.Augmentation):
    """An augmentation of a user, which reads more than an image."""

    def get_transform(self, image, masks):
        """Never reached."""
        raise NotImplementedError
