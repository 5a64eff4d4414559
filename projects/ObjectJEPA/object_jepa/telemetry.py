"""Pure functions that measure whether features have collapsed and whether they tell objects.

A JEPA's loss shows neither: it is small when all targets are equal, and may rise while features get
better.

Shapes: I images, N = h w tokens of an image, M tokens of all images, D channels, K visible tokens,
P predicted tokens of an image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

SIZE_EDGES = (0.0, 8.0, 16.0, 32.0, math.inf)
"""Bins of sizes (square root of the area, pixels) as in AI-TOD: very tiny, tiny, small, others."""
_DEAD_SHARE = 0.1
_ROUNDING = 1e-12
_PROBE_ITERATIONS = 300


def token_spread(tokens: torch.Tensor) -> dict[str, float]:
    """Measure how widely the directions of tokens spread in each channel.

    Directions that are uniformly random have a standard deviation of 1/sqrt(D) in every channel,
    the ideal.

    Args:
        tokens: (M, D) float, M >= 1.

    Returns:
        ``token_std``, the mean over the channels of the standard deviation of the L2-normalised
        tokens, as a share of the ideal, 0 for equal directions; ``dead_channels``, the share of
        channels below 0.1 of the ideal.
    """
    unit = F.normalize(tokens.double(), dim=1)
    share = unit.std(dim=0, correction=0) * math.sqrt(tokens.shape[1])
    dead = (share < _DEAD_SHARE).double().mean()
    return {"token_std": float(share.mean()), "dead_channels": float(dead)}


def rank_me(tokens: torch.Tensor) -> float:
    """Compute RankMe, the smooth rank of a matrix of tokens.

    Source: RankMe (arXiv 2210.02885), equation 1: exp of the entropy of the singular values
    divided by their sum. Nothing is centred, so that a common vector is a rank of its own.

    Args:
        tokens: (M, D) float.

    Returns:
        A number in [1, min(M, D)]; nan without tokens and for zeros.
    """
    values = tokens.double()
    # Singular values from the D x D product, which is small however many tokens there are.
    squares = torch.linalg.eigvalsh(values.T @ values).clamp(min=0)
    # Smaller ones are rounding of the product, whose square root is no longer small.
    singular = squares.where(squares > _ROUNDING * squares.amax(), 0.0).sqrt()
    return _smooth_count(singular)


def effective_rank(tokens: torch.Tensor) -> float:
    """Compute exp of the entropy of the shares of variance along the principal axes of tokens.

    Args:
        tokens: (M, D) float.

    Returns:
        A number in [1, min(M - 1, D)]; nan for fewer than two tokens and for equal ones.
    """
    if len(tokens) < 2:
        return math.nan

    values = tokens.double()
    centred = values - values.mean(dim=0)
    variances = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    if variances.sum() <= _ROUNDING * values.square().sum():
        return math.nan
    return _smooth_count(variances)


def _smooth_count(weights: torch.Tensor) -> float:
    total = weights.sum()
    if not total > 0:
        return math.nan
    return math.exp(float(torch.special.entr(weights / total).sum()))


def token_cosines(tokens: torch.Tensor) -> dict[str, float]:
    """Measure how similar tokens are within an image and, at one place, between images.

    Features that encode only the place have a high cosine at one place and a low one within an
    image.

    Args:
        tokens: (I, N, D) float.

    Returns:
        ``cosine_in_image`` and ``cosine_at_place``, means over the pairs of different tokens, in
        [-1, 1]; nan where there is no pair.
    """
    unit = F.normalize(tokens.double(), dim=2)
    return {
        "cosine_in_image": _mean_of_pairs(unit),
        "cosine_at_place": _mean_of_pairs(unit.transpose(0, 1)),
    }


def _mean_of_pairs(unit: torch.Tensor) -> float:
    """Average the cosines of different rows of each matrix of units: |sum|^2 less the diagonal."""
    groups, count, _ = unit.shape
    if count < 2 or not groups:
        return math.nan

    own = unit.square().sum(dim=(1, 2))
    total = unit.sum(dim=1).square().sum(dim=1)
    return float(((total - own) / (count * (count - 1))).mean())


def position_means(target: torch.Tensor) -> torch.Tensor:
    """Predict every token by the mean of the other images' tokens at its place.

    Args:
        target: (I, N, D) float, I >= 2.

    Returns:
        (I, N, D).

    Raises:
        ValueError: there is no other image.
    """
    if len(target) < 2:
        raise ValueError(f"the mean over other images needs at least 2 images, got {len(target)}")
    return (target.sum(dim=0, keepdim=True) - target) / (len(target) - 1)


def neighbour_means(
    target: torch.Tensor, keep: torch.Tensor, grid: tuple[int, int]
) -> torch.Tensor:
    """Predict every token by interpolating the visible tokens of its image.

    Args:
        target: (I, N, D) float, row-major.
        keep: (I, K) int64, visible tokens, K >= 1.
        grid: (h, w) tokens.

    Returns:
        (I, N, D): means of the visible tokens, weighted by distance^-4; a visible token is itself.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    places = torch.stack([rows, columns], dim=-1).flatten(0, 1).to(target)
    seen = places[keep.to(places.device)]  # (I, K, 2)

    # A visible token has distance 0 to itself; the clamp gives it nearly all of the weight.
    weights = torch.cdist(places.expand(len(target), -1, -1), seen).clamp(min=1e-3) ** -4
    weights = weights / weights.sum(dim=2, keepdim=True)
    return weights @ gather_tokens(target, keep)


