"""Pareto fronts under chance: against counts of all outcomes, areas by hand, and a brute-force area."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import MadeSuite, demo_like_suite, made_method
from scipy import stats as scipy_stats

from bench.report.evidence import evidence_files
from bench.report.intervals import mean_interval
from bench.report.pareto import (
    AXES,
    front_frame,
    front_probability,
    front_summary,
    hypervolume,
    hypervolume_interval,
    knee,
    redraw,
    redraw_costs,
)
from bench.report.seeds import scored_seed_frame
from bench.report.stats import row_frame
from bench.report.tables import main_table


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_probability_of_the_front_equals_the_t_distribution(seeds: int) -> None:
    # the cheap row's score is exact, so the dearer one is on the front where its true mean, a shifted t, is higher
    dear = np.array([0.2, 1.5, 0.9, 0.1, 2.0])[:seeds]
    expected = scipy_stats.t.cdf((dear.mean() - 0.5) / (dear.std(ddof=1) / np.sqrt(seeds)), seeds - 1)
    share = front_probability([np.array([1.0]), np.array([2.0])], [np.full(seeds, 0.5), dear], draws=20_000)
    assert share[0] == 1
    assert share[1] == pytest.approx(expected, abs=0.015)


def test_redrawn_means_end_where_the_t_interval_does() -> None:
    values = np.array([1.0, 4.0])
    drawn = redraw([values, np.array([7.0]), np.array([])], np.random.default_rng(0), 200_000)
    assert np.quantile(drawn[:, 0], [0.025, 0.975]) == pytest.approx(mean_interval(values), rel=0.05)
    assert np.quantile(drawn[:, 1], 0.975) - 7 == pytest.approx(np.sqrt(2) * (mean_interval(values)[1] - 2.5), rel=0.05)  # borrowed
    assert np.isnan(drawn[:, 2]).all()


def test_redrawn_costs_are_positive_and_those_known_exactly_stay() -> None:
    costs = [np.array([1.0, 3.0]), np.array([5.0, 5.0]), np.array([4.0]), np.array([])]
    drawn = redraw_costs(costs, np.random.default_rng(0), 10_000)
    assert (drawn[:, 0] > 0).all()
    assert np.isfinite(drawn[:, 0]).all()
    assert np.median(drawn[:, 0]) == pytest.approx(np.sqrt(3), rel=0.05)
    assert (drawn[:, 1] == 5).all()
    assert (drawn[:, 2] == 4).all()
    assert np.isnan(drawn[:, 3]).all()


def test_a_row_of_one_seed_has_no_probability_and_makes_no_other_row_sure() -> None:
    share = front_probability([np.array([1.0]), np.array([2.0])], [np.array([0.0]), np.array([0.1, 0.3])])
    assert np.isnan(share[0])
    assert 0.5 < share[1] < 0.8


def test_one_seed_gives_no_probability() -> None:
    one = [np.array([1.0]), np.array([2.0])]
    assert np.isnan(front_probability(one, one)).all()
    assert all(np.isnan(hypervolume_interval(one, one, reference=(3, 0))))


@pytest.mark.parametrize(("rows", "seeds", "rise"), [(3, 2, 1.0), (13, 3, 0.0), (13, 3, 1.0), (40, 5, 0.0), (40, 3, 10.0)])
def test_the_interval_of_the_hypervolume_keeps_its_level_and_holds_its_estimate(rows: int, seeds: int, rise: float) -> None:
    # the truth is known, the corner chosen from the noisy means as reports do, costs spread by a tenth
    generator, cost, true, held, tables = np.random.default_rng(0), np.geomspace(1, 30, rows), np.linspace(0, rise, rows), 0, 200
    for _ in range(tables):
        scores = true[:, None] + generator.normal(size=(rows, seeds))
        costs = cost[:, None] * np.exp(0.1 * generator.normal(size=(rows, seeds)))
        corner = (costs.mean(axis=1).max(), scores.mean(axis=1).min())
        low, high = hypervolume_interval(list(costs), list(scores), reference=corner)
        held += low <= hypervolume(cost, true, reference=corner) <= high
        assert low <= hypervolume(costs.mean(axis=1), scores.mean(axis=1), reference=corner) <= high
    assert held >= 0.95 * tables


def test_the_interval_of_the_hypervolume_by_hand() -> None:
    # two rows with exact costs a decade apart, the dearer one at the corner's cost: the cheap one's interval at 1 - 0.05 / 2 decides
    scores = [np.array([4.0, 5.0, 6.0]), np.array([0.0, 0.1, 0.2])]
    half = scipy_stats.t.ppf(1 - 0.0125, 2) / np.sqrt(3)
    low, high = hypervolume_interval([np.array([1.0]), np.array([10.0])], scores, reference=(10, 0))
    assert (low, high) == pytest.approx((5 - half, 5 + half))


def test_hypervolume_of_two_points_by_hand() -> None:
    # from 1 to 10 a height of 2, from 10 to 100 of 5: one decade each
    assert hypervolume([1, 10, 50, np.nan], [2, 5, 1, 9], reference=(100, 0)) == pytest.approx(7)
    assert hypervolume([1], [2], reference=(1, 0)) == 0
    assert hypervolume([], [], reference=(1, 0)) == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_hypervolume_equals_counted_cells(points: list[tuple[int, int]]) -> None:
    cells = {(c, s) for c in range(5) for s in range(5) if any(cost <= c + 1 and score >= s + 1 for cost, score in points)}
    cost = [10.0 ** (c - 1) for c, _ in points]
    assert hypervolume(cost, [s for _, s in points], reference=(10.0**5, 0)) == pytest.approx(len(cells))


def test_the_knee_is_where_the_front_bends() -> None:
    assert knee([1, 10, 100, 1000], [0, 8, 9, 10]) == 1
    assert knee([1, 10, 100], [0, 1, 2]) is None  # straight
    assert knee([1, 10], [0, 1]) is None


def test_every_axis_has_its_front() -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    plan, seeds = suite.plan(), scored_seed_frame(suite.plan(), suite.records)
    summary = front_summary(plan, seeds).set_index("axis")
    assert set(summary.index) == set(AXES)
    for axis in AXES:
        front = front_frame(plan, seeds, axis)
        assert front["front_probability"].between(0, 1).all()
        assert front.loc[front["cost"] == front["cost"].min(), "on_front"].any()
        assert summary.loc[axis, "low"] < summary.loc[axis, "hypervolume"] < summary.loc[axis, "high"]
    assert summary.loc["params", "reference_cost"] == 16.4  # the dearest row: four models of 4.1 M


def test_a_row_that_is_dominated_for_sure_is_never_on_the_front() -> None:
    suite = MadeSuite(tasks=("semseg",))
    suite.add(made_method(value=4), {0: {"semseg": 50.0}, 1: {"semseg": 51.0}}, trainable=2_000_000)
    suite.add(made_method(value=8), {0: {"semseg": 40.0}, 1: {"semseg": 41.0}}, trainable=3_000_000)
    front = front_frame(suite.plan(), scored_seed_frame(suite.plan(), suite.records), "params")
    assert front["front_probability"][0] == 1
    assert front["front_probability"][1] < 0.1  # ten points with a standard error of 0.7 each, one degree of freedom
    assert list(front["cost"]) == [2.0, 3.0]


def test_four_hundred_rows_have_fronts_and_pairs(tmp_path) -> None:
    generator, suite = np.random.default_rng(0), MadeSuite(tasks=("semseg",))
    for rank in range(1, 401):
        values = {seed: {"semseg": 50 + rank / 50 + generator.normal()} for seed in (0, 1)}
        suite.add(made_method(value=rank), values, trainable=2_000_000 + rank)
    rows = row_frame(suite.plan(), suite.records)
    assert rows["rank_low"].between(1, 400).all()
    assert (rows["rank_low"] <= rows["rank_high"]).all()
    files = evidence_files(suite.plan(), suite.records, rows, main_table(rows, tasks=suite.tasks, title="t"), tmp_path)
    assert files["fronts.csv"].count("\n") == 1 + 400 * len(AXES)
