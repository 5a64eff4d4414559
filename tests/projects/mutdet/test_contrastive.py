"""Contrastive alignment: the published value, its extremes, and two processes against one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

from rsd2.projects.mutdet.alignment import ContrastiveAlignment
from rsd2.projects.mutdet.contrastive import contrastive_alignment_loss

COUNTS = {"uneven": (4, 2), "one process without pairs": (3, 0), "no pairs": (0, 0)}
GROUPS = (2, 3)
C = 8


def published_rows():
    index = torch.arange(6 * 256).double()
    z = torch.sin(0.1 * index).view(6, 256)
    o = torch.sin(0.1 * index + 0.3).view(6, 256)
    return z, o + 0.2 * torch.sin(0.1 * index + 1.7).view(6, 256).flip(0)


def test_value_of_the_official_program():
    z, o = published_rows()
    loss = contrastive_alignment_loss(z[None], o)
    assert loss.item() == pytest.approx(0.8123185, abs=1e-7)


def by_definition(z, o, temperature, same=None):
    """-(2 tau / M) sum of the log softmaxes of the diagonal, row by row and column by column."""
    z, o = F.normalize(z, dim=1), F.normalize(o, dim=1)
    total, count = 0.0, len(z)
    for i in range(count):
        rivals = [j for j in range(count) if j == i or same is None or not same[i][j]]
        own = (z[i] @ o[i]).item() / temperature
        row = sum(math.exp((z[i] @ o[j]).item() / temperature) for j in rivals)
        column = sum(math.exp((z[j] @ o[i]).item() / temperature) for j in rivals)
        total -= 2 * own - math.log(row) - math.log(column)
    return 2 * temperature * total / count


def test_value_by_definition_with_and_without_classes():
    z, o = torch.randn(5, C).double(), torch.randn(5, C).double()
    classes = torch.tensor([0, 1, 0, 2, 1])
    same = (classes[:, None] == classes[None]).tolist()
    for temperature in (0.2, 0.7):
        found = contrastive_alignment_loss(z[None], o, temperature)
        assert found.item() == pytest.approx(by_definition(z, o, temperature), abs=1e-12)
        found = contrastive_alignment_loss(z[None], o, temperature, classes)
        assert found.item() == pytest.approx(by_definition(z, o, temperature, same), abs=1e-12)


def test_objects_of_other_images_are_no_negatives_if_left_out():
    z, o = torch.randn(2, 5, C).double(), torch.randn(5, C).double()
    images = torch.tensor([0, 1, 0, 1, 1])
    loss = ContrastiveAlignment(negatives="image")(z, o, torch.arange(5), 1.0, images)
    # A mean over all objects: images count by their numbers of objects.
    parts = [
        contrastive_alignment_loss(z[:, images == i], o[images == i]) * (images == i).sum() / 5
        for i in (0, 1)
    ]
    assert loss.item() == pytest.approx(sum(parts).item(), abs=1e-12)


def test_groups_are_averaged_and_do_not_see_each_other():
    z, o = torch.randn(3, 4, C), torch.randn(4, C)
    single = [contrastive_alignment_loss(group[None], o) for group in z]
    together = contrastive_alignment_loss(z, o)
    assert together.item() == pytest.approx(sum(single).item() / 3, rel=1e-6)


def test_perfect_pairs_cost_least_and_length_does_not_matter():
    o = torch.eye(6, C)
    perfect = contrastive_alignment_loss(3 * o[None], o)
    assert perfect < contrastive_alignment_loss(torch.randn(1, 6, C), o)
    assert perfect == pytest.approx(contrastive_alignment_loss(o[None], 9 * o).item(), rel=1e-6)
    # one pair has no rival
    assert contrastive_alignment_loss(o[None, :1], o[:1]).item() == 0


def test_all_of_one_class_have_no_negatives():
    z, o = torch.randn(1, 4, C), torch.randn(4, C)
    assert contrastive_alignment_loss(z, o, 0.2, torch.zeros(4, dtype=torch.int64)).item() == 0


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_no_pairs_give_an_attached_zero(groups):
    z, o = torch.zeros(groups, 0, C, requires_grad=True), torch.zeros(0, C, requires_grad=True)
    loss = contrastive_alignment_loss(z, o)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None and o.grad is not None


def test_gradient_is_the_derivative():
    z = torch.randn(2, 4, C, dtype=torch.float64, requires_grad=True)
    o = torch.randn(4, C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrastive_alignment_loss, (z, o))


def test_zero_and_huge_rows_are_finite():
    z, o = torch.zeros(1, 3, C, requires_grad=True), torch.full((3, C), 1e18, requires_grad=True)
    contrastive_alignment_loss(z, o).backward()
    assert torch.isfinite(z.grad).all() and torch.isfinite(o.grad).all()


def test_half_precision_is_lifted():
    z, o = torch.randn(1, 4, C), torch.randn(4, C)
    lowered = contrastive_alignment_loss(z.bfloat16(), o.bfloat16())
    assert lowered.dtype == torch.float32
    assert lowered.item() == pytest.approx(contrastive_alignment_loss(z, o).item(), rel=0.05)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        ContrastiveAlignment(0)


class Embedder(torch.nn.Module):
    """One linear layer that every row goes through, so that its gradient sums over processes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(C, C).double()

    def rows(self, inputs):
        z, o, classes = inputs
        return self.linear(z), self.linear(o), classes


def process_inputs(name, rank):
    generator = torch.Generator().manual_seed(rank)
    count = COUNTS[name][rank]
    z = torch.randn(GROUPS[rank], count, C, generator=generator, dtype=torch.float64)
    o = torch.randn(count, C, generator=generator, dtype=torch.float64)
    return z, o, torch.arange(count) % 2


def loss_and_gradient(rank):
    """Of every case, as one of two processes computes them."""
    results = {}
    for name in COUNTS:
        for mask in (False, True):
            model = Embedder()
            loss = ContrastiveAlignment(gather=True, mask_same_class=mask)(
                *model.rows(process_inputs(name, rank)), 1.0
            )
            loss.backward()
            mean = model.linear.weight.grad.clone()
            distributed.all_reduce(mean)  # distributed training averages
            results[name, mask] = (loss.item(), mean / 2)
    return results


def test_two_processes_compute_what_one_computes_with_all_pairs(run_two_processes):
    first, second = run_two_processes(loss_and_gradient)
    for (name, mask), (loss, gradient) in first.items():
        model = Embedder()
        parts = [process_inputs(name, rank) for rank in (0, 1)]
        counted = [g for g, (_, o, _) in zip(GROUPS, parts) if len(o)]
        groups = min(counted, default=1)
        whole = [
            torch.cat([z[:groups] for z, _, _ in parts], dim=1),
            torch.cat([o for _, o, _ in parts]),
            torch.cat([classes for _, _, classes in parts]),
        ]
        expected = ContrastiveAlignment(mask_same_class=mask)(*model.rows(whole), 1.0)
        expected.backward()
        assert loss == pytest.approx(expected.item(), abs=1e-12), name
        assert second[name, mask][0] == pytest.approx(expected.item(), abs=1e-12), name
        assert torch.allclose(gradient, model.linear.weight.grad, atol=1e-12), name
