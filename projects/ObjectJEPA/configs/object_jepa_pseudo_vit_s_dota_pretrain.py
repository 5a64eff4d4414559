"""The recipe on pseudo-boxes that nobody labelled.

``projects/MutDet/tools/make_pseudo_labels.py`` makes them, of any images. This is a file, not a row
of overrides, because another function lists the images.
"""

from detectron2.config import LazyCall as L

from rsd2.data.datasets.pseudo import get_pseudo_dicts

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.object_jepa_vit_s16 import model

_root = "${oc.env:DETECTRON2_DATASETS,datasets}"
dataloader.train.dataset = L(get_pseudo_dicts)(
    folder=f"{_root}/pseudo/dota_v1.0_train_1024_200",
    image_root=f"{_root}/dota/v1.0/tiles/train_1024_200/images",
    classes="one",
)
