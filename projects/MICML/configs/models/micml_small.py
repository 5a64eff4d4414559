"""MICML of a quarter of the width, for frames of about 128 px, to be trained on a CPU."""

from .micml_dla34 import model

model.static.channels = [8, 16, 16, 32, 32]
model.dynamic.channels = [8, 16, 16]
model.dynamic.motion.pool_size = 16
model.dynamic.motion.num_layers = 1
model.head_width = 32
