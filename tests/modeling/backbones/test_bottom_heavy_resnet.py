"""The bottom-heavy ResNet: cost, shapes, equality with an independent construction."""

import pytest
import torch
import torchvision
from detectron2.modeling import BACKBONE_REGISTRY
from fvcore.nn import FlopCountAnalysis
from torch import nn

from rsd2.modeling import BottomHeavyResNet

PLAIN = {"stem_kernel_size": 7, "stem_stride": 2, "stage_strides": (1, 2, 2, 2)}
BASIC = {"bottleneck": False}
# parameters, multiply-adds of the convolutions at 224 x 224: the table of the method
COSTS = {
    "BH-50": ({}, 10_948_160, 4_094_361_600),
    "R-50": ({**PLAIN, "depths": (3, 4, 6, 3)}, 23_508_032, 4_087_136_256),
    "R-50 stem, 7 6 2 1": (PLAIN, 10_955_840, 4_087_136_256),
    "BH-26": ({"depths": (8, 4, 4, 1)}, 12_692_800, 4_312_727_552),
    "BH-18": ({**BASIC, "depths": (3, 2, 2, 1)}, 6_526_400, 1_795_096_576),
    "R-18": ({**BASIC, **PLAIN, "depths": (2, 2, 2, 2)}, 11_176_512, 1_813_561_344),
    "BH-10": ({**BASIC, "depths": (3, 1, 1, 1)}, 5_050_304, 1_332_674_560),
    "BH-34": ({**BASIC, "depths": (7, 6, 2, 1)}, 8_004_032, 3_644_784_640),
    "BH-101": ({"depths": (14, 12, 5, 2)}, 20_935_488, 7_806_582_784),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomize_norms(module):
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)


def small(**options):
    return BottomHeavyResNet(**{"depths": (2, 1, 1, 1), "bottleneck": False, "width": 8, **options})


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_multiply_adds_are_the_table_s(name):
    options, parameters, multiply_adds = COSTS[name]
    with torch.device("meta"):
        model = BottomHeavyResNet(**options).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    # The work is linear in the area: 64 x 64 costs (64 / 224)^2 of it.
    analysis = FlopCountAnalysis(model.to_empty(device="cpu"), torch.zeros(1, 3, 64, 64))
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    assert analysis.by_operator()["conv"] * 49 == multiply_adds * 4


