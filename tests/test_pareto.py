"""Pareto fronts under chance: against counts of all outcomes, areas by hand, and a brute-force area."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import MadeSuite, demo_like_suite, made_method, pairs_of
from scipy import stats as scipy_stats

from bench.report.evidence import evidence_files
from bench.report.footnotes import footnotes
from bench.report.intervals import mean_interval
from bench.report.pareto import AXES, front_frame, front_probability, front_summary, hypervolume, hypervolume_interval, knee
from bench.report.plots.pareto import pareto_numbers
from bench.report.seeds import scored_seed_frame
from bench.report.stats import row_frame
from bench.report.tables import main_table
from bench.report.times import TimeError
from bench.report.uncertainty import Costs, joint_ends, redraw, redraw_costs


def exact(*costs: float) -> Costs:
    """Return counted costs."""
    return Costs(values=[np.array([cost]) for cost in costs])


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_probability_of_the_front_equals_the_t_distribution(seeds: int) -> None:
    # the cheap row's score is exact, so the dearer one is on the front where its true mean, a shifted t, is higher
    dear = np.array([0.2, 1.5, 0.9, 0.1, 2.0])[:seeds]
    expected = scipy_stats.t.cdf((dear.mean() - 0.5) / (dear.std(ddof=1) / np.sqrt(seeds)), seeds - 1)
    share = front_probability(exact(1.0, 2.0), [np.full(seeds, 0.5), dear], draws=20_000)
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
    drawn = redraw_costs(Costs(values=costs), np.random.default_rng(0), 10_000)
    assert (drawn[:, 0] > 0).all()
    assert np.isfinite(drawn[:, 0]).all()
    assert np.median(drawn[:, 0]) == pytest.approx(np.sqrt(3), rel=0.05)
    assert (drawn[:, 1] == 5).all()
    assert (drawn[:, 2] == 4).all()
    assert np.isnan(drawn[:, 3]).all()


def test_a_row_of_one_seed_has_no_probability_and_makes_no_other_row_sure() -> None:
    share = front_probability(exact(1.0, 2.0), [np.array([0.0]), np.array([0.1, 0.3])])
    assert np.isnan(share[0])
    assert 0.5 < share[1] < 0.8


def test_one_seed_gives_no_probability() -> None:
    one = [np.array([1.0]), np.array([2.0])]
    assert np.isnan(front_probability(exact(1.0, 2.0), one)).all()
    assert all(np.isnan(hypervolume_interval(exact(1.0, 2.0), one, reference=(3, 0))))


@pytest.mark.parametrize(("rows", "seeds", "rise"), [(3, 2, 1.0), (13, 3, 0.0), (13, 3, 1.0), (40, 5, 0.0), (40, 3, 10.0)])
def test_the_interval_of_the_hypervolume_keeps_its_level_and_holds_its_estimate(rows: int, seeds: int, rise: float) -> None:
    # the truth is known, the corner chosen from the noisy means as reports do, costs spread by a tenth
    generator, cost, true, held, tables = np.random.default_rng(0), np.geomspace(1, 30, rows), np.linspace(0, rise, rows), 0, 200
    for _ in range(tables):
        scores = true[:, None] + generator.normal(size=(rows, seeds))
        costs = cost[:, None] * np.exp(0.1 * generator.normal(size=(rows, seeds)))
        corner = (costs.mean(axis=1).max(), scores.mean(axis=1).min())
        low, high = hypervolume_interval(Costs(values=list(costs)), list(scores), reference=corner)
        held += low <= hypervolume(cost, true, reference=corner) <= high
        assert low <= hypervolume(costs.mean(axis=1), scores.mean(axis=1), reference=corner) <= high
    assert held >= 0.95 * tables


def test_the_interval_of_the_hypervolume_by_hand() -> None:
    # two rows with exact costs a decade apart, the dearer one at the corner's cost: the cheap one's interval at 1 - 0.05 / 2 decides
    scores = [np.array([4.0, 5.0, 6.0]), np.array([0.0, 0.1, 0.2])]
    half = scipy_stats.t.ppf(1 - 0.0125, 2) / np.sqrt(3)
    low, high = hypervolume_interval(exact(1.0, 10.0), scores, reference=(10, 0))
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
    files = evidence_files(suite.plan(), suite.records, rows, main_table(rows, tasks=suite.tasks, title="t"), pairs_of(suite))
    assert files["fronts.csv"].count("\n") == 1 + 400 * len(AXES)


def timed(*medians: float, error: float, df: float = 9.0) -> Costs:
    """Return costs that were measured once, with the same relative error."""
    return Costs(values=[np.array([median]) for median in medians], errors=[TimeError(log=error, df=df)] * len(medians))


def test_a_measured_cost_is_drawn_again_as_students_t_of_its_logarithm() -> None:
    # equal scores for sure: the row that is cheaper in truth is alone on the front; the first is, where the difference of two t is below 0
    share = front_probability(timed(10.0, 11.0, error=0.1), [np.full(3, 5.0)] * 2, draws=20_000)
    t = scipy_stats.t(9)
    grid = np.linspace(-12, 12, 4001)
    expected = np.trapezoid(t.pdf(grid) * t.cdf(grid + np.log(1.1) / 0.1), grid)
    assert share[0] == pytest.approx(expected, abs=0.01)
    assert share.sum() == pytest.approx(1)
    assert list(front_probability(exact(10.0, 11.0), [np.full(3, 5.0)] * 2)) == [1, 0]


def test_simultaneous_intervals_of_measured_costs_are_bonferronis_and_a_cost_without_error_borrows_the_widest() -> None:
    cost = Costs(
        values=[np.array([2.0]), np.array([4.0]), np.array([])],
        errors=[TimeError(log=0.1, df=9.0), None, None],
    )
    low, high = joint_ends(cost)
    quantile = scipy_stats.t.ppf(1 - 0.05 / 4, 9)
    assert low[:2] == pytest.approx([2 * np.exp(-0.1 * quantile), 4 * np.exp(-0.1 * quantile)])
    assert high[:2] == pytest.approx([2 * np.exp(0.1 * quantile), 4 * np.exp(0.1 * quantile)])
    assert np.isnan([low[2], high[2]]).all()
    assert [list(ends) for ends in joint_ends(exact(1.0, 3.0))] == [[1, 3], [1, 3]]


def test_rows_that_agree_in_every_seed_and_cost_are_on_the_front_together() -> None:
    tied, worse = np.array([1.0, 2.0, 4.0]), np.array([-9.0, -8.0, -8.5])
    assert list(front_probability(exact(5.0, 5.0, 5.0), [tied, tied, worse])) == pytest.approx([1.0, 1.0, 0.0], abs=0.02)
    assert list(front_probability(exact(5.0, 5.0), [tied, tied + 0.1])) == [0.0, 1.0]  # better by as much in every seed


def test_one_row_is_above_another_as_surely_as_the_paired_t_test_says() -> None:
    one, other = np.array([50.0, 61.0, 55.0, 58.0]), np.array([50.6, 61.1, 56.1, 57.9])
    expected = 1 - scipy_stats.ttest_rel(other, one, alternative="greater").pvalue
    share = front_probability(exact(5.0, 5.0), [one, other], draws=40_000)
    assert list(share) == pytest.approx([1 - expected, expected], abs=0.01)
    lacking = front_probability(exact(5.0, 5.0), [np.append(one, np.nan), np.append(other, 99.0)])
    assert lacking[1] > 0.5  # a seed that one of them lacks counts for the other alone


def test_the_hypervolume_of_measured_costs_is_as_open_as_they_are() -> None:
    # one row that counts, exact in its score: the corner lies a decade above its cost, so that the cost's own ends decide
    scores = [np.full(3, 5.0), np.full(3, 0.0)]
    cost = Costs(values=[np.array([1.0]), np.array([10.0])], errors=[TimeError(log=0.1, df=9.0)] * 2)
    quantile = scipy_stats.t.ppf(1 - 0.05 / 8, 9)  # of four intervals
    low, high = hypervolume_interval(cost, scores, reference=(10, 0))
    assert (low, high) == pytest.approx((5 - 5 * 0.1 * quantile / np.log(10), 5 + 5 * 0.1 * quantile / np.log(10)))
    assert hypervolume_interval(exact(1.0, 10.0), scores, reference=(10, 0)) == pytest.approx((5, 5))


def test_times_that_cannot_be_separated_are_marked_alike_and_the_front_says_how_sure_it_is() -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0, 1, 2))
    for rank, score, seconds in ((4, 50.0, 0.100), (8, 60.0, 0.101), (16, 70.0, 0.2)):
        suite.add(made_method(value=rank), {seed: {"semseg": score + 0.1 * seed} for seed in (0, 1, 2)}, step_seconds=seconds, spread=0.02)
    plan, seeds = suite.plan(), scored_seed_frame(suite.plan(), suite.records)
    front = front_frame(plan, seeds, "step_time")
    assert list(front["on_front"]) == [True, True, True]  # the first is 1 % faster, which its measurement does not show:
    assert 0.4 < front["front_probability"][0] < 0.95
    assert front["front_probability"][1:].min() > 0.99
    rows = row_frame(plan, suite.records)
    assert list(pareto_numbers(rows, cost="step_seconds", scale=1e-3)["on_front"]) == [True, True, True]
    assert (rows["step_seconds_low"] < rows["step_seconds_mean"]).all()
    assert rows["step_seconds_joint_low"].lt(rows["step_seconds_low"]).all()
    table = main_table(rows, tasks=suite.tasks, title="t", footnotes=footnotes(plan, suite.records, rows))
    assert not table.bold["Step (ms) ↓"].any()  # two of three: no mark says less than half would
    assert " ± " in table.cells["Step (ms) ↓"].iloc[0] or "[" in table.cells["Step (ms) ↓"].iloc[0]
    assert any("order statistics" in note for note in table.footnotes)
    files = evidence_files(plan, suite.records, rows, table, pairs_of(suite))
    assert "Costs are taken as exact" not in files["fronts.md"]
