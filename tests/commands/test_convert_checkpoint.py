"""tools/convert_checkpoint.py through its command line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from rsd2.commands import convert_checkpoint as tool

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from torch import nn


class Model(nn.Module):
    def __init__(self, backbone, width=2):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, width)


model = L(Model)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=18, block_class=BasicBlock, norm="FrozenBN"),
        out_features=["res5"],
    ),
    width=2,
)
"""


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(CONFIG)
    return path


def arguments(source, path, output, *more):
    return ["--source", source, "--input", str(path), "--output", str(output), *map(str, more)]


def test_torchvision_backbone(resnet_file, config_file, tmp_path, capsys):
    output = tmp_path / "r18.pth"
    more = ("--config-file", config_file)
    assert tool.main(arguments("torchvision-resnet", resnet_file, output, *more)) == 0
    text = capsys.readouterr().out
    assert "2 keys of the model outside the backbone" in text
    assert "fc.weight: classifier" in text
    assert "RGB" in text
    content = torch.load(output, weights_only=True)
    assert list(content) == ["model"]
    expected = torch.load(resnet_file, weights_only=True)
    assert torch.equal(content["model"]["backbone.stem.conv1.weight"], expected["conv1.weight"])
    # FrozenBN: weight, bias and two statistics of each of the 20 norms, and 20 convolutions
    assert len(content["model"]) == 100
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_detectron2_pickle(tmp_path):
    path, output = tmp_path / "R-50.pkl", tmp_path / "out.pth"
    weight = np.random.randn(2, 2).astype(np.float32)
    path.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": weight}, "__author__": "x"}))
    assert tool.main(arguments("detectron2", path, output)) == 0
    state = torch.load(output, weights_only=True)["model"]
    assert torch.equal(state["backbone.stem.conv1.weight"], torch.from_numpy(weight))


@pytest.fixture
def ars_file(tmp_path):
    path = tmp_path / "ars.pth"
    state = {
        "bbox_head.cls_branches.0.weight": torch.arange(3.0)[:, None].repeat(1, 2),
        "bbox_head.cls_branches.1.weight": torch.arange(3.0)[:, None].repeat(1, 2),
    }
    torch.save({"state_dict": state}, path)
    return path


def test_classes_are_permuted_by_names_from_files_or_the_command_line(ars_file, tmp_path):
    (tmp_path / "theirs.txt").write_text("ship\nplane\ndam\n\n")
    output = tmp_path / "out.pth"
    classes = ("--source-classes", tmp_path / "theirs.txt", "--target-classes", "plane", "dam")
    assert tool.main(arguments("ars-detr", ars_file, output, *classes)) == 0
    state = torch.load(output, weights_only=True)["model"]
    assert state["heads.class_heads.0.weight"][:, 0].tolist() == [1.0, 2.0]
    assert state["heads.class_heads.1.weight"][:, 0].tolist() == [0.0, 1.0]


def test_classes_are_permuted_between_orders_known_by_name(tmp_path):
    path, output = tmp_path / "ars.pth", tmp_path / "out.pth"
    rows = torch.arange(20.0)[:, None].repeat(1, 2)
    state = {f"bbox_head.cls_branches.{index}.weight": rows for index in range(2)}
    torch.save({"state_dict": state}, path)
    classes = ("--source-classes", "dior_r:ars_detr", "--target-classes", "dior_r:rsd2")
    assert tool.main(arguments("ars-detr", path, output, *classes)) == 0
    heads = torch.load(output, weights_only=True)["model"]
    order = heads["heads.class_heads.0.weight"][:, 0].tolist()
    assert order == [0, 1, 2, 3, 4, 5, 8, 6, 7, *range(9, 20)], "the dam stands elsewhere"
    # the last head is the encoder's, whose first row is any object
    assert heads["heads.class_heads.1.weight"][:, 0].tolist() == list(range(20))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["--source-classes", "dior_r:x", "--target-classes", "a"], "no class order 'x' of dior_r"),
        (["--source-classes", "a"], "go together"),
        (["--source-classes", "a", "--target-classes", "b"], r"no class \['b'\]"),
    ],
)
def test_wrong_classes(ars_file, tmp_path, capsys, classes, message):
    output = tmp_path / "out.pth"
    assert tool.main(arguments("ars-detr", ars_file, output, *classes)) == 2
    assert message.replace("\\", "") in capsys.readouterr().err
    assert not output.exists()


