"""Comparisons of rows: planted differences are found, chance is not, and resampled metrics are the metrics of resamples."""

import numpy as np
import pytest
from made_records import MadeSuite, demo_like_suite, made_method
from scipy import stats as scipy_stats

from bench.measure.metrics import METRICS
from bench.measure.scores import ANGLE_LIMITS_DEG, RESAMPLED, normals_scores, saliency_scores, segmentation_scores
from bench.record import write_record
from bench.report.footnotes import detectable_note, footnotes
from bench.report.paired import compare_rows, rank_intervals, tied_with_best, typical_detectable
from bench.report.seeds import scored_seed_frame
from bench.report.stats import column_pairs, interquartile_mean, row_frame

SCORES = {"semseg": segmentation_scores, "human_parts": segmentation_scores, "saliency": saliency_scores, "normals": normals_scores}
SCORES["depth"] = METRICS["depth"]().scores
HEADLINE = {"semseg": "miou", "human_parts": "miou", "saliency": "miou", "normals": "mean_deg", "depth": "rmse_m"}


def made_sums(task: str, images: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return per-image sums of random predictions."""
    if task == "depth":
        sums = {name: generator.uniform(0, 9, images) for name in ("square_sum", "absolute_sum", "relative_sum")}
        return sums | {name: np.full(images, 7) for name in ("valid", "ratio_below_1.25", "ratio_below_1.5625", "ratio_below_1.953125")}
    if task == "normals":
        valid = generator.integers(0, 100, size=images)
        within = {f"within_{limit:g}": valid // 2 for limit in ANGLE_LIMITS_DEG}
        return {"angle_sum": valid * generator.uniform(10, 30, images), "angle_square_sum": valid * 500.0, "valid": valid} | within
    shape = (images, 15) if task == "saliency" else (images, 21 if task == "semseg" else 7)
    labelled = generator.integers(0, 50, size=images if task == "saliency" else shape)
    cap = labelled[:, None] if task == "saliency" else labelled
    intersection = (cap * generator.uniform(0, 1, size=shape)).astype(int)
    extra = {"valid": np.where(np.arange(images) == 3, 0, 60)} if task == "saliency" else {}
    return {"intersection": intersection, "predicted": intersection + generator.integers(0, 30, size=shape), "labelled": labelled} | extra


@pytest.mark.parametrize("task", sorted(SCORES))
def test_a_resampled_metric_is_the_metric_of_the_resample(task: str) -> None:
    generator = np.random.default_rng(0)
    sums = made_sums(task, 40, generator)
    picks = generator.integers(40, size=(6, 40))
    counts = np.stack([np.bincount(pick, minlength=40) for pick in picks]).astype(float)
    expected = [SCORES[task]({key: value[pick] for key, value in sums.items()})[HEADLINE[task]] for pick in picks]
    np.testing.assert_allclose(RESAMPLED[task](sums, counts), expected, rtol=1e-12)


def test_two_rows_are_compared_by_the_paired_t_test() -> None:
    values = np.random.default_rng(1).normal(size=(2, 5)) + 3 * np.arange(5)
    pairs = compare_rows(values)
    expected = scipy_stats.ttest_rel(values[0], values[1])
    interval = expected.confidence_interval(0.95)
    assert pairs.p[0, 1] == pytest.approx(expected.pvalue)
    assert (pairs.low[0, 1], pairs.high[0, 1]) == pytest.approx((interval.low, interval.high))
    assert pairs.resampled == "seeds"


@pytest.mark.parametrize(("rows", "seeds", "spread"), [(13, 2, 0.0), (12, 3, 0.8), (3, 3, 0.8), (8, 2, 0.5)])
def test_rows_that_are_equal_are_rarely_told_apart(rows: int, seeds: int, spread: float) -> None:
    generator, trials, wrong, pairwise = np.random.default_rng(rows), 400, 0, 0.0
    for _ in range(trials):
        scale = np.exp(generator.normal(0, spread, size=(rows, 1)))  # rows differ in their spread, too
        pairs = compare_rows(scale * generator.normal(size=(rows, seeds)) + generator.normal(size=(1, seeds)))
        upper = np.triu_indices(rows, 1)
        wrong += (pairs.adjusted[upper] < 0.05).any()
        pairwise += (pairs.p[upper] < 0.05).mean()
    assert wrong / trials < 0.08  # any mistake in a whole table
    assert pairwise / trials < 0.09  # two seeds leave the tails of a single comparison a little short


def made_table(
    generator: np.random.Generator, *, seeds: int, image: float, spread: float, images: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Return values (13, seeds) of equal rows that spread by unlike amounts, and replicates as a bootstrap of `images` images has them."""
    scale = np.exp(generator.normal(0, spread, size=(13, 1)))
    values = scale * generator.normal(size=(13, seeds)) + image * generator.normal(size=(13, 1)) + generator.normal(size=(1, seeds))
    of_images = image * np.sqrt(images) * generator.normal(size=(13, images))
    counts = generator.multinomial(images, np.full(images, 1 / images), size=200)
    return values, values.mean(axis=1, keepdims=True) + (of_images - of_images.mean(axis=1, keepdims=True)) @ counts.T / images


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("image", "spread"), [(0.15, 0.0), (0.7, 0.0), (0.7, 0.8), (2.0, 0.5)])
def test_equal_rows_are_rarely_told_apart_by_seeds_and_images(seeds: int, image: float, spread: float) -> None:
    generator, trials, wrong = np.random.default_rng(seeds), 200, 0
    for _ in range(trials):
        pairs = compare_rows(*made_table(generator, seeds=seeds, image=image, spread=spread), 60)
        wrong += np.nanmin(pairs.adjusted) < 0.05
    assert pairs.resampled == "seeds and images"
    assert wrong / trials <= 0.06


