"""tools/analyze_model.py: counts by hand of a small network."""

from pathlib import Path

import pytest

from rsd2.commands import analyze_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "engine"))
    import toy

    (tmp_path / "config.py").write_text(toy.CONFIG)
    return lambda *args: analyze_model.run(["--config-file", str(tmp_path / "config.py"), *args])


def test_counts_equal_those_by_hand(tool, capsys):
    totals = tool("--size", "65", "33", "--tasks", "parameter", "flop", "activation", "structure")
    convolution, norm, head = 4 * (3 * 9 + 1), 2 * 4, 4 + 1
    assert totals["parameters"] == convolution + norm + head
    outputs = 4 * 32 * 16  # stride 2, no padding
    assert totals["activations"] == outputs + 1
    assert outputs * 27 + 4 <= totals["flops"] <= outputs * 30 + 4
    out = capsys.readouterr().out
    assert "(backbone): Conv2d" in out and '"input": [65, 33]' in out
    # Four times the pixels is four times the convolution, about.
    assert tool("--size", "129", "65", "--tasks", "flop")["flops"] / totals["flops"] > 3.5


def test_overrides_reach_the_model_and_wrong_ones_are_named(tool):
    from rsd2.config import ConfigError

    wide = tool("--tasks", "parameter", "--opts", "model.channels=8")
    assert wide["parameters"] == 8 * 28 + 16 + 9
    with pytest.raises(ConfigError, match=r"did you mean model\.channels"):
        tool("--tasks", "parameter", "--opts", "model.chanels=8")
    with pytest.raises(SystemExit):
        tool("--size", "0", "5")


def test_attention_is_counted(tool):
    import torch

    class Attention(torch.nn.Module):
        def forward(self, batch):
            x = batch[0]["image"].float()[None]  # (1, 3 heads, 6 tokens, 4 channels)
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    totals = analyze_model.analyze(
        Attention().eval(), analyze_model.random_input(6, 4), ["flop"], 1
    )
    assert totals["flops"] == 3 * (6 * 6 * 4 + 6 * 6 * 4)


def test_a_clip_is_counted(tool):
    """The released MICML at a 64th of the area."""
    config = ROOT / "projects" / "MICML" / "configs" / "micml_dla34_rscardata.py"
    arguments = ["--config-file", str(config), "--size", "64", "64", "--num-frames", "5"]
    totals = analyze_model.run([*arguments, "--tasks", "parameter", "flop"])
    assert totals["parameters"] == 8_722_191
    convolutions = 66.04e9 / 64
    assert convolutions < totals["flops"] < 1.05 * convolutions  # norms and sampling on top
    with pytest.raises(SystemExit):
        analyze_model.run([*arguments, "--num-frames", "0"])


def test_the_config_says_whether_a_model_is_of_clips(tool):
    config = ROOT / "projects" / "MICML" / "configs" / "micml_small_synthetic_video.py"
    arguments = ["--config-file", str(config), "--size", "32", "32", "--tasks", "flop"]
    short, usual, default = (
        analyze_model.run([*arguments, *frames])["flops"]
        for frames in (("--num-frames", "3"), ("--num-frames", "5"), ())
    )
    assert short < usual == default
    config = ROOT / "configs" / "rotated_deformable_detr_small_synthetic.py"
    with pytest.raises(analyze_model.ConfigError, match="one of images; leave --num-frames out"):
        analyze_model.run(["--config-file", str(config), "--num-frames", "5", "--size", "32", "32"])
