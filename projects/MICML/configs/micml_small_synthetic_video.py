"""The small MICML on generated videos, for study and demo."""

from rsd2.config import get_config

from .models.micml_small import model
from .recipes.synthetic_video import lr_multiplier, optimizer, train

dataloader = get_config("common/data/synthetic_video.py").dataloader