def test_unknown_keys_stop_it_unless_allowed(tmp_path, capsys):
    path, output = tmp_path / "ars.pth", tmp_path / "out.pth"
    torch.save({"neck.convs.0.gn.bias": torch.ones(2), "stranger": torch.ones(1)}, path)
    assert tool.main(arguments("ars-detr", path, output)) == 1
    captured = capsys.readouterr()
    assert "unknown     stranger" in captured.out
    assert "--allow-mismatch" in captured.err
    assert not output.exists()
    assert tool.main(arguments("ars-detr", path, output, "--allow-mismatch")) == 0
    assert list(torch.load(output, weights_only=True)["model"]) == ["neck.projections.0.1.bias"]


def test_mismatched_and_missing_keys_stop_it(config_file, tmp_path, capsys):
    path, output = tmp_path / "resnet.pth", tmp_path / "out.pth"
    torch.save({"conv1.weight": torch.ones(9, 3, 7, 7), "bn1.bias": torch.ones(64)}, path)
    command = arguments("torchvision-resnet", path, output, "--config-file", config_file)
    assert tool.main(command) == 1
    captured = capsys.readouterr()
    assert "backbone.stem.conv1.weight: (9, 3, 7, 7) vs (64, 3, 7, 7)" in captured.out
    assert "--allow-mismatch" in captured.err
    assert "--allow-missing" in captured.err
    assert tool.main([*command, "--allow-mismatch"]) == 1
    assert not output.exists()
    assert tool.main([*command, "--allow-mismatch", "--allow-missing"]) == 0
    assert list(torch.load(output, weights_only=True)["model"]) == ["backbone.stem.conv1.norm.bias"]


def test_overrides_reach_the_config(resnet_file, config_file, tmp_path, capsys):
    command = arguments("torchvision-resnet", resnet_file, tmp_path / "out.pth")
    command += ["--config-file", str(config_file)]
    assert tool.main([*command, "model.width=7"]) == 0
    assert tool.main([*command, "model.widthx=7"]) == 2
    assert "did you mean model.width?" in capsys.readouterr().err


def test_file_of_another_kind(resnet_file, tmp_path, capsys):
    output = tmp_path / "out.pth"
    flags = ("--allow-mismatch", "--allow-missing")
    assert tool.main(arguments("ars-detr", resnet_file, output, *flags)) == 1
    assert "no key" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "nowhere.pth"}, "no checkpoint at"),
        ({"output": "out.pkl"}, "must end in .pth"),
        ({"output": "no_folder/out.pth"}, "does not exist"),
        ({"config": "nowhere.py"}, "no config file"),
        ({"extra": "model.x=1"}, "need --config-file"),
    ],
)
def test_wrong_arguments(resnet_file, tmp_path, capsys, change, message):
    path = tmp_path / change["input"] if "input" in change else resnet_file
    command = arguments("torchvision-resnet", path, tmp_path / change.get("output", "out.pth"))
    if "config" in change:
        command += ["--config-file", str(tmp_path / change["config"])]
    if "extra" in change:
        command.append(change["extra"])
    assert tool.main(command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_input_is_never_replaced(resnet_file, capsys):
    before = resnet_file.read_bytes()
    assert tool.main(arguments("torchvision-resnet", resnet_file, resnet_file)) == 2
    assert "is the input itself" in capsys.readouterr().err
    assert resnet_file.read_bytes() == before


def test_failing_write_leaves_the_old_file(resnet_file, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.pth"
    output.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert tool.main(arguments("torchvision-resnet", resnet_file, output)) == 2
    assert "No space left" in capsys.readouterr().err
    assert output.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [output]


def test_malicious_file_is_refused(tmp_path, capsys):
    witness, path = tmp_path / "witness", tmp_path / "evil.pkl"

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {witness}",))

    path.write_bytes(pickle.dumps({"model": Evil()}))
    assert tool.main(arguments("detectron2", path, tmp_path / "out.pth")) == 2
    assert "refused" in capsys.readouterr().err
    assert not witness.exists()
    assert not (tmp_path / "out.pth").exists()


def test_real_config_takes_a_torchvision_resnet_50(tmp_path):
    path, output = tmp_path / "resnet50.pth", tmp_path / "out.pth"
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), path)
    config = ROOT / "configs" / "common" / "models" / "rotated_deformable_detr_r50.py"
    more = ("--config-file", config, "model.encoder.num_layers=1", "model.decoder.num_layers=1")
    assert tool.main(arguments("torchvision-resnet", path, output, *more)) == 0
    assert len(torch.load(output, weights_only=True)["model"]) == 5 * 53


