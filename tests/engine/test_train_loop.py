"""The training loop: its gradient is that of the whole batch, and what is not finite is named."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from rsd2.engine import NonFiniteError, Trainer


class _Endless:
    """Hands out given batches again and again."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        while True:
            yield from self.batches


def _samples(count):
    import toy

    mapper = toy.ToyMapper(augment=False)
    return [mapper(x) for x in toy.toy_dicts(count)]


def _model():
    import toy

    torch.manual_seed(3)
    return toy.ToyDetector(norm=False)


def _one_step(model, batches, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, _Endless(*batches), optimizer, **options)
    trainer.train(0, 1)
    return trainer


def test_accumulated_gradient_is_that_of_the_big_batch():
    samples = _samples(4)
    whole, parts = _model(), _model()
    _one_step(whole, [samples])
    trainer = _one_step(parts, [samples[:2], samples[2:]], accumulate=2)
    for a, b in zip(whole.parameters(), parts.parameters()):
        torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(a, b)
    assert trainer.storage.history("total_loss").latest() > 0


def test_clipping_bounds_the_gradient_and_keeps_its_direction():
    free, clipped = _model(), _model()
    _one_step(free, [_samples(2)])
    _one_step(clipped, [_samples(2)], max_grad_norm=0.01)
    flat = [torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (free, clipped)]
    assert flat[0].norm() > 0.1
    torch.testing.assert_close(flat[1].norm(), torch.tensor(0.01))
    torch.testing.assert_close(flat[1] / flat[1].norm(), flat[0] / flat[0].norm())


def test_bfloat16_runs_on_the_cpu_close_to_full_precision():
    full, half = _model(), _model()
    _one_step(full, [_samples(2)])
    _one_step(half, [_samples(2)], amp_dtype="bfloat16")
    difference = (full.head.weight - half.head.weight).abs().max()
    assert 0 < difference < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float16_runs_on_the_gpu():
    model = _model().cuda()
    trainer = _one_step(model, [_samples(2)], amp_dtype="float16", max_grad_norm=1.0)
    assert trainer.storage.history("grad_scale").latest() > 1
    assert torch.isfinite(model.head.weight).all()


def test_loss_scaling_skips_an_overflow_and_unscales_before_clipping():
    samples = _samples(2)
    model = _model()
    before = copy.deepcopy(model.state_dict())
    trainer = Trainer(
        model,
        _Endless(samples),
        torch.optim.SGD(model.parameters(), lr=0.1),
        max_grad_norm=0.01,
    )
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with EventStorage() as trainer.storage:
        handle = model.head.weight.register_hook(lambda grad: grad * float("inf"))
        trainer.run_step()
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert trainer.grad_scaler.get_scale() == 512.0
        handle.remove()
        trainer.run_step()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01))


def test_loss_that_is_not_finite_names_iteration_images_and_loss():
    samples = _samples(2)
    samples[1]["value"] = float("nan")
    with pytest.raises(NonFiniteError, match=r"iteration 0: .*loss_fit.*P0000.png, P0001.png"):
        _one_step(_model(), [samples])


def test_gradient_that_is_not_finite_names_parameters_and_leaves_the_weights():
    model = _model()
    before = copy.deepcopy(model.state_dict())
    model.head.bias.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(NonFiniteError, match=r"parameters: head.bias \(1 in all\)"):
        _one_step(model, [_samples(2)])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp_dtype": "float16"}, "needs a GPU"),
        ({"amp_dtype": "fp8"}, "float16 or bfloat16"),
        ({"accumulate": 0}, "train.accumulate"),
        ({"max_grad_norm": 0.0}, "max_norm"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _one_step(_model(), [_samples(1)], **options)


def test_ended_loader_eval_mode_and_no_loss_are_errors():
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="has to be endless"):
        Trainer(model, [_samples(1)], optimizer).train(0, 2)
    trainer = Trainer(model, _Endless(_samples(1)), optimizer)
    model.eval()
    with pytest.raises(RuntimeError, match="eval mode"):
        trainer.run_step()

    class Lossless(nn.Linear):
        def forward(self, batch):
            return {}

    with pytest.raises(RuntimeError, match="Lossless returned no loss"):
        _one_step(Lossless(1, 1), [_samples(1)])
