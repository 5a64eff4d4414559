"""Loaders and evaluator of RsCarData: clips of 5 frames, 512 pixels in training, 1024 at test.

Uses the old labels, to which the published numbers of DSFNet and MICML refer; append ``_new`` to
the names for HiEUM's. The released order of augmentation, after normalisation, is, for frames of
one size,
``dataloader.train.mapper.normalize_first=true
dataloader.train.mapper.augmentations.2.value_range=null``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from rsd2.data.mappers.clip_mapper import ClipDatasetMapper
from rsd2.data.mappers.photometric import RandomPhotometricDistortion
from rsd2.data.samplers import build_train_loader
from rsd2.evaluation import MovingObjectEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="rscardata_train", filter_empty=False),
    mapper=L(ClipDatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.RandomFlip)(prob=0.5, horizontal=True, vertical=False),
            L(T.RandomFlip)(prob=0.5, horizontal=False, vertical=True),
            L(RandomPhotometricDistortion)(value_range=[0.0, 255.0]),
        ],
        num_frames=5,
        normalize_first=False,
    ),
    total_batch_size=4,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="rscardata_test", filter_empty=False),
    mapper=L(ClipDatasetMapper)(
        is_train=False, augmentations=[], num_frames="${...train.mapper.num_frames}"
    ),
    num_workers=2,
)

dataloader.evaluator = L(MovingObjectEvaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
    protocols=["micml", "dsfnet_iou05", "dsfnet_iou10", "dsfnet_iou20", "distance5"],
)