@pytest.mark.parametrize(("seeds", "image"), [(3, 0.3), (3, 2.0), (5, 0.7)])
def test_a_difference_of_the_detectable_size_is_found_about_as_often_as_said(seeds: int, image: float) -> None:
    generator, trials, found, said = np.random.default_rng(seeds), 150, [], []
    for _ in range(trials):  # what the tests say of themselves, then a true difference of that size
        said.append(typical_detectable(compare_rows(*made_table(generator, seeds=seeds, image=image, spread=0.0), 60)))
    for _ in range(trials):
        values, replicates = made_table(generator, seeds=seeds, image=image, spread=0.0)
        values[0] += np.mean(said)
        pairs = compare_rows(values, replicates, 60)
        found.append(pairs.better(higher_is_better=True)[0, 1:].mean())
    assert 0.68 < np.mean(found) < 0.97


@pytest.mark.parametrize("lost", [1, 6, 12])
def test_a_row_that_lost_a_seed_is_not_tested_by_images_alone(lost: int) -> None:
    generator = np.random.default_rng(lost)
    values = generator.normal(size=(13, 2)) + 100 * np.eye(13)[0][:, None]
    values[1 : lost + 1, 1] = np.nan
    means = np.nanmean(values, axis=1)
    pairs = compare_rows(values, means[:, None] + 0.01 * generator.normal(size=(13, 200)))
    assert np.isnan(pairs.p[1 : lost + 1]).all()
    if lost == 12:  # no pair has its seeds, so nothing is tested
        assert pairs.resampled == "nothing"
    else:
        assert tied_with_best(pairs, means, higher_is_better=True)[: lost + 1].all()
        low, high = rank_intervals(pairs, means, higher_is_better=True)
        assert (low[1], high[1]) == (1, 13)
        assert pairs.resampled == "seeds and images"


