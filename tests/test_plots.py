"""What the figures show: changes against single-task training, memory, error maps, published points; against hand arithmetic."""

import math
from pathlib import Path

import numpy as np
import pytest
from made_panels import add_panels
from made_records import MadeSuite, demo_like_suite, made_method, made_record

from bench.report.panels import class_colours, error_map, load_panels
from bench.report.plots import caption, make_figures
from bench.report.plots.costs import memory_numbers
from bench.report.plots.pareto import LABELS_AT_MOST, draw_pareto, pareto_numbers, point_labels
from bench.report.plots.published import published_points
from bench.report.plots.rank_curves import MARKERS, POINTS_AT_MOST, curve_numbers, draw_rank_curves, panel_lines
from bench.report.plots.tasks import change_numbers, draw_interference, interference_numbers, shown_labels
from bench.report.seeds import scored_seed_frame
from bench.report.stats import column_pairs, row_frame
from bench.report.style import family_styles, new_figure, set_title

FULL = made_method("full", "Full fine-tuning", None, None, label="Single-task full fine-tuning")


def two_by_two() -> MadeSuite:
    """A reference of one model a task, and LoRA both per task and shared, two seeds each."""
    suite = MadeSuite(tasks=("semseg", "normals"))
    suite.add(FULL, {0: {"semseg": 40.0, "normals": 20.0}, 1: {"semseg": 60.0, "normals": 20.0}}, kind="single_task")
    suite.add(made_method(label="LoRA per task"), {s: {"semseg": 40.0, "normals": 25.0} for s in (0, 1)}, kind="single_task")
    suite.add(made_method(label="LoRA shared"), {0: {"semseg": 44.0, "normals": 20.0}, 1: {"semseg": 44.0, "normals": 30.0}})
    suite.rows[2]["cell_id"] = suite.rows[1]["cell_id"]
    for record in suite.records:
        if record["run_id"].startswith("row2"):
            record["cell_id"] = suite.rows[1]["cell_id"]
    return suite


def test_interference_compares_with_the_same_configuration_one_model_a_task():
    suite = two_by_two()
    rows = row_frame(suite.plan(), suite.records)
    cells = {row["label"]: row["cell_id"] for row in suite.rows}
    found = interference_numbers(rows, cells, tasks=suite.tasks).set_index("task")
    assert list(found["label"]) == ["LoRA shared"] * 2
    assert found["own"].all()
    assert set(found["against"]) == {"LoRA per task"}
    assert found.loc["semseg", "change"] == pytest.approx(10.0)
    assert found.loc["normals", "change"] == pytest.approx(0.0)  # 25 degrees both
    half = 12.7062047 * math.sqrt(50) / math.sqrt(2) / 25 * 100  # t of one degree of freedom, 20 and 30; the counterpart does not vary
    assert (found.loc["normals", "low"], found.loc["normals", "high"]) == pytest.approx((-half, half), rel=1e-6)
    without = interference_numbers(rows, {label: str(place) for place, label in enumerate(cells)}, tasks=suite.tasks)
    assert set(without["against"]) == {FULL["label"]}
    assert not without["own"].any()


