"""MICML on RsCarData, frames of 512 pixels in training and 1024 at test."""

from rsd2.config import get_config

from .models.micml_dla34 import model
from .recipes.released import lr_multiplier, optimizer, train

dataloader = get_config("common/data/rscardata.py").dataloader

dataloader.train.total_batch_size = 2
