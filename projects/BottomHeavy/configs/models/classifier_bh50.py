"""The bottom-heavy ResNet-50 as a classifier, the whole model."""

from detectron2.config import LazyCall as L

from rsd2.modeling import BottomHeavyResNet, ImageClassifier

model = L(ImageClassifier)(
    backbone=L(BottomHeavyResNet)(
        depths=[7, 6, 2, 1],
        stage_strides=[2, 2, 2, 2],
        bottleneck=True,
        width=64,
        stem_kernel_size=3,
        stem_stride=1,
        stem_pool=True,
        norm="BN",
        out_features=["res5"],
    ),
    feature="res5",
    num_classes=1000,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
