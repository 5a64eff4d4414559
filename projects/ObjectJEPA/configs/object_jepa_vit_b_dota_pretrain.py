"""ObjectJEPA on ViT-B/16, with the predictor of I-JEPA; all else as with ViT-S/16."""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.encoders import vit_b16
from .models.object_jepa_vit_s16 import model

model.encoder = vit_b16
model.predictor.embed_dim = 384
