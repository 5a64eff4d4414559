"""Noise of masks: from an image's seed alone, uniform, and Gumbel's where it is asked for."""

import math

import pytest
import torch

from rsd2.projects.object_jepa.mask_noise import draw_noise, gumbel


def test_an_image_s_numbers_do_not_depend_on_the_batch():
    whole = draw_noise([3, 2**62, 0], [2, 0, 5], 20, 4)
    alone = draw_noise([2**62], [0], 20, 4)
    assert torch.equal(whole.hide[1], alone.hide[0])
    more = draw_noise([3], [7], 20, 4)
    for name in ("guide", "blocks", "hide", "part", "loss", "context"):
        assert torch.equal(getattr(whole, name)[0], getattr(more, name)[0])
    assert torch.equal(whole.objects[:2], more.objects[:2])
    assert whole.objects.shape == (7, 2) and whole.blocks.shape == (3, 4, 6)


def test_no_blocks_and_no_objects():
    noise = draw_noise([1], [0], 5, 0)
    assert noise.blocks.shape == (1, 0, 6) and noise.objects.shape == (0, 2)


def test_numbers_are_uniform_and_not_related():
    noise = draw_noise(range(50), [0] * 50, 400, 0)
    columns = torch.stack([noise.hide, noise.part, noise.loss, noise.context]).flatten(1)
    assert columns.min() > 0 and columns.max() < 1
    assert torch.allclose(columns.mean(dim=1), torch.full((4,), 0.5).double(), atol=0.01)
    correlation = torch.corrcoef(columns) - torch.eye(4)
    assert correlation.abs().max() < 0.03


def test_gumbel_has_its_mean_and_is_finite_at_the_ends():
    noise = draw_noise(range(20), [0] * 20, 2000, 0)
    assert gumbel(noise.hide).mean().item() == pytest.approx(0.5772, abs=0.02)
    tiny = torch.tensor([2.2250738585072014e-308, math.nextafter(1, 0)], dtype=torch.float64)
    assert gumbel(tiny).isfinite().all()