def gather_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Take some tokens of each image.

    Args:
        tokens: (I, N, ...) tokens or flags.
        index: (I, K) int64 places of the tokens.

    Returns:
        (I, K, ...).
    """
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return tokens[rows, index.to(tokens.device)]


def explained(
    prediction: torch.Tensor, target: torch.Tensor, baseline: torch.Tensor, chosen: torch.Tensor
) -> float:
    """Compute R^2 of predictions against a baseline: 1 - error / error of the baseline.

    Args:
        prediction: (..., D) predicted tokens.
        target: (..., D) true tokens.
        baseline: predictions of the baseline, broadcastable to (..., D).
        chosen: (...) bool, tokens that count.

    Returns:
        At most 1; 0 is no better than the baseline; nan if nothing is chosen or the baseline is
        exact.
    """
    error = (prediction - target).double().square().sum(dim=-1)[chosen].sum()
    reference = (baseline - target).double().square().sum(dim=-1)[chosen].sum()
    return float(1 - error / reference) if reference > 0 else math.nan


def mean_where(values: torch.Tensor, chosen: torch.Tensor) -> float:
    """Average the chosen values; nan if there are none.

    Args:
        values: any shape, float.
        chosen: bool of the same shape.

    Returns:
        The mean.
    """
    return float(values[chosen].double().mean()) if chosen.any() else math.nan


def variance_ratio(tokens: torch.Tensor, classes: torch.Tensor) -> float:
    """Divide the variance within the object tokens of a class by the variance of all tokens.

    Objects that are always predicted from their surroundings may be washed out, and then differ
    less among themselves than anything else.

    Args:
        tokens: (I, N, D) float.
        classes: (I, N) int64, class of the object that a token shows, -1 for background.

    Returns:
        The mean over the classes with two or more tokens; nan without such a class.
    """
    flat, labels = tokens.flatten(0, 1).double(), classes.flatten()
    overall = flat.var(dim=0, correction=0).sum()
    found = []
    for label in labels[labels >= 0].unique():
        own = flat[labels == label]
        if len(own) > 1:
            found.append(own.var(dim=0, correction=0).sum() / overall)

    return float(torch.stack(found).mean()) if found and overall > 0 else math.nan


def probe_objects(
    tokens: torch.Tensor,
    sizes: torch.Tensor,
    edges: Sequence[float] = SIZE_EDGES,
    max_tokens: int = 20_000,
) -> dict[str, float]:
    """Fit a linear probe that separates object tokens from background, and score it on other
    images.

    One logistic regression is fitted on the even images, objects and background weighing the same,
    and scored on the odd ones.

    Args:
        tokens: (I, N, D) float.
        sizes: (I, N) float, size of the smallest object that a token shows, pixels; 0: background.
        edges: ascending ends of the bins of sizes.
        max_tokens: most tokens, evenly chosen, to fit the probe on.

    Returns:
        ``auc`` of all objects and ``auc_<from>_<to>`` of each bin, against all background tokens of
        the scored images; nan where one of the two sides is missing.
    """
    names = {f"auc_{low:g}_{high:g}": (low, high) for low, high in zip(edges, edges[1:])}
    features, size = tokens.float().cpu().numpy(), sizes.cpu().numpy()
    # Even and odd images, not tokens: neighbouring tokens of an image see each other.
    fit_x, fit_y = features[::2].reshape(-1, features.shape[2]), size[::2].ravel() > 0
    chosen = np.unique(np.linspace(0, max(len(fit_y) - 1, 0), max_tokens).astype(int))
    held_x, held_size = features[1::2].reshape(-1, features.shape[2]), size[1::2].ravel()

    if not len(held_x) or len(np.unique(fit_y[chosen])) < 2:
        return dict.fromkeys(("auc", *names), math.nan)

    regression = LogisticRegression(class_weight="balanced", max_iter=_PROBE_ITERATIONS)
    probe = make_pipeline(StandardScaler(), regression).fit(fit_x[chosen], fit_y[chosen])
    scores = probe.decision_function(held_x)
    background = held_size <= 0
    result = {"auc": _auc(scores, background, ~background)}
    for name, (low, high) in names.items():
        result[name] = _auc(scores, background, (held_size > low) & (held_size <= high))
    return result


def _auc(scores: np.ndarray, background: np.ndarray, objects: np.ndarray) -> float:
    if not background.any() or not objects.any():
        return math.nan
    chosen = background | objects
    return float(roc_auc_score(objects[chosen], scores[chosen]))


def describe_features(
    tokens: torch.Tensor, sizes: torch.Tensor, classes: torch.Tensor
) -> Mapping[str, float]:
    """Measure the features of a set of images.

    Args:
        tokens: (I, N, D) float, features of one encoder, all tokens visible.
        sizes: (I, N) float, see `probe_objects`.
        classes: (I, N) int64, see `variance_ratio`.

    Returns:
        All measurements of the functions above, by name.
    """
    flat = tokens.flatten(0, 1)
    return {
        **token_spread(flat),
        "rank_me": rank_me(flat),
        "effective_rank": effective_rank(flat),
        **token_cosines(tokens),
        "variance_ratio": variance_ratio(tokens, classes),
        **probe_objects(tokens, sizes),
    }
