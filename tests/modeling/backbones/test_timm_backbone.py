"""Models of timm as backbones: strides, channels, frozen layers, weights, one step of training."""

import math
import subprocess
import sys

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone.fpn import FPN
from omegaconf import OmegaConf
from torch import nn

from rsd2.config import load_config
from rsd2.engine import optimizer_params
from rsd2.modeling import SimplePyramid, TimmBackbone
from rsd2.testing import shrink_backbone

timm = pytest.importorskip("timm")

SMALL = {  # a model of each family: strides of its maps
    "beit_base_patch16_224": [16],
    "caformer_s18": [4, 8, 16, 32],
    "coat_lite_tiny": [4, 8, 16, 32],
    "cspnext_tiny": [2, 4, 8, 16, 32],
    "davit_tiny": [4, 8, 16, 32],
    "deit_tiny_patch16_224": [16],
    "densenet121": [2, 4, 8, 16, 32],
    "dla34": [2, 4, 8, 16, 32],
    "edgenext_xx_small": [4, 8, 16, 32],
    "efficientformer_l1": [4, 8, 16, 32],
    "efficientvit_b0": [4, 8, 16, 32],
    "eva02_tiny_patch14_224": [14],
    "fasternet_t0": [4, 8, 16, 32],
    "fastvit_t8": [4, 8, 16, 32],
    "focalnet_tiny_srf": [4, 8, 16, 32],
    "gcvit_xxtiny": [4, 8, 16, 32],
    "ghostnet_050": [2, 4, 8, 16, 32],
    "hgnet_tiny": [4, 8, 16, 32],
    "hiera_tiny_224": [4, 8, 16, 32],
    "hrnet_w18_small": [2, 4, 8, 16, 32],
    "inception_next_atto": [4, 8, 16, 32],
    "lcnetv2_base": [4, 8, 16, 32],
    "mobilenetv3_small_050": [2, 4, 8, 16, 32],
    "mobilevit_xxs": [2, 4, 8, 16, 32],
    "mvitv2_tiny": [4, 8, 16, 32],
    "nest_tiny": [4, 8, 16],
    "pvt_v2_b0": [4, 8, 16, 32],
    "regnetx_002": [2, 4, 8, 16, 32],
    "repvit_m0_9": [4, 8, 16, 32],
    "res2net50_14w_8s": [2, 4, 8, 16, 32],
    "resnetv2_18": [2, 4, 8, 16, 32],
    "rexnet_100": [2, 4, 8, 16, 32],
    "starnet_s1": [4, 8, 16, 32],
    "swin_tiny_patch4_window7_224": [4, 8, 16, 32],
    "swinv2_cr_tiny_224": [4, 8, 16, 32],
    "swinv2_tiny_window8_256": [4, 8, 16, 32],
    "test_byobnet": [2, 4, 8, 16, 32],
    "test_convnext": [4, 8, 16, 32],
    "test_efficientnet": [2, 4, 8, 16, 32],
    "test_mambaout": [4, 8, 16, 32],
    "test_maxvit": [2, 4, 8, 16, 32],
    "test_nfnet": [2, 4, 8, 16, 32],
    "test_resnet": [2, 4, 8, 16, 32],
    "test_vit": [16],
    "tf_efficientnet_lite0": [2, 4, 8, 16, 32],
    "tiny_vit_5m_224": [4, 8, 16, 32],
    "twins_svt_small": [4, 8, 16, 32],
    "vgg11": [1, 2, 4, 8, 16, 32],
    "visformer_tiny": [8, 16, 32],
    "vit_small_patch16_dinov3": [16],
    "vovnet39a": [2, 4, 8, 16, 32],
    "xcit_nano_12_p8_224": [8],
}


