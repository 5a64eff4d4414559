"""DSFNet's small static variant on KIT AIS: the newest frame alone."""

from rsd2.config import get_config

from .models.micml_small import model
from .recipes.synthetic_video import lr_multiplier, optimizer, train

dataloader = get_config("common/data/kit_ais.py").dataloader

model.dynamic = None
