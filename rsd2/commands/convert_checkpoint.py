r"""Convert a third-party checkpoint to this project's layout, and account for every key of it.

    python tools/convert_checkpoint.py --source torchvision-resnet \
        --input resnet50.pth --output r50.pth --config-file CONFIG.py
    python tools/convert_checkpoint.py --source ars-detr --input ars_detr_dior_r.pth \
        --output dior_r.pth --config-file CONFIG.py model.num_classes=20 \
        --source-classes dior_r:ars_detr --target-classes dior_r:rsd2
    python tools/convert_checkpoint.py --source mutdet --input mutdet_pretrain.pth \
        --output pretrain.pth --config-file projects/MutDet/configs/mutdet_r50_dota_pretrain.py
    python tools/convert_checkpoint.py --source mmcls-resnet --input bh_resnet.pth \
        --output bh50.pth \
        --config-file projects/BottomHeavy/configs/faster_rcnn_bh50_sspnet_tiny_person.py
    python tools/convert_checkpoint.py --source mae --input mae_pretrain_vit_base.pth \
        --output vit_b.pth \
        --config-file projects/ObjectJEPA/configs/faster_rcnn_vit_b16_aitod_finetune.py
    python tools/convert_checkpoint.py --source micml --input micml.pth --output micml_ours.pth \
        --config-file projects/MICML/configs/micml_dla34_rscardata.py

"ars-detr" means detectors, ARS-DETR and MutDet's fine-tuned ones; "mutdet" MutDet's pre-training;
"micml" also MICPL; "dsfnet" fills a MICML too, all but its motion module, with --allow-missing.
With --config-file, shapes are compared with the config's model and its keys without a value are
listed. The file's code is never run. Nothing is written unless every key is accounted for.
Exit codes: 0 written, 1 keys unaccounted for, 2 wrong arguments or an unreadable file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate

import rsd2.projects
from rsd2.config import apply_overrides, read_config_file
from rsd2.data.class_orders import class_order
from rsd2.io.files import replaced_file
from rsd2.io.program import print_error
from rsd2.io.text import read_lines
from rsd2.weights import conversion, conversion_detr, conversion_vit
from rsd2.weights.conversion import (
    ConversionReport,
    Rule,
    RulesOfKeys,
    backbone_prefix,
    class_permutation,
    convert_state_dict,
)
from rsd2.weights.conversion_vit import fill_target_encoder, vit_prefix
from rsd2.weights.tensor_files import read_tensors

VIT_SOURCES = tuple(conversion_vit.SOURCES)
BACKBONE_SOURCES = ("torchvision-resnet", "mmcls-resnet", "detectron2", "dla34", *VIT_SOURCES)
# Keys that the transformers of these files lack, and that start at zero in a detector.
ZERO_AT_FIRST = ("rel_pos_h", "rel_pos_w")
MICML_PIXELS = "BGR, mean 127.4, std 21.05 in all channels: what the configs have"
PIXELS = {
    "torchvision-resnet": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the "
    "configs have as model.pixel_mean and model.pixel_std",
    "mmcls-resnet": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the "
    "configs have",
    "sspnet": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the configs have",
    "ars-detr": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the configs have",
    "mutdet": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the configs have",
    "ijepa": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the configs have",
    "ijepa-context": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: as the configs",
    "mae": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the configs have",
    "timm-vit": "depends on the file: timm's pretrained_cfg has mean and std of RGB in [0, 1]; "
    "multiply them by 255 for model.pixel_mean and model.pixel_std",
    "vitdet": "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375: what the configs have",
    "micml": MICML_PIXELS,
    "dsfnet": MICML_PIXELS,
    "dla34": f"as its training had them; MICML gives it {MICML_PIXELS}",
    "detectron2": "depends on the file: backbones made from torchvision's expect RGB with the "
    "configs' mean and std, others BGR; set model.pixel_mean, model.pixel_std and image_format",
}


def all_sources() -> dict[str, RulesOfKeys]:
    """Collect the key tables of the core and those of every project.

    A project has key tables if it contains a module ``conversion`` with a dict ``SOURCES``.

    Returns:
        Name of a source -> function from the keys of a file and of our model to the rules.
    """
    sources = {**conversion.SOURCES, **conversion_detr.SOURCES, **conversion_vit.SOURCES}
    for module in rsd2.projects.find_modules("conversion"):
        sources.update(module.SOURCES)

    return sources


def rules_for(
    source: str, keys: Iterable[str], model_keys: Iterable[str] | None = None
) -> list[Rule]:
    """Select the rules for a kind of checkpoint.

    Args:
        source: a name of `all_sources`.
        keys: names of the checkpoint's tensors.
        model_keys: names of our model's tensors, if known.

    Returns:
        The rules, fitted to both.

    Raises:
        ValueError: no such source.
    """
    sources = all_sources()
    if source not in sources:
        raise ValueError(f"no source {source!r}; there are {', '.join(sources)}")
    return sources[source](keys, model_keys)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", required=True, choices=tuple(all_sources()), help="who wrote the file"
    )
    parser.add_argument("--input", required=True, type=Path, help=".pth, .pt, .bin, or a .pkl")
    parser.add_argument("--output", required=True, type=Path, help="file to write, .pth")
    parser.add_argument("--config-file", type=Path, help="config of the model to fill")
    parser.add_argument(
        "--source-classes",
        nargs="+",
        help="classes in the order of the file: names, a file of names, or an "
        "order that is known by name, DATASET:TOOLBOX",
    )
    parser.add_argument(
        "--target-classes", nargs="+", help="classes in the order of the model, in the same forms"
    )
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="leave out unknown keys and other shapes"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="write although the model needs more keys"
    )
    parser.add_argument("opts", nargs="*", help="overrides of the config: model.key=value ...")
    return parser


def class_names(values: Sequence[str]) -> list[str]:
    """Read names of classes from the command line.

    Args:
        values: the names; or one text file with a name per line; or one order that
            ``rsd2.data.class_orders`` knows, like ``dior_r:ars_detr``.

    Returns:
        The names in their order.

    Raises:
        ValueError: no such order; the known ones are listed.
    """
    if len(values) == 1 and Path(values[0]).is_file():
        return [line.strip() for line in read_lines(values[0]) if line.strip()]
    if len(values) == 1 and ":" in values[0]:
        return list(class_order(*values[0].split(":", 1)))
    return list(values)


def class_rows(args: argparse.Namespace) -> list[int] | None:
    """Compute the permutation of the classes that the command line asks for, if any.

    Args:
        args: parsed arguments.

    Returns:
        See `class_permutation`.

    Raises:
        ValueError: only one of the two lists is given, names differ, or the source has no classes.
    """
    if (args.source_classes is None) != (args.target_classes is None):
        raise ValueError("--source-classes and --target-classes go together")
    if args.source_classes is None:
        return None
    # A permutation of classes is meaningless without a classifier.
    if args.source in BACKBONE_SOURCES:
        raise ValueError(f"--source {args.source} gives a backbone, which has no classes")
    # SSPNet's classifier has the background as its last class, which a permutation would move.
    if args.source == "sspnet":
        raise ValueError("--source sspnet keeps the order of the classes, background last")
    return class_permutation(class_names(args.source_classes), class_names(args.target_classes))


def model_state(config_file: Path | None, opts: Sequence[str]) -> dict[str, torch.Tensor] | None:
    """Build the state dict of a config's model with its initial values.

    Args:
        config_file: an experiment, or a file that exports ``model`` alone.
        opts: overrides.

    Returns:
        The state dict; None without a config.

    Raises:
        ValueError: overrides without a config, or a config without ``model``.
        FileNotFoundError: no such config.
    """
    if config_file is None:
        if opts:
            raise ValueError(f"overrides need --config-file, got {' '.join(opts)}")
        return None

    if not config_file.is_file():
        raise FileNotFoundError(f"no config file {config_file}")
    cfg = read_config_file(config_file)
    if "model" not in cfg:
        raise ValueError(f"{config_file} exports no `model`, only {', '.join(map(str, cfg))}")
    # Overrides come before building: they may change the number of classes and so the shapes.
    apply_overrides(cfg, opts)
    return dict(instantiate(cfg.model).state_dict())


def check_output(source: Path, output: Path) -> None:
    """Check that the output can be written and does not replace its input.

    Args:
        source: the input.
        output: file to write.

    Raises:
        ValueError: wrong suffix, or input and output are one file.
        FileNotFoundError: the folder of the output does not exist.
    """
    if output.suffix != ".pth":
        raise ValueError(f"--output must end in .pth, got {output}")
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"--output {output} is the input itself; choose another name")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"the folder {output.parent} of --output does not exist")


def write_state(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write ``{"model": state}``, completely or not at all.

    Args:
        state: tensors by name.
        path: path of the file.
    """
    # A stream, because torch writes the name of a file into it.
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        # Clones, because tensors may be views of a larger storage, which torch would save whole.
        torch.save({"model": {key: value.clone() for key, value in state.items()}}, file)