@pytest.mark.parametrize("name", SMALL)
def test_strides_and_channels_are_those_of_the_maps(name):
    with torch.device("meta"):
        model = TimmBackbone(name)
        # Some of them take no other size than that of their weights.
        side = timm.get_pretrained_cfg(name).input_size[-1]
        maps = model(torch.zeros(2, 3, side, side))
    shapes = model.output_shape()
    assert [shape.stride for shape in shapes.values()] == SMALL[name]
    assert list(shapes) == list(maps) == [f"stride{stride}" for stride in SMALL[name]]
    for key, value in maps.items():
        cells = side // shapes[key].stride
        assert value.shape == (2, shapes[key].channels, cells, cells)
    assert model.size_divisibility == math.lcm(*SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(timm.list_modules()))
def test_a_model_of_every_family_builds_with_the_strides_that_timm_states(family):
    name = timm.list_models(module=family)[0]
    with torch.device("meta"):
        shapes = TimmBackbone(name).output_shape()
        info = timm.create_model(name, features_only=True).feature_info
    # Later maps replace earlier ones of the same stride.
    stated = dict(zip(info.reduction(), info.channels()))
    assert {shape.stride: shape.channels for shape in shapes.values()} == stated


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "test_vit", "test_convnext", "test_resnet"]
)
def test_images_of_any_size_that_the_strides_divide(name):
    with torch.device("meta"):
        model = TimmBackbone(name, out_features=["last_feat"])
        (value,) = model(torch.zeros(1, 3, 96, 160)).values()
    stride = model.output_shape()["last_feat"].stride
    assert value.shape[2:] == (96 // stride, 160 // stride)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_mambaout"])
def test_a_pyramid_on_top_trains_a_step(name):
    torch.manual_seed(0)
    bottom_up = TimmBackbone(name, out_features=["stride8", "stride16", "stride32"])
    model = FPN(bottom_up, ["stride8", "stride16", "stride32"], 32)
    check_step(model, 3)


def test_the_simple_pyramid_takes_the_last_map_of_a_plain_transformer():
    torch.manual_seed(0)
    net = TimmBackbone("test_vit", out_features=["last_feat"])
    model = SimplePyramid(net, out_channels=16)
    assert [shape.stride for shape in model.output_shape().values()] == [4, 8, 16, 32]
    assert model.size_divisibility == 32
    check_step(model, 3)


@pytest.mark.parametrize("in_channels", [1, 4])
def test_images_with_other_channels_train_a_step(in_channels):
    torch.manual_seed(0)
    check_step(TimmBackbone("test_resnet", in_channels=in_channels), in_channels)


def check_step(model, in_channels):
    """Every parameter gets a gradient, and a step against it lowers a loss."""
    images = torch.rand(2, in_channels, 64, 64)

    def loss():
        return sum(x.square().mean() for x in model(images).values())

    first = loss()
    first.backward()
    parameters = list(model.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    torch.optim.SGD(parameters, lr=1e-4).step()
    assert loss() < first


def trained(model):
    return {name for name, parameter in model.net.named_parameters() if parameter.requires_grad}


def test_frozen_stages_keep_weights_and_statistics():
    model = TimmBackbone("resnet18", freeze_at=2, out_features=["stride8", "stride32"])
    names = {name for name, _ in model.net.named_parameters()}
    # Frozen norms have no parameters any more.
    assert {name.split(".")[0] for name in names - trained(model)} == {"conv1", "layer1"}
    assert {name.split(".")[0] for name in trained(model)} == {"layer2", "layer3", "layer4"}

    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()(torch.randn(2, 3, 64, 64))
    changed = {k.split(".")[1] for k, v in model.state_dict().items() if not v.equal(before[k])}
    assert changed == {"layer2", "layer3", "layer4"}


def test_frozen_blocks_of_a_plain_transformer():
    model = TimmBackbone("test_vit", freeze_at=2, out_features=["last_feat"])
    frozen = {name for name, _ in model.net.named_parameters()} - trained(model)
    blocks = {name.split(".")[2] for name in frozen if ".blocks." in name}
    assert blocks == {"0", "1"}
    assert any("patch_embed" in name for name in frozen) and any("pos_embed" in n for n in frozen)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_a_frozen_norm_computes_what_the_norm_computes_in_evaluation(name):
    torch.manual_seed(0)
    model = TimmBackbone(name).eval()
    frozen = TimmBackbone(name, frozen_norm=True).train()
    frozen.load_state_dict(model.state_dict(), strict=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    images = torch.randn(2, 3, 64, 64)
    for own, other in zip(model(images).values(), frozen(images).values()):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize(
    "name", ["resnet18", "test_vit", "test_convnext", "test_efficientnet", "test_mambaout"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_classifier_give_the_maps_of_the_classifier(name, suffix, tmp_path):
    torch.manual_seed(0)
    classifier = timm.create_model(name).eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": classifier.state_dict()}, path)
    else:
        from safetensors.torch import save_file

        save_file(classifier.state_dict(), path)

    model = TimmBackbone(name, out_features=["last_feat"], weights=str(path)).eval()
    side = classifier.pretrained_cfg["input_size"][-1]
    images = torch.randn(1, 3, side, side)
    expected = classifier.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
    torch.testing.assert_close(model(images)["last_feat"], expected)


@pytest.mark.parametrize("in_channels", [1, 4])
def test_weights_of_three_channels_are_adapted(in_channels, tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "weights.pth")
    model = TimmBackbone(
        "test_resnet", in_channels=in_channels, weights=str(tmp_path / "weights.pth")
    )
    first = next(value for value in model.net.parameters() if value.ndim == 4)
    source = next(value for value in state.values() if value.ndim == 4)
    if in_channels == 1:
        torch.testing.assert_close(first, source.sum(1, keepdim=True))
    else:  # copies, whose sum keeps its range
        torch.testing.assert_close(first, source[:, [0, 1, 2, 0]] * 3 / 4)


def test_weights_for_the_same_bands_are_taken_as_they_are(tmp_path):
    state = timm.create_model("resnet18", in_chans=13, num_classes=0).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    model = TimmBackbone("resnet18", in_channels=13, weights=str(tmp_path / "weights.pth"))
    for key, value in model.net.state_dict().items():
        assert value.equal(state[key]), key


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(ValueError, match=r"weights\.pth does not fill the model: .* is missing"):
        TimmBackbone("test_convnext", weights=str(path))
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        TimmBackbone("test_convnext", weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize("kind", ["text.pth", "text.safetensors", "whole_model.pth", "list.pth"])
def test_files_that_are_no_state_dict_are_refused_by_name(kind, tmp_path):
    path = tmp_path / kind
    if kind.startswith("text"):
        path.write_bytes(b"hello")
    else:
        torch.save([1] if kind == "list.pth" else nn.Linear(1, 1), path)
    with pytest.raises(ValueError, match=f"{kind} cannot be read as a state dict: .*save the"):
        TimmBackbone("test_resnet", weights=str(path))


def test_mean_and_deviation_are_those_of_the_weights():
    model = TimmBackbone("test_resnet")
    cfg = timm.get_pretrained_cfg("test_resnet")
    assert model.pixel_mean == pytest.approx([255 * value for value in cfg.mean])
    assert model.pixel_std == pytest.approx([255 * value for value in cfg.std])


@pytest.mark.parametrize("detector", ["rotated_deformable_detr", "rotated_faster_rcnn"])
@pytest.mark.parametrize("backbone", ["convnext_tiny", "swin_tiny", "dinov3_sat"])
def test_models_of_the_configs_fit_their_backbones(detector, backbone, repository):
    cfg = load_config(repository / "configs" / f"{detector}_{backbone}_dota.py").model
    with torch.device("meta"):
        built = instantiate(cfg.backbone)
    if "neck" in cfg:
        shapes = {key: instantiate(node) for key, node in cfg.neck.input_shapes.items()}
        assert {key: built.output_shape()[key] for key in shapes} == shapes
        assert set(cfg.neck.in_features) <= set(shapes)
    else:
        strides = [shape.stride for shape in built.output_shape().values()]
        assert strides == cfg.proposal_generator.anchor_generator.strides

    # The weights come from images normalised with these numbers.
    (net,) = (module for module in built.modules() if isinstance(module, TimmBackbone))
    assert cfg.pixel_mean == pytest.approx(net.pixel_mean)
    assert cfg.pixel_std == pytest.approx(net.pixel_std)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("swin_tiny_patch4_window7_224", "test_convnext"),
        ("resnet50", "test_resnet"),
        ("vit_small_patch16_dinov3", "test_vit"),
    ],
)
def test_shrink_takes_a_small_model_with_the_same_maps(name, small):
    cfg = {"_target_": "rsd2.modeling.TimmBackbone", "name": name, "freeze_at": 3}
    cfg = OmegaConf.create(cfg | {"options": {"drop_path_rate": 0.1}, "weights": "absent.pth"})
    before = SMALL.get(name, [2, 4, 8, 16, 32])
    shrink_backbone(cfg)
    assert cfg.name == small and cfg.options.drop_path_rate == 0.1
    assert [shape.stride for shape in instantiate(cfg).output_shape().values()] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, r"has no model 'resnet19'; near it: \['resnet1"),
        ({"name": "test_vit", "out_features": ["stride8"]}, r"no maps \['stride8'\]; it has"),
        ({"name": "test_resnet", "freeze_at": 6}, "freeze_at must be in 0 to 5"),
        ({"name": "test_resnet", "weights": "a", "pretrained": True}, "not both"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**arguments)


def test_a_map_of_another_size_than_its_stride_says_is_refused():
    with pytest.raises(ValueError, match="70 x 64 pixels .* pad images to multiples of 32"):
        TimmBackbone("test_resnet")(torch.zeros(1, 3, 70, 64))


def test_without_timm_the_others_work_and_this_one_names_the_remedy():
    code = "import sys; sys.modules['timm'] = None\n" + (
        "from rsd2.modeling import TimmBackbone\n"
        "try:\n    TimmBackbone('resnet18')\n"
        "except ImportError as error:\n    print(error)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "pip install 'rsd2[timm]'" in output


DEPTHS = {  # a parameter of the maps -> its depth: a stem, then one for each block
    "test_vit": {
        "patch_embed.proj.weight": 0,
        "blocks.0.norm1.weight": 1,
        "blocks.5.norm1.bias": 6,
    },
    "convnext_tiny": {
        "stem_0.weight": 0,
        "stages_0.blocks.2.gamma": 3,
        "stages_1.blocks.0.gamma": 4,
        "stages_3.blocks.2.gamma": 18,
    },
    "swin_tiny_patch4_window7_224": {
        "patch_embed.proj.weight": 0,
        "layers_0.blocks.1.norm1.weight": 2,
        "layers_1.blocks.0.norm1.weight": 3,
        "layers_3.blocks.1.norm1.weight": 12,
    },
    "resnet18": {"conv1.weight": 0, "layer1.0.conv1.weight": 1, "layer4.1.conv1.weight": 8},
    "tf_efficientnet_lite0": {"conv_stem.weight": 0, "blocks.1.0.conv_pw.weight": 2},
}


@pytest.mark.parametrize("name", DEPTHS)
def test_learning_rates_fall_with_the_depth_in_every_family(name):
    with torch.device("meta"):
        model = nn.ModuleDict({"backbone": TimmBackbone(name), "head": nn.Linear(2, 2)})
    depths = model["backbone"].layer_depths()
    found = {key.removeprefix("net.").removeprefix("model."): d for key, d in depths.items()}
    assert {key: found[key] for key in DEPTHS[name]} == DEPTHS[name]

    last = max(depths.values())
    params = optimizer_params(model, 2.0, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in params for p in group["params"]}
    for key, depth in depths.items():
        rate = rates[id(model["backbone"].get_parameter(key))]
        assert rate == pytest.approx(2.0 * 0.5 ** (last + 1 - depth))
    assert {rates[id(p)] for p in model["head"].parameters()} == {2.0}
