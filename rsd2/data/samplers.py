"""Endless training data that can be continued exactly.

The order of the samples depends on the seed alone, and the random numbers of each sample's
augmentation on the seed and the sample's place in the stream. So neither the number of loader
workers nor an interruption changes what a model sees.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

_logger = logging.getLogger(__name__)
_MAX_RETRIES = 10


class SeededMapDataset(Dataset):
    """Maps dataset elements with random generators that are seeded for each sample."""

    def __init__(
        self, dataset: Any, mapper: Callable[[Any], Any], seed: int, seed_part: int = 0
    ) -> None:
        """Store the arguments.

        Args:
            dataset: sequence with ``__getitem__`` and ``__len__``.
            mapper: function of one element; None as its result means that the element is unusable.
            seed: seed of the run, >= 0.
            seed_part: distinguishes streams of the same seed, >= 0.
        """
        self._dataset, self._mapper, self._seed = dataset, mapper, (seed, seed_part)

    def __len__(self) -> int:
        """Return the number of elements."""
        return len(self._dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Map one element.

        Args:
            key: (place in the stream, index of the element).

        Returns:
            The mapped element. If the mapper returns None, another element is drawn instead, with a
            warning.

        Raises:
            RuntimeError: the mapper refused ten elements in a row.
        """
        place, index = key
        # The generators of the process are restored below: the model may draw from them, too.
        saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            # Three generators with seeds of their own, which no two places of a stream share.
            words = np.random.SeedSequence([*self._seed, place]).generate_state(3)
            random.seed(int(words[0]))
            np.random.seed(words[1])
            torch.random.default_generator.manual_seed(int(words[2]))
            for _ in range(_MAX_RETRIES):
                mapped = self._mapper(self._dataset[index])
                # Another element is drawn from the same stream, so that a repeated run agrees.
                if mapped is not None:
                    return mapped
                _logger.warning("the mapper refused sample %d; another one replaces it", index)
                index = random.randrange(len(self._dataset))
        finally:
            random.setstate(saved[0])
            np.random.set_state(saved[1])
            torch.set_rng_state(saved[2])

        raise RuntimeError(
            f"the mapper refused {_MAX_RETRIES} samples in a row, the last of index {index}; "
            "look at the dataset or the mapper"
        )


