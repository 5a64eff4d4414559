"""From a pre-training's checkpoint to a detector's backbone, through the files and the tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from rsd2.commands import convert_checkpoint as tool
from rsd2.config import load_config
from rsd2.modeling import VisionTransformer
from rsd2.testing import shrink
from rsd2.weights.checkpoint import Checkpointer
from rsd2.weights.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "projects" / "ObjectJEPA" / "configs"
DETECTORS = sorted(path.name for path in CONFIGS.glob("*_finetune.py"))


def build(name, *opts):
    """A config of this project and its model, both small."""
    cfg = shrink(load_config(CONFIGS / name, opts))
    return cfg, instantiate(cfg.model)


def load_into(name, path, *opts):
    cfg, model = build(name, *opts)
    inheritance = instantiate(cfg.train.init_inherit)
    Checkpointer(model, inheritance=inheritance).load(str(path), [])
    return model


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A checkpoint whose two encoders differ, by the patch size."""
    folder, files = tmp_path_factory.mktemp("pretrained"), {}
    for name in ("object_jepa_vit_s_dota_pretrain.py", "object_jepa_small_synthetic_pretrain.py"):
        torch.manual_seed(5)
        model = build(name)[1]
        for parameter in model.target_encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        path = folder / name.replace(".py", ".pth")
        torch.save({"model": model.state_dict()}, path)
        files[model.context_encoder.patch_size] = (model, path)
    return files


@pytest.mark.parametrize("part", ["context_encoder", "target_encoder"])
@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_takes_either_encoder(pretrained, name, part):
    source, path = pretrained[build(name)[1].backbone.net.patch_size]
    model = load_into(name, path, f"train.init_inherit.file_part={part}").eval()
    encoder, net = getattr(source, part).eval(), model.backbone.net
    for key, value in encoder.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
    images = torch.randn(1, 3, 2 * net.patch_size, 3 * net.patch_size)
    if net.position_mode == "interpolate":  # spread only over grids of another size
        net.position_grid = (2, 3)
    with torch.no_grad():
        assert torch.allclose(net.encode(images), encoder.encode(images), atol=1e-5)


def test_an_encoder_of_another_size_is_an_error_that_says_so(pretrained):
    _, path = pretrained[16]
    with pytest.raises(CheckpointError, match=r"of another shape: target_encoder\.patch_embed"):
        load_into("faster_rcnn_vit_small_synthetic_finetune.py", path)
    with pytest.raises(CheckpointError, match=r"missing from the file: encoder\.patch_embed"):
        load_into(DETECTORS[0], path, "train.init_inherit.file_part=encoder")


def test_mae_weights_start_a_pre_training_and_both_encoders(tmp_path, capsys):
    encoder = VisionTransformer(patch_size=8, embed_dim=32, depth=2, num_heads=2)
    state = encoder.state_dict()
    torch.save({"model": {**state, "mask_token": torch.zeros(1, 1, 4)}}, tmp_path / "mae.pth")
    config = CONFIGS / "object_jepa_small_synthetic_pretrain.py"
    output = tmp_path / "vit.pth"
    command = ["--source", "mae", "--input", str(tmp_path / "mae.pth"), "--output", str(output)]
    size = ["model.encoder.embed_dim=32", "model.encoder.depth=2", "model.encoder.num_heads=2"]
    assert tool.main([*command, "--config-file", str(config), *size]) == 0, capsys.readouterr()
    assert "train.init_strict=false" in capsys.readouterr().out
    converted = torch.load(output, weights_only=True)["model"]
    parts = ("context_encoder", "target_encoder")
    assert set(converted) == {f"{part}.{key}" for part in parts for key in state}
    for part in parts:
        assert all(torch.equal(converted[f"{part}.{key}"], value) for key, value in state.items())
