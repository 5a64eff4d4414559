"""What MutDet's released program does otherwise than its paper, or by mistake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MutDetQuirks:
    """Behaviour of the official pre-training that `MutDet` and `DETReg` can reproduce.

    The quirks of the detector that they pre-train are its own, `rsd2.modeling.DetectorQuirks`.

    Attributes:
        first_denoising_rows: string the denoising groups together image after image and keep the
            first rows, see `denoising_pairs`.
        raw_query_score: multiply the similarity, a cosine, by the raw logit of the objectness, and
            not by its sigmoid.
        zeroed_rim: before mutual enhancement, zero the tokens whose proposal is unusable (padding
            and the rim of the image), and let objects attend to all tokens. Otherwise padding is
            zeroed and not attended to, and the rim counts as image.
    """

    first_denoising_rows: bool = False
    raw_query_score: bool = False
    zeroed_rim: bool = False


NO_QUIRKS = MutDetQuirks()
"""The sane behaviour."""
