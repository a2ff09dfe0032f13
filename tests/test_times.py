"""Intervals of measured times: against order statistics of the very measurements, and by how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from bench.report.times import FEWEST_MEASUREMENTS, TimeError, error_of_sum, interval_rank, time_error


def summary(seconds: np.ndarray) -> dict:
    """Return what records keep of single measurements, as `bench.measure.cost.summarize_seconds` makes it."""
    low, middle, high = np.percentile(seconds, (5, 50, 95))
    return {"p05": low, "median": middle, "p95": high, "n": len(seconds)}


@pytest.mark.parametrize("n", [6, 9, 10, 21, 101, 237, 5000])
def test_the_rank_is_that_of_the_sign_test(n: int) -> None:
    k = interval_rank(n)
    assert 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(k, n, 0.5) < 0.95


@pytest.mark.parametrize("n", [21, 41, 61])
def test_measurements_at_their_normal_scores_get_the_interval_of_order_statistics(n: int) -> None:
    # where the quantiles that records keep are measurements themselves, and these lie at Blom's scores, nothing is lost
    scores = stats.norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25))
    seconds = 0.03 * np.exp(0.1 * scores)
    own = summary(seconds)
    k = interval_rank(n)
    assert time_error(own).ends(own["median"]) == pytest.approx((seconds[k - 1], seconds[n - k]), rel=1e-9)


@pytest.mark.parametrize("n", [6, 10, 30, 237])
@pytest.mark.parametrize("shape", ["lognormal", "exponential tail", "rare spikes"])
def test_the_interval_of_a_median_keeps_its_level(n: int, shape: str) -> None:
    generator, held, repeats = np.random.default_rng(0), 0, 2000
    for _ in range(repeats):
        seconds = {
            "lognormal": lambda: np.exp(0.1 * generator.normal(size=n)),
            "exponential tail": lambda: 1 + 0.2 * generator.exponential(size=n),
            "rare spikes": lambda: np.exp(0.02 * generator.normal(size=n)) * np.where(generator.random(n) < 0.03, 3, 1),
        }[shape]()
        true = {"lognormal": 1.0, "exponential tail": 1 + 0.2 * np.log(2), "rare spikes": np.exp(0.02 * stats.norm.ppf(0.5 / 0.97))}[shape]
        own = summary(seconds)
        low, high = time_error(own).ends(own["median"])
        held += low <= true <= high
    assert held / repeats >= 0.94


def test_too_few_measurements_have_no_interval_and_equal_ones_no_width() -> None:
    seconds = np.full(FEWEST_MEASUREMENTS, 0.5)
    assert 1 - 2 * 0.5 ** (FEWEST_MEASUREMENTS - 1) < 0.95 <= 1 - 2 * 0.5**FEWEST_MEASUREMENTS
    assert time_error(summary(seconds[1:])) is None
    assert time_error({"p05": None, "median": None, "p95": None, "n": 0}) is None
    assert time_error(summary(seconds)).ends(0.5) == (0.5, 0.5)


def test_the_error_of_a_sum_adds_in_quadrature() -> None:
    parts = [TimeError(log=0.1, df=9.0), TimeError(log=0.3, df=20.0)]
    total = error_of_sum([1.0, 3.0], parts)
    assert total.log == pytest.approx(np.hypot(0.1, 0.9) / 4)
    assert total.df == pytest.approx((0.01 + 0.81) ** 2 / (0.01**2 / 9 + 0.81**2 / 20))  # Welch and Satterthwaite
    assert error_of_sum([1.0], parts[:1]) == TimeError(log=pytest.approx(0.1), df=pytest.approx(9))
    assert error_of_sum([1.0, 2.0], [parts[0], None]) is None
    assert error_of_sum([], []) is None


def test_other_levels_are_students_t() -> None:
    low, high = TimeError(log=0.1, df=9.0).ends(2.0, 0.99)
    factor = np.exp(0.1 * stats.t.ppf(0.995, 9))
    assert (low, high) == pytest.approx((2 / factor, 2 * factor))