class ObjectSampler(Sampler):
    """An endless order in which windows with objects have a fixed share.

    A scene has many windows without any object. Each kind is walked through in a shuffled order of
    its own, again and again, so that no window is forgotten.
    """

    def __init__(self, dataset: Sequence[Mapping[str, Any]], share: float = 0.5, seed: int = 0):
        """Divide the dataset.

        Args:
            dataset: dataset dicts with ``annotations``.
            share: of samples with objects, in (0, 1]; 1 never shows the others.
            seed: of the order, >= 0.

        Raises:
            ValueError: the share is out of range, or no sample has an object.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        filled = [bool(record.get("annotations")) for record in dataset]
        self._filled = [index for index, has in enumerate(filled) if has]
        self._empty = [index for index, has in enumerate(filled) if not has]
        self._share, self._seed = share, seed
        if not self._filled:
            raise ValueError("no sample of the dataset has an object; look at its labels")

    def __iter__(self) -> Iterator[int]:
        """Yield indices without end, every n-th of them to each of n processes."""
        return itertools.islice(self._all(), comm.get_rank(), None, comm.get_world_size())

    def _all(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        filled, empty = _walk(self._filled, generator), _walk(self._empty, generator)
        while True:
            with_object = not self._empty or float(torch.rand(1, generator=generator)) < self._share
            yield next(filled if with_object else empty)


def _walk(indices: Sequence[int], generator: torch.Generator) -> Iterator[int]:
    """Go through indices again and again, each time in another order."""
    while True:
        for place in torch.randperm(len(indices), generator=generator).tolist():
            yield indices[place]


class _Batches(Sampler):
    """Batches of (place in the stream, index), the first ``skip`` of them left out."""

    def __init__(
        self, sampler: Sampler, batch_size: int, groups: Sequence[int] | None, skip: int
    ) -> None:
        self._sampler, self._batch_size = sampler, batch_size
        self._groups, self._skip = groups, skip

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._all(), self._skip, None)

    def _all(self) -> Iterator[list[tuple[int, int]]]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        pending: dict[int, list[tuple[int, int]]] = {}
        for position, index in enumerate(self._sampler):
            group = 0 if self._groups is None else self._groups[index]
            batch = pending.setdefault(group, [])
            # The place counts over all processes, so no two of them augment with the same numbers.
            batch.append((position * world_size + rank, int(index)))
            if len(batch) == self._batch_size:
                yield pending.pop(group)


class ResumableTrainLoader:
    """An endless iterable of batches with a position that is saved in checkpoints."""

    def __init__(
        self,
        dataset: Any,
        *,
        mapper: Callable[[Any], Any],
        total_batch_size: int,
        num_workers: int,
        seed: int,
        sampler: Sampler | None,
        groups: Sequence[int] | None,
        collate_fn: Callable[[list[Any]], Any] | None,
    ) -> None:
        """Store the arguments; use :func:`build_train_loader`, which checks them."""
        self._dataset, self._mapper, self._sampler = dataset, mapper, sampler
        self._total_batch_size, self._num_workers = total_batch_size, num_workers
        self._groups, self._collate_fn = groups, collate_fn
        self.seed = seed
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        """Yield batches from the current position on, without end."""
        sampler = self._sampler or TrainingSampler(len(self._dataset), seed=self.seed)
        world_size = comm.get_world_size()
        batches = _Batches(
            sampler, self._total_batch_size // world_size, self._groups, self.position
        )
        loader = DataLoader(
            SeededMapDataset(self._dataset, self._mapper, self.seed),
            batch_sampler=batches,
            num_workers=self._num_workers,
            collate_fn=self._collate_fn or _as_list,
            # Otherwise the loader would draw from the generator that the model uses.
            generator=torch.Generator().manual_seed(self.seed),
        )
        for batch in loader:
            # Counted on delivery, not on loading: workers read ahead of what training has seen.
            self.position += 1
            yield batch

    @property
    def dataset(self) -> Any:
        """The samples before mapping."""
        return self._dataset

    @property
    def num_samples(self) -> int:
        """Number of samples in the dataset, seen once in each epoch."""
        return len(self._dataset)

    @property
    def total_batch_size(self) -> int:
        """Samples of one batch over all processes."""
        return self._total_batch_size

    def state_dict(self) -> dict[str, int]:
        """Return seed, batches delivered so far, and total batch size."""
        return {
            "seed": self.seed,
            "position": self.position,
            "total_batch_size": self._total_batch_size,
            "world_size": comm.get_world_size(),
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a saved position; call it before iterating.

        With another batch size or number of processes it continues after the same number of
        samples, though not with exactly the same ones if samples are grouped.

        Args:
            state: result of :meth:`state_dict`.
        """
        self.seed = state["seed"]
        samples = state["position"] * state["total_batch_size"]
        self.position = samples // self._total_batch_size
        now = (self._total_batch_size, comm.get_world_size())
        before = (state["total_batch_size"], state["world_size"])
        if now != before:
            _logger.warning(
                "resumed with (total batch size, processes) %s instead of %s: the data continue "
                "after %d samples, but not bit by bit",
                now,
                before,
                self.position * self._total_batch_size,
            )


def build_train_loader(
    dataset: Any,
    *,
    mapper: Callable[[Any], Any],
    total_batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    sampler: Sampler | None = None,
    aspect_ratio_grouping: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> ResumableTrainLoader:
    """Build the training loader: like ``build_detection_train_loader``, but resumable.

    Args:
        dataset: list of dataset dicts, or a map-style dataset.
        mapper: function from one dict to a model input.
        total_batch_size: images per batch over all processes; a multiple of their number.
        num_workers: loader processes per training process; 0 loads in the training process.
        seed: seed of order and augmentation; None draws one from numpy's generator, which the
            training tool seeds with ``train.seed``.
        sampler: sampler of indices, endless, and the same sequence each time it is iterated. None
            shuffles the dataset again and again.
        aspect_ratio_grouping: put upright and lying images into different batches; needs
            ``width`` and ``height`` in the dicts.
        collate_fn: function of a list of model inputs; None leaves the list.

    Returns:
        The loader, an endless iterable with ``state_dict`` and ``load_state_dict``.

    Raises:
        ValueError: empty dataset, or the batch size does not fit the number of processes.
    """
    world_size = comm.get_world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        raise ValueError(
            f"dataloader.train.total_batch_size={total_batch_size} has to be a positive multiple "
            f"of the number of processes, {world_size}"
        )
    if len(dataset) == 0:
        raise ValueError("the training dataset has no image; look at its names, folders, filters")
    groups = None
    # Only the images' shape decides, as in Detectron2, so that batches need little padding.
    if aspect_ratio_grouping:
        groups = [int(x["width"] > x["height"]) for x in dataset]
    if isinstance(dataset, list):
        # Serialized, because forked workers would copy a list of Python objects page by page.
        dataset = DatasetFromList(dataset, copy=False)
    return ResumableTrainLoader(
        dataset,
        mapper=mapper,
        total_batch_size=total_batch_size,
        num_workers=num_workers,
        # All processes have to shuffle alike, so they share one drawn seed.
        seed=comm.shared_random_seed() if seed is None or seed < 0 else seed,
        sampler=sampler,
        groups=groups,
        collate_fn=collate_fn,
    )


def _as_list(batch: list[Any]) -> list[Any]:
    return batch
