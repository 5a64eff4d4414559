"""The motion module: one cell by hand, and what may be left out without a trace."""

import math

import pytest
import torch

from rsd2.projects.micml.motion import CONSTANT, MotionCell, MotionModule, SqueezeExcitation


def make_module(**options) -> MotionModule:
    torch.manual_seed(0)
    options = {"channels": 6, "pool_size": 4, "num_layers": 2, "num_frames": 5, **options}
    return MotionModule(**options).double()


def clip(batch=2, channels=6, frames=5, height=7, width=9) -> torch.Tensor:
    return torch.randn(batch, channels, frames, height, width, dtype=torch.float64)


def run(module: MotionModule, x: torch.Tensor, num_outputs: int | None = None):
    """Output and gradients, those of the input first."""
    x = x.clone().requires_grad_()
    result = module(x, num_outputs)
    weights = torch.linspace(-1, 1, result[:, :, :3].numel(), dtype=result.dtype)
    loss = (result[:, :, :3].flatten() * weights).sum()
    return result, torch.autograd.grad(loss, [x, *module.parameters()])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_cell_by_hand():
    """One pixel and one channel: only the kernels' centres count."""
    cell = MotionCell(1).double()
    with torch.no_grad():
        cell.conv.weight[:, :, 1, 1] = torch.tensor(
            [[0.5, 1.0], [-0.2, 0.3], [0.4, -0.6], [0.7, 0.1]], dtype=torch.float64
        )
        cell.conv.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    x, hidden, memory = 2.0, 0.5, -1.5
    enter = sigmoid(0.5 * x + 1.0 * hidden + 0.1)
    keep = sigmoid(-0.2 * x + 0.3 * hidden + 0.2)
    leave = sigmoid(0.4 * x - 0.6 * hidden + 0.3)
    expected = keep * memory + enter * math.tanh(0.7 * x + 0.1 * hidden + 0.4)

    def pixel(value):
        return torch.full((1, 1, 1, 1), value, dtype=torch.float64)

    gates = cell.input_gates(pixel(x))
    found = cell.step(gates, (pixel(hidden), pixel(memory)), cell.state_weight())
    assert found[1].item() == pytest.approx(expected, abs=1e-7)
    assert found[0].item() == pytest.approx(leave * math.tanh(expected), abs=1e-7)


def test_no_state_is_a_state_of_zeros():
    cell = MotionCell(3).double()
    gates, weight = cell.input_gates(clip(channels=3)[:, :, 0]), cell.state_weight()
    zeros = torch.zeros(2, 3, 7, 9, dtype=torch.float64)
    for a, b in zip(cell.step(gates, None, weight), cell.step(gates, (zeros, zeros), weight)):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_attention_scales_channels_by_their_means():
    attention = SqueezeExcitation(4).double()
    x = clip(channels=4)[:, :, 0]
    ratio = attention(x) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), rtol=1e-10, atol=0)
    assert (ratio > 0).all() and (ratio < 1).all()
    shuffled = x.flatten(2)[:, :, torch.randperm(63)].view_as(x)
    assert torch.allclose((attention(shuffled) / shuffled)[0, :, 0, 0], ratio[0, :, 0, 0])


def test_frames_that_nobody_reads_change_nothing():
    module, x = make_module(), clip()
    whole, part = run(module, x), run(module, x, 3)
    assert whole[0].shape[2] == 5 and part[0].shape[2] == 3
    assert torch.allclose(part[0], whole[0][:, :, :3], rtol=0, atol=1e-12)
    for a, b in zip(part[1], whole[1]):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_recomputing_the_scans_changes_neither_outputs_nor_gradients_nor_statistics():
    x, results = clip(), []
    for recompute in (False, True):
        module = make_module(recompute_scans=recompute)
        result, gradients = run(module, x, 3)
        results.append([result, *gradients, *module.buffers()])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*results))


def test_recomputing_keeps_less():
    kept = []
    for recompute in (False, True):
        module, total = make_module(recompute_scans=recompute), [0]

        def count(tensor, total=total):
            total[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            module(clip(height=32, width=32).requires_grad_())
        kept.append(total[0])
    assert kept[1] < kept[0] / 2


def test_every_frame_changes_every_output():
    """The scan reads the whole clip whatever the frame."""
    module, x = make_module().eval(), clip(batch=1)
    with torch.no_grad():
        before = module(x)
        for frame in range(5):
            changed = x.clone()
            changed[:, :, frame] += 1.0
            moved = (module(changed) - before).abs().amax(dim=(0, 1, 3, 4))
            assert (moved > 1e-6).all(), f"frame {frame}: {moved}"


def test_clips_of_a_batch_are_independent_in_inference():
    module, x = make_module().eval(), clip(batch=3)
    with torch.no_grad():
        together = module(x)
        alone = torch.cat([module(one[None]) for one in x])
    assert torch.allclose(together, alone, rtol=0, atol=1e-10)


def test_what_is_added_lies_between_the_state_and_one_more():
    """A sigmoid is added to a state in (-1, 1)."""
    result = make_module()(clip())
    assert (result > -1).all() and (result < 2).all()


def test_all_parameters_learn():
    module = make_module()
    _, gradients = run(module, clip(), 3)
    names = ["x", *(name for name, _ in module.named_parameters())]
    assert [name for name, g in zip(names, gradients) if not g.any()] == []


def test_another_number_of_frames_is_an_error():
    with pytest.raises(ValueError, match="made for 5 frames, got 4"):
        make_module()(clip(frames=4))


def test_a_constant_prior_is_the_mean_of_an_untrained_module_and_reads_nothing():
    module, x = make_module(prior="constant"), clip()
    assert not list(module.state_dict())
    result = module(x, 3)
    assert result.shape == (2, 6, 3, 7, 9) and torch.equal(result, torch.full_like(result, 0.5))
    learned = make_module(channels=16, num_layers=3)(clip(channels=16))
    assert learned.mean().item() == pytest.approx(CONSTANT, abs=0.1)


def test_a_random_prior_is_the_learned_one_before_its_first_step():
    frozen, learned, x = make_module(prior="random"), make_module(), clip().requires_grad_()
    result = frozen(x)
    assert torch.equal(result, learned(x))
    result.sum().backward()
    assert x.grad.any() and all(p.grad is None for p in frozen.parameters())


def test_a_shuffled_scan_keeps_the_recurrence_and_the_order_in_inference():
    x = clip()
    plain, shuffled = make_module().eval(), make_module(shuffled_scan=True).eval()
    assert torch.equal(shuffled(x), plain(x))
    torch.manual_seed(1)  # an order other than that of time
    assert torch.randperm(5).tolist() != list(range(5))
    torch.manual_seed(1)
    found, expected = shuffled.train()(x), plain.train()(x)
    assert not torch.allclose(found, expected, rtol=0, atol=1e-6)
    # The recurrence of a cell that hears nothing of the mining is the same in any order.
    for module in (plain, shuffled):
        module.adapter.requires_grad_(False)[1].weight.zero_()
    assert torch.allclose(shuffled(x), plain(x), rtol=0, atol=1e-12)


def test_an_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="prior must be one of learned, random, constant"):
        make_module(prior="none")
