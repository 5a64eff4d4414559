"""Official checkpoints of MICML, DSFNet and DLA-34: every key accounted for, in every direction.

What a converted checkpoint computes is tested in ``test_golden_micml.py``.
"""

from __future__ import annotations

import torch

from rsd2.commands import convert_checkpoint as tool
from rsd2.commands.convert_checkpoint import rules_for
from rsd2.projects.micml.dla import StaticBranch
from rsd2.projects.micml.dynamic import DynamicBranch
from rsd2.projects.micml.micml import MICML
from rsd2.projects.micml.motion import MotionModule
from rsd2.weights.conversion import convert_state_dict

MOTION, CELLS = "base3d.Motion.", "base3d.Motion.cell_list2."


def build(*, motion=True, static=True, dynamic=True, official_layout=False) -> MICML:
    return MICML(
        static=StaticBranch(official_layout=official_layout) if static else None,
        dynamic=DynamicBranch(motion=MotionModule() if motion else None) if dynamic else None,
    )


def convert(source, state, model):
    return convert_state_dict(state, rules_for(source, state), model.state_dict())


def dsfnet(official):
    return {key: value for key, value in official.items() if not key.startswith(MOTION)}


def test_the_checkpoint_is_the_published_one(official):
    assert len(official) == 615
    counters = [key for key in official if key.endswith("num_batches_tracked")]
    statistics = [key for key in official if ".running_" in key]
    copies = [key for key in official if key.startswith(CELLS)]
    assert (len(counters), len(statistics), len(copies)) == (79, 158, 6)
    rest = set(official) - {*counters, *statistics, *copies}
    assert len(rest) == 372
    assert sum(official[key].numel() for key in rest) == 17_814_031


def test_official_layout_takes_everything(official):
    model = build(official_layout=True)
    state, report = convert("micml", official, model)
    assert not report.unknown and not report.mismatched and not report.missing
    assert len(report.dropped) == 79 + 6
    assert sum(p.numel() for p in model.parameters()) == 17_814_031
    parameters = {name for name, _ in model.named_parameters()}
    assert sum(state[name].numel() for name in parameters) == 17_814_031


def test_the_default_leaves_out_what_the_program_never_uses(official):
    model = build()
    _, report = convert("micml", official, model)
    assert not report.unknown and not report.mismatched and not report.missing
    dead = [key for key, why in report.dropped.items() if "never used" in why]
    parameters = [key for key in dead if ".running_" not in key]
    assert len(parameters) == 24
    assert sum(official[key].numel() for key in parameters) == 9_091_840
    assert sum(p.numel() for p in model.parameters()) == 17_814_031 - 9_091_840


def test_a_dsfnet_fills_a_dsfnet_and_all_of_a_micml_but_its_motion(official):
    state = dsfnet(official)
    assert len(state) == 615 - 30
    _, report = convert("dsfnet", state, build(motion=False))
    assert not report.unknown and not report.mismatched and not report.missing
    _, report = convert("dsfnet", state, build())
    assert not report.unknown and not report.mismatched
    assert report.missing and all(key.startswith("dynamic.motion.") for key in report.missing)


def test_a_micml_fills_a_dsfnet(official):
    _, report = convert("micml", official, build(motion=False))
    assert not report.unknown and not report.mismatched and not report.missing
    assert "the model has none" in report.dropped[MOTION + "w0.weight"]


def test_the_static_variant(official):
    state = {key: value for key, value in dsfnet(official).items() if not key.startswith("base3d")}
    model = build(dynamic=False)
    _, report = convert("dsfnet", state, model)
    assert not report.unknown and not report.mismatched and not report.missing
    assert sum(p.numel() for p in model.parameters()) == 16_465_373 - 9_091_840


def test_the_dynamic_variant_has_one_aggregation_at_the_root(official):
    """Its ``dla_up`` has the shapes of the full model's ``base3d.dla_up``."""
    state = {
        key.replace("base3d.dla_up.", "dla_up."): value
        for key, value in dsfnet(official).items()
        if key.startswith(("base3d.", "ida_up.", "hm.", "wh.", "reg."))
    }
    model = build(static=False, motion=False)
    found, report = convert("dsfnet", state, model)
    assert not report.unknown and not report.mismatched and not report.missing
    whole, _ = convert("dsfnet", dsfnet(official), build(motion=False))
    model.load_state_dict(found, strict=False)
    loaded = model.state_dict()
    assert loaded.keys() <= build(motion=False).state_dict().keys()
    for key in found:
        assert torch.equal(loaded[key], whole[key].to(loaded[key].dtype)), key


