"""Two processes with half a batch each compute what one process computes with the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

BOXES = [
    (20.0, 22.0, 24.0, 10.0, 30.0),
    (44.0, 40.0, 12.0, 8.0, -60.0),
    (30.0, 50.0, 9.0, 4.0, 80.0),
]
# objects per image; one image per process
COUNTS = {"uneven": (3, 1), "one process without objects": (2, 0), "none": (0, 0)}


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture
def run_two(run_two_processes, build_detector, make_input):
    def run(denoising):
        inputs = {
            name: [make_input(BOXES[:n], [0, 1, 2][:n], seed=i) for i, n in enumerate(counts)]
            for name, counts in COUNTS.items()
        }

        def averaged_gradients(rank):
            results = {}
            for name, images in inputs.items():
                model = build_detector(num_denoising_queries=denoising).train()
                wrapped = DistributedDataParallel(model)  # lives until the backward pass ends
                torch.manual_seed(rank)
                sum(wrapped([images[rank]]).values()).backward()
                results[name] = gradients(model)
            return results

        return inputs, run_two_processes(averaged_gradients)

    return run


def test_gradient_of_two_processes_is_that_of_the_whole_batch(run_two, build_detector):
    inputs, (first, second) = run_two(denoising=0)
    for name, images in inputs.items():
        model = build_detector(num_denoising_queries=0).train()
        sum(model(images).values()).backward()
        for key, expected in gradients(model).items():
            scale = expected.abs().max().clamp(min=1e-3)
            assert torch.equal(first[name][key], second[name][key]), (name, key)
            error = (first[name][key] - expected).abs().max() / scale
            assert error < 1e-4, (name, key, error)


def test_denoising_neither_hangs_nor_diverges_where_a_process_has_no_objects(run_two):
    """Groups depend on the fullest image of a process, so that the sum is not the same here."""
    _, (first, second) = run_two(denoising=6)
    for name in COUNTS:
        for key, value in first[name].items():
            assert torch.isfinite(value).all(), (name, key)
            assert torch.equal(value, second[name][key]), (name, key)
