"""Telemetry of features: extremes and values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from rsd2.projects.object_jepa.telemetry import (
    describe_features,
    effective_rank,
    explained,
    mean_where,
    neighbour_means,
    position_means,
    probe_objects,
    rank_me,
    token_cosines,
    token_spread,
    variance_ratio,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_spread_is_one_for_random_directions_and_none_for_equal_ones():
    spread = token_spread(random(20_000, 32))
    assert spread["token_std"] == pytest.approx(1, abs=0.02) and spread["dead_channels"] == 0
    # other lengths are other tokens, but no other directions
    same = random(1, 32) * torch.rand(50, 1).add(0.1)
    assert token_spread(same)["token_std"] == pytest.approx(0, abs=1e-6)
    assert token_spread(same)["dead_channels"] == 1
    half = torch.cat([random(5000, 16), torch.zeros(5000, 16)], dim=1)
    assert token_spread(half)["dead_channels"] == 0.5


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_ranks_of_equal_directions_are_their_number(rank):
    # +-e_1 ... +-e_rank: mean zero, all variances the same, embedded by a rotation
    axes = torch.eye(16)[:rank]
    rotation = torch.linalg.qr(random(16, 16))[0]
    tokens = torch.cat([axes, -axes]).repeat(5, 1) @ rotation
    assert rank_me(tokens) == pytest.approx(rank, abs=1e-3)
    assert effective_rank(tokens) == pytest.approx(rank, abs=1e-3)


def test_ranks_by_hand_and_of_nothing():
    # singular values 3 and 1: exp(H(3/4, 1/4)); variances 9 and 1: exp(H(.9, .1))
    tokens = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])

    def smooth(p):
        return math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))

    assert rank_me(tokens) == pytest.approx(smooth(0.75))
    assert effective_rank(tokens) == pytest.approx(smooth(0.9))
    # a common vector is a rank for RankMe, and no variance
    assert rank_me(torch.ones(9, 4)) == pytest.approx(1)
    for tokens in (torch.ones(9, 4), torch.zeros(9, 4), torch.zeros(0, 4)):
        assert math.isnan(effective_rank(tokens))
    assert math.isnan(rank_me(torch.zeros(3, 4))) and math.isnan(rank_me(torch.zeros(0, 4)))


def test_cosines_agree_with_every_pair():
    tokens = random(3, 5, 4)
    unit = torch.nn.functional.normalize(tokens, dim=2)
    in_image = [unit[i, a] @ unit[i, b] for i in range(3) for a in range(5) for b in range(a)]
    at_place = [unit[i, a] @ unit[j, a] for a in range(5) for i in range(3) for j in range(i)]
    found = token_cosines(tokens)
    assert found["cosine_in_image"] == pytest.approx(float(torch.stack(in_image).mean()), abs=1e-6)
    assert found["cosine_at_place"] == pytest.approx(float(torch.stack(at_place).mean()), abs=1e-6)


def test_features_that_know_the_place_alone_are_seen():
    found = token_cosines(random(1, 50, 64).expand(8, -1, -1))
    assert found["cosine_at_place"] == pytest.approx(1)
    assert found["cosine_in_image"] < 0.1
    assert math.isnan(token_cosines(random(1, 5, 4))["cosine_at_place"])


def test_position_means_leave_their_own_image_out():
    target = torch.tensor([[[1.0], [10]], [[2], [20]], [[6], [60]]])
    expected = torch.tensor([[[4.0], [40]], [[3.5], [35]], [[1.5], [15]]])
    torch.testing.assert_close(position_means(target), expected)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        position_means(target[:1])


def test_neighbours_are_weighted_by_distance():
    target = torch.tensor([[1.0, 5, 9, 3]])[..., None]  # a row of four
    found = neighbour_means(target, torch.tensor([[0, 3]]), (1, 4))
    # token 1: distances 1 and 2, weights 1 and 1/16; token 2 mirrored; visible ones are themselves
    expected = torch.tensor([[1.0, (16 * 1 + 3) / 17, (1 + 16 * 3) / 17, 3]])[..., None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    constant = torch.full((2, 12, 3), 7.0)
    torch.testing.assert_close(
        neighbour_means(constant, torch.tensor([[0], [5]]), (3, 4)), constant
    )


def test_explained_variance():
    target, baseline = random(2, 6, 4), torch.zeros(4)
    every = torch.ones(2, 6, dtype=torch.bool)
    assert explained(target, target, baseline, every) == 1
    assert explained(torch.zeros_like(target), target, baseline, every) == 0
    assert explained(target / 2, target, baseline, every) == pytest.approx(0.75)
    assert explained(-target, target, baseline, every) == pytest.approx(-3)
    one = every.clone().fill_(False)
    assert math.isnan(explained(target, target, baseline, one))
    one[1, 2] = True
    guess = torch.zeros_like(target)
    guess[1, 2] = target[1, 2]
    assert explained(guess, target, baseline, one) == 1
    assert mean_where(target[..., 0], one) == pytest.approx(float(target[1, 2, 0]))
    assert math.isnan(mean_where(target[..., 0], ~every))


def test_variance_ratio_tells_what_was_washed_out():
    tokens = random(40, 50, 8)
    classes = torch.full((40, 50), -1)
    classes[:, :5], classes[:, 5:10] = 0, 1
    assert variance_ratio(tokens, classes) == pytest.approx(1, abs=0.15)
    washed = tokens.clone()
    washed[:, :5] = tokens[0, 0]
    assert variance_ratio(washed, classes) == pytest.approx(0.5, abs=0.1)
    assert math.isnan(variance_ratio(tokens, torch.full((40, 50), -1)))


def make_objects(informative: bool):
    """Eight channels, the first of which tells objects above 16 px if it is informative."""
    tokens = random(20, 60, 8)
    sizes = torch.zeros(20, 60)
    sizes[:, :6], sizes[:, 6:12] = 6.0, 20.0
    if informative:
        tokens[:, 6:12, 0] += 12
    return tokens, sizes


def test_probe_sees_the_sizes_that_features_know():
    found = probe_objects(*make_objects(True))
    assert found["auc_16_32"] > 0.99 and 0.3 < found["auc_0_8"] < 0.7
    assert found["auc_0_8"] < found["auc"] < found["auc_16_32"]
    assert math.isnan(found["auc_8_16"]) and math.isnan(found["auc_32_inf"])
    blind = probe_objects(*make_objects(False))
    assert 0.3 < blind["auc"] < 0.7


def test_probe_is_scored_on_images_that_it_never_saw():
    tokens, sizes = make_objects(True)
    tokens[1::2, 6:12, 0] -= 24  # the sign that was learned on the even images is wrong on the odd
    assert probe_objects(tokens, sizes)["auc_16_32"] < 0.05


def test_probe_of_one_side_only_is_undefined():
    tokens = random(4, 10, 3)
    for sizes in (torch.zeros(4, 10), torch.ones(4, 10)):
        assert all(math.isnan(value) for value in probe_objects(tokens, sizes).values())
    assert math.isnan(probe_objects(tokens[:1], torch.eye(10)[:1] * 5)["auc"])


def test_description_has_every_number_under_its_name():
    tokens, sizes = make_objects(True)
    found = describe_features(tokens, sizes, torch.where(sizes > 0, 0, -1))
    assert set(found) >= {"token_std", "dead_channels", "rank_me", "effective_rank", "auc"}
    assert found["rank_me"] == rank_me(tokens.flatten(0, 1))
    assert np.isfinite([found[key] for key in ("cosine_in_image", "variance_ratio")]).all()
