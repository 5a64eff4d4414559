"""DSFNet's small dynamic variant on generated videos: 3-D convolutions alone."""

from rsd2.config import get_config

from .models.micml_small import model
from .recipes.synthetic_video import lr_multiplier, optimizer, train

dataloader = get_config("common/data/synthetic_video.py").dataloader

model.static = None
model.dynamic.motion = None
