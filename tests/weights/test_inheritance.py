"""Inheritance of a detector from a pre-training: which weight goes where, and what is an error."""

import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import get_config
from rsd2.weights.errors import CheckpointError
from rsd2.weights.inheritance import Inheritance, adapt_bands


def detector(num_layers, num_classes):
    """A tiny detector with as many encoder as decoder layers."""
    model = get_config("common/models/rotated_deformable_detr_small.py").model
    model.backbone.width, model.backbone.blocks = 8, [1, 1, 1, 1]
    for name, channels in (("res3", 16), ("res4", 32), ("res5", 64)):
        model.neck.input_shapes[name].channels = channels
    model.neck.num_norm_groups = 8
    model.embed_dim, model.num_classes, model.num_queries = 16, num_classes, 5
    model.encoder.num_layers = model.decoder.num_layers = num_layers
    model.encoder.feedforward_dim = 16
    return instantiate(model)


@pytest.fixture(scope="module")
def shallow():
    """State dict of a pre-training of two layers and five clusters, with modules of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(1)  # other weights than those of the models that inherit
        state = detector(2, 5).state_dict()
    return state | {"enhancement.norm.weight": torch.ones(3), "teacher": torch.zeros(1)}


PRETRAINING = ("enhancement", "teacher")


def load(model, state, **options):
    inheritance = Inheritance(pretraining_only=PRETRAINING, **options)
    return inheritance.load(model, {"model": state}, "pretrained.pth")


def test_everything_but_the_classes_is_inherited(shallow, caplog):
    model = detector(2, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with caplog.at_level("INFO"):
        report = load(model, shallow)
    after = model.state_dict()
    classes = {key for key in after if "class_heads" in key or "label_embedding" in key}
    assert set(report.anew) == classes and len(classes) == 7
    assert set(report.inherited) == set(after) - classes
    for key, value in after.items():
        assert torch.equal(value, before[key] if key in classes else shallow[key]), key
    assert set(report.dropped) == classes | {"enhancement.norm.weight", "teacher"}
    assert "dropped 2 (of the pre-training only): enhancement.norm 1, teacher 1" in caplog.text
    assert "dropped 7 (of 5 classes, the model has 3): heads.class_heads 6" in caplog.text
    assert "starts anew 7 (the classes are others): heads.class_heads 6" in caplog.text


def test_classes_start_anew_even_if_their_number_is_the_same(shallow):
    model = detector(2, 5)
    assert len(load(model, shallow).anew) == 7
    assert not torch.equal(model.heads.class_heads[0].weight, shallow["heads.class_heads.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("neck.projections.0.0.weight"), "missing from the file: neck.projections"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown to the model: extra; if the pre-trai"),
        (
            lambda s: s.update({"query_embed.weight": torch.zeros(9, 16)}),
            r"of another shape: query_embed.weight \(9, 16\) in the file, \(5, 16\)",
        ),
    ],
)
def test_what_should_have_been_inherited_is_an_error_and_nothing_is_loaded(
    shallow, change, message
):
    model, state = detector(2, 3), dict(shallow)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change(state)
    with pytest.raises(CheckpointError, match=rf"pretrained.pth does not give Rot.*\n  {message}"):
        load(model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_two_layers_do_not_fill_six_in_silence(shallow):
    with pytest.raises(CheckpointError, match=r"2 encoder layers, the model 6; .*_layers=repeat"):
        load(detector(6, 3), shallow)
    for choice in ([0, 1], [0, 1, 2, 2, 2, 2]):
        with pytest.raises(CheckpointError, match="one of the file's 2 layers, or null, for each"):
            load(detector(6, 3), shallow, encoder_layers=choice, decoder_layers="random")
    with pytest.raises(CheckpointError, match="'repeat', 'random' or a list of layers, got 'all'"):
        load(detector(6, 3), shallow, encoder_layers="all")


def origins(report, prefix):
    """Index in the model -> index in the file, of the layers or heads that begin with a prefix."""
    place = prefix.count(".")
    return {
        int(key.split(".")[place]): int(source.split(".")[place])
        for key, source in report.inherited.items()
        if key.startswith(prefix)
    }


def test_layers_are_mapped_as_told_and_the_heads_of_the_proposals_stay_theirs(shallow):
    options = {"encoder_layers": "repeat", "decoder_layers": [0, None, 0, 1, None, 1]}
    report = load(detector(6, 3), shallow, **options)
    assert origins(report, "encoder.layers.") == {0: 0, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}
    assert origins(report, "decoder.layers.") == {0: 0, 2: 0, 3: 1, 5: 1}
    # with two decoder layers, head 2 scores the encoder's tokens; with six, head 6 does
    for kind in ("box", "angle"):
        assert origins(report, f"heads.{kind}_heads.") == {0: 0, 2: 0, 3: 1, 5: 1, 6: 2}
    empty = [key for key, why in report.anew.items() if why.startswith("no layer of the file")]
    assert {key.split(".")[2] for key in empty} == {"1", "4"}


def test_official_positions_put_the_head_of_the_proposals_on_the_third_decoder_layer(shallow):
    options = {"encoder_layers": "random", "decoder_layers": "random"}
    report = load(detector(6, 3), shallow, official_head_positions=True, **options)
    assert origins(report, "decoder.layers.") == {0: 0, 1: 1}
    assert origins(report, "heads.box_heads.") == {0: 0, 1: 1, 2: 2}


def test_layers_of_the_file_that_the_model_lacks_are_listed(shallow):
    model = detector(1, 3)
    report = load(model, shallow, encoder_layers=[1], decoder_layers=[1])
    assert origins(report, "decoder.layers.") == {0: 1}
    assert origins(report, "heads.box_heads.") == {0: 1, 1: 2}
    assert report.dropped["decoder.layers.0.norm1.weight"].startswith("no layer of the model")
    assert torch.equal(model.encoder.layers[0].norm.weight, shallow["encoder.layers.1.norm.weight"])


def test_objectness_is_the_first_row_of_the_encoder_s_class_head(shallow):
    model = detector(2, 7)
    report = load(model, shallow, keep_objectness=True)
    head = model.heads.class_heads[2]
    assert torch.equal(head.weight[:5], shallow["heads.class_heads.2.weight"])
    assert set(origins(report, "heads.class_heads.")) == {2}
    assert head.weight.shape == (7, 16)


def test_backbone_alone():
    model = detector(2, 3)
    state = {k: v for k, v in detector(1, 2).state_dict().items() if k.startswith("backbone.")}
    report = Inheritance(parts=["backbone"]).load(model, {"model": state}, "backbone.pth")
    assert set(report.inherited) == set(state)
    assert set(report.anew.values()) == {"not asked for"}
    lost = next(iter(state))
    del state[lost]
    with pytest.raises(CheckpointError, match=f"missing from the file: {lost}"):
        Inheritance(parts=["backbone"]).load(model, {"model": state}, "backbone.pth")


def test_averaged_weights_on_demand(shallow):
    model = detector(2, 3)
    average = {key: value + 1 for key, value in shallow.items()}
    both = {"model": shallow, "ema": {"model": average}}
    plan = Inheritance(pretraining_only=PRETRAINING, averaged=True)
    plan.load(model, both, "pretrained.pth")
    assert torch.equal(model.query_embed.weight, shallow["query_embed.weight"] + 1)
    with pytest.raises(CheckpointError, match=r"init_inherit\.averaged=false"):
        plan.load(model, {"model": shallow}, "pretrained.pth")


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)


class Pretraining(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.context_encoder, self.target_encoder = Encoder(), Encoder()
        self.predictor = torch.nn.Linear(3, 3)


class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.ModuleDict({"net": Encoder(), "level": torch.nn.Linear(2, 1)})
        self.head = torch.nn.Linear(1, 1)


OF_A_PART = {"parts": ["backbone.net"], "model_part": "backbone.net", "starts_anew": []}


@pytest.mark.parametrize("part", ["context_encoder", "target_encoder"])
def test_a_part_is_inherited_under_another_name(part):
    pretraining, model = Pretraining(), Detector()
    state = pretraining.state_dict()
    inheritance = Inheritance(file_part=part, **OF_A_PART)
    report = inheritance.load(model, {"model": state}, "pretrained.pth")
    kinds = ("weight", "bias")
    expected = {f"backbone.net.fc.{kind}": f"{part}.fc.{kind}" for kind in kinds}
    assert report.inherited == expected
    for key, origin in expected.items():
        assert torch.equal(model.state_dict()[key], state[origin])
    assert set(report.dropped) == set(state) - set(expected.values())
    assert set(report.anew) == {f"{n}.{k}" for n in ("backbone.level", "head") for k in kinds}


def test_a_part_that_the_file_does_not_have_is_an_error_with_the_file_s_names():
    inheritance = Inheritance(file_part="encoder", **OF_A_PART)
    with pytest.raises(CheckpointError, match=r"missing from the file: encoder\.fc\.weight, "):
        inheritance.load(Detector(), {"model": Pretraining().state_dict()}, "pretrained.pth")


def test_a_converted_file_has_the_names_of_the_model():
    donor, model = Detector(), Detector()
    inheritance = Inheritance(file_part="backbone.net", **OF_A_PART)
    inheritance.load(model, {"model": donor.state_dict()}, "converted.pth")
    for name in ("backbone.net", "head"):
        key = f"{name}.fc.weight" if "net" in name else "head.weight"
        equal = torch.equal(model.state_dict()[key], donor.state_dict()[key])
        assert equal == (name == "backbone.net")


def test_only_named_parameters_may_be_absent():
    state = Pretraining().state_dict()
    del state["target_encoder.fc.bias"]
    options = {"file_part": "target_encoder", **OF_A_PART}
    with pytest.raises(CheckpointError, match=r"missing from the file: target_encoder\.fc\.bias"):
        Inheritance(**options).load(Detector(), {"model": state}, "pretrained.pth")
    model = Detector()
    before = model.backbone["net"].fc.bias.detach().clone()
    options["initial_if_absent"] = ["bias"]
    report = Inheritance(**options).load(model, {"model": state}, "pretrained.pth")
    assert report.anew["backbone.net.fc.bias"] == "the file has none"
    assert torch.equal(model.backbone["net"].fc.bias, before)


def test_three_bands_become_others_by_the_stated_rule(shallow):
    model = detector(2, 5)
    stem = model.backbone.stem.convs[0]
    stem.weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    load(model, shallow, bands=[2, 0, None, 1])
    theirs = shallow["backbone.stem.convs.0.weight"]
    for band, expected in enumerate((theirs[:, 2], theirs[:, 0], theirs.mean(1), theirs[:, 1])):
        torch.testing.assert_close(stem.weight[:, band], 0.75 * expected)
    # An image whose bands are all alike gives the features that it gave before.
    torch.testing.assert_close(adapt_bands(theirs, [None] * 7).sum(1), theirs.sum(1))


@pytest.mark.parametrize(
    ("bands", "message"),
    [(None, "of another shape"), ([0, 1, 2], "has 3 entries.* 4 bands"), ([3] * 4, "0 to 2")],
)
def test_bands_that_do_not_fit_are_errors(shallow, bands, message):
    model = detector(2, 5)
    model.backbone.stem.convs[0].weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    with pytest.raises(CheckpointError, match=message):
        load(model, shallow, bands=bands)
