"""Conversion of third-party checkpoints: key tables, shape checks, and a report of every key.

A table is a list of rules; the first rule whose pattern matches a whole key decides. Nothing is
dropped in silence: every key of the source ends up under converted, dropped (with a reason),
mismatched or unknown, and every key of the model that got nothing is listed as missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """Conversion of the keys that match a pattern.

    Attributes:
        pattern: regular expression that must match the whole key.
        target: replacement with groups ``\\1``...; None drops the key.
        reason: why the key is dropped.
        transform: function applied to the tensor; None keeps the tensor.
        class_rows: whether the first dimension runs over the classes, so that a permutation of
            the classes applies to it.
        objectness_rows: whether the first dimension runs over classes of which only the first has
            a meaning, "any object": it is cut to the number of classes, but never permuted.
        optional: whether a model may lack the target key; ``reason`` says why.
        objection: function that returns why a tensor must not be dropped, or None.
    """

    pattern: str
    target: str | None
    reason: str = ""
    transform: Transform | None = None
    class_rows: bool = False
    objectness_rows: bool = False
    optional: bool = False
    objection: Callable[[torch.Tensor], str | None] | None = None


@dataclass
class ConversionReport:
    """Outcome for every key.

    Attributes:
        converted: source key -> target key.
        dropped: source key -> reason.
        unknown: source keys that no rule knows.
        mismatched: target key -> "source shape vs model shape", or that the model has no such key;
            source key -> why it must not be dropped.
        missing: keys of the model that got no value, counters of BatchNorm apart.
    """

    converted: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"converted {len(self.converted)} tensors, dropped {len(self.dropped)}, "
            f"unknown {len(self.unknown)}, shape mismatch {len(self.mismatched)}, "
            f"model keys without a value {len(self.missing)}"
        ]
        lines += [f"  dropped     {key}: {reason}" for key, reason in self.dropped.items()]
        lines += [f"  unknown     {key}" for key in self.unknown]
        lines += [f"  mismatched  {key}: {shapes}" for key, shapes in self.mismatched.items()]
        lines += [f"  missing     {key}" for key in self.missing]
        return "\n".join(lines)


def first_rows(count: int) -> Transform:
    """Return a transform that keeps the first rows of a tensor."""

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:count].clone()

    return keep


def reverse_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Turn bins of clockwise angles into bins of counter-clockwise ones (bin i <-> 179 - i)."""
    return tensor.flip(0)


def resnet_rules(prefix: str, target_prefix: str) -> list[Rule]:
    """Map torchvision's ResNet names (also mmcv's) to Detectron2's.

    Args:
        prefix: prefix of the source names, e.g. ``backbone.``; may be empty.
        target_prefix: prefix of the target names.

    Returns:
        Rules for stem, stages, shortcuts and the classifier, which is dropped.
    """
    # Counters come first, because the patterns of the norms below match them too.
    p, t = re.escape(prefix), target_prefix
    rules = [
        Rule(p + r".*num_batches_tracked", None, "a counter that no layer here uses"),
        Rule(p + r"fc\.(weight|bias)", None, "classifier of the pre-training"),
        Rule(p + r"conv1\.weight", f"{t}stem.conv1.weight"),
        Rule(p + r"bn1\.(\w+)", f"{t}stem.conv1.norm.\\1"),
    ]

    # torchvision counts stages from 1, Detectron2's names follow the paper's res2 to res5.
    for stage in range(1, 5):
        block, target = p + rf"layer{stage}\.(\d+)\.", rf"{t}res{stage + 1}.\1."
        rules += [
            Rule(block + r"conv(\d)\.weight", target + r"conv\2.weight"),
            Rule(block + r"bn(\d)\.(\w+)", target + r"conv\2.norm.\3"),
            Rule(block + r"downsample\.0\.weight", target + "shortcut.weight"),
            Rule(block + r"downsample\.1\.(\w+)", target + r"shortcut.norm.\2"),
        ]
    return rules


def backbone_prefix(model_keys: Iterable[str] | None) -> str:
    """Find the prefix of a model's ResNet.

    Args:
        model_keys: keys of the model, if known.

    Returns:
        ``backbone.bottom_up.`` if a pyramid holds it, ``static.backbone.`` in MICML, else
        ``backbone.``.
    """
    for inside in ("backbone.bottom_up.", "static.backbone."):
        if any(key.startswith(inside) for key in model_keys or ()):
            return inside
    return "backbone."


