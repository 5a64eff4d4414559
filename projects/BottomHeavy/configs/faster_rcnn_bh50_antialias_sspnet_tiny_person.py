"""Bottom-heavy ResNet-50, subsampling behind low-pass filters (arXiv 2310.14221), on TinyPerson."""

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.antialias = True
