"""What runs kernels on the host has to notice their mistakes."""

import pytest

pytestmark = pytest.mark.slow


class TestMachine:
    def test_runs_what_is_right(self, on_host):
        for seed in range(5):
            on_host.seed(seed)
            assert on_host.reversed(0).tolist() == list(range(63, -1, -1))

    def test_a_missing_barrier_changes_the_result(self, on_host):
        on_host.seed(0)
        assert on_host.reversed(1).tolist() != list(range(63, -1, -1))

    @pytest.mark.parametrize("mistake", [2, 3])
    def test_threads_at_different_barriers_are_an_error(self, on_host, mistake):
        with pytest.raises(RuntimeError, match="different barriers"):
            on_host.reversed(mistake)
        assert on_host.reversed(0).tolist() == list(range(63, -1, -1))
