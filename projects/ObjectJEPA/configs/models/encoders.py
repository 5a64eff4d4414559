"""The plain vision transformers that are pre-trained, and then are backbones of detectors."""

from copy import deepcopy

from detectron2.config import LazyCall as L

from rsd2.modeling import VisionTransformer

vit_s16 = L(VisionTransformer)(
    patch_size=16,
    embed_dim=384,
    depth=12,
    num_heads=6,
    mlp_ratio=4.0,
    drop_path_rate=0.0,
    window_size=0,
    global_blocks=[],
    use_relative_positions=False,
    relative_position_size=None,
    final_norm=True,
    position_grid=None,
    position_mode="extrapolate",
    learned_positions=False,
    checkpoint_activations=False,
    freeze_at=0,
)

vit_b16 = deepcopy(vit_s16)
vit_b16.update(embed_dim=768, num_heads=12)

# For images of about 128 pixels, on a CPU.
vit_small = deepcopy(vit_s16)
vit_small.update(patch_size=8, embed_dim=128, depth=6, num_heads=4)

# For images of about 320 pixels, on a CPU: the same tokens, each of a larger patch.
vit_small_p16 = deepcopy(vit_small)
vit_small_p16.patch_size = 16
