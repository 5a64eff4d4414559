"""MutDet on ResNet-50: the detector, mutual enhancement, contrastive alignment, siamese head."""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.projects.mutdet.alignment import ContrastiveAlignment
from rsd2.projects.mutdet.mutdet import MutDet
from rsd2.projects.mutdet.mutual_enhancement import MutualEnhancement
from rsd2.projects.mutdet.quirks import MutDetQuirks

model = L(MutDet)(
    detector=get_config("common/models/rotated_deformable_detr_r50.py").model,
    alignment=L(ContrastiveAlignment)(
        temperature=0.2, weight=1.0, gather=False, mask_same_class=False, negatives="batch"
    ),
    enhancement=L(MutualEnhancement)(
        embed_dim="${..detector.embed_dim}",
        embedding_dim="${..embedding_dim}",
        depth=3,
        num_heads=8,
        feedforward_dim=2048,
        update_tokens="${..enhance_features}",
        checkpoint=False,
        zero_init=False,
        detach_objects=False,
        quirks="${..quirks}",
    ),
    enhance_embeddings=True,
    enhance_features=True,
    align_encoder=True,
    siamese_head=True,
    anchored=False,
    raw_steps=0,
    embedding_dim=256,
    classes="clusters",
    max_objects="${.detector.num_queries}",
    choice="random",
    align_denoising=True,
    quirks=L(MutDetQuirks)(),
)
model.detector.num_classes = 256
