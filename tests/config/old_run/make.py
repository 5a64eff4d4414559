"""Write what a run of another commit left: a saved config, and what its model finds.

    PYTHONPATH=<checkout of that commit> python tests/config/old_run/make.py tests/config/old_run

``test_old_run.py`` loads the config with today's code. Weights follow from their names, so that no
file of tensors has to be kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset
from omegaconf import DictConfig

from rsd2.config import ConfigError, load_config, save_config
from rsd2.data.datasets import register_dota_instances
from rsd2.testing import TINY_CLASSES, shrink, write_tiny_dota


def weights_by_name(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Make a state dict whose values depend on the names and shapes of its tensors alone."""
    state = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            state[name] = tensor
            continue
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        values = np.random.default_rng(seed).standard_normal(tuple(tensor.shape))
        # Norms need scales around one; everything else stays small enough for its norms.
        values = 1 + 0.1 * values if name.endswith("weight") and tensor.dim() == 1 else 0.1 * values
        state[name] = torch.from_numpy(np.abs(values) if "running_var" in name else values).float()
    return state


def evaluate(cfg: DictConfig, model: torch.nn.Module, folder: Path, name: str) -> dict:
    """Evaluate on four generated images and take down what is found in them.

    Args:
        cfg: of the run; its test set becomes ``name``, which is registered here.
        model: with its weights, in evaluation mode.
        folder: gets images, labels and the files of the evaluation.
        name: of the dataset.

    Returns:
        ``metrics``, and ``found``: of each image the number of detections, the sum of their scores
        and that of all components of their boxes.
    """
    labels, images = write_tiny_dota(folder / "data", seed=5)
    register_dota_instances(name, {"thing_classes": list(TINY_CLASSES)}, labels, images)
    cfg.dataloader.test.dataset.names = name
    cfg.train.output_dir = str(folder / "output")
    loader = instantiate(cfg.dataloader.test)
    found = []
    with torch.no_grad():
        for batch in loader:
            for output in model(batch):
                one = output["instances"]
                boxes = one.pred_boxes.tensor.double().sum().item()
                found.append([len(one), one.scores.double().sum().item(), boxes])
    metrics = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    # JSON has no nan: an undefined value becomes null.
    plain = {k: None if v != v else v for k, v in metrics["bbox"].items()}
    return {"metrics": plain, "found": found}


def saved_names() -> list[str]:
    """Collect the names of rsd2 that the saved configs of all experiments hold."""
    names = set()
    for path in sorted(
        [*Path("configs").glob("*.py"), *Path("projects").glob("*/configs/**/*.py")]
    ):
        try:
            cfg = load_config(path)
        except ConfigError:
            continue  # a file that others are made of exports less than an experiment
        with tempfile.TemporaryDirectory() as folder:
            save_config(cfg, Path(folder) / "config.yaml")
            text = (Path(folder) / "config.yaml").read_text(encoding="utf-8")
        names.update(re.findall(r"(?<![\w.])rsd2\.[\w.]+", text))
    return sorted(names)


def main(folder: Path) -> None:
    """Write config.yaml, expected.json and names.txt with the code that is on the path."""
    cfg = shrink(load_config("configs/rotated_deformable_detr_small_synthetic.py"))
    cfg.model.num_classes = len(TINY_CLASSES)
    save_config(cfg, folder / "config.yaml")
    model = instantiate(cfg.model).eval()
    model.load_state_dict(weights_by_name(model))
    with tempfile.TemporaryDirectory() as data:
        expected = evaluate(cfg, model, Path(data), "made_for_old_run")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    (folder / "names.txt").write_text("\n".join(saved_names()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
