"""ObjectJEPA: its loss against a plain rewrite, its gradients, its target, its refusals."""

import copy
import itertools
import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from rsd2.engine import TargetUpdate, Trainer
from rsd2.projects.object_jepa.masking import MaskSampler
from rsd2.projects.object_jepa.object_jepa import (
    INPUTS,
    LOSSES,
    TARGETS,
    ObjectJEPA,
    pad_boxes,
    variance_hinge,
)
from rsd2.projects.object_jepa.predictor import Predictor
from rsd2.structures import from_horizontal


def normalised(model, batch):
    images = torch.stack([x["image"].float() for x in batch])
    return (images - model.pixel_mean) / model.pixel_std


@pytest.mark.parametrize(
    ("target", "loss", "masked_input"), itertools.product(TARGETS, LOSSES, INPUTS)
)
def test_losses_train_context_encoder_and_predictor_alone(
    build_jepa, make_crops, target, loss, masked_input
):
    model = build_jepa(target=target, loss=loss, masked_input=masked_input, variance_weight=0.1)
    losses = model(make_crops(4, 0, 9))
    assert set(losses) == {"loss_prediction", "loss_variance"}
    assert all(math.isfinite(value.item()) and value.item() > 0 for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        trained = not name.startswith("target_encoder.")
        assert parameter.requires_grad == trained
        assert (parameter.grad is not None) == trained, name
        assert not trained or parameter.grad.isfinite().all()


@torch.no_grad()
def test_loss_is_the_method_s_written_image_by_image(build_jepa, make_crops):
    """I-JEPA's loss; the mean is taken per image first."""
    model = build_jepa(masks={"loss_set": "only_objects"})
    model.update_target(0.0)
    batch = make_crops(3, 0, 8)
    images, grid = normalised(model, batch), (6, 8)
    masks = model.analyze(batch).masks
    expected = []
    for i in range(3):
        one = images[i : i + 1]
        tokens = model.target_encoder.encode(one)[0]
        target = (tokens - tokens.mean(1, keepdim=True)) / (
            tokens.var(1, keepdim=True, correction=0) + 1e-6
        ).sqrt()
        keep, predicted = masks.keep[i : i + 1], masks.predicted[i : i + 1]
        prediction = model.predictor(model.context_encoder.encode(one, keep), keep, predicted, grid)
        difference = (prediction[0] - target[predicted[0]]).abs()
        smooth = torch.where(difference < 1, difference.square() / 2, difference - 0.5).mean(1)
        chosen = masks.weights[i] > 0
        expected.append(smooth[chosen].mean())
    assert 0 < masks.weights.sum() < masks.weights.numel()
    loss = model(batch)["loss_prediction"]
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


@torch.no_grad()
def test_pixel_targets_are_the_pixels_of_the_patch(build_jepa, make_crops):
    model = build_jepa(target="pixel", loss="l2", normalize_target=False)
    batch = make_crops(2, 2)
    output = model.analyze(batch)
    images = normalised(model, batch)
    patch = images[1, :, 16:24, 40:48]  # row 2, column 5 of 6 x 8
    assert torch.allclose(output.target[1, 2 * 8 + 5], patch.flatten(), atol=1e-6)
    squares = (
        output.prediction
        - output.target.gather(1, output.masks.predicted[..., None].expand(-1, -1, 192))
    ).square()
    assert torch.allclose(output.token_loss, squares.mean(dim=2))
    # normalised: mean 0 and variance 1 in every patch
    target = build_jepa(target="pixel").analyze(batch).target
    assert torch.allclose(target.mean(dim=2), torch.zeros(2, 48), atol=1e-5)
    assert torch.allclose(target.var(dim=2, correction=0), torch.ones(2, 48), atol=1e-3)


@pytest.mark.parametrize("masked_input", INPUTS)
@torch.no_grad()
def test_hidden_pixels_do_not_reach_the_prediction(build_jepa, make_crops, masked_input):
    model = build_jepa(masked_input=masked_input).eval()
    batch = make_crops(5, 5)
    output = model.analyze(batch)
    changed = copy.deepcopy(batch)
    for i, x in enumerate(changed):
        for place in output.masks.hidden[i].tolist():
            row, column = divmod(place, 8)
            x["image"][:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 255
    other = model.analyze(changed)
    assert torch.equal(other.prediction, output.prediction)
    assert not torch.allclose(other.target, output.target)
    place = int(output.masks.keep[0, 0])
    row, column = divmod(place, 8)
    changed[0]["image"][:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
    assert not torch.equal(model.analyze(changed).prediction[0], output.prediction[0])


def test_masks_come_from_the_seed_of_the_image(build_jepa, make_crops):
    model, batch = build_jepa(), make_crops(6, 6, 6)
    first = model.analyze(batch).masks
    torch.rand(10)
    second = model.analyze(batch[::-1]).masks
    assert torch.equal(first.hidden, second.hidden.flip(0))
    drawn = [
        model.analyze(batch, torch.Generator().manual_seed(seed)).masks.hidden for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    unseeded = [{k: v for k, v in x.items() if k != "mask_seed"} for x in batch]
    torch.manual_seed(4)
    one, two = (model.analyze(unseeded).masks.hidden for _ in range(2))
    torch.manual_seed(4)
    assert torch.equal(model.analyze(unseeded).masks.hidden, one) and not torch.equal(one, two)


def batches(make_crops):
    while True:
        yield make_crops(3, 5)


def test_target_is_the_closed_form_after_some_steps(build_jepa, make_crops):
    model, steps = build_jepa(drop_path_rate=0.3), 5
    trainer = Trainer(model, batches(make_crops), torch.optim.AdamW(model.parameters(), lr=1e-2))
    seen = [model.context_encoder.state_dict()]
    seen[0] = {name: value.clone() for name, value in seen[0].items()}

    class Record(TargetUpdate):
        def after_step(self):
            state = model.context_encoder.state_dict()
            seen.append({name: value.clone() for name, value in state.items()})
            super().after_step()

    trainer.register_hooks([Record(0.6, 1.0)])
    trainer.train(0, steps)
    momenta = [0.6 + 0.4 * k / steps for k in range(steps)]
    for name, value in model.target_encoder.state_dict().items():
        expected = math.prod(momenta) * seen[0][name]
        for k in range(steps):
            expected = expected + (1 - momenta[k]) * math.prod(momenta[k + 1 :]) * seen[k + 1][name]
        assert torch.allclose(value, expected, atol=1e-6), name
    assert model.progress == (steps - 1) / steps
    assert all(p.grad is None for p in model.target_encoder.parameters())


@torch.no_grad()
def test_target_has_no_noise_in_training(build_jepa, make_crops):
    model, batch = build_jepa(drop_path_rate=0.5), make_crops(*[4] * 12)
    assert model.training and not model.target_encoder.training
    first, second = model.analyze(batch), model.analyze(batch)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.context, second.context)


def test_progress_reaches_the_masks(build_jepa, make_crops):
    model, batch = build_jepa(masks={"object_share": (0.0, 1.0)}), make_crops(5, 5)
    assert not model.analyze(batch).masks.guided.any()
    model.progress = 1.0
    assert model.analyze(batch).masks.guided.all()


@torch.no_grad()
def test_evaluation_gives_dense_features_of_the_target(build_jepa, make_crops):
    model, batch = build_jepa().eval(), make_crops(1, 2)
    next(model.target_encoder.parameters()).add_(0.1)
    features = [x["features"] for x in model(batch)]
    expected = model.target_encoder(normalised(model, batch))["last_feat"]
    assert features[0].shape == (32, 6, 8)
    assert torch.allclose(torch.stack(features), expected, atol=1e-5)


def test_losses_on_objects_and_background_are_logged_apart(build_jepa, make_crops):
    model, batch = build_jepa(), make_crops(6, 6)
    with EventStorage() as storage:
        model(batch)
        logged = {name: value for name, (value, _) in storage.latest().items()}
    output = model.analyze(batch)
    is_object = output.masks.object_tokens.gather(1, output.masks.predicted)
    for name, flags in (("object", is_object), ("background", ~is_object)):
        expected = output.token_loss[flags].mean().item()
        assert logged[f"{name}_token_loss"] == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_bfloat16_is_near(build_jepa, make_crops):
    model, batch = build_jepa(), make_crops(4, 4)
    exact = model(batch)["loss_prediction"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(batch)["loss_prediction"]
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


def test_upright_boxes_and_images_without_any_are_padded(make_crops):
    batch = make_crops(2, 0)
    upright = Instances((48, 64))
    upright.gt_boxes = Boxes(torch.tensor([[0.0, 4, 10, 8]]))
    batch += [{"image": batch[0]["image"], "instances": upright}, {"image": batch[0]["image"]}]
    boxes, valid = pad_boxes(batch)
    assert boxes.shape == (4, 2, 5)
    assert valid.tolist() == [[True, True], [False, False], [True, False], [False, False]]
    assert torch.equal(boxes[2, :1], from_horizontal(torch.tensor([[0.0, 4, 10, 8]])))


def test_variance_hinge_by_hand():
    # objects: channels of deviation 0 and sqrt(2); background: one token, no deviation
    tokens = torch.tensor([[[1.0, 1.0], [1.0, 3.0], [9.0, 9.0]]])
    flags = torch.tensor([[True, True, False]])
    expected = (1 - math.sqrt(1e-4)) / 2
    assert variance_hinge(tokens, flags).item() == pytest.approx(expected, rel=1e-5)
    both = torch.cat([tokens, tokens[:, 2:]], dim=1), torch.tensor([[True, True, False, False]])
    assert variance_hinge(*both).item() == pytest.approx((expected + 0.99) / 2, rel=1e-5)
    assert variance_hinge(tokens[:, :1], flags[:, :1]) == 0


def test_collapsed_features_show_in_loss_and_hinge(build_jepa, make_crops):
    model = build_jepa(variance_weight=1.0)
    with torch.no_grad():
        model.context_encoder.norm.weight.zero_()
    assert model(make_crops(4, 4))["loss_variance"].item() == pytest.approx(0.99, abs=1e-3)
    with torch.no_grad():
        model.predictor.proj.weight.zero_()
        model.predictor.proj.bias.zero_()
    # a prediction of 0 for targets of variance 1: about 0.425 where they are normal
    loss = model(make_crops(4, 4))["loss_prediction"].item()
    assert loss == pytest.approx(0.425, abs=0.05)


def test_what_does_not_fit_is_refused(build_jepa, make_crops):
    with pytest.raises(ValueError, match="target must be one of"):
        build_jepa(target="hog")
    with pytest.raises(ValueError, match="loss must be one of"):
        build_jepa(loss="l1")
    encoder = build_jepa().context_encoder
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    with pytest.raises(
        ValueError, match="masked_input='fill' needs a predictor with mask_tokens=F"
    ):
        ObjectJEPA(encoder, Predictor(32, **small), masks=MaskSampler(), masked_input="fill")
    with pytest.raises(
        ValueError, match="returns 32 channels, a pixel target has 192; set out_dim"
    ):
        ObjectJEPA(encoder, Predictor(32, **small), masks=MaskSampler(), target="pixel")
    batch = make_crops(1) + make_crops(1, size=(64, 64))
    with pytest.raises(ValueError, match="images of one batch must have one size"):
        build_jepa()(batch)
    with pytest.raises(ValueError, match="do not divide into patches of 8"):
        build_jepa()(make_crops(1, size=(44, 64)))
