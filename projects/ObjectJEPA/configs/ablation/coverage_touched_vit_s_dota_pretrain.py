"""Coverage rule: every patch that an object touches.

model.masks.rule.coverage=0.5 model.masks.rule.box_share=2 model.masks.rule.center=false
    only what is half covered
model.masks.rule.dilation=1     and a ring around it
"""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "ObjectJEPA/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("ObjectJEPA/configs/models/object_jepa_vit_s16.py").model

model.masks.rule.coverage = 0.0
