"""Detectors and their parts."""

from .anchor_sampling import BoundedMemoryRPN as BoundedMemoryRPN
from .anchor_sampling import MinimumQualityMatcher as MinimumQualityMatcher
from .anchor_sampling import WeightedNegativeRPN as WeightedNegativeRPN
from .angle_coder import AngleCoder as AngleCoder
from .backbones.bottom_heavy_resnet import BottomHeavyResNet as BottomHeavyResNet
from .backbones.simple_pyramid import SimplePyramid as SimplePyramid
from .backbones.small_resnet import small_resnet as small_resnet
from .backbones.timm_backbone import TimmBackbone as TimmBackbone
from .backbones.vit import VisionTransformer as VisionTransformer
from .criterion import SetCriterion as SetCriterion
from .denoising import DenoisingQueries as DenoisingQueries
from .image_classifier import ImageClassifier as ImageClassifier
from .matcher import HungarianMatcher as HungarianMatcher
from .neck import ChannelMapper as ChannelMapper
from .quirks import DetectorQuirks as DetectorQuirks
from .rotated_deformable_detr import RotatedDeformableDETR as RotatedDeformableDETR
from .rotated_rcnn import BoundedMemoryRRPN as BoundedMemoryRRPN
from .rotated_rcnn import RectangleTransform as RectangleTransform
from .rotated_rcnn import RotatedFasterRCNN as RotatedFasterRCNN
from .transformer import DeformableEncoder as DeformableEncoder
from .transformer import RotatedDeformableDecoder as RotatedDeformableDecoder