def detectron2_backbone_rules(target_prefix: str = "backbone.") -> list[Rule]:
    """Map Detectron2's ResNet, alone or inside one of its detectors, to our backbone.

    Args:
        target_prefix: prefix of the target names.

    Returns:
        Rules that keep the names of the ResNet and drop every other part of a detector.
    """
    others = r"(backbone\.(fpn_|top_block)|proposal_generator|roi_heads|sem_seg_head|head\.|pixel_)"
    return [
        Rule(r".*num_batches_tracked", None, "a counter that no layer here uses"),
        Rule(r"(fc|linear)\.(weight|bias)", None, "classifier of the pre-training"),
        Rule(r"(backbone\.)?(bottom_up\.)?((stem|res[2-5])\..+)", target_prefix + r"\3"),
        Rule(others + r".*", None, "part of another detector"),
    ]


def mmcls_resnet_rules(keys: Iterable[str], model_keys: Iterable[str] | None = None) -> list[Rule]:
    """Map OpenMMLab's classifiers, like the published ``bh_resnet.pth``, to our backbone.

    Args:
        keys: keys of the checkpoint, with or without the prefix ``backbone.``.
        model_keys: keys of our model, if known.

    Returns:
        The rules.
    """
    prefix = "backbone." if any(key.startswith("backbone.") for key in keys) else ""
    return [
        Rule(r".*num_batches_tracked", None, "a counter that no layer here uses"),
        *resnet_rules(prefix, backbone_prefix(model_keys)),
        Rule(r"head\..+", None, "classifier of the pre-training"),
    ]


RulesOfKeys = Callable[[Iterable[str], Iterable[str] | None], list[Rule]]
"""Function of the keys of a checkpoint, and those of our model if known, that returns rules."""

SOURCES: dict[str, RulesOfKeys] = {
    "torchvision-resnet": lambda keys, model_keys: resnet_rules("", backbone_prefix(model_keys)),
    "detectron2": lambda keys, model_keys: detectron2_backbone_rules(backbone_prefix(model_keys)),
    "mmcls-resnet": mmcls_resnet_rules,
}
"""Name of a source -> its rules. Other modules of key tables have a dict with this name too."""


def class_permutation(source: Sequence[str], target: Sequence[str]) -> list[int]:
    """Find the row of the source for every class of the target.

    Args:
        source: class names in the order of the checkpoint.
        target: class names in the order of the model.

    Returns:
        Indices into ``source``, one per target class.

    Raises:
        ValueError: a target class has no row, or a name occurs twice.
    """
    for names in (source, target):
        if len(set(names)) != len(names):
            raise ValueError(f"class names must be unique, got {list(names)}")

    missing = [name for name in target if name not in source]
    if missing:
        raise ValueError(
            f"the checkpoint has no class {missing}; it has {list(source)} "
            "(names must agree to the letter)"
        )

    return [list(source).index(name) for name in target]


def convert_state_dict(
    source: Mapping[str, torch.Tensor],
    rules: Sequence[Rule],
    model: Mapping[str, torch.Tensor] | None = None,
    class_rows: Sequence[int] | None = None,
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Rename and transform tensors by the rules.

    Args:
        source: tensors by name.
        rules: rules, of which the first match decides.
        model: state dict of the model to fill; shapes are compared and missing keys listed.
        class_rows: new order of the class dimension, see `class_permutation`.

    Returns:
        Tensors under our names, without the mismatched ones, and the report.
    """
    report, result = ConversionReport(), {}

    for key, tensor in source.items():
        rule, match = next(
            ((r, m) for r in rules if (m := re.fullmatch(r.pattern, key))), (None, None)
        )
        if rule is None or match is None:
            report.unknown.append(key)
            continue

        if rule.target is None:
            objection = rule.objection(tensor) if rule.objection is not None else None
            if objection is None:
                report.dropped[key] = rule.reason
            else:
                report.mismatched[key] = objection
            continue

        # Rows are permuted before the transform, which may reorder them.
        target = match.expand(rule.target)
        if class_rows is not None and rule.class_rows:
            tensor = tensor[torch.as_tensor(class_rows)]
        if class_rows is not None and rule.objectness_rows:
            tensor = tensor[: len(class_rows)]
        if rule.transform is not None:
            tensor = rule.transform(tensor)

        # Compared after the transform, which may change the shape.
        if model is not None and target not in model:
            if rule.optional:
                report.dropped[key] = rule.reason
            else:
                report.mismatched[target] = f"{tuple(tensor.shape)}, but the model has no such key"
            continue
        if model is not None and model[target].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)} vs {tuple(model[target].shape)} in the model"
            report.mismatched[target] = shapes
            continue

        report.converted[key] = target
        result[target] = tensor

    if model is not None:
        # Counters of BatchNorm do not influence its output.
        report.missing = [
            key for key in model if key not in result and not key.endswith("num_batches_tracked")
        ]
    return result, report
