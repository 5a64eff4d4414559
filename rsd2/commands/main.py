"""The command ``rsd2``: hands what follows a verb to the module of the verb."""

from __future__ import annotations

import argparse
import difflib
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import rsd2

VERBS = {  # verb -> module with ``main(argv) -> int``, and what it does
    "demo": ("rsd2.commands.demo", "try it all on generated scenes, --quick in a minute"),
    "train": ("rsd2.commands.train", "train or evaluate the model of a config"),
    "predict": ("rsd2.commands.predict", "detect objects in images or videos of any size"),
    "scene": ("rsd2.commands.predict_scene", "detect objects in satellite scenes, write maps"),
    "rank": ("rsd2.commands.rank", "list the images that a detector is least sure of"),
    "prepare": ("rsd2.commands.prepare_dota", "cut DOTA images and labels into tiles"),
    "convert": ("rsd2.commands.convert_checkpoint", "convert a checkpoint of another program"),
    "convert-labels": ("rsd2.commands.convert_labels", "convert labels of annotation tools"),
    "doctor": ("rsd2.commands.doctor", "examine data sets before a model is trained with them"),
    "synthesize": ("rsd2.commands.make_synthetic", "draw synthetic scenes or videos with labels"),
    "split": ("rsd2.commands.make_split", "write lists of images for low-data experiments"),
    "visualize": ("rsd2.commands.visualize_data", "draw labels, or what a training loader makes"),
    "export": ("rsd2.commands.export", "write a detector as an ONNX file, and compare the two"),
    "score": ("rsd2.commands.score", "score result files without a model"),
    "analyze": ("rsd2.commands.analyze_model", "count parameters, FLOPs and activations"),
    "report": ("rsd2.commands.report_run", "turn a run into pictures, or its errors into a page"),
    "draw-video": ("rsd2.commands.draw_video", "draw the labels of videos"),
    "card": ("rsd2.commands.card", "write the model card of a run, or the table of several"),
    "pack": ("rsd2.commands.pack", "make a folder of a run that load_detector takes by its name"),
    "install-detectron2": ("rsd2.commands.install_detectron2", "bring Detectron2 here"),
    "env": ("rsd2.env", "print versions, devices and compiled operators"),
}


def describe_verbs() -> str:
    """Return the text of ``rsd2 --help``, one line for each verb."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, (_, what) in VERBS.items()]

    return "\n".join(
        [
            "usage: rsd2 VERB ...",
            "",
            "Object detection in overhead imagery on Detectron2.",
            "",
            *lines,
            "",
            "rsd2 VERB --help says more about a verb, rsd2 --version prints the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that the command line names.

    Args:
        argv: command line without the program's name; None takes that of the process.

    Returns:
        The exit code of the verb; 2 if there is no such verb, or Detectron2 is missing.

    Raises:
        SystemExit: the verb's parser printed its help, or refused its arguments.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(describe_verbs(), file=sys.stderr)
        return 2

    verb, *rest = arguments
    if verb in ("-h", "--help"):
        print(describe_verbs())
        return 0
    if verb == "--version":
        print(f"rsd2 {rsd2.__version__}")
        return 0
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb.lower(), VERBS, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else "rsd2 --help lists the verbs"
        print(f"rsd2: error: there is no verb {verb!r}; {hint}", file=sys.stderr)
        return 2

    # Parsers name the program after sys.argv[0], and a run's provenance keeps all of it.
    before, sys.argv = sys.argv, [f"rsd2 {verb}", *rest]
    try:
        return _run(verb, rest)
    finally:
        sys.argv = before


def _run(verb: str, arguments: list[str]) -> int:
    """Import the module of a verb and run it."""
    name, what = VERBS[verb]
    # Imported only now, so that ``rsd2 --help`` does not wait for torch. Detectron2 uses parts of
    # torch that are to go one day, which a user can do nothing about.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "detectron2":
                raise
            print(f"rsd2 {verb} needs Detectron2: run rsd2 install-detectron2", file=sys.stderr)
            return 2
    if verb != "env":
        return module.main(arguments)

    # The only module without a command line of its own.
    argparse.ArgumentParser(description=f"{what[0].upper()}{what[1:]}.").parse_args(arguments)
    module.main()
    return 0
