"""projects/ObjectJEPA/tools/draw_masks.py on a folder of images, with and without labels."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import load_config
from rsd2.testing import write_tiny_dota

CONFIG = "projects/ObjectJEPA/configs/object_jepa_small_synthetic_pretrain.py"
SMALL = (
    *("model.encoder.embed_dim=16", "model.encoder.depth=1", "model.encoder.num_heads=2"),
    *("model.predictor.embed_dim=16", "model.predictor.depth=1"),
)


@pytest.fixture(scope="module")
def tool(load_module):
    return load_module("projects/ObjectJEPA/tools/draw_masks.py")


@pytest.fixture
def draw(tool, repository, tmp_path):
    """Draws into a new folder and returns its pictures by name."""
    labels, images = write_tiny_dota(tmp_path / "dota", num_images=3)
    if labels.name != "labelTxt":
        images, labels = labels, images

    def run(name, *words, with_labels=True):
        source = ["--images", str(images)]
        if with_labels:
            source += ["--labels", str(labels), "--classes", "plane", "ship"]
        output = tmp_path / name
        command = ["--config-file", str(repository / CONFIG), "--output", str(output), *source]
        assert tool.main([*command, *words, *SMALL]) == 0
        return {one.name: cv2.imread(str(one)) for one in sorted(output.iterdir())}

    return run


def test_every_image_gets_a_picture_and_equal_seeds_equal_ones(draw):
    first, again, other = draw("one"), draw("two"), draw("three", "--seed", "5")
    assert len(first) == 3
    for name, picture in first.items():
        assert picture.shape[1] > 3 * picture.shape[0] and np.ptp(picture) > 0
        assert (picture == again[name]).all()
    assert any((first[name] != other[name]).any() for name in first)
    assert len(draw("few", "--num-images", "1")) == 1


def test_without_labels_nothing_is_framed_as_object(draw):
    red, yellow = (60, 60, 255), (0, 200, 255)  # BGR
    labelled, plain = draw("labelled"), draw("plain", with_labels=False)
    for color in (red, yellow):
        assert any((p == color).all(axis=2).any() for p in labelled.values())
        assert not any((p == color).all(axis=2).any() for p in plain.values())


def test_weights_change_the_errors(draw, repository, tmp_path):
    torch.manual_seed(9)
    model = instantiate(load_config(repository / CONFIG, list(SMALL)).model)
    path = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    first, second = draw("initial"), draw("loaded", "--weights", str(path))
    assert any((first[name] != second[name]).any() for name in first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "nowhere"], "nowhere"),
        (["--images", "one", "--dataset", "two"], "--images and --dataset are two sources"),
        (["--labels", "one"], "--labels needs --images"),
        (["--num-images", "0"], "--num-images must be at least 1"),
        (["--progress", "2"], "--progress in [0, 1], got 8, 0 and 2.0"),
        (["--dataset", "unheard_of"], "unheard_of"),
        (["model.masks.mood=hard"], "mood"),
    ],
)
def test_what_cannot_be_used_is_one_line(tool, repository, tmp_path, capsys, words, message):
    command = ["--config-file", str(repository / CONFIG), "--output", str(tmp_path / "out")]
    assert tool.main([*command, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("draw_masks: ") and message in error
    assert not (tmp_path / "out").exists()
