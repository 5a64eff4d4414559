"""Key tables of MICML / MICPL, DSFNet and DLA-34."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rsd2.weights.conversion import Rule, RulesOfKeys

_COUNTER = Rule(r".*num_batches_tracked", None, "a counter that no layer here uses")
_NEVER_USED = "built by the official program and never used"
_NO_MOTION = "only the motion module uses it, and the model has none"
_MAX_MAPS = 4  # number of maps that an aggregation adds to its first


def dla_rules(prefix: str, target_prefix: str) -> list[Rule]:
    """Make the rules from DLA-34 to `DLA34`.

    Args:
        prefix: prefix of the source names, e.g. ``base.``; may be empty.
        target_prefix: prefix of the target names.

    Returns:
        The rules; level 5 and two shortcuts exist only in models of the official layout.
    """
    p, t = re.escape(prefix), target_prefix
    rules = []
    for theirs, ours in (("base_layer", "stem"), ("level0", "level0"), ("level1", "level1")):
        rules += [
            Rule(p + rf"{theirs}\.0\.weight", f"{t}{ours}.weight"),
            Rule(p + rf"{theirs}\.1\.(\w+)", rf"{t}{ours}.norm.\1"),
        ]

    for place, unused in (
        (r"(level5)", True),
        (r"(level2)", False),
        (r"(level[34]\.tree[12])", False),
    ):
        options = {"optional": unused, "reason": _NEVER_USED if unused else ""}
        rules += [
            Rule(p + place + theirs, rf"{t}\1." + ours, **options)
            for theirs, ours in (
                (r"\.tree([12])\.conv([12])\.weight", r"block\2.conv\3.weight"),
                (r"\.tree([12])\.bn([12])\.(\w+)", r"block\2.conv\3.norm.\4"),
                (r"\.root\.conv\.weight", "root.weight"),
                (r"\.root\.bn\.(\w+)", r"root.norm.\2"),
                (r"\.project\.0\.weight", "shortcut.weight"),
                (r"\.project\.1\.(\w+)", r"shortcut.norm.\2"),
            )
        ]

    # The outer shortcut of a double tree: its result is overwritten inside the sub-tree.
    outer = p + r"(level[34])\.project\."
    return [
        *rules,
        Rule(outer + r"0\.weight", rf"{t}\1.shortcut.weight", _NEVER_USED, optional=True),
        Rule(outer + r"1\.(\w+)", rf"{t}\1.shortcut.norm.\2", _NEVER_USED, optional=True),
    ]


def _aggregation_rules(prefix: str, target: str) -> list[Rule]:
    """Make the rules of an aggregation; the official program counts its maps from 1."""
    rules = []
    for number in range(1, _MAX_MAPS + 1):
        rules.append(Rule(rf"{prefix}up_{number}\.weight", f"{target}up.{number - 1}.weight"))
        for theirs, ours in (("proj", "project"), ("node", "node")):
            unit, place = rf"{prefix}{theirs}_{number}\.", f"{target}{ours}.{number - 1}."
            # The offsets have a convolution of their own inside the deformable one.
            rules += [
                Rule(unit + r"conv\.conv_offset_mask\.(?P<part>\w+)", place + r"offset.\g<part>"),
                Rule(unit + r"conv\.(?P<part>\w+)", place + r"conv.\g<part>"),
                Rule(unit + r"actf\.0\.(?P<part>\w+)", place + r"norm.\g<part>"),
            ]
    return rules


def _motion_rules() -> list[Rule]:
    theirs, ours = r"base3d\.Motion\.", "dynamic.motion."
    renamed = {
        r"cell_list\.(\d+)\.conv\.(\w+)": r"cells.\1.conv.\2",
        r"w0\.(\w+)": r"query.\1",
        r"w1\.(\w+)": r"vision_identity.\1",
        r"w2\.(\w+)": r"vision_value.\1",
        r"se1\.fc\.0\.weight": "vision_attention.squeeze.weight",
        r"se1\.fc\.2\.weight": "vision_attention.excite.weight",
        r"se2\.fc\.0\.weight": "mining_attention.squeeze.weight",
        r"se2\.fc\.2\.weight": "mining_attention.excite.weight",
        r"conv1\.(\d)\.(\w+)": r"mining.\1.\2",
        r"mapping\.0\.weight": "adapter.0.weight",
        r"mapping\.2\.weight": "adapter.1.weight",
    }

    return [
        Rule(theirs + r"cell_list2\..+", None, "the tensors of cell_list once more"),
        *(Rule(theirs + a, ours + b, _NO_MOTION, optional=True) for a, b in renamed.items()),
    ]


def micml_rules(keys: Iterable[str]) -> list[Rule]:
    """Make the rules from MICML, MICPL, DSFNet and its two variants to `MICML`.

    Args:
        keys: names of the checkpoint's tensors, which tell the dynamic variant from the others.

    Returns:
        The rules. DSFNet's names are MICML's without those of the motion module.
    """
    parts = {key.partition(".")[0] for key in keys}
    # The dynamic variant's only aggregation bears the name of the static branch's.
    branch = "dynamic" if "base3d" in parts and "base" not in parts else "static"
    rules = [_COUNTER, *dla_rules("base.", "static.backbone."), *_motion_rules()]
    for stage in range(3):
        unit, place = rf"base3d\.branch{stage + 1}\.(\d)\.", rf"dynamic.stages.{stage}.\1."
        rules += [
            Rule(unit + r"conv\.weight", place + "conv.weight"),
            Rule(unit + r"bn\.(\w+)", place + r"norm.\2"),
        ]

    return [
        *rules,
        *_aggregation_rules(
            r"dla_up\.ida_(?P<step>\d)\.", rf"{branch}.aggregation.steps.\g<step>."
        ),
        *_aggregation_rules(
            r"base3d\.dla_up\.ida_(?P<step>\d)\.", r"dynamic.aggregation.steps.\g<step>."
        ),
        *_aggregation_rules(r"ida_up\.", "fusion."),
        Rule(r"hm\.2\.(\w+)", r"heads.hm.2.\1", class_rows=True),
        Rule(r"(hm|wh|reg)\.(\d)\.(\w+)", r"heads.\1.\2.\3"),
    ]


def dla34_rules() -> list[Rule]:
    """Make the rules from a DLA-34 trained on ImageNet to the static branch.

    Returns:
        The rules.
    """
    head = Rule(r"fc\.(weight|bias)", None, "classifier of the pre-training")
    return [_COUNTER, *dla_rules("", "static.backbone."), head]


SOURCES: dict[str, RulesOfKeys] = {
    "micml": lambda keys, model_keys: micml_rules(keys),
    "dsfnet": lambda keys, model_keys: micml_rules(keys),
    "dla34": lambda keys, model_keys: dla34_rules(),
}
"""Name of a source -> its rules, as ``tools/convert_checkpoint.py`` collects them."""