def test_a_planted_difference_is_found_with_three_seeds() -> None:
    generator = np.random.default_rng(5)
    means = np.repeat([0.0, 3.0], [10, 10])
    pairs = compare_rows(means[:, None] + 0.3 * generator.normal(size=(20, 3)))
    better = pairs.better(higher_is_better=True)
    assert better[10:, :10].all()
    assert better.sum() == 100
    low, high = rank_intervals(pairs, means, higher_is_better=True)
    assert list(low) == [11] * 10 + [1] * 10
    assert list(high) == [20] * 10 + [10] * 10
    tied = tied_with_best(pairs, means + 1e-3 * np.arange(20), higher_is_better=True)
    assert list(tied) == [False] * 10 + [True] * 10


def test_exact_ties_share_the_mark_and_no_spread_is_no_chance() -> None:
    pairs = compare_rows(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]))
    assert pairs.p[0, 1] == 1
    assert pairs.p[0, 2] == 0
    assert list(tied_with_best(pairs, np.array([1.0, 1.0, 2.0]), higher_is_better=False)) == [True, True, False]


def test_one_seed_without_images_allows_no_test_and_marks_the_best_mean() -> None:
    pairs = compare_rows(np.array([[1.0], [3.0], [3.0], [np.nan]]))
    assert pairs.resampled == "nothing"
    assert np.isnan(pairs.p).all()
    means = np.array([1.0, 3.0, 3.0, np.nan])
    assert list(tied_with_best(pairs, means, higher_is_better=True)) == [False, True, True, False]
    low, _ = rank_intervals(pairs, means, higher_is_better=True)
    assert np.isnan(low).all()


def test_image_pairing_finds_what_unpaired_images_would_hide() -> None:
    generator = np.random.default_rng(6)
    common = generator.normal(0, 5, size=(1, 2000))  # images are hard or easy for all rows alike
    replicates = np.array([[50.0], [51.0], [50.05]]) + common + 0.1 * generator.normal(size=(3, 2000))
    pairs = compare_rows(np.array([[50.0], [51.0], [50.05]]), replicates)
    assert pairs.resampled == "images"
    assert pairs.adjusted[0, 1] < 1e-6
    assert pairs.adjusted[0, 2] > 0.5
    # the image part alone, against its own closed form
    spread = (replicates[1] - replicates[0]).std(ddof=1)
    assert pairs.high[1, 0] - 1 == pytest.approx(1.96 * spread, rel=1e-3)


def test_per_image_sums_of_records_reach_the_table(tmp_path) -> None:
    generator, images = np.random.default_rng(7), 60
    suite = MadeSuite(tasks=("normals",), seeds=(0,))
    shift = {4: 0.0, 8: 4.0, 16: 0.0}
    for rank in shift:
        suite.add(made_method(value=rank), {0: {"normals": 1.0}})
    angles, valid = generator.uniform(10, 30, images), np.full(images, 100)
    for record in suite.records:
        mean = angles + shift[record["method"]["dial_value"]] + generator.normal(0, 0.2, images)
        record["metrics"]["normals"]["mean_deg"] = float(mean.mean())
        sums = {"normals/angle_sum": mean * valid, "normals/valid": valid, "id": np.array([f"i{k}" for k in range(images)])}
        write_record(tmp_path, record, sums)
        record["per_image"] = f"{record['run_id']}.npz"
    rows = row_frame(suite.plan(), suite.records, tmp_path)
    assert list(rows["normals_mean_deg_tied_best"]) == [True, False, True]
    assert set(rows["normals_mean_deg_resampled"]) == {"images"}
    pairs = column_pairs(suite.plan(), suite.records, scored_seed_frame(suite.plan(), suite.records), tmp_path)["normals_mean_deg"]
    assert pairs.low[1, 0] < 4 < pairs.high[1, 0]
    assert set(row_frame(suite.plan(), suite.records)["normals_mean_deg_resampled"]) == {"nothing"}


