"""The colour of the padding beyond an image."""

PAD_COLOR = (124, 116, 104)
"""RGB of the padding: ImageNet's mean, which OpenCV's BGR order writes as (104, 116, 124)."""