def test_parameters_of_the_variants():
    counts = [
        sum(p.numel() for p in build(**options).parameters())
        for options in (
            {"motion": False, "official_layout": True},
            {"dynamic": False, "official_layout": True},
            {"static": False, "motion": False},
            {"motion": False},
        )
    ]
    assert counts == [16_596_431, 16_465_373, 238_499, 7_504_591]


def test_a_new_order_of_the_classes_turns_the_heat_map_alone():
    state = {f"{head}.2.bias": torch.tensor([1.0, 2.0]) for head in ("hm", "wh", "reg")}
    found, _ = convert_state_dict(state, rules_for("micml", state), None, [1, 0])
    assert {name: value.tolist() for name, value in found.items()} == {
        "heads.hm.2.bias": [2, 1],
        "heads.wh.2.bias": [1, 2],
        "heads.reg.2.bias": [1, 2],
    }


def test_a_stranger_s_key_is_not_lost(official):
    _, report = convert("micml", {**official, "base.level6.weight": torch.zeros(1)}, build())
    assert report.unknown == ["base.level6.weight"]


def test_the_tool_writes_a_file_that_the_model_loads(official, repository, tmp_path, capsys):
    source, output = tmp_path / "official.pth", tmp_path / "ours.pth"
    state = {f"module.{key}": value.float() for key, value in official.items()}
    torch.save({"epoch": 55, "state_dict": state, "optimizer": {}}, source)
    config = repository / "projects" / "MICML" / "configs" / "models" / "micml_dla34.py"
    arguments = ["--input", str(source), "--output", str(output), "--config-file", str(config)]
    assert tool.main(["--source", "micml", *arguments]) == 0
    out = capsys.readouterr().out
    assert "unknown 0, shape mismatch 0, model keys without a value 0" in out
    assert "mean 127.4, std 21.05" in out
    model = build()
    loaded = torch.load(output, weights_only=True)["model"]
    missing = model.load_state_dict(loaded, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing)
    expected = official["hm.2.bias"].float()
    assert torch.equal(model.heads["hm"][2].bias, expected)


def test_the_tool_asks_before_motion_stays_random(official, repository, tmp_path, capsys):
    source, output = tmp_path / "official.pth", tmp_path / "ours.pth"
    torch.save({"state_dict": dsfnet(official)}, source)
    config = repository / "projects" / "MICML" / "configs" / "models" / "micml_dla34.py"
    arguments = ["--input", str(source), "--output", str(output), "--config-file", str(config)]
    assert tool.main(["--source", "dsfnet", *arguments]) == 1 and not output.exists()
    assert "--allow-missing" in capsys.readouterr().err
    assert tool.main(["--source", "dsfnet", *arguments, "--allow-missing"]) == 0
    capsys.readouterr()
    motion = ["model.dynamic.motion=null"]
    assert tool.main(["--source", "dsfnet", *arguments, *motion]) == 0


def test_the_tool_takes_the_backbone_of_imagenet(official, repository, tmp_path, capsys):
    source, output = tmp_path / "dla34.pth", tmp_path / "ours.pth"
    state = {key[5:]: value for key, value in official.items() if key.startswith("base.")}
    state |= {"fc.weight": torch.zeros(1000, 512, 1, 1), "fc.bias": torch.zeros(1000)}
    torch.save(state, source)
    config = repository / "projects" / "MICML" / "configs" / "models" / "micml_dla34.py"
    arguments = ["--input", str(source), "--output", str(output), "--config-file", str(config)]
    assert tool.main(["--source", "dla34", *arguments]) == 0
    assert "outside the backbone keep their initial values" in capsys.readouterr().out
    keys = torch.load(output, weights_only=True)["model"]
    assert keys and all(key.startswith("static.backbone.") for key in keys)
