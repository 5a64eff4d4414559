"""MutDet: what each switch adds, the siamese run is the plain one, nothing large is kept."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from rsd2.config import get_config

FULL, BASELINE = "mutdet_small_synthetic_pretrain", "detreg_small_synthetic_pretrain"
SIDE_LENGTH = 64
NO_DENOISING = "model.detector.num_denoising_queries=0"
EQUAL_WIDTHS = ("model.detector.embed_dim=16",)
ROWS = {
    "detreg": (BASELINE, ()),
    "contrastive": ("contrastive", ()),
    "embedding": ("enhanced_embedding", ()),
    "feature": ("enhanced_feature", ()),
    "full": (FULL, ()),
    "gathering": (FULL, ("model.alignment.gather=true",)),
    "masking": (FULL, ("model.alignment.mask_same_class=true",)),
    "within images": (
        FULL,
        ("model.alignment.negatives=image", "model.enhancement.zero_init=true"),
    ),
    "detached": (FULL, ("model.enhancement.detach_objects=true",)),
    "anchored": (FULL, (*EQUAL_WIDTHS, "model.anchored=true")),
    "raw at first": (FULL, (*EQUAL_WIDTHS, "model.raw_steps=1")),
    "recomputing": (FULL, ("model.enhancement.checkpoint=true",)),
    "official": ("mutdet_r50_dota_pretrain_official", ()),
}


def parts_of(losses):
    return {
        (
            name.startswith("enhanced_"),
            "embedding" in name,
            next((s for s in ("_enc", "_dn") if name.endswith(s)), ""),
        )
        for name in losses
    }


DETECTION = {(False, False, s) for s in ("", "_enc", "_dn")}
ENHANCED_DETECTION = {(True, *rest) for _, *rest in DETECTION}
ALIGNED = {(False, True, ""), (False, True, "_dn")}
ENHANCED_ALIGNED = {(True, *rest) for _, *rest in ALIGNED}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("detreg", DETECTION | {(False, True, "")}),
        ("contrastive", DETECTION | ALIGNED),
        ("embedding", DETECTION | ALIGNED),
        ("feature", ENHANCED_DETECTION | ENHANCED_ALIGNED),
        (
            "full",
            DETECTION | ALIGNED | ENHANCED_DETECTION | ENHANCED_ALIGNED | {(True, True, "_enc")},
        ),
    ],
)
def test_losses_of_every_row_of_the_ablation(build_pretraining, make_pseudo_batch, row, expected):
    config, overrides = ROWS[row]
    model = build_pretraining(config, *overrides).train()
    assert parts_of(model(make_pseudo_batch(3, 2))) == expected
    # enhanced features without the rest have no enhanced proposals of their own embedding
    assert (getattr(model, "token_embedding_head", None) is not None) == (row == "full")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (60, 1)])
def test_every_parameter_has_a_finite_gradient_whatever_the_images_hold(
    build_pretraining, make_pseudo_batch, row, counts
):
    config, overrides = ROWS[row]
    model = build_pretraining(config, *overrides).train()
    losses = model(make_pseudo_batch(*counts))
    names = list(build_pretraining(config, *overrides).train()(make_pseudo_batch(2, 2)))
    assert list(losses) == names, "processes must report the same losses"
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_images_of_different_sizes(build_pretraining, make_pseudo_batch):
    batch = [make_pseudo_batch(3, size=(64, 64))[0], make_pseudo_batch(2, size=(40, 96))[0]]
    losses = build_pretraining(FULL).train()(batch)
    assert torch.isfinite(sum(losses.values()))


def test_siamese_run_is_the_plain_detector(build_pretraining, make_pseudo_batch):
    full = build_pretraining(FULL, NO_DENOISING).train()
    plain = build_pretraining(BASELINE, NO_DENOISING).train()
    own = plain.state_dict()
    shared = {k: v for k, v in full.state_dict().items() if k in own and "embedding_head" not in k}
    plain.load_state_dict(own | shared)
    batch = make_pseudo_batch(3, 2)
    ours, theirs = full(batch), plain(batch)
    shared = [name for name in theirs if "embedding" not in name]
    assert len(shared) == 8
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    enhanced = [ours[f"enhanced_{name}"] for name in shared]
    assert not any(torch.equal(a, theirs[name]) for a, name in zip(enhanced, shared))


def test_alignment_alone_trains_both_sides(build_pretraining, make_pseudo_batch):
    """Enhanced embeddings are no fixed targets: every alignment loss moves them and the encoder."""
    model = build_pretraining(FULL).train()
    names = [
        "loss_embedding",
        "loss_embedding_dn",
        "enhanced_loss_embedding",
        "enhanced_loss_embedding_dn",
        "enhanced_loss_embedding_enc",
    ]
    for name in names:
        model.zero_grad()
        model(make_pseudo_batch(4, 3))[name].backward()
        for module in (model.enhancement.layers[-1].ffn, model.encoder):
            assert sum(p.grad.abs().sum() for p in module.parameters() if p.grad is not None) > 0


def test_raw_embeddings_stay_fixed_targets_without_enhanced_ones(
    build_pretraining, make_pseudo_batch
):
    model = build_pretraining(FULL, "model.enhance_embeddings=false").train()
    assert model.embedding_head.layers[-1].out_features == 16
    assert model.token_embedding_head.layers[-1].out_features == 16
    model(make_pseudo_batch(4, 3))["loss_embedding"].backward()
    assert all(p.grad is None for p in model.enhancement.parameters())


def test_targets_are_raw_at_first_and_keep_a_part_of_the_raw_ones_if_anchored(build_pretraining):
    enhanced, raw = [torch.randn(3, 16)], [F.normalize(torch.randn(3, 16), dim=1)]
    unit = F.normalize(enhanced[0], dim=1)
    model = build_pretraining(FULL, *EQUAL_WIDTHS, "model.anchored=true", "model.raw_steps=2")
    for step, expected in ((0, raw[0]), (1, raw[0]), (2, unit + raw[0])):
        with EventStorage(step):
            assert torch.equal(model.aligned_embeddings(enhanced, raw)[0], expected)


def test_detached_objects_get_no_gradient_from_the_detection_losses(
    build_pretraining, make_pseudo_batch
):
    for detach in (False, True):
        model = build_pretraining(FULL, f"model.enhancement.detach_objects={detach}").train()
        losses = model(make_pseudo_batch(4, 3))
        sum(value for name, value in losses.items() if "embedding" not in name).backward()
        reached = [p.grad is not None for p in model.enhancement.layers[-1].ffn.parameters()]
        assert reached == [not detach] * len(reached)


@pytest.mark.parametrize(
    ("official", "expected"), [(False, [1, 2, 3]), (True, [5, 4, 3])], ids=["ours", "official"]
)
def test_queries_are_the_tokens_most_like_an_object(build_pretraining, official, expected):
    """With equal and negative objectness logits the official score prefers the least similar."""
    model = build_pretraining(FULL, f"model.quirks.raw_query_score={official}".lower())
    model.proposals.num_queries = 3
    model.token_embedding_head = nn.Identity()
    head = model.heads.class_heads[model.heads.encoder_index]
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -2.0)
    # token i is i * 10 degrees off one of two objects; token 0 would be best, but is unusable
    angles = [math.radians(10 * i) for i in range(6)]
    tokens = torch.zeros(1, 6, 32)
    for i, angle in enumerate(angles):
        tokens[0, i, i % 2], tokens[0, i, 2] = math.cos(angle), math.sin(angle)
    grid_logits = torch.arange(6.0)[None, :, None].expand(1, 6, 4) / 10
    usable = torch.ones(1, 6, dtype=torch.bool)
    usable[0, 0] = False
    proposals = model.propose_enhanced(tokens, [torch.eye(2, 32)], grid_logits, usable)
    chosen = (proposals.boxes[0, :, 0].logit() * 10).round()
    assert chosen.tolist() == expected
    assert not proposals.boxes.requires_grad


def test_queries_of_an_image_without_objects_follow_objectness(build_pretraining):
    model = build_pretraining(FULL)
    model.proposals.num_queries = 2
    tokens = torch.randn(1, 6, 32)
    objectness = model.heads.class_heads[model.heads.encoder_index](tokens)[0, :, 0]
    grid_logits = torch.arange(6.0)[None, :, None].expand(1, 6, 4) / 10
    usable = torch.ones(1, 6, dtype=torch.bool)
    proposals = model.propose_enhanced(tokens, [torch.zeros(0, 32)], grid_logits, usable)
    chosen = (proposals.boxes[0, :, 0].logit() * 10).round().long()
    assert chosen.tolist() == objectness.topk(2).indices.tolist()


def test_nothing_of_tokens_times_objects_is_kept(build_pretraining, make_pseudo_batch):
    num_objects = 37
    model = build_pretraining(FULL).train()
    strides = (8, 16, 32)
    num_tokens = sum((SIDE_LENGTH // stride) ** 2 for stride in strides)
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t
    ):
        model(make_pseudo_batch(num_objects, num_objects))
    assert any(num_tokens in shape for shape in shapes)
    assert any(num_objects in shape for shape in shapes)
    kept = [shape for shape in shapes if num_tokens in shape and num_objects in shape]
    assert not kept


def test_the_default_is_mended_and_the_official_configuration_is_as_published():
    found = {}
    for name in ("mutdet_r50_dota_pretrain", "mutdet_r50_dota_pretrain_official", FULL):
        model = get_config(f"MutDet/configs/{name}.py").model
        found[name] = (model.alignment.negatives, model.enhancement.zero_init)
    mended, *others = found.values()
    assert mended == ("image", True) and others == [("batch", False)] * 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.enhancement=null"], "need an enhancement module"),
        (
            ["model.enhance_embeddings=false", "model.enhance_features=false"],
            "the enhancement module has no use",
        ),
        (["model.enhance_features=false"], "align_encoder and siamese_head need enhance_features"),
        (["model.anchored=true"], "compare embeddings of 16 channels with enhanced ones of"),
        ([*EQUAL_WIDTHS, "model.raw_steps=-1"], "raw_steps must not be negative, got -1"),
        (
            [*EQUAL_WIDTHS, "model.raw_steps=1", "model.enhancement.detach_objects=true"],
            "detach_objects and raw_steps exclude each other",
        ),
        (["model.enhance_embeddings=false", "model.anchored=true"], "need enhance_embeddings"),
        (
            ["model.enhance_embeddings=false", "model.enhancement.detach_objects=true"],
            "nothing else would train",
        ),
        (["model.alignment.negatives=image", "model.alignment.gather=true"], "set gather=false"),
        (["model.alignment.negatives=all"], "negatives must be one of .*'all'"),
        (["model.enhancement.update_tokens=false"], "update_tokens is False, but enhance_features"),
    ],
)
def test_switches_that_contradict_each_other(build_pretraining, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_pretraining(FULL, *overrides)


COUNTS = {"uneven": (3, 1), "one process without objects": (2, 0), "none": (0, 0)}


@pytest.fixture
def run_two(run_two_processes, make_pseudo_batch):
    """Function that trains a step on two processes: batches, and the gradients of both."""

    def run(build):
        batches = {name: make_pseudo_batch(*counts) for name, counts in COUNTS.items()}

        def averaged_gradients(rank):
            results = {}
            for name, batch in batches.items():
                model = build().train()
                wrapped = DistributedDataParallel(model)  # lives until the backward pass ends
                sum(wrapped([batch[rank]]).values()).backward()
                results[name] = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
            return results

        return batches, run_two_processes(averaged_gradients)

    return run


@pytest.mark.parametrize("row", ["detreg", "gathering"])
def test_two_processes_compute_the_gradient_of_the_whole_batch(run_two, build_pretraining, row):
    def build():
        return build_pretraining(ROWS[row][0], NO_DENOISING, *ROWS[row][1])

    batches, (first, second) = run_two(build)
    for name, batch in batches.items():
        model = build().train()
        sum(model(batch).values()).backward()
        scale = max(p.grad.abs().max() for p in model.parameters() if p.requires_grad)
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert torch.equal(first[name][key], second[name][key])
                difference = (first[name][key] - parameter.grad).abs().max()
                assert difference < 1e-5 * scale, (name, key)


@pytest.mark.parametrize("row", ["full", "gathering"])
def test_denoising_neither_hangs_nor_diverges_where_a_process_has_no_objects(
    run_two, build_pretraining, row
):
    """Groups depend on the fullest image of a process, so that the sum is not the same here."""
    _, (first, second) = run_two(lambda: build_pretraining(ROWS[row][0], *ROWS[row][1]))
    for name in COUNTS:
        for key, value in first[name].items():
            assert torch.isfinite(value).all(), (name, key)
            assert torch.equal(value, second[name][key]), (name, key)


def test_mixed_precision_is_finite_and_close(build_pretraining, make_pseudo_batch):
    model, batch = build_pretraining(FULL, NO_DENOISING).train(), make_pseudo_batch(3, 2)
    exact = model(batch)
    # without oneDNN, which crashes where AMX is announced and absent
    with torch.backends.mkldnn.flags(enabled=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lowered = model(batch)
        sum(lowered.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert all(value.dtype == torch.float32 for value in lowered.values())
    total, other = sum(exact.values()).item(), sum(lowered.values()).item()
    assert other == pytest.approx(total, rel=0.03)
