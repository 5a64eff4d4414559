"""Segment Anything through the package's real classes, tiny and with random weights.

The tiny model's masks mean nothing; what is tested is all that happens around them.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rsd2.projects.mutdet.label_run import Labeller
from rsd2.projects.mutdet.sam_proposals import (
    SamProposals,
    SamSettings,
    import_segment_anything,
    load_sam,
)

segment_anything = pytest.importorskip("segment_anything")

SIDE, WIDTH = 64, 32
# Random weights are sure of nothing: let every mask through.
EVERYTHING = SamSettings(
    points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)


def build_tiny(depth: int = 2):
    """A SAM of the package's classes: 64-pixel input, 32 channels."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    encoder = ImageEncoderViT(
        img_size=SIDE,
        patch_size=8,
        embed_dim=24,
        depth=depth,
        num_heads=2,
        out_chans=WIDTH,
        use_rel_pos=True,
        window_size=4,
        global_attn_indexes=(depth - 1,),
    )
    prompts = PromptEncoder(WIDTH, (SIDE // 8, SIDE // 8), (SIDE, SIDE), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=1, embedding_dim=WIDTH, mlp_dim=32, num_heads=2)
    decoder = MaskDecoder(
        transformer_dim=WIDTH, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=16
    )
    return Sam(encoder, prompts, decoder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "sam_tiny.pth"
    torch.save(build_tiny().state_dict(), path)
    return path


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 60, 3)).astype(np.uint8)


def test_masks_are_those_of_the_package(checkpoint: Path, image: np.ndarray) -> None:
    model, name = load_sam("tiny", checkpoint, build=build_tiny)
    assert name.startswith("tiny-") and not model.training
    saved = torch.load(checkpoint, weights_only=True)
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    found = SamProposals(model, EVERYTHING, name=name)(image)
    generator = segment_anything.SamAutomaticMaskGenerator(
        model, points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1
    )
    expected = [mask for mask in generator.generate(image) if mask["segmentation"].any()]
    assert len(found) == len(expected) > 0
    for one, two in zip(found, expected):
        whole = np.zeros((48, 60), bool)
        whole[one.y : one.y + one.mask.shape[0], one.x : one.x + one.mask.shape[1]] = one.mask
        np.testing.assert_array_equal(whole, two["segmentation"])
        assert one.score == two["predicted_iou"]


def test_labels_of_sam_are_boxes_in_the_image(checkpoint: Path, image: np.ndarray) -> None:
    model, name = load_sam("tiny", checkpoint, build=build_tiny)
    labels, counts = Labeller(SamProposals(model, EVERYTHING, name=name))(image, "x")
    assert counts["boxes"] == len(labels.boxes) > 0
    assert (labels.boxes[:, :2] >= 0).all() and (labels.boxes[:, :2] <= (60, 48)).all()


def test_every_argument_reaches_the_generator(
    checkpoint: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    class Recorder:
        def __init__(self, model: object, **arguments: object) -> None:
            seen.update(arguments)

    monkeypatch.setattr(segment_anything, "SamAutomaticMaskGenerator", Recorder)
    settings = SamSettings(5, 7, 0.1, 0.2, 0.3, 0.4, 2, 0.6, 0.5, 3, 11)
    model, _ = load_sam("tiny", checkpoint, build=build_tiny)
    described = SamProposals(model, settings, amp="bfloat16", name="n").settings()
    assert seen == vars(settings)
    assert described.pop("source") == "sam" and described.pop("amp") == "bfloat16"
    assert described.pop("model") == "n"
    # batches of prompts change memory and speed alone, so runs may continue with others
    assert {**described, "points_per_batch": 7} == vars(settings)


def test_batches_of_prompts_do_not_change_masks(checkpoint: Path, image: np.ndarray) -> None:
    model, name = load_sam("tiny", checkpoint, build=build_tiny)
    results = [
        SamProposals(model, SamSettings(**{**vars(EVERYTHING), "points_per_batch": n}))(image)
        for n in (1, 4, 64)
    ]
    for other in results[1:]:
        assert [p[1:3] for p in other] == [p[1:3] for p in results[0]]
        for one, two in zip(results[0], other):
            np.testing.assert_array_equal(one.mask, two.mask)


def test_lower_precision_gives_nearly_the_same(checkpoint: Path, image: np.ndarray) -> None:
    full, _ = load_sam("tiny", checkpoint, build=build_tiny)
    low, _ = load_sam("tiny", checkpoint, build=build_tiny)
    one, two = (SamProposals(full, EVERYTHING), SamProposals(low, EVERYTHING, amp="bfloat16"))
    first, second = one(image), two(image)
    assert second and abs(len(first) - len(second)) <= 0.2 * len(first)
    np.testing.assert_allclose(
        np.sort([p.score for p in first])[-5:], np.sort([p.score for p in second])[-5:], atol=0.05
    )
    inputs = torch.randn(1, 3, SIDE, SIDE)
    assert low.image_encoder(inputs).dtype == torch.float32
    assert not torch.equal(low.image_encoder(inputs), full.image_encoder(inputs))


def test_an_image_without_masks(checkpoint: Path, image: np.ndarray) -> None:
    model, _ = load_sam("tiny", checkpoint, build=build_tiny)
    strict = SamSettings(**{**vars(EVERYTHING), "pred_iou_thresh": 1e6})
    labels, counts = Labeller(SamProposals(model, strict))(image, "x")
    assert labels.boxes.shape == (0, 5) and counts["images_without_boxes"] == 1


def test_a_checkpoint_of_another_size_names_both(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_sam("deep", checkpoint, build=partial(build_tiny, 3))
    message = str(error.value)
    assert str(checkpoint) in message and "'deep'" in message and "2 blocks" in message
    assert "missing: image_encoder.blocks.2" in message and "--sam-model" in message
    with pytest.raises(ValueError, match=r"'vit_h', but one of no known type \(width 24, 2 blocks"):
        load_sam("vit_h", checkpoint)  # on shapes alone: no gigabytes are needed for this answer
    # as a real file of vit_b looks to who asks for vit_h
    state = torch.load(checkpoint, weights_only=True)
    state["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 768)
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="of type 'vit_h', but vit_b"):
        load_sam("vit_h", tmp_path / "b.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="something that is no SAM"):
        load_sam("vit_b", tmp_path / "other.pth")


def test_files_and_arguments_that_cannot_be_used(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_sam("vit_h", tmp_path / "none.pth")
    (tmp_path / "broken.pth").write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="broken.pth"):
        load_sam("vit_h", tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="model_type must be one of.*vit_b.*got 'vit_x'"):
        load_sam("vit_x", checkpoint)
    with pytest.raises(ValueError, match="amp must be one of"):
        SamProposals(build_tiny(), amp="float8")


def test_without_the_package_the_message_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(ImportError, match="pip install segment-anything; or take --source felz"):
        import_segment_anything()
