"""Training data: the stream depends on the seed alone and continues where it stopped."""

import itertools
import random

import numpy as np
import pytest
import torch

from rsd2.data.samplers import ObjectSampler, build_train_loader


def _mapper(sample):
    """Record which sample it was and one number of each random generator."""
    return (sample["id"], random.random(), np.random.rand(), float(torch.rand(())))


def _picky_mapper(sample):
    return None if sample["id"] < 3 else _mapper(sample)


def _dicts(count=5):
    return [{"id": i, "width": 1 + i % 2, "height": 1 + (i + 1) % 2} for i in range(count)]


def _take(count, mapper=_mapper, dataset=None, **options):
    options = {"total_batch_size": 2, "seed": 4} | options
    loader = build_train_loader(dataset or _dicts(), mapper=mapper, **options)
    return list(itertools.islice(iter(loader), count))


def test_stream_depends_on_the_seed_and_not_on_workers_or_the_global_generators():
    expected = _take(8)
    torch.rand(3), np.random.rand(3), random.random()
    assert _take(8) == expected
    assert _take(8, num_workers=2) == expected
    assert _take(8, seed=5) != expected
    # Each pass over the dataset shows each image once, and never with the same numbers.
    samples = [sample for batch in expected for sample in batch]
    assert sorted(s[0] for s in samples[:5]) == sorted(s[0] for s in samples[5:10]) == [*range(5)]
    assert len({s[1:] for s in samples}) == len(samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_stream_continues(workers):
    expected = _take(7)
    first = build_train_loader(
        _dicts(), mapper=_mapper, total_batch_size=2, seed=4, num_workers=workers
    )
    head = list(itertools.islice(iter(first), 3))
    # Another seed: the saved one counts.
    second = build_train_loader(
        _dicts(), mapper=_mapper, total_batch_size=2, seed=9, num_workers=workers
    )
    second.load_state_dict(first.state_dict())
    assert head + list(itertools.islice(iter(second), 4)) == expected


def test_other_batch_size_continues_after_the_same_samples(caplog):
    loader = build_train_loader(_dicts(), mapper=_mapper, total_batch_size=2, seed=4)
    list(itertools.islice(iter(loader), 4))
    wider = build_train_loader(_dicts(), mapper=_mapper, total_batch_size=4, seed=4)
    wider.load_state_dict(loader.state_dict())
    assert next(iter(wider)) == list(itertools.chain(*_take(6)[4:6]))
    assert "instead of" in caplog.text


def test_global_generators_are_left_alone():
    loader = iter(build_train_loader(_dicts(), mapper=_mapper, total_batch_size=2, seed=4))
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = float(torch.rand(())), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    next(loader)
    assert (float(torch.rand(())), np.random.rand(), random.random()) == expected


def test_grouping_never_mixes_upright_and_lying_images():
    batches = _take(20, aspect_ratio_grouping=True, dataset=_dicts(6))
    assert all(len({s[0] % 2 for s in batch}) == 1 for batch in batches)
    assert {s[0] for batch in batches for s in batch} == set(range(6))


def test_refused_samples_are_replaced_reproducibly_and_reported(caplog):
    first = _take(6, mapper=_picky_mapper)
    assert min(s[0] for batch in first for s in batch) >= 3
    assert "the mapper refused sample" in caplog.text
    assert first == _take(6, mapper=_picky_mapper)
    with pytest.raises(RuntimeError, match="10 samples in a row"):
        _take(1, mapper=lambda sample: None)


def test_unusable_arguments_are_refused():
    with pytest.raises(ValueError, match="no image"):
        build_train_loader([], mapper=_mapper, total_batch_size=2)
    with pytest.raises(ValueError, match="total_batch_size=0"):
        build_train_loader(_dicts(), mapper=_mapper, total_batch_size=0)


def windows_with_objects(filled: int, empty: int) -> list[dict]:
    return [{"annotations": [{}] * (k < filled)} for k in range(filled + empty)]


def test_objects_have_their_share_and_no_window_is_forgotten():
    sampler = ObjectSampler(windows_with_objects(5, 50), share=0.75, seed=3)
    order = list(itertools.islice(sampler, 1000))
    share = np.mean([index < 5 for index in order])
    assert abs(share - 0.75) < 0.05 and set(order) == set(range(55))
    assert order == list(itertools.islice(sampler, 1000))


@pytest.mark.parametrize(("filled", "empty", "share"), [(4, 3, 1.0), (4, 0, 0.1)])
def test_where_one_kind_is_unwanted_or_absent_the_other_fills_in(filled, empty, share):
    sampler = ObjectSampler(windows_with_objects(filled, empty), share)
    assert set(itertools.islice(sampler, 40)) == set(range(filled))


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="share"):
        ObjectSampler(windows_with_objects(2, 2), share=0.0)
    with pytest.raises(ValueError, match="no sample of the dataset has an object"):
        ObjectSampler(windows_with_objects(0, 2))
