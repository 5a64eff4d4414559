"""The folder that ``bash tools/demo.sh`` leaves, of three scenes and trainings of one step.

    export DETECTRON2_DATASETS=output/demo/data
    python tests/toy_demo.py

Pages show what to do with the demo's models; the test of the pages cannot wait for the demo.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import timm
import torch

from rsd2.commands.make_synthetic import main as synthesize
from rsd2.commands.train import main as train

_CONFIG = "projects/MutDet/configs/mutdet_lite0_synthetic_finetune.py"


def draw_scenes(split: str, seed: int) -> None:
    """Draw the scenes of a split, ``train`` or ``val``."""
    folder = Path(os.environ["DETECTRON2_DATASETS"]) / "synthetic" / split
    words = ["--num-images", 3, "--size", 128, "--seed", seed, "--num-workers", 0]
    assert synthesize([str(word) for word in ("--output", folder, *words)]) == 0


def train_one_step(run: Path) -> None:
    """Train the demo's detector from random weights in place of ImageNet's."""
    weights = Path("weights") / "tf_efficientnet_lite0.pth"
    weights.parent.mkdir(exist_ok=True)
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)

    overrides = ["train.max_iter=1", "train.init_inherit=null", f"train.output_dir={run}"]
    overrides += ["dataloader.train.total_batch_size=2"]
    assert train(["--config-file", _CONFIG, *overrides]) == 0


def main() -> int:
    """Make the folder in the one where the program stands."""
    draw_scenes("train", seed=0)
    draw_scenes("val", seed=1)

    first, second = (Path("output/demo/finetune") / name for name in ("none_100", "both_100"))
    train_one_step(first)
    shutil.copytree(first, second)
    return 0


if __name__ == "__main__":
    sys.exit(main())
