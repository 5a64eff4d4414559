"""The benchmark compares like with like: the peer computes the same encoder, of the same size."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.nn import functional as F

from rsd2.config import get_config
from rsd2.modeling import VisionTransformer


@pytest.fixture
def benchmark_module(repository, monkeypatch):
    return importlib.import_module("benchmarks.object_jepa")


@pytest.fixture
def small():
    model = get_config("ObjectJEPA/configs/object_jepa_small_synthetic_pretrain.py").model
    model.encoder.update(embed_dim=32, depth=2)
    model.predictor.update(embed_dim=16, depth=1)
    model.masks.num_predicted = 16
    return model


def test_plain_encoder_is_ours(benchmark_module):
    torch.manual_seed(0)
    ours = VisionTransformer(patch_size=8, embed_dim=32, depth=3, num_heads=4)
    plain = benchmark_module.PlainEncoder(8, 32, 3, 4)
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 48)
    keep = torch.tensor([[0, 5, 23], [22, 1, 7]])
    for chosen in (None, keep):
        torch.testing.assert_close(plain(images, chosen), ours.encode(images, chosen))


def test_both_sides_have_the_same_sizes(benchmark_module, small):
    ours = benchmark_module.instantiate(small)
    plain = benchmark_module.build_plain(small, side=128)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    for name in ("context_encoder", "target_encoder", "predictor"):
        assert count(getattr(ours, name)) == count(getattr(plain, name)), name
    assert plain.sides == (2, 2) and plain.num_context == ours.masks.counts(256)[0]
    assert plain.sides[0] * plain.sides[1] * benchmark_module.NUM_BLOCKS == 16


def test_blocks_are_rectangles_apart_from_the_context(benchmark_module):
    torch.manual_seed(1)
    keep, blocks = benchmark_module.draw_blocks(5, (9, 11), (2, 3), 40)
    assert keep.shape == (5, 40) and blocks.shape == (5, 4, 6)
    rows, columns = blocks // 11, blocks % 11
    assert (rows.amax(2) - rows.amin(2) == 1).all() and (
        columns.amax(2) - columns.amin(2) == 2
    ).all()
    for image in range(5):
        assert len(keep[image].unique()) == 40
        assert not torch.isin(keep[image], blocks[image].flatten()).any()


def test_a_block_is_predicted_from_the_context_alone(benchmark_module):
    torch.manual_seed(0)
    predictor = benchmark_module.PlainPredictor(12, 8, 2, 2)
    context, keep = torch.randn(1, 3, 12), torch.tensor([[0, 4, 7]])
    blocks = torch.tensor([[[1, 2], [5, 6], [8, 9]]])
    together = predictor(context, keep, blocks, (3, 4))
    alone = predictor(context, keep, blocks[:, 1:2], (3, 4))
    torch.testing.assert_close(together[1:2], alone)


def test_a_step_trains_moves_the_target_and_is_built_once(benchmark_module, small):
    built = []

    def build():
        built.append(benchmark_module.build_plain(small, side=128))
        return built[-1]

    update = benchmark_module.PlainJEPA.update_target
    step = benchmark_module.training_step(build, 128, 2, update=update)
    assert not built
    first = step()
    assert torch.isfinite(first) and first < F.smooth_l1_loss(torch.tensor(3.0), torch.tensor(0.0))
    weights = [
        m.blocks[0].mlp.fc1.weight for m in (built[0].context_encoder, built[0].target_encoder)
    ]
    before = [weight.detach().clone() for weight in weights]
    step()
    assert len(built) == 1
    assert all(not torch.equal(old, new) for old, new in zip(before, weights))
    expected = benchmark_module.MOMENTUM * before[1] + (1 - benchmark_module.MOMENTUM) * weights[0]
    torch.testing.assert_close(weights[1], expected)


def test_cases_build_nothing_and_name_their_sizes(benchmark_module):
    cases = benchmark_module.cases()
    assert [case.name for case in cases] == [f"ObjectJEPA step, predictor {w}" for w in (192, 384)]
    for case in cases:
        assert "448" in case.size and "quarter" in case.note and len(case.peers) == 2
