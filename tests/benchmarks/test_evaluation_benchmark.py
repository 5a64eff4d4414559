"""The evaluators and what they are timed against give the same numbers."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from rsd2.evaluation import TinyProtocol, score_aitod, score_tiny


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return importlib.import_module("benchmarks.evaluation_peers")


@pytest.mark.parametrize("max_detections", [200, 12])
def test_tiny_person(peers: ModuleType, max_detections: int) -> None:
    data = peers.make_data(40, 12, 30, num_classes=2, seed=3)
    protocol = TinyProtocol(max_detections=max_detections)
    ours = score_tiny(*data, protocol).precision
    theirs = peers.run_tiny(*peers.to_coco(*data), protocol)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert 0.02 < ours[1, 1].min() < ours[1, 1].max() < 0.98


def test_aitod(peers: ModuleType) -> None:
    truth, found = peers.make_data(40, 12, 30, num_classes=3, seed=4)
    truth = type(truth)(**{**vars(truth), "ignore": np.zeros(len(truth.boxes), dtype=bool)})
    ours = score_aitod(truth, found).precision
    theirs = peers.run_aitod(*peers.to_coco(truth, found))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert 0.02 < ours[0, 0].min() < ours[0, 0].max() < 0.98
