"""Checks of a run before its first step: output folder, classes, data and evaluators."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, ListConfig

from .errors import RunError
from .random_state import preserved_random_state

# Keys of models that hold the number of their classes. The last one is a pre-training's, whose
# classes are clusters; the data may have fewer of them.
_CLASS_KEYS = ("num_classes", "roi_heads.num_classes")
_CLUSTER_KEY = "detector.num_classes"
_SHOWN = 12
_MAX_FILES = 10_000


def prepare_output_dir(output_dir: str, key: str = "train.output_dir") -> Path:
    """Create an output folder and check that it can be written to.

    Args:
        output_dir: path of a local folder.
        key: key of the config that names the folder, for the message.

    Returns:
        Path of the folder.

    Raises:
        RunError: the folder cannot be created or written to.
    """
    folder = Path(output_dir)
    probe = folder / f".probe.{os.getpid()}"
    try:
        # Only writing proves it: permissions say nothing about quotas and read-only mounts.
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("writable")
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"the output folder {folder} cannot be written to ({error.strerror or error}); "
            f"choose another with {key}=..."
        ) from error

    return folder


def check_run(cfg: DictConfig, *, is_training: bool) -> Any:
    """Check everything about a run that can be checked before its first step.

    It compares the classes of the model with those of the data, reads the data of the evaluation,
    builds the evaluators and gives them their labels. A training then does not end in an error that
    was there when it began. Random generators are left as they were.

    Args:
        cfg: the whole config.
        is_training: whether to compare the classes of ``dataloader.train`` too. Its data are
            checked by :func:`build_loader` alone, because reading them twice would take long.

    Returns:
        The dataset of ``dataloader.test``; None if nothing is evaluated.

    Raises:
        RunError: the first problem that was found; the message names the keys.
    """
    splits = ("train", "test") if is_training else ("test",)
    with preserved_random_state():
        tested = _check_evaluation(cfg)

    # Last, because some formats tell their classes only when they are read.
    check_classes(cfg, splits)
    return tested


def check_classes(cfg: DictConfig, splits: Sequence[str] = ("train", "test")) -> None:
    """Compare the classes of the model with those of its data, as far as they are known.

    Args:
        cfg: the whole config.
        splits: splits to check, of ``train`` and ``test``.

    Raises:
        RunError: a class list is empty, has another length than the model has classes, or the
            same classes have another order in training and test.
    """
    key, wanted = num_classes(cfg)
    if key is None:
        return
    found: dict[str, tuple[str, list[str]]] = {}
    for split in splits:
        for name in dataset_names(cfg, split):
            classes = classes_of(name)
            if classes is None:
                continue
            if not classes:
                raise RunError(f"dataloader.{split}: dataset {name} has an empty list of classes")
            if len(classes) != wanted:
                raise RunError(
                    f"{key}={wanted}, but dataset {name} of dataloader.{split} has {len(classes)} "
                    f"class{'es' * (len(classes) != 1)} ({_listed(classes)}); set "
                    f"{key}={len(classes)}, or name another dataset with "
                    f"dataloader.{split}.dataset.names=..."
                )
            found.setdefault(split, (name, classes))

    if len(found) == 2:
        (train, first), (test, second) = found["train"], found["test"]
        if first != second and sorted(first) == sorted(second):
            raise RunError(
                f"dataset {test} of dataloader.test has the classes of {train} in another order "
                f"({_listed(second)} instead of {_listed(first)}), so that every one would be "
                "scored as another; register both with one list"
            )


def num_classes(cfg: DictConfig, keys: Sequence[str] = _CLASS_KEYS) -> tuple[str | None, int]:
    """Look up how many classes the model of a config tells apart.

    Args:
        cfg: the whole config.
        keys: keys of the model to look for; the first one that exists is taken.

    Returns:
        (dotted key, number), or (None, 0) if the model has no such key: some pre-trainings have
        no classes, or classes of their own.
    """
    for key in keys:
        node: Any = cfg.model
        for part in key.split("."):
            node = node.get(part) if isinstance(node, DictConfig) else None
        if isinstance(node, int):
            return f"model.{key}", node

    return None, 0


def dataset_names(cfg: DictConfig, split: str) -> list[str]:
    """List the names of a loader's registered datasets.

    Args:
        cfg: the whole config.
        split: ``train`` or ``test``.

    Returns:
        The names; empty if the loader's data have none.
    """
    loader = cfg.dataloader.get(split)
    dataset = loader.get("dataset") if isinstance(loader, DictConfig) else None
    names = dataset.get("names") if isinstance(dataset, DictConfig) else None

    if isinstance(names, str):
        return [names]
    return [str(name) for name in names] if isinstance(names, ListConfig) else []


def classes_of(name: str) -> list[str] | None:
    """Look up the classes of a dataset.

    Args:
        name: name of a dataset, registered or not.

    Returns:
        Names of the classes in order; None if they are unknown before the dataset is read.
    """
    # The metadata catalog creates an entry for every name that it is asked for.
    if name not in DatasetCatalog.list():
        return None

    classes = MetadataCatalog.get(name).get("thing_classes")
    return None if classes is None else list(classes)


def build_loader(config: DictConfig, name: str, whole: DictConfig | None = None) -> Any:
    """Build a loader of the config; unusable data give one sentence instead of a traceback.

    Args:
        config: node of the loader in the config.
        name: key of the loader, for the message, like ``dataloader.train``.
        whole: the whole config; if given, the labels are compared with the model's classes.

    Returns:
        The loader.

    Raises:
        RunError: a dataset is not registered, its files are missing or cannot be used, it shows
            no object, or it has an object of a class that the model does not have.
    """
    # The images come first, because the loader does not give them out again.
    return _build_loader_of(_read_dataset(config, name, whole), config, name)


def _read_dataset(config: DictConfig, name: str, whole: DictConfig | None) -> Any:
    """Build the dataset of a loader and check it; None if the loader has none."""
    with one_sentence(name):
        records = instantiate(config["dataset"]) if "dataset" in config else None

        if whole is not None and isinstance(records, list):
            if num_classes(whole)[0] is not None:
                _check_objects(records, config, name)
            _check_files(records, config, name)
            _check_categories(records, name, *num_classes(whole, (*_CLASS_KEYS, _CLUSTER_KEY)))
        return records


def _build_loader_of(records: Any, config: DictConfig, name: str) -> Any:
    """Build the loader of a dataset that is read, or of none."""
    parts = {key: config[key] for key in config if key != "dataset"}
    if records is not None:
        parts["dataset"] = records
    with one_sentence(name):
        return instantiate(parts)


def build_evaluators(config: DictConfig | ListConfig) -> Any:
    """Build the evaluators of the config.

    Args:
        config: config of one evaluator, or a list of configs.

    Returns:
        The evaluator, or a list of evaluators.

    Raises:
        RunError: an option is out of range, or the output folder cannot be written to.
    """
    with one_sentence("dataloader.evaluator"):
        evaluators = instantiate(config)
    return list(evaluators) if isinstance(evaluators, ListConfig) else evaluators


def check_evaluators(cfg: DictConfig) -> list[Any]:
    """Build the evaluators once, so that their folders and options fail before the work.

    Args:
        cfg: the whole config.

    Returns:
        The evaluators; none if the config has none.

    Raises:
        RunError: an evaluator cannot write its results, or has an impossible option.
    """
    if cfg.dataloader.get("evaluator") is None:
        return []
    with preserved_random_state():
        evaluators = build_evaluators(cfg.dataloader.evaluator)
    return evaluators if isinstance(evaluators, list) else [evaluators]


def _check_objects(records: Sequence[Any], config: DictConfig, name: str) -> None:
    """Refuse labels without any object, for example if the class list fits no label."""
    labelled = [r for r in records if isinstance(r, Mapping) and "annotations" in r]
    if not labelled or any(record["annotations"] for record in labelled):
        return

    # Every class name may be misspelt, so the message lists the classes that were wanted.
    names = config.dataset.get("names") if isinstance(config.dataset, DictConfig) else None
    names = [names] if isinstance(names, str) else list(names or [])
    classes = next((classes_of(one) for one in names if classes_of(one)), None)
    listed = f" ({_listed(classes)})" if classes else ""
    raise RunError(
        f"{name}: none of the {len(labelled)} labelled images of {', '.join(names) or 'the data'} "
        f"shows an object of its classes{listed}. If the log above has unknown classes, compare "
        "their spelling with that of the label files; else the labels hold no object: add images "
        "that show some"
    )


def _check_files(records: Sequence[Any], config: DictConfig, name: str) -> None:
    """Refuse missing images, which a loader would only notice in the middle of a run."""
    target = (config.get("mapper") or {}).get("_target_")
    module = target if isinstance(target, str) else getattr(target, "__module__", "")
    if not module.startswith(("rsd2.", "detectron2.")):
        return  # a user's own mapper may create its images, or find them elsewhere

    # Of very many images only every n-th one is checked: this must not take minutes.
    step = max(1, len(records) // _MAX_FILES)
    files = [r["file_name"] for r in records[::step] if isinstance(r, Mapping) and "file_name" in r]
    missing = [file for file in dict.fromkeys(files) if not Path(file).exists()]
    if missing:
        raise RunError(
            f"{name}: {len(missing)} of {len(set(files))} checked images are not "
            f"there, for example {missing[0]}; put them where the labels say, or correct the path "
            "of the dataset"
        )


def _check_categories(records: Sequence[Any], name: str, key: str | None, number: int) -> None:
    """Refuse labels of a class that the model does not have."""
    if key is None:
        return
    for record in records:
        if not isinstance(record, Mapping):
            continue
        labels = [a.get("category_id", 0) for a in record.get("annotations", ())]
        labels += [record["label"]] if "label" in record else []

        wrong = [label for label in labels if not 0 <= label < number]
        if wrong:
            raise RunError(
                f"{name}: image {record.get('file_name', record.get('image_id'))} has an object of "
                f"class {wrong[0]}, counted from 0, and {key}={number}; set {key} to the number of "
                "classes of the data"
            )


def _check_evaluation(cfg: DictConfig) -> Any:
    """Build and check all parts of the evaluation after the last step, and return its dataset."""
    dataloader = cfg.dataloader
    if dataloader.get("evaluator") is None or dataloader.get("test") is None:
        return None
    records = _read_dataset(dataloader.test, "dataloader.test", cfg)
    _build_loader_of(records, dataloader.test, "dataloader.test")

    # A reset reads the labels, which is where a wrong dataset shows.
    for evaluator in check_evaluators(cfg):
        with one_sentence("dataloader.evaluator"):
            evaluator.reset()

    configs = dataloader.evaluator
    for config in configs if isinstance(configs, ListConfig) else [configs]:
        _check_dataset_of(config, cfg)
        if config.get("output_dir"):
            prepare_output_dir(config.output_dir, "dataloader.evaluator.output_dir")
    return records


def _check_dataset_of(config: DictConfig, cfg: DictConfig) -> None:
    """Refuse an evaluator whose dataset shares no image with the tested ones."""
    name, tested = config.get("dataset_name"), dataset_names(cfg, "test")
    if not isinstance(name, str) or not tested or name in tested:
        return

    with one_sentence("dataloader.evaluator"):
        # A tiled dataset is scored on the images that its tiles were cut from.
        scored = {name, MetadataCatalog.get(name).get("source_dataset") or name}
        known = {one for each in scored for one in _image_ids(each)}
        seen = {one for each in tested for one in _image_ids(each)}

    if known and seen and not known & seen:
        raise RunError(
            f"dataloader.evaluator.dataset_name={name} has none of the images of "
            f"dataloader.test.dataset.names={', '.join(tested)}; name one dataset in both"
        )


def _image_ids(name: str) -> Iterator[str]:
    for record in DatasetCatalog.get(name):
        yield str(record.get("image_id"))
        if record.get("tile"):
            yield str(record["tile"].get("source_id"))


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """Turn errors about unusable data or settings into one kind of error.

    Args:
        name: key of the config that the block builds, for the message.

    Yields:
        Nothing.

    Raises:
        RunError: the block raised an error about values, files, or names of Detectron2.
    """
    try:
        yield
    except RunError:
        raise
    except (ValueError, OSError) as error:
        raise RunError(f"{name}: {error}") from error
    except (KeyError, AttributeError, AssertionError) as error:
        # Detectron2 raises these for unregistered names, unnamed classes and data without images.
        # Other errors of these types are bugs of a program, whose traceback matters.
        text = str(error.args[0]) if error.args else ""
        known = ("is not registered", "does not exist in the meta", "is empty!", "No valid data")
        if not any(part in text for part in known):
            raise
        raise RunError(f"{name}: {text.splitlines()[0]}") from error


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
