"""The small MICML on KIT AIS."""

from rsd2.config import get_config

from .models.micml_small import model
from .recipes.synthetic_video import lr_multiplier, optimizer, train

dataloader = get_config("common/data/kit_ais.py").dataloader
