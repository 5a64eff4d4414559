"""The small DSFNet on generated videos."""

from rsd2.config import get_config

from .models.micml_small import model
from .recipes.synthetic_video import lr_multiplier, optimizer, train

dataloader = get_config("common/data/synthetic_video.py").dataloader

model.dynamic.motion = None
