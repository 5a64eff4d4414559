"""The pyramid's levels, and that a detector pads its images to what they need."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from rsd2.config import get_config
from rsd2.modeling import SimplePyramid, VisionTransformer
from rsd2.testing import shrink


def pyramid(patch_size, scale_factors, top_block=None):
    net = VisionTransformer(patch_size=patch_size, embed_dim=16, depth=1, num_heads=2)
    return SimplePyramid(net, out_channels=8, scale_factors=scale_factors, top_block=top_block)


@pytest.mark.parametrize(
    ("patch_size", "scale_factors", "top_block", "levels", "divisibility"),
    [
        (16, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool(), [2, 3, 4, 5, 6], 32),
        (16, (2.0, 1.0), None, [3, 4], 16),
        (8, (2.0, 1.0, 0.5), None, [2, 3, 4], 16),
    ],
)
def test_levels_have_the_strides_of_their_names(
    patch_size, scale_factors, top_block, levels, divisibility
):
    model = pyramid(patch_size, scale_factors, top_block)
    assert model.size_divisibility == divisibility
    features = model(torch.randn(1, 3, 64, 96))
    assert list(features) == [f"p{level}" for level in levels]
    for level, (name, value) in zip(levels, features.items()):
        stride = 2**level
        assert model.output_shape()[name].stride == stride
        assert value.shape == (1, 8, -(-64 // stride), -(-96 // stride))


def test_a_pyramid_of_a_finest_map_needs_whole_patches():
    assert pyramid(16, (4.0, 2.0)).size_divisibility == 16


def test_faster_rcnn_pads_images_of_any_size():
    path = "ObjectJEPA/configs/faster_rcnn_vit_small_synthetic_finetune.py"
    model = instantiate(shrink(get_config(path)).model).eval()
    images = [{"image": torch.zeros(3, 50, 70, dtype=torch.uint8)}, {"image": torch.zeros(3, 9, 9)}]
    assert model.preprocess_image(images).tensor.shape == (2, 3, 64, 80)
    with torch.no_grad():
        assert len(model(images)) == 2
