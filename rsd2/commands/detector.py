"""Load a trained model in one line: ``load_detector("output/model_final.pth")("scene.png")``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rsd2.config import find_config, load_config
from rsd2.inference.detector import Detector
from rsd2.inference.seams import SeamRule
from rsd2.inference.sliding_window import WindowParameters
from rsd2.weights.packed import find_packed

from . import model_loading


def load_detector(
    weights: str | Path,
    config: str | Path | None = None,
    *,
    ema: bool = False,
    device: str = "auto",
    window: int | None = None,
    overlap: int | None = None,
    score_threshold: float = 0.3,
    seams: SeamRule = "drop",
    class_names: Sequence[str] | None = None,
) -> Detector:
    """Load a trained model as a function from images to detections, as ``rsd2 predict`` does.

    Args:
        weights: checkpoint file; or the ``.onnx`` file of ``rsd2 export``, which needs no config
            and knows its window and its classes, and which ONNX Runtime runs on the CPU; or a
            folder of ``rsd2 pack``, which has its config and classes: its path, its ``file:``
            address, or its name in the folder that the variable ``RSD2_MODELS`` names.
        config: config of the model, .py or saved .yaml, or the name of one of rsd2's; None takes
            ``config.yaml`` beside the weights, where a training leaves it.
        ema: use the averaged weights of the checkpoint.
        device: "auto", "cpu", "cuda" or "cuda:N".
        window: side of the windows that larger images are cut into, pixels, > 0; None for what an
            exported file was made for; or 1024; or as much as a training image showed, where
            objects in windows of 1024 would have other sizes for the model than in training.
        overlap: overlap of neighbouring windows, pixels, in [0, window); None for 200, but at most
            a quarter of a window that is not given, or of an exported file's.
        score_threshold: lowest score reported, in [0, 1].
        seams: rule for objects that the border of a window cuts: "drop", "join" or "keep".
        class_names: one name for each class of the model; None takes those of the config's test
            set.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: there are no such weights, or no config.
        ConfigError: the config cannot be used.
        CheckpointError: the weights cannot be read, or belong to another model.
        ExportError: the ONNX file cannot be used.
        ValueError: a parameter is out of range, the model takes videos, or a packed model is given
            a config.
    """
    if packed := find_packed(weights):
        if config is not None or ema:
            raise ValueError(
                f"{packed.folder} has its config and one kind of weights; leave out config and ema"
            )
        weights, config = packed.weights, packed.config
        class_names = packed.classes if class_names is None else class_names

    if model_loading.is_onnx(weights):
        args = argparse.Namespace(weights=weights, config_file=config, ema=ema, opts=[])
        exported, _ = model_loading.build_onnx_detector(args)
        if exported.description.num_frames is not None:
            raise ValueError(f"{weights} detects objects in videos; use rsd2 predict for those")
        window = exported.description.window if window is None else window
        # A quarter of the window, because a file may have been exported for windows below 200
        # pixels.
        overlap = min(200, window // 4) if overlap is None else overlap
        parameters = WindowParameters(window, overlap, score_threshold=score_threshold, seams=seams)
        return Detector(
            exported, parameters, model_loading.exported_class_names(class_names, exported)
        )

    def search(usual_window: int = 1024, usual_overlap: int = 200) -> WindowParameters:
        return WindowParameters(
            usual_window if window is None else window,
            usual_overlap if overlap is None else overlap,
            score_threshold=score_threshold,
            seams=seams,
        )

    given = search()
    # Checked before the config is loaded, which may import a project.
    if not Path(weights).is_file():
        raise FileNotFoundError(
            f"no checkpoint {weights}; pass the path of a .pth file as weights, or a folder "
            "of rsd2 pack"
        )

    path = Path(weights).with_name("config.yaml") if config is None else Path(config)
    if find_config(path) is None:
        where = "beside the weights " if config is None else ""
        raise FileNotFoundError(
            f"no config {path} {where}to build the model from; pass "
            "config=PATH, the config that the weights were trained with"
        )

    cfg = load_config(path)
    # Building the model takes seconds, so the names are checked before.
    wanted = cfg.model.get("num_classes")
    if class_names is not None and wanted is not None and len(class_names) != wanted:
        raise ValueError(
            f"class_names has {len(class_names)} names, the model {wanted} classes; pass "
            "one name per class"
        )

    # `build_image_detector` reads what the command line of rsd2 predict would hold.
    args = argparse.Namespace(config_file=str(path), weights=str(weights), ema=ema, device=device)
    model, _ = model_loading.build_image_detector(args, cfg)
    parameters = search(*model.usual_windows) if window is None else given
    return Detector(model, parameters, model_loading.class_names(class_names, cfg))