def test_the_matrix_marks_what_the_corrected_test_tells_apart_and_not_what_an_interval_leaves_out():
    suite, generator = MadeSuite(tasks=("semseg",), seeds=(0, 1, 2)), np.random.default_rng(3)

    def values(mean: float) -> dict:
        return {seed: {"semseg": mean + generator.normal(0, 0.3)} for seed in suite.seeds}

    suite.add(FULL, values(50.0), kind="single_task")
    for rank in range(1, 13):
        suite.add(made_method(value=rank), values(50.0 - 0.3 * rank))
    plan = suite.plan()
    rows = row_frame(plan, suite.records)
    numbers = interference_numbers(rows, {row["label"]: row["cell_id"] for row in suite.rows}, tasks=suite.tasks)
    pairs = column_pairs(plan, suite.records, scored_seed_frame(plan, suite.records))["semseg_miou"]
    places = [row["label"] for row in suite.rows]
    corrected = [pairs.adjusted[places.index(label), 0] < 0.05 for label in numbers["label"]]
    assert list(numbers["told_apart"]) == corrected
    assert corrected[-1]
    alone = (numbers["low"] > 0) | (numbers["high"] < 0)
    assert (alone & ~numbers["told_apart"].astype(bool)).any()  # else this test could not fail
    figure = draw_interference(numbers, rows, title="t")
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert len(bold) == sum(corrected)
    assert "Holm over all pairs" in figure.get_suptitle()
    figure.canvas.draw()
    (title,) = figure.texts
    extent = title.get_window_extent()
    assert 0 <= extent.x0 <= extent.x1 <= figure.bbox.width  # nothing of it off the page
    one = row_frame(plan, [record for record in suite.records if record["seed"] == 0])
    untested = interference_numbers(one, {row["label"]: row["cell_id"] for row in suite.rows}, tasks=suite.tasks)
    figure = draw_interference(untested, one, title="t")
    assert not [text for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert "nothing is bold" in figure.get_suptitle()


def test_captions_say_interval_level_and_n():
    suite = two_by_two()
    rows = row_frame(suite.plan(), suite.records)
    for name in ("pareto_params", "rank_curves", "task_bars"):
        assert "95 % t interval of the mean, n = 2 seeds" in caption(name, rows)
    assert "Holm-corrected" in caption("interference", rows)
    assert "95 % interval of that measurement" in caption("pareto_costs", rows)
    one = row_frame(suite.plan(), [record for record in suite.records if record["seed"] == 0])
    assert "No intervals: one seed a row" in caption("task_bars", one)
    figure = draw_pareto(
        pareto_numbers(rows, cost="trainable_params", scale=1e6), family_styles(rows), cost_title="c", reference_label="r", title="t"
    )
    assert any("95 % t interval of the mean, n = 2 seeds" in text.get_text() for text in figure.legends[0].get_texts())


def sweep_of(families: dict[str, int]) -> MadeSuite:
    """A reference, and families with a rank from 1 to a number."""
    suite = MadeSuite(tasks=("semseg",))
    suite.add(FULL, {seed: {"semseg": 50.0} for seed in suite.seeds}, kind="single_task")
    for title, count in families.items():
        for rank in range(1, count + 1):
            method = made_method(title.lower(), title, "rank", rank, label=f"{title} (r={rank})")
            suite.add(method, {seed: {"semseg": 40.0 + rank + 0.1 * seed} for seed in suite.seeds}, trainable=1_000_000 + rank)
    return suite


def test_curves_of_many_points_are_spread_over_lines_of_panels_and_lose_no_point():
    few = sweep_of({"LoRA": 4, "MTLoRA": 5})
    numbers = curve_numbers(row_frame(few.plan(), few.records), tasks=few.tasks)
    assert panel_lines(numbers) == [("rank", ["LoRA", "MTLoRA"])]
    many = sweep_of({"LoRA": 40, "MTLoRA": POINTS_AT_MOST - 40, "DoRA": 3})
    rows = row_frame(many.plan(), many.records)
    numbers = curve_numbers(rows, tasks=many.tasks)
    assert panel_lines(numbers) == [("rank", ["LoRA", "MTLoRA"]), ("rank", ["DoRA"])]
    figure = draw_rank_curves(numbers, family_styles(rows), title="t")
    curve = next(line for line in figure.axes[0].lines if line.get_marker() != "None" and line.get_linewidth() == 1.0)
    assert list(curve.get_xdata()) == list(range(1, 41))
    marked = curve.get_markevery()
    assert {0, 39} <= set(marked)
    assert 4 < len(marked) <= MARKERS


def test_a_pareto_plot_of_more_points_than_bear_labels_has_a_legend_of_families():
    for count, there in ((4, False), (LABELS_AT_MOST, True)):
        suite = sweep_of({"LoRA": count, "MTLoRA": 2})
        rows = row_frame(suite.plan(), suite.records)
        numbers = pareto_numbers(rows, cost="trainable_params", scale=1e6)
        figure = draw_pareto(numbers, family_styles(rows), cost_title="c", reference_label="r", title="t")
        legend = {text.get_text() for text in figure.legends[0].get_texts()}
        assert ({"LoRA", "MTLoRA"} <= legend) == there


def test_bars_show_the_change_against_the_reference_with_the_sign_of_better():
    suite = two_by_two()
    found = change_numbers(row_frame(suite.plan(), suite.records), tasks=suite.tasks).set_index(["label", "task"])["change"]
    assert found["LoRA per task", "semseg"] == pytest.approx(-20.0)  # 40 against 50
    assert found["LoRA per task", "normals"] == pytest.approx(-25.0)  # 25 degrees against 20 is worse
    assert found["LoRA shared", "semseg"] == pytest.approx(-12.0)


def test_memory_parts_sum_to_the_total_and_a_row_of_models_counts_its_largest():
    suite = two_by_two()
    for record in suite.records:
        if record["run_id"] == "row0-normals-s0":
            record["cost"]["step_memory_bytes"] = {"weights": 400 << 20, "gradients": 0, "optimizer_state": 0, "saved_activations": 0}
            record["cost"]["step_memory_bytes"]["total"] = 400 << 20
    found = memory_numbers(suite.plan(), suite.records).set_index("label")
    parts = found[["weights", "gradients", "optimizer_state", "saved_activations"]].sum(axis=1)
    np.testing.assert_allclose(parts, found["total"])
    assert found.loc[FULL["label"], "total"] == pytest.approx((400 + 100) / 2)  # mean over seeds of the largest model
    assert found["peak_allocated"].isna().all()


def test_published_points_appear_in_the_published_setting_only():
    record = made_record(run_id="a", values={"semseg": 60.0})
    assert published_points([record]) is None
    record["config"]["data"]["source"] = "pascal_context"
    record["config"]["backbone"]["name"] = "swin_tiny_patch4_window7_224"
    record["config"]["recipe"]["image_size"] = 448
    points = published_points([record]).set_index("label")
    assert points.loc["MTLoRA r=64", "cost"] == 8.34
    assert points.loc["MTLoRA r=64", "delta_m"] == pytest.approx(2.54, abs=0.02)
    assert published_points([record, made_record(run_id="b", values={"semseg": 60.0})]) is None


def test_error_maps_show_what_is_wrong_and_leave_out_what_is_not_labelled():
    label = np.array([[1, 255], [2, 0]], dtype=np.uint8)
    picture, error = error_map("classes", np.array([[1, 3], [0, 0]], dtype=np.uint8), label)
    assert error == pytest.approx(100 / 3)
    assert tuple(picture[1, 0]) == (213, 94, 0)
    assert tuple(picture[0, 0]) == tuple(picture[1, 1]) != tuple(picture[0, 1])
    binary = np.array([[1, 255], [0, 1]], dtype=np.uint8)
    assert error_map("binary", np.array([[255, 0], [255, 200]], dtype=np.uint8), binary)[1] == pytest.approx(100 / 3)
    up, right = (128, 128, 255), (255, 128, 128)
    normals = np.array([[up, up], [up, (0, 0, 0)]], dtype=np.uint8)
    picture, error = error_map("normals", np.array([[up, right], [up, up]], dtype=np.uint8), normals)
    assert error == pytest.approx(30, abs=0.3)  # 0, 90 and 0 degrees, to the rounding of uint8
    assert picture[0, 1].max() == 0
    assert error_map("normals", normals, np.zeros((2, 2, 3), dtype=np.uint8))[1] is None
    depth = error_map("depth", np.array([[50, 25]], dtype=np.uint8), np.array([[25, 0]], dtype=np.uint8))
    assert depth[1] == pytest.approx(1.0)
    assert len({tuple(colour) for colour in class_colours()[:64]}) == 64


def test_panels_come_from_the_lowest_seed_and_records_without_them_give_none(tmp_path: Path):
    suite = demo_like_suite()
    assert load_panels(suite.plan(), suite.records, tmp_path) == []
    add_panels(suite.records, tmp_path)
    panels = load_panels(suite.plan(), suite.records, tmp_path)
    assert len(panels) == 4 * len(suite.rows)
    assert {panel.run_id[-2:] for panel in panels} == {"s0"}
    single = next(panel for panel in panels if panel.label == FULL["label"] and panel.task == "normals")
    assert single.run_id == "row0-normals-s0"
    assert single.errors[1] is None


def test_one_seed_alone_draws_every_figure_without_intervals(tmp_path: Path):
    suite = demo_like_suite(seeds=(0,))
    add_panels(suite.records, tmp_path)
    rows = row_frame(suite.plan(), suite.records)
    drawn = make_figures(suite.plan(), suite.records, rows, title="Made", directory=tmp_path)
    assert drawn.not_drawn == []
    assert {"panels_semseg", "panels_normals", "interference", "pareto_costs"} <= set(drawn.names)
    assert all(f"{name}.{suffix}" in drawn.files for name in drawn.names for suffix in ("png", "pdf", "csv"))
    assert b"/Type3" not in drawn.files["panels_semseg.pdf"]


def test_many_rows_are_chosen_by_rule_and_only_the_front_is_labelled():
    suite = MadeSuite(seeds=(0,))
    suite.add(FULL, {0: {"semseg": 50.0, "human_parts": 50.0, "saliency": 50.0, "normals": 20.0}}, kind="single_task")
    for place in range(80):
        values = {"semseg": 40 + place / 10, "human_parts": 50.0, "saliency": 50.0, "normals": 20.0}
        method = made_method(f"f{place % 16}", f"Family {place % 16}", "rank", place, label=f"Row {place}")
        suite.add(method, {0: values}, trainable=1_100_000 + 1000 * (place if place < 10 else 500 - place))
    rows = row_frame(suite.plan(), suite.records)
    chosen = shown_labels(rows, list(rows["label"]), 20)
    assert len(chosen) == 20
    assert {f"Row {place}" for place in range(64, 80)} <= set(chosen)  # the best of each family
    numbers = pareto_numbers(rows, cost="trainable_params", scale=1e6)
    labels = point_labels(numbers)
    assert set(labels["label"]) == set(numbers.loc[numbers["on_front"], "label"])
    styles = family_styles(rows)
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == len(styles) == 17


def test_a_family_looks_the_same_whatever_rows_stand_beside_it():
    rows = demo_like_suite()
    rows = row_frame(rows.plan(), rows.records)
    whole = family_styles(rows)
    for family in whole:
        alone = family_styles(rows[rows["family"] == family])
        assert alone[family] == whole[family]


def test_a_long_title_is_wrapped_inside_its_figure() -> None:
    figure = new_figure(7.0, 3.0)
    set_title(figure, "Demo", "Change against single-task full fine-tuning, positive is better; " * 4)
    figure.canvas.draw()
    (title,) = figure.texts
    assert title.get_text().startswith("Demo\nChange")
    assert 0 <= title.get_window_extent().x0 < title.get_window_extent().x1 <= figure.bbox.x1
    assert figure.get_figheight() > 3.0
