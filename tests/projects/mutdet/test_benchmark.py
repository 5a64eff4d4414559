"""The benchmark compares like with like: the peer is the plain detector, run twice."""

from __future__ import annotations

import importlib

import pytest
import torch


@pytest.fixture
def benchmark_module():
    return importlib.import_module("benchmarks.mutdet")


@pytest.fixture
def build_twice(benchmark_module, build_pretraining):
    def build(*overrides):
        plain = build_pretraining("detreg_small_synthetic_pretrain", *overrides)
        plain.__class__ = benchmark_module.PlainTwice
        return plain

    return build


def test_peer_runs_the_plain_detector_twice(build_twice, build_pretraining, make_pseudo_batch):
    no_denoising = "model.detector.num_denoising_queries=0"
    batch = make_pseudo_batch(3)
    twice = build_twice(no_denoising).train()(batch)
    once = build_pretraining("detreg_small_synthetic_pretrain", no_denoising).train()(batch)
    names = [name for name in once if "embedding" not in name]
    assert set(twice) == {f"{run}_{n}" for run in ("first", "second") for n in names} | {"idle"}
    for name in names:
        assert twice[f"first_{name}"] == twice[f"second_{name}"] == once[name]
    assert twice["idle"] == 0


def test_a_step_trains_and_is_built_once(benchmark_module, build_pretraining):
    built = []

    def build():
        built.append(build_pretraining("mutdet_small_synthetic_pretrain"))
        return built[-1]

    step = benchmark_module.training_step(build, side=64, num_objects=4)
    assert not built
    assert torch.isfinite(step())
    before = built[0].level_embed.detach().clone()
    step()
    assert len(built) == 1
    assert not torch.equal(before, built[0].level_embed)


def test_cases_build_nothing(benchmark_module):
    (case,) = benchmark_module.cases()
    assert "1024" in case.size and "300" in case.size
    assert list(case.peers) == ["plain detector, decoded twice"]
