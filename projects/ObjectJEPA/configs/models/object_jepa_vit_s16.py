"""ObjectJEPA on ViT-S/16, the whole model: crops of 448 pixels, 28 x 28 tokens."""

from detectron2.config import LazyCall as L

from rsd2.projects.object_jepa.masking import CoverageRule, MaskSampler
from rsd2.projects.object_jepa.object_jepa import ObjectJEPA
from rsd2.projects.object_jepa.predictor import Predictor

from .encoders import vit_s16

model = L(ObjectJEPA)(
    encoder=vit_s16,
    predictor=L(Predictor)(
        in_dim="${..encoder.embed_dim}",
        embed_dim=192,
        depth=6,
        num_heads="${..encoder.num_heads}",
        # Set for pixels: 3 x patch_size x patch_size.
        out_dim=None,
        mask_tokens=True,
    ),
    # A quarter is visible. Blocks are hidden first, then mostly objects, of which parts survive; of
    # the 256 tokens of the loss at most half show objects, the others come from the blocks.
    masks=L(MaskSampler)(
        mode="mixture",
        ratio=0.75,
        ratio_scope="all",
        num_context=None,
        num_predicted=256,
        object_weight=1.65,
        beta=None,
        num_blocks=3,
        block_scale=[0.15, 0.2],
        block_aspect=[0.75, 1.5],
        object_share=[1.0, 1.0],
        instance_share=1.0,
        object_part=1.0,
        max_object_share=0.5,
        huge_object=0.3,
        loss_set="objects",
        max_object_predicted=0.5,
        rule=L(CoverageRule)(coverage=0.25, box_share=0.25, center=True, dilation=0),
    ),
    target="latent",
    normalize_target=True,
    loss="smooth_l1",
    masked_input="drop",
    variance_weight=0.0,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