def test_official_pre_training_checkpoint_without_a_backbone(golden_rule, tmp_path, capsys):
    path, output = tmp_path / "mutdet.pth", tmp_path / "out.pth"
    state = {key: torch.zeros(shape) for key, shape in golden_rule.pretraining_shapes().items()}
    torch.save({"meta": {"epoch": 36}, "state_dict": state, "optimizer": {}}, path)
    config = ROOT / "projects" / "MutDet" / "configs" / "mutdet_r50_dota_pretrain_official.py"
    command = arguments("mutdet", path, output, "--config-file", config)
    assert tool.main(command) == 0
    # 53 convolutions, each with a frozen norm of four tensors
    assert "the file has no backbone: 265 keys keep their initial values" in capsys.readouterr().out
    assert len(torch.load(output, weights_only=True)["model"]) == len(state)

    output.unlink()
    del state["bbox_head.transformer.query_embed.weight"]
    torch.save({"state_dict": state | {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}}, path)
    assert tool.main(command) == 1
    captured = capsys.readouterr()
    assert "missing     query_embed.weight" in captured.out
    assert "missing     backbone.res5.2.conv3.weight" in captured.out
    assert not output.exists()


PYRAMID = CONFIG.replace(
    "backbone=L(ResNet)(",
    "backbone=L(FPN)(in_features=['res2'], out_channels=4, bottom_up=L(ResNet)(",
).replace('["res5"],\n    ),', '["res2"],\n    )),')
PYRAMID = "from detectron2.modeling.backbone.fpn import FPN\n" + PYRAMID


def test_a_classifier_goes_into_a_pyramid(resnet_file, tmp_path, capsys):
    path, output, config = tmp_path / "bh.pth", tmp_path / "out.pth", tmp_path / "model.py"
    config.write_text(PYRAMID)
    state = torch.load(resnet_file, weights_only=True)
    state = {f"backbone.{k}": v for k, v in state.items() if k[:2] != "fc" and "layer" not in k}
    source = torchvision.models.resnet18(weights=None).layer1.state_dict()
    state |= {f"backbone.layer1.{key}": value for key, value in source.items()}
    state["head.fc.weight"] = torch.zeros(1000, 512)
    torch.save({"state_dict": state, "meta": {"epoch": 100}}, path)
    command = arguments("mmcls-resnet", path, output, "--config-file", config)
    assert tool.main(command) == 0
    text = capsys.readouterr().out
    assert "head.fc.weight: classifier" in text
    assert "6 keys of the model outside the backbone" in text  # lateral, output, linear
    found = torch.load(output, weights_only=True)["model"]
    assert all(key.startswith("backbone.bottom_up.") for key in found)
    key = "backbone.bottom_up.res2.1.conv2.weight"
    assert torch.equal(found[key], source["1.conv2.weight"])


def test_classes_of_an_sspnet_cannot_be_reordered(ars_file, tmp_path, capsys):
    classes = ("--source-classes", "a", "--target-classes", "a")
    assert tool.main(arguments("sspnet", ars_file, tmp_path / "out.pth", *classes)) == 2
    assert "keeps the order of the classes" in capsys.readouterr().err


VIT_CONFIG = """
from detectron2.config import LazyCall as L
from torch import nn

from rsd2.modeling import SimplePyramid, VisionTransformer


class Model(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, 2)


model = L(Model)(
    backbone=L(SimplePyramid)(
        net=L(VisionTransformer)(
            patch_size=8, embed_dim=16, depth=2, num_heads=2, window_size=2, global_blocks=[1],
            use_relative_positions=True, relative_position_size=[4, 4], final_norm=True,
        ),
        out_channels=8, scale_factors=[1.0, 0.5],
    ),
)
"""


@pytest.fixture
def jepa_file(tmp_path):
    from rsd2.modeling import VisionTransformer

    encoder = VisionTransformer(patch_size=8, embed_dim=16, depth=2, num_heads=2)
    state = {f"module.{key}": value for key, value in encoder.state_dict().items()}
    path = tmp_path / "jepa.pth"
    torch.save({"encoder": state, "target_encoder": state, "opt": {}, "epoch": 1}, path)
    return path


def test_vision_transformer_into_a_detector(jepa_file, tmp_path, capsys):
    config, output = tmp_path / "vit.py", tmp_path / "out.pth"
    config.write_text(VIT_CONFIG)
    assert tool.main(arguments("ijepa", jepa_file, output, "--config-file", config)) == 0
    text = capsys.readouterr().out
    assert "4 tables of relative positions start at zero" in text
    # two levels of two convolutions with a norm each, and the head
    assert "14 keys of the model outside the backbone" in text
    assert "train.init_inherit.file_part=backbone.net" in text
    state = torch.load(output, weights_only=True)["model"]
    source = torch.load(jepa_file, weights_only=True)["target_encoder"]
    assert set(state) == {"backbone.net." + key.removeprefix("module.") for key in source}
    lacking = ["--config-file", config, "model.backbone.net.depth=3"]
    output.unlink()
    assert tool.main(arguments("ijepa", jepa_file, output, *lacking)) == 1
    assert not output.exists()
    assert "keys of the model get no value" in capsys.readouterr().err
