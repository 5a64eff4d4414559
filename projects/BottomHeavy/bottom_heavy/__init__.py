"""Detectors of tiny objects on bottom-heavy backbones, and the pre-training of these."""

from .attention_rcnn import AttentionRCNN as AttentionRCNN
