"""The cases of bottom-heavy backbones do the work that they are named after."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return importlib.import_module("benchmarks.bottom_heavy")


@pytest.mark.parametrize("training", [False, True])
def test_both_sides_give_maps_of_equal_strides(
    subject: ModuleType, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    monkeypatch.setattr(subject, "SIZE", (64, 64))
    case = subject.backbone_case("BH-18", subject.BH18, "R-18", subject.R18, training=training)
    sides = {name: work() for name, work in case.contenders().items()}
    assert len(sides) == 2
    for maps in sides.values():
        assert [v.shape[-1] for v in maps.values()] == [16, 8, 4, 2]
        assert all(v.requires_grad == training for v in maps.values())
    again = case.ours()["res5"]
    assert training or torch.equal(again, next(iter(sides.values()))["res5"])


def test_the_note_states_the_published_costs(subject: ModuleType) -> None:
    note = subject.backbone_case("BH-50", {}, "R-50", subject.R50, training=False).note
    assert "BH-50: 10.95 M parameters, 26.74 GMAC" in note
    assert "R-50: 23.51 M parameters, 26.69 GMAC" in note
