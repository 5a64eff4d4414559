"""A shrunken detector as a training leaves it, and the file that ``rsd2 export`` makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from rsd2.config import save_config
from rsd2.testing import shrink, write_tiny_dota

CLASSES = ["plane", "storage tank"]


def write_trained(
    config: Path,
    folder: Path,
    num_classes: int = len(CLASSES),
    test_set: str = "nobody_registered_this",
    **options: object,
) -> Path:
    """Write config and checkpoint of a shrunken model with distinct random weights."""
    cfg = shrink(LazyConfig.load(str(config)))
    if "roi_heads" in cfg.model:
        cfg.model.roi_heads.num_classes = num_classes
    else:
        cfg.model.num_classes = num_classes
    cfg.dataloader.test.dataset.names = test_set
    for key, value in options.items():
        cfg.model[key] = value
    save_config(cfg, folder / "config.yaml")

    torch.manual_seed(0)
    model = instantiate(cfg.model)
    for parameter in model.parameters():
        # What starts at zero would make all queries and all offsets alike.
        parameter.data += 0.05 * torch.randn_like(parameter)
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Folder with ``config.yaml`` and ``model.pth`` of a rotated DETR for 64-pixel windows."""
    config = repository / "configs" / "rotated_deformable_detr_small_synthetic.py"
    return write_trained(config, tmp_path_factory.mktemp("trained"), nms_threshold=0.3)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two images of one window each and, elsewhere, none."""
    return write_tiny_dota(tmp_path_factory.mktemp("images"), 2, (64, 64), seed=1)[1]


@pytest.fixture(scope="session")
def exported(trained: Path, images: Path) -> Path:
    """The file, any number of windows in a call; written and checked by the command."""
    pytest.importorskip("onnxruntime")
    from rsd2.commands import export

    path = trained / "model.onnx"
    flags = ["--config-file", trained / "config.yaml", "--weights", trained / "model.pth"]
    flags += ["--output", path, "--window", "64", "--resolution", "0.3"]
    flags += ["--classes", *CLASSES, "--check", images]
    assert export.main(list(map(str, flags))) == 0
    return path
