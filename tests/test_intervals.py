"""Intervals from few seeds: against closed forms, scipy's own tests, and by simulation of what they promise."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.optimize import brentq

from bench.report.intervals import (
    bounded_interval,
    delta_m_interval,
    half_width,
    holm,
    joint_half_width,
    joint_p,
    mean_interval,
    moderated,
    positive_interval,
    residual_variances,
    t_quantile,
    two_sided_p,
    welch,
)


def test_t_interval_equals_scipy() -> None:
    values = np.array([3.0, 4.5, 3.9, 5.0])
    expected = scipy_stats.t.interval(0.95, 3, loc=values.mean(), scale=scipy_stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    assert all(np.isnan(mean_interval(np.array([1.0]))))
    assert t_quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert np.isnan(t_quantile(0))


def test_the_interval_of_a_time_is_that_of_its_logarithm_and_stays_positive() -> None:
    # logs ln 10 and ln 20: geometric mean sqrt(200), standard error ln(2) / 2, t(1) = 12.7062
    low, high = positive_interval(np.array([10.0, 20.0]))
    factor = np.exp(12.706204736 * np.log(2) / 2)
    assert (low, high) == pytest.approx((np.sqrt(200) / factor, np.sqrt(200) * factor))
    assert mean_interval(np.array([10.0, 20.0]))[0] < 0 < low
    assert positive_interval(np.array([3.0, 3.0])) == (3.0, 3.0)
    assert all(np.isnan(positive_interval(np.array([3.0]))))
    assert positive_interval(np.array([0.0, 4.0])) == pytest.approx((0.0, 2 + 12.706204736 * 2))
    in_seconds, in_milliseconds = (np.array(positive_interval(values)) for values in (np.array([0.1, 0.4]), np.array([100.0, 400.0])))
    assert in_milliseconds == pytest.approx(1000 * in_seconds)


def test_the_interval_of_a_percentage_is_cut_at_its_range() -> None:
    half = 12.706204736 * 10 / 2  # standard error of 45 and 55: 5
    assert half_width(np.std([45, 55], ddof=1), 2) == pytest.approx(half)
    assert bounded_interval(np.array([45.0, 55.0]), 0.0, 100.0) == (0.0, 100.0)
    assert bounded_interval(np.array([85.0, 95.0]), 0.0, 100.0) == pytest.approx((90 - half, 100.0))
    assert bounded_interval(np.array([45.0, 55.0]), 0.0, 180.0) == pytest.approx((0.0, 50 + half))
    assert np.isnan(half_width(1.0, 1))


def test_welch_equals_scipys_welch_test() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=5), generator.normal(1, 3, size=4)
    total, df = welch(np.array([first.var(ddof=1) / 5, second.var(ddof=1) / 4]), np.array([4.0, 3.0]))
    expected = scipy_stats.ttest_ind(first, second, equal_var=False)
    assert df == pytest.approx(expected.df)
    assert two_sided_p((first.mean() - second.mean()) / np.sqrt(total), df) == pytest.approx(expected.pvalue)


def test_holm_equals_hand_arithmetic() -> None:
    # sorted 0.01, 0.02, 0.03 and 0.2 times 4, 3, 2 and 1, never falling
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.2, 0.01, 0.03])), [0.06, np.nan, 0.2, 0.04, 0.06])


def test_delta_m_interval_with_a_fixed_reference_is_the_t_interval_of_its_seeds() -> None:
    row = np.array([[45.0, 20.0], [60.0, 22.5]])
    low, high, df = delta_m_interval(row, np.array([[50.0, 25.0]]), np.array([1, -1]))
    assert (low, high) == pytest.approx(mean_interval(np.array([5.0, 15.0])))
    assert df == 1


def test_delta_m_interval_carries_the_reference_as_hand_arithmetic_does() -> None:
    # one task: 100 (m / r - 1), to first order var(m) / r^2 + m^2 var(r) / r^4
    row, reference = np.array([[55.0], [56.0], [57.0]]), np.array([[49.0], [50.0], [51.0]])
    low, high, df = delta_m_interval(row, reference, np.array([1]))
    parts = [100**2 / 50**2 / 3, 100**2 * 56**2 / 50**4 / 3]
    half = scipy_stats.t.ppf(0.975, df) * np.sqrt(sum(parts))
    assert df == pytest.approx(sum(parts) ** 2 / sum(part**2 / 2 for part in parts))
    assert (low, high) == pytest.approx((12 - half, 12 + half))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_of_delta_m_cover_the_truth(seeds: int) -> None:
    generator, signs, trials = np.random.default_rng(seeds), np.array([1, 1, 1, -1]), 2000
    base, change, noise = np.array([67.0, 62.0, 62.0, 18.0]), np.array([0.01, -0.03, 0.04, -0.06]), np.array([0.4, 0.3, 0.2, 0.15])
    truth, covered = 100 * (signs * change).mean(), 0
    for _ in range(trials):
        reference = base + generator.normal(size=(seeds, 4)) * noise
        row = base * (1 + change) + generator.normal(size=(seeds, 4)) * noise
        low, high, _ = delta_m_interval(row, reference, signs)
        covered += low <= truth <= high
    # two seeds are known to be conservative under Welch and Satterthwaite; none may fall short
    assert 0.938 < covered / trials < (0.995 if seeds == 2 else 0.98)


def test_two_rows_give_the_paired_t_test() -> None:
    values = np.random.default_rng(1).normal(size=(2, 4)) + np.arange(4)
    variance, df = residual_variances(values)
    difference = values[0] - values[1]
    assert variance.sum() == pytest.approx(difference.var(ddof=1))
    assert df.sum() == pytest.approx(3)


def test_seed_effects_are_taken_out_also_where_a_seed_is_missing() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=(6, 1)) + 100 * generator.normal(size=(1, 4))
    values[2, 3] = np.nan
    variance, _ = residual_variances(values)
    assert variance.max() < 1e-6
    alone, df = residual_variances(np.array([[1.0, 3.0], [np.nan, 2.0]]))
    assert (alone[0], df[0], df[1]) == (2.0, 1, 0)
    assert np.isnan(alone[1])


def test_moderated_variances_lie_between_own_and_common_and_pool_what_is_alike() -> None:
    generator = np.random.default_rng(3)
    alike = generator.chisquare(2, size=400) / 2
    shrunk, df = moderated(alike, np.full(400, 2.0))
    assert shrunk.std() < 0.2 * alike.std()
    assert df.min() > 10
    truth = np.exp(generator.normal(0, 1.5, size=400))
    apart, apart_df = moderated(truth * generator.chisquare(2, size=400) / 2, np.full(400, 2.0))
    assert apart_df.max() < 6  # rows that differ keep to themselves
    assert np.corrcoef(np.log(apart), np.log(truth))[0, 1] > 0.7
    few = np.array([1.0, 2.0, 3.0])
    assert moderated(few, np.full(3, 2.0))[0] is few


def test_moderation_recovers_the_prior_that_drew_the_variances() -> None:
    generator, prior_df, prior = np.random.default_rng(4), 6.0, 0.25
    truth = prior * prior_df / generator.chisquare(prior_df, size=20_000)
    _, df = moderated(truth * generator.chisquare(3, size=20_000) / 3, np.full(20_000, 3.0))
    assert df[0] - 3 == pytest.approx(prior_df, rel=0.1)


def test_the_joint_interval_of_one_part_is_the_t_interval_and_its_p_the_t_tests() -> None:
    values = np.array([3.0, 4.5, 3.9, 5.0])
    part, df = np.array([[values.var(ddof=1) / 4], [0.0]]), np.array([[3.0], [59.0]])
    low, high = mean_interval(values)
    assert joint_half_width(part, df) == pytest.approx([(high - low) / 2])
    assert joint_p(np.array([values.mean()]), part, df) == pytest.approx([scipy_stats.ttest_1samp(values, 0).pvalue])
    assert np.isnan(joint_p(np.array([1.0, np.nan]), np.array([[0.0, 1.0]]), np.array([[3.0, 3.0]]))).all()
    assert joint_p(np.array([0.0, 1e9]), np.ones((2, 2)), np.full((2, 2), 50.0)) == pytest.approx([1.0, 0.0], abs=1e-20)


def test_the_joint_p_value_is_the_level_whose_interval_ends_at_zero() -> None:
    generator = np.random.default_rng(9)
    parts, dfs = generator.uniform(0, 1, (2, 40)), np.stack([generator.uniform(1.2, 30, 40), np.full(40, np.inf)])
    difference = 4 * generator.normal(size=40)

    def excess(log_p: float, place: int) -> float:
        quantiles = scipy_stats.t.isf(np.exp(log_p) / 2, dfs[0, place]), scipy_stats.norm.isf(np.exp(log_p) / 2)
        return parts[:, place] @ np.square(quantiles) - difference[place] ** 2

    expected = [np.exp(brentq(excess, -40, -1e-12, args=(place,))) for place in range(40)]
    np.testing.assert_allclose(joint_p(difference, parts, dfs), expected, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_joint_interval_covers_whatever_the_parts_are(share: float) -> None:
    generator, n, dfs = np.random.default_rng(10), 200_000, np.array([2.0, 40.0])
    true = np.array([share, 1 - share])[:, None]
    parts = true * np.stack([generator.chisquare(df, n) / df for df in dfs])
    for level in (0.95, 1 - 0.05 / 78):  # 78: the pairs of 13 rows, Holm's first step
        half = joint_half_width(parts, np.broadcast_to(dfs[:, None], parts.shape), level)
        missed = (np.abs(generator.normal(size=n)) > half).mean()
        assert missed < (1 - level) + 4 * np.sqrt((1 - level) / n)