def test_other_images_or_data_are_not_paired(tmp_path) -> None:
    suite = MadeSuite(tasks=("normals",), seeds=(0,))
    for rank, name in ((4, "a"), (8, "b"), (16, "a")):
        suite.add(made_method(value=rank), {0: {"normals": float(rank)}})
        record = suite.records[-1]
        sums = {"normals/angle_sum": np.full(5, 10.0 * rank), "normals/valid": np.full(5, 10), "id": np.array([name] * 5)}
        write_record(tmp_path, record, sums)
        record["per_image"] = f"{record['run_id']}.npz"
    pairs = column_pairs(suite.plan(), suite.records, scored_seed_frame(suite.plan(), suite.records), tmp_path)["normals_mean_deg"]
    assert np.isnan(pairs.p[0, 1])
    assert pairs.p[0, 2] == 0


def test_interquartile_mean_equals_scipys_trimmed_mean() -> None:
    values = np.random.default_rng(8).normal(size=16)
    assert interquartile_mean(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25))
    # six values: the quarter is one and a half of them
    assert interquartile_mean(np.array([0, 1, 2, 3, 4, 100.0])) == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)
    assert np.isnan(interquartile_mean(np.array([])))


def test_mean_rank_is_over_tasks_and_seeds() -> None:
    suite = MadeSuite(tasks=("semseg", "normals"))
    for rank, values in ((4, (1.0, 30.0)), (8, (2.0, 20.0)), (16, (3.0, 25.0))):
        suite.add(made_method(value=rank), {seed: dict(zip(suite.tasks, values, strict=True)) for seed in (0, 1)})
    rows = row_frame(suite.plan(), suite.records)
    assert list(rows["mean_rank"]) == [3.0, 1.5, 1.5]


def test_mean_rank_is_over_the_seeds_that_all_rows_share() -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0, 1, 2))
    suite.add(made_method(value=4), {0: {"semseg": 2.0}})  # better than the next one wherever both have a result
    suite.add(made_method(value=8), {seed: {"semseg": 1.0} for seed in (0, 1, 2)})
    suite.add(made_method(value=16), {seed: {"semseg": 3.0} for seed in (0, 1, 2)})
    assert list(row_frame(suite.plan(), suite.records)["mean_rank"]) == [2.0, 3.0, 1.0]
    suite.add(made_method(value=32), {1: {"semseg": 9.0}})
    assert row_frame(suite.plan(), suite.records)["mean_rank"].isna().all()  # none is shared


def test_the_reference_is_exactly_zero_and_numbers_that_all_seeds_agree_on_have_no_interval() -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    rows = row_frame(suite.plan(), suite.records)
    reference = rows[rows["is_reference"]].iloc[0]
    assert reference["delta_m_mean"] == 0
    assert not 0 < abs(reference["iqm_change"]) < 1e-9
    exact = rows["stored_bytes_std"] == 0
    assert exact.any()
    assert rows.loc[exact, ["stored_bytes_low", "stored_bytes_high"]].isna().all(axis=None)


def test_a_reader_is_told_how_large_a_difference_would_have_been_found() -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    rows = row_frame(suite.plan(), suite.records)
    size = rows["delta_m_detectable"].iloc[0]
    assert rows["delta_m_std"].median() < size < 20  # three seeds find no difference of the size of their own spread
    (note,) = detectable_note(rows)
    assert f"Δm {size:.2g} points" in note
    one = demo_like_suite(seeds=(0,))
    assert detectable_note(row_frame(one.plan(), one.records)) == []


def test_of_very_many_trials_not_run_yet_the_first_are_named_and_all_counted() -> None:
    suite = demo_like_suite(seeds=(0,))
    for place in range(60):
        suite.add(made_method("late", "Late", "rank", place, label=f"Late {place}"), {})
    notes = footnotes(suite.plan(), suite.records, row_frame(suite.plan(), suite.records))
    (note,) = [note for note in notes if note.startswith("Trials not run yet")]
    assert note.startswith("Trials not run yet (60): row13-")
    assert note.endswith(" and 20 more.")
    assert note.count("row") == 40
