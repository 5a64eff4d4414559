"""Alarms for a collapsing pre-training, from its loss and its telemetry."""

from __future__ import annotations

from collections import deque


class CollapseAlarms:
    """Remember the course of a pre-training and report what is alarming about the newest numbers.

    By default: loss down by half within 500 steps, RankMe halved, cosine of tokens above 0.95.
    """

    def __init__(
        self,
        *,
        loss_window: int = 500,
        loss_drop: float = 0.5,
        rank_drop: float = 0.5,
        max_cosine: float = 0.95,
        grace: int = 500,
    ) -> None:
        """Set the limits.

        Args:
            loss_window: steps within which a drop of the loss is alarming, >= 1.
            loss_drop: share of the loss that it may lose within them, in (0, 1).
            rank_drop: share of its highest value after ``grace`` that RankMe may lose, in (0, 1).
            max_cosine: highest mean cosine within an image, and at a place between images, in
                (0, 1].
            grace: steps at the start, >= 0, in which the loss may fall because the model learns,
                and RankMe because it leaves its random weights, whose features have a high rank.

        Raises:
            ValueError: a limit is out of range.
        """
        shares = (loss_drop, rank_drop)
        if loss_window < 1 or grace < 0 or not all(0 < share < 1 for share in shares):
            raise ValueError(
                "alarms need loss_window >= 1, grace >= 0 and drops between 0 and 1, got "
                f"{loss_window}, {grace}, {loss_drop} and {rank_drop}"
            )
        if not 0 < max_cosine <= 1:
            raise ValueError(f"max_cosine must lie in (0, 1], got {max_cosine}")

        self._window, self._grace = loss_window, grace
        self._loss_drop, self._rank_drop, self._max_cosine = loss_drop, rank_drop, max_cosine
        self._losses: deque[tuple[int, float]] = deque()
        self._best_rank = 0.0

    def see_loss(self, iteration: int, loss: float) -> str | None:
        """Note a loss.

        Args:
            iteration: step of the loss, ascending.
            loss: smoothed loss, >= 0.

        Returns:
            What is alarming, or None; after an alarm the comparison starts again.
        """

        if iteration < self._grace:
            return None
        self._losses.append((iteration, loss))
        while self._losses[0][0] < iteration - self._window:
            self._losses.popleft()
        start, highest = max(self._losses, key=lambda entry: entry[1])

        # A sudden drop of a JEPA's loss is a partial collapse: equal targets are easy to predict.
        if loss < (1 - self._loss_drop) * highest:
            self._losses.clear()
            return (
                f"the loss fell from {highest:.4g} to {loss:.4g} between iterations {start} and "
                f"{iteration}: targets may be collapsing; lower optimizer.lr or raise the EMA"
            )
        return None

    def see_features(self, iteration: int, features: dict[str, float]) -> list[str]:
        """Note a measurement of features.

        Args:
            iteration: steps done before the measurement.
            features: numbers from ``describe_features``.

        Returns:
            What is alarming about them; an alarm repeats while its cause lasts.
        """
        found = []
        rank = features["rank_me"]
        # Random weights have a high rank, which encoders that predict pixels lose too: what was
        # measured before the warm-up's end is no reference.
        if iteration >= self._grace and rank == rank:
            self._best_rank = max(self._best_rank, rank)
        # NaN is unequal to itself: no tokens, or zeros only, have no rank.
        if rank != rank or rank < (1 - self._rank_drop) * self._best_rank:
            found.append(f"RankMe is {rank:.1f} and was {self._best_rank:.1f}")

        for name, what in (
            ("cosine_in_image", "tokens of an image are alike"),
            ("cosine_at_place", "features tell the place alone"),
        ):
            if features[name] > self._max_cosine:
                found.append(f"{name} is {features[name]:.3f}: {what}")
        return found