def complaints(report: ConversionReport, args: argparse.Namespace) -> list[str]:
    """List the reasons against writing the file.

    Args:
        report: report of the conversion; expected missing keys are removed from it: everything but
            the backbone if the source is a backbone, the backbone if the source has none.
        args: parsed arguments.

    Returns:
        One sentence per problem, with the flag that accepts it.
    """
    if args.source in BACKBONE_SOURCES:
        # The prefix of the backbone differs between detectors, classifiers and pre-training models.
        keys = [*report.converted.values(), *report.missing]
        of_vit = args.source in VIT_SOURCES
        prefix = vit_prefix(keys) if of_vit else backbone_prefix(keys)
        rest = [key for key in report.missing if not key.startswith(prefix)]
        report.missing = [key for key in report.missing if key.startswith(prefix)]
        zero = [key for key in report.missing if key.rpartition(".")[2] in ZERO_AT_FIRST]
        if of_vit and zero:
            report.missing = [key for key in report.missing if key not in zero]
            print(f"{len(zero)} tables of relative positions start at zero")
        if rest:
            # A missing head is expected, but a training from this file has to be told so.
            print(f"{len(rest)} keys of the model outside the backbone keep their initial values;")
            in_detector = prefix == "backbone.net."
            way = "init_inherit.file_part=backbone.net" if in_detector else "init_strict=false"
            print(f"train with train.{way}")
    elif not any(target.startswith("backbone.") for target in report.converted.values()):
        absent = [key for key in report.missing if key.startswith("backbone.")]
        report.missing = [key for key in report.missing if not key.startswith("backbone.")]
        if absent:
            print(f"the file has no backbone: {len(absent)} keys keep their initial values")

    found = []
    if not report.converted:
        found.append(f"no key of {args.input} is of --source {args.source}")
    bad = len(report.unknown) + len(report.mismatched)
    if bad and not args.allow_mismatch:
        found.append(f"{bad} keys are unknown or do not fit; --allow-mismatch leaves them out")
    if report.missing and not args.allow_missing:
        found.append(f"{len(report.missing)} keys of the model get no value; see --allow-missing")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one checkpoint.

    Args:
        argv: command line without the program's name.

    Returns:
        The exit code.
    """
    args = build_parser().parse_intermixed_args(argv)
    try:
        # Arguments first: reading a large file takes a minute.
        check_output(args.input, args.output)
        rows = class_rows(args)
        source = read_tensors(args.input)
        model = model_state(args.config_file, args.opts)
        rules = rules_for(args.source, source, model)
        state, report = convert_state_dict(source, rules, model, rows)
        fill_target_encoder(state, report)
        problems = complaints(report, args)
        print(report)
        if problems:
            print_error(f"{args.output} not written: {'; '.join(problems)}")
            return 1
        write_state(state, args.output)
    except (ValueError, OSError) as error:
        print_error(error)
        return 2

    print(f"pixels: {PIXELS[args.source]}")
    print(f"wrote {len(state)} tensors to {args.output}")
    return 0