@pytest.mark.parametrize("stem", ["bottom-heavy", "plain"])
def test_equals_torchvision_s_resnet_rebuilt(stem):
    theirs = torchvision.models.resnet.ResNet(
        torchvision.models.resnet.Bottleneck,
        [7, 6, 2, 1] if stem == "bottom-heavy" else [3, 4, 6, 3],
    ).eval()
    if stem == "bottom-heavy":
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        theirs.inplanes = 64
        theirs.layer1 = theirs._make_layer(
            torchvision.models.resnet.Bottleneck, 64, 7, stride=2
        ).eval()
    randomize_norms(theirs)
    options = {} if stem == "bottom-heavy" else COSTS["R-50"][0]
    ours = BottomHeavyResNet(**options).eval()
    copy_convolution(theirs.conv1, theirs.bn1, ours.stem.conv1)
    for index in range(1, 5):
        for a, b in zip(getattr(theirs, f"layer{index}"), getattr(ours, f"res{index + 1}")):
            for k in (1, 2, 3):
                copy_convolution(
                    getattr(a, f"conv{k}"), getattr(a, f"bn{k}"), getattr(b, f"conv{k}")
                )
            assert (a.downsample is None) == (b.shortcut is None)
            if a.downsample is not None:
                copy_convolution(a.downsample[0], a.downsample[1], b.shortcut)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = ours(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for index in range(1, 5):
            y = getattr(theirs, f"layer{index}")(y)
            scale = y.abs().max()
            assert torch.allclose(features[f"res{index + 1}"] / scale, y / scale, atol=1e-5)


def copy_convolution(conv, norm, target):
    target.weight.data.copy_(conv.weight)
    target.norm.load_state_dict(norm.state_dict())


def test_shapes_of_an_input_of_the_paper_s_size():
    with torch.device("meta"):
        model = BottomHeavyResNet(out_features=("stem", "res2", "res3", "res4", "res5"))
        found = {k: tuple(v.shape[1:]) for k, v in model(torch.zeros(1, 3, 512, 640)).items()}
    assert found == {
        "stem": (64, 256, 320),
        "res2": (256, 128, 160),
        "res3": (512, 64, 80),
        "res4": (1024, 32, 40),
        "res5": (2048, 16, 20),
    }
    strides = {name: shape.stride for name, shape in model.output_shape().items()}
    assert strides == {"stem": 2, "res2": 4, "res3": 8, "res4": 16, "res5": 32}


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        PLAIN,
        {"stem_pool": False, "stem_stride": 2},
        {"stem_pool": False, "stage_strides": (1, 2, 2, 2)},  # for 32-px images
    ],
)
def test_output_shape_is_what_forward_gives(options, bottleneck, antialias):
    model = small(**options, bottleneck=bottleneck, antialias=antialias).train()
    images = torch.randn(2, 3, 64, 96)
    outputs = model(images)
    for name, shape in model.output_shape().items():
        size = (2, shape.channels, 64 // shape.stride, 96 // shape.stride)
        assert outputs[name].shape == size
    sum(v.sum() for v in outputs.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_antialiased_model_has_the_same_weights_and_no_strided_convolution():
    plain, filtered = small(), small(antialias=True)
    assert plain.state_dict().keys() == filtered.state_dict().keys()
    convs = [m for m in filtered.modules() if isinstance(m, nn.Conv2d)]
    assert {m.stride for m in convs} == {(1, 1)}


def test_the_filtered_shortcut_is_the_original_s_order():
    block = small(antialias=True).eval().res3[0]
    x = torch.randn(1, 8, 12, 12)
    # The original projects at full resolution, then filters, then normalises.
    projection = nn.functional.conv2d(x, block.shortcut.weight)
    kernel = block.blur.kernel[:1].expand(projection.shape[1], -1, -1, -1)
    filtered = nn.functional.conv2d(
        projection, kernel, stride=2, padding=1, groups=projection.shape[1]
    )
    expected = block.shortcut.norm(filtered)
    assert torch.allclose(block.shortcut(block.shortcut_blur(x)), expected, atol=1e-5)


def test_a_shifted_image_changes_filtered_features_less():
    torch.manual_seed(3)
    wide = torch.randn(1, 3, 64, 98)
    changes = []
    for antialias in (False, True):
        torch.manual_seed(0)
        model = small(antialias=antialias, out_features=("stem",)).eval()
        # One pixel of the image is half a pixel of the stem's map.
        with torch.no_grad():
            a, b, c = (model(wide[..., k : k + 96])["stem"] for k in (0, 1, 2))
        middle = (a + c)[..., 2:-2] / 2
        changes.append(float((b[..., 2:-2] - middle).norm() / middle.norm()))
    assert changes[1] < changes[0]


def test_norm_eval_keeps_statistics_and_trains_the_affine_part():
    model = small(norm_eval=True)
    randomize_norms(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.train() is model and model.training
    model(torch.randn(2, 3, 64, 64))["res5"].sum().backward()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(not m.training and m.weight.grad is not None for m in norms)


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, ()), (1, ("stem",)), (2, ("stem", "res2"))])
def test_freezes_the_first_stages(freeze_at, frozen):
    model = small(freeze_at=freeze_at)
    parts = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert parts == set(frozen)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert name.split(".")[0] not in frozen


def test_a_block_starts_as_an_identity_if_wanted():
    x = torch.rand(1, 3, 32, 32)
    zero, ordinary = (small(zero_init_residual=flag).eval() for flag in (True, False))
    for model, equal in ((zero, True), (ordinary, False)):
        stem = model.stem(x)
        first = model.res2[0](stem)
        assert torch.equal(model.res2[1](first), first) == equal


def test_is_found_by_name():
    assert BACKBONE_REGISTRY.get("BottomHeavyResNet") is BottomHeavyResNet


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "must have the same length"),
        ({"depths": (1, 0, 1, 1)}, "must have the same length"),
        ({"stage_strides": (2, 4, 2, 2)}, "must be 1 or 2"),
        ({"norm_eval": True, "norm": "GN"}, "norm_eval needs BatchNorm"),
        ({"stem_kernel_size": 4}, "odd kernel_size"),
        ({"stem_stride": 4}, "stride of 1 or 2, got 3 and 4"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
