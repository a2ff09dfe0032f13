"""The report's numbers and tables: against hand arithmetic, with missing trials that stay visible."""

import csv
import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from made_records import REFERENCE, MadeSuite, demo_like_suite, made_method
from rich.console import Console

from bench.cli.reports import report
from bench.record import RecordError
from bench.report import make_report
from bench.report.claims import answer_claims
from bench.report.compare import compare_results
from bench.report.footnotes import footnotes
from bench.report.latex import to_latex
from bench.report.stats import delta_m, pareto_front, row_frame, seed_frame
from bench.report.summary import findings, paragraphs
from bench.report.tables import main_table, to_csv, to_markdown, to_rich
from bench.tasks import TASK_NAMES, TASKS

pytestmark = pytest.mark.usefixtures("quick_figures")

ROOT = Path(__file__).parent.parent
FULL = made_method("full", "Full fine-tuning", None, None, label="Single-task full fine-tuning")


def two_row_suite() -> MadeSuite:
    """Return a reference of one model a task and a LoRA row, two seeds each, with numbers that hand arithmetic can follow."""
    suite = MadeSuite(tasks=("semseg", "normals"))
    suite.add(
        FULL,
        {0: {"semseg": 40.0, "normals": 20.0}, 1: {"semseg": 60.0, "normals": 30.0}},
        kind="single_task",
        trainable=5_000_000,
        memory=400,
        step_seconds=0.3,
    )
    suite.add(made_method(), {0: {"semseg": 45.0, "normals": 20.0}, 1: {"semseg": 60.0, "normals": 22.5}}, memory=300)
    return suite


def published() -> list[dict]:
    """Return the published rows whose four metrics and recomputed delta_m are there."""
    with (ROOT / "results" / "published.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["delta_m_recomputed_vs_67.21_61.93_62.35_17.97"]]


def test_published_metrics_give_their_delta_m() -> None:
    rows = published()
    assert len(rows) > 35
    columns = {"semseg": "semseg_miou", "human_parts": "human_parts_miou", "saliency": "saliency_miou", "normals": "normals_rmse"}
    for row in rows:
        values = {task: float(row[column]) for task, column in columns.items()}
        assert delta_m(values, REFERENCE) == pytest.approx(float(row["delta_m_recomputed_vs_67.21_61.93_62.35_17.97"]), abs=0.0051), row[
            "method"
        ]


def test_mtlora_rank_64_has_delta_m_2_54() -> None:
    assert round(delta_m({"semseg": 67.9, "human_parts": 59.84, "saliency": 65.4, "normals": 16.6}, REFERENCE), 2) == 2.54


def test_the_published_reference_is_the_one_of_the_task_table() -> None:
    assert {name: TASKS[name].published_reference for name in TASK_NAMES} == REFERENCE


def test_delta_m_is_none_where_something_is_missing() -> None:
    assert delta_m({"semseg": 1.0}, {"semseg": 1.0, "normals": 1.0}) is None
    assert delta_m({"semseg": None}, {"semseg": 1.0}) is None
    assert delta_m({"semseg": 1.0}, {"semseg": 0.0}) is None
    assert delta_m({"semseg": 1.0}, {}) is None


def test_numbers_equal_hand_arithmetic() -> None:
    suite = two_row_suite()
    rows = row_frame(suite.plan(), suite.records)
    full, lora = rows.iloc[0], rows.iloc[1]
    assert (full["semseg_miou_mean"], full["normals_mean_deg_mean"]) == (50.0, 25.0)
    assert full["semseg_miou_std"] == pytest.approx(math.sqrt(200))
    # reference 50 and 25; LoRA seed 0: (-10 % + 20 %) / 2 = 5 %, seed 1: (20 % + 10 %) / 2 = 15 %
    assert lora["delta_m_mean"] == pytest.approx(10.0)
    assert lora["delta_m_std"] == pytest.approx(math.sqrt(50))
    assert (lora["delta_m_n"], lora["seeds_complete"], lora["seeds_planned"]) == (2, 2, 2)
    assert full["delta_m_mean"] == pytest.approx(0.0, abs=1e-12)
    # one model a task: sums, but the largest memory
    assert (full["trainable_params"], full["trainable_params_without_decoders"]) == (10_000_000, 8_000_000)
    assert (full["flops_per_image_mean"], full["stored_bytes_mean"], full["train_seconds_mean"]) == (2e9, 4e7, 120.0)
    assert full["step_memory_bytes_mean"] == 400
    assert full["step_seconds_mean"] == pytest.approx(0.6)
    assert (lora["trainable_params"], lora["step_memory_bytes_mean"], lora["flops_per_image_mean"]) == (3_000_000, 300, 1e9)


def test_table_csv_agrees_with_the_statistics_module(tmp_path: Path) -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    (tmp_path / "table.csv").write_text(to_csv(row_frame(suite.plan(), suite.records)))
    table = pd.read_csv(tmp_path / "table.csv").set_index("label")
    for record_row in suite.rows:
        for task in TASK_NAMES:
            own = [
                r["metrics"][task][TASKS[task].metric] for r in suite.records if r["run_id"] in record_row["run_ids"] and task in r["tasks"]
            ]
            line = table.loc[record_row["label"]]
            assert line[f"{task}_{TASKS[task].metric}_mean"] == pytest.approx(statistics.fmean(own), rel=1e-12)
            assert line[f"{task}_{TASKS[task].metric}_std"] == pytest.approx(statistics.stdev(own), rel=1e-9)


def test_a_seed_counts_only_when_every_task_is_there_and_ok(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("semseg", "normals"))
    values = {"semseg": 50.0, "normals": 20.0}
    suite.add(FULL, {0: values, 1: {"semseg": 70.0}}, kind="single_task")
    suite.add(made_method(), {0: values, 1: {"semseg": 90.0, "normals": 1.0}}, status={"semseg_normals-s1": "oom"})
    suite.add(made_method(value=8), {0: values, 1: {"semseg": 90.0, "normals": None}})
    suite.add(made_method(value=16), {})
    rows = row_frame(suite.plan(), suite.records).set_index("label")
    assert list(rows["seeds_complete"]) == [1, 1, 1, 0]
    assert rows.loc[FULL["label"], "semseg_miou_mean"] == 50.0
    assert list(rows["missing"]) == ["normals not run (seed 1)", "oom (seed 1)", "normals mean_deg NaN (seed 1)", "not run (seed 0, 1)"]
    assert rows["semseg_miou_std"].isna().all()
    assert rows.loc["LoRA (r=16)", ["semseg_miou_mean", "delta_m_mean", "step_seconds_mean"]].isna().all()
    report = make_report(suite.write(tmp_path))
    assert not report.complete
    cells = report.table.cells.set_index("Method")
    assert list(cells["Seeds"]) == [
        "1/2: normals not run (seed 1)", "1/2: oom (seed 1)", "1/2: normals mean_deg NaN (seed 1)", "0/2: not run (seed 0, 1)",
    ]  # fmt: skip
    assert (cells.loc["LoRA (r=16)"].iloc[1:] == "—").all()
    text = (tmp_path / "table.md").read_text()
    assert "[incomplete: 6 of 10 trials]" in text
    assert "Trials that did not end well (1): row1-semseg_normals-s1 (oom)." in text
    assert "its seed" not in text
    assert "NaN, so that their seed does not count (1): row2-semseg_normals-s1 (normals mean_deg)." in text
    assert "Trials not run yet (3): row0-normals-s1, row3-semseg_normals-s0, row3-semseg_normals-s1." in text
    assert "made up to be oom" in (tmp_path / "summary.md").read_text()


def test_seeds_that_disagree_on_a_parameter_count_are_an_error() -> None:
    suite = two_row_suite()
    suite.records[-1]["params"]["trainable"] += 1
    with pytest.raises(ValueError, match="seeds disagree on trainable_params"):
        row_frame(suite.plan(), suite.records)


def test_a_row_without_step_times_keeps_its_other_numbers() -> None:
    suite = two_row_suite()
    for record in suite.records:
        record["cost"]["step_seconds"]["median"] = None
    rows = row_frame(suite.plan(), suite.records)
    assert list(rows["step_seconds_n"]) == [0, 0]
    assert rows["delta_m_mean"].notna().all()
    assert list(main_table(rows, tasks=suite.tasks, title="t").cells["Step (ms) ↓"]) == ["—", "—"]


def test_a_record_that_contradicts_the_plan_is_an_error() -> None:
    suite = two_row_suite()
    suite.records[-1]["cell_id"] = "f" * 12
    with pytest.raises(ValueError, match="writes the plan anew"):
        seed_frame(suite.plan(), suite.records)


def test_two_records_of_one_task_and_seed_are_an_error() -> None:
    suite = two_row_suite()
    suite.records[-1]["seed"] = 0
    with pytest.raises(ValueError, match="two records of semseg"):
        seed_frame(suite.plan(), suite.records)


def test_records_outside_of_the_plan_are_left_out_and_counted() -> None:
    suite = two_row_suite()
    expected = row_frame(suite.plan(), suite.records)
    other = MadeSuite(tasks=("semseg", "normals"))
    other.add(made_method(), {0: {"semseg": 1.0, "normals": 1.0}})
    stray = other.records[0] | {"run_id": "stray"}
    pd.testing.assert_frame_equal(row_frame(suite.plan(), [*suite.records, stray]), expected)
    notes = footnotes(suite.plan(), [*suite.records, stray], expected)
    assert any(note.startswith("1 records in the directory belong to no row of the plan") for note in notes)


def test_the_single_task_row_is_the_reference_where_cell_ids_are_shared() -> None:
    suite = two_row_suite()
    suite.rows.reverse()
    for line in (*suite.rows, *suite.records):
        line["cell_id"] = "a" * 12
    rows = row_frame(suite.plan(), suite.records)
    assert list(rows.loc[rows["is_reference"], "label"]) == [FULL["label"]]


def test_one_task_alone_makes_a_report(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("saliency",), seeds=(0,))
    suite.add(FULL, {0: {"saliency": 50.0}}, kind="single_task")
    suite.add(made_method(), {0: {"saliency": 55.0}})
    report = make_report(suite.write(tmp_path))
    assert report.complete
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["delta_m_mean"]) == [0.0, pytest.approx(10.0)]
    assert table["delta_m_std"].isna().all()
    assert "semseg" not in " ".join(table.columns)
    assert [reason.partition(":")[0] for reason in report.not_drawn] == ["rank_curves", "panels"]
    assert "one seed, hence no spread is known" in (tmp_path / "summary.md").read_text()


def test_a_row_with_one_seed_among_rows_with_more_is_reported_and_named(tmp_path: Path) -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    suite.write(tmp_path)
    lost = next(row for row in suite.plan()["rows"] if row["label"] == "Decoders only")
    for run_id in [run_id for run_id in lost["run_ids"] if not run_id.endswith("-s0")]:
        (tmp_path / "records" / f"{run_id}.json").unlink()
    report = make_report(tmp_path)
    assert "Not tested, for one seed shows no spread, and so not told apart from any other row: Decoders only." in report.table.footnotes


def test_without_a_reference_there_is_no_delta_m_and_stale_figures_go(tmp_path: Path) -> None:
    suite = two_row_suite()
    assert make_report(suite.write(tmp_path)).complete
    assert (tmp_path / "pareto_params.png").exists()
    for path in (tmp_path / "records").glob("row0-semseg*"):
        path.unlink()
    report = make_report(tmp_path)
    assert not (tmp_path / "pareto_params.png").exists()
    assert pd.read_csv(tmp_path / "table.csv")["delta_m_mean"].isna().all()
    assert any("its reference row has no complete seed" in note for note in report.table.footnotes)
    assert "Not drawn: pareto_params" in (tmp_path / "summary.md").read_text()


def test_a_reference_of_exactly_zero_leaves_delta_m_undefined_and_everything_else_there(tmp_path: Path) -> None:
    seeds = (0, 1)
    suite = MadeSuite(tasks=("semseg", "normals"), seeds=seeds)
    suite.add(FULL, {seed: {"semseg": 0.0, "normals": 20.0 + seed} for seed in seeds}, kind="single_task")
    suite.add(made_method(), {seed: {"semseg": 5.0 + seed, "normals": 18.0} for seed in seeds})
    suite.add(made_method(value=8), {seed: {"semseg": 0.0, "normals": 17.0} for seed in seeds})
    report = make_report(suite.write(tmp_path))
    assert report.complete
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.filter(regex="^(delta_m_(mean|low|high)|rank_|iqm_change)").isna().all(axis=None)
    assert list(report.table.cells["Δm (%) ↑"]) == ["—"] * 3
    why = f"undefined, for no change is relative to 0, which is {TASKS['semseg'].title} mIoU of the reference “{FULL['label']}”"
    assert f"Δm is not given: {why}." in report.table.footnotes
    assert any(reason.startswith("pareto_params") and why in reason for reason in report.not_drawn)
    assert (tmp_path / "report.html").exists()
    assert "task_bars" not in [reason.partition(":")[0] for reason in report.not_drawn]  # normals have a change
    compared = compare_results(tmp_path, tmp_path)
    assert set(compared.loc[compared["quantity"] == "delta_m", "verdict"]) == {"undefined"}
    asked = {"text": "t", "source": "s", "test": "better", "quantity": "delta_m", "row": {"dial": 8}, "than": {"dial": 4}}
    front = {"text": "t", "source": "s", "test": "on_front", "axis": "params", "row": {"dial": 8}}
    answers = answer_claims(suite.plan(), suite.records, tmp_path / "records", claims=[asked, front])
    assert list(answers["answer"]) == ["not run", "not run"]
    assert "the reference of Δm is 0" in answers["note"].iloc[0]


def test_a_suite_whose_trials_all_failed_has_a_table_that_says_so(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("semseg", "normals"))
    suite.add(FULL, {seed: {"semseg": 1.0, "normals": 2.0} for seed in (0, 1)}, kind="single_task")
    suite.add(made_method(), {0: {"semseg": 1.0, "normals": 2.0}})
    for record, status in zip(suite.records, ("failed", "oom", "diverged", "timeout", "killed"), strict=True):
        record |= {"status": status, "reason": f"made up to be {status}", "metrics": None, "params": None, "cost": None, "data": None}
    made = make_report(suite.write(tmp_path / "made"))
    assert "row0-semseg-s0: failed: made up to be failed" in made.no_result
    assert "run made --rerun failed" in made.no_result
    text = (tmp_path / "made" / "table.md").read_text()
    assert "[no results: each of the 5 trials that ran failed, 6 planned]" in text.splitlines()[0]
    assert "Trials that did not end well (5): row0-normals-s0 (oom), " in text
    assert "0/2: semseg failed (seed 0)" in text
    cells = made.table.cells.set_index("Method")
    assert cells.loc["LoRA (r=4)", "Seeds"] == "0/2: killed (seed 0); not run (seed 1)"
    for name in ("table.csv", "table.tex", "table.html", "summary.md", "report.html", "claims.md"):
        assert (tmp_path / "made" / name).exists(), name
    assert "LoRA" in (tmp_path / "made" / "report.html").read_text()
    assert list(answer_claims(suite.plan(), suite.records)["answer"].unique()) == ["not run"]
    with pytest.raises(typer.Exit) as ended:
        report(suite="made", results=tmp_path, strict=False, primary_only=False, quiet=False)
    assert ended.value.exit_code == 1
    with pytest.raises(RecordError, match="each of the 5 trials"):
        make_report(tmp_path / "made", strict=True)


def test_no_record_at_all_is_a_clear_error(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0,))
    suite.add(FULL, {}, kind="single_task")
    with pytest.raises(RecordError, match=r"no trial of the plan has a result .*Run `run_suite.py run made` first"):
        make_report(suite.write(tmp_path / "made"))


def test_a_record_with_nan_reads_nan_and_a_damaged_one_damaged(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("semseg", "normals"))
    values = {seed: {"semseg": 50.0 + seed, "normals": 20.0} for seed in (0, 1)}
    suite.add(FULL, values, kind="single_task")
    suite.add(made_method(), values)
    directory = suite.write(tmp_path)
    for run_id, old, new in (
        ("row1-semseg_normals-s0", '"miou": 50.0', '"miou": NaN'),
        ("row1-semseg_normals-s1", '"miou": 51.0', '"miou":'),
        ("row0-normals-s1", '"mean_deg": 20.0', '"mean_deg": -Infinity'),
    ):
        path = directory / "records" / f"{run_id}.json"
        path.write_text(path.read_text().replace(old, new))
    table = make_report(directory).table
    cells = table.cells.set_index("Method")["Seeds"]
    assert cells["LoRA (r=4)"] == "0/2: NaN in its record (seed 0); damaged record (seed 1)"
    assert cells[FULL["label"]] == "1/2: normals -Infinity in its record (seed 1)"
    assert any("row1-semseg_normals-s0" in note and "NaN" in note for note in table.footnotes)


def test_times_of_a_busy_device_are_named_with_a_command_that_measures_them_again() -> None:
    suite = demo_like_suite()
    quiet = row_frame(suite.plan(), suite.records)
    assert not any("busy device" in note for note in footnotes(suite.plan(), suite.records, quiet))
    run_id = suite.plan()["rows"][2]["run_ids"][0]
    record = next(record for record in suite.records if record["run_id"] == run_id)
    record["cost"]["step_seconds"] |= {"p05": 0.1, "p95": 0.16}
    (note,) = [note for note in footnotes(suite.plan(), suite.records, quiet) if "busy device" in note]
    assert f"{suite.plan()['rows'][2]['label']} (step 100-160 ms)" in note
    assert f"profile {suite.plan()['suite']} --rerun busy,stale" in note


def test_the_summary_tells_commands_of_a_description_from_its_prose() -> None:
    parts = paragraphs("One title.\n\n    python run_suite.py run made\n\nTwo\nlines.\n")
    assert [part["text"] for part in parts] == ["One title.", "python run_suite.py run made", "Two lines."]
    assert [part["kind"] for part in parts] == ["text", "code", "text"]


# Pareto front


def test_pareto_front_of_a_hand_made_set() -> None:
    cost = [1, 2, 2, 3, 3, 4, np.nan, 0.5]
    score = [1, 3, 2, 3, 5, 4, 9, np.nan]
    assert list(pareto_front(cost, score)) == [True, True, False, False, True, False, False, False]


def test_equal_points_stand_or_fall_together() -> None:
    assert list(pareto_front([1, 1, 2, 2], [5, 5, 4, 4])) == [True, True, False, False]
    assert list(pareto_front([], [])) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_pareto_front_equals_the_definition(points: list[tuple[int, int]]) -> None:
    def dominated(point: tuple[int, int]) -> bool:
        return any(c <= point[0] and s >= point[1] and (c < point[0] or s > point[1]) for c, s in points)

    assert list(pareto_front([c for c, _ in points], [s for _, s in points])) == [not dominated(point) for point in points]


# Tables


def test_best_values_are_bold_at_the_digits_shown_and_ties_share_it() -> None:
    suite = MadeSuite(tasks=("semseg", "normals"), seeds=(0,))
    for rank, semseg, normals in ((4, 50.001, 20.0), (8, 50.004, 19.0), (16, 49.99, 18.0), (32, 10.0, 30.0)):
        suite.add(made_method(value=rank), {0: {"semseg": semseg, "normals": normals}}, trainable=2_000_000 + rank)
    table = main_table(row_frame(suite.plan(), suite.records), tasks=suite.tasks, title="t")
    assert list(table.bold["SemSeg mIoU ↑"]) == [True, True, False, False]
    assert list(table.bold["Normals mErr ↓"]) == [False, False, True, False]
    assert list(table.cells["SemSeg mIoU ↑"]) == ["50.00", "50.00", "49.99", "10.00"]
    assert not table.bold["Trainable (M) ↓"].any()  # all equal at the digits shown: nothing to point out
    text = to_markdown(table)
    assert "**50.00**" in text
    assert "**18.00**" in text


def test_values_carry_their_spread_and_sign() -> None:
    suite = two_row_suite()
    table = main_table(row_frame(suite.plan(), suite.records), tasks=suite.tasks, title="t")
    line = table.cells.set_index("Method").loc["LoRA (r=4)"]
    assert line["SemSeg mIoU ↑"] == "52.50 [0.00, 100.00]"  # 52.5 ± 12.706 * 10.607 / sqrt(2), cut: two seeds say little
    assert line["Δm (%) ↑"].startswith("+10.00 ± ")
    assert line["Trainable (M) ↓"] == "3.00"
    assert table.cells["Δm (%) ↑"].iloc[0] == "0.00"  # by definition


def test_families_stay_together_in_the_order_of_the_plan() -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0,))
    for name, rank in (("b", 4), ("a", 4), ("b", 8), ("a", 8)):
        suite.add(made_method(name, name.upper(), "rank", rank), {0: {"semseg": 1.0}})
    assert list(row_frame(suite.plan(), suite.records)["label"]) == ["B (r=4)", "B (r=8)", "A (r=4)", "A (r=8)"]


def test_latex_is_escaped_plain_ascii_booktabs() -> None:
    suite = two_row_suite()
    suite.rows[1]["label"] = "LoRA_x & 50% #1 (ρ=4)"
    plan = suite.plan() | {"title": "50 % of a_b"}
    rows = row_frame(plan, suite.records)
    text = to_latex(main_table(rows, tasks=suite.tasks, title=plan["title"], footnotes=("Δm ± 1 % “q” \\x",)), label="tab:x")
    assert text.isascii()
    assert r"LoRA\_x \& 50\% \#1 ($\rho$=4) &" in text
    assert r"\caption{50 \% of a\_b}" in text
    assert r"$\Delta_m$ $\pm$ 1 \% ``q'' \textbackslash{}x" in text
    assert "52.50 [0.00, 100.00]" in text
    assert r"\textbf{" in text
    blocks = text.count(r"\begin{tabular}")
    for command, times in ((r"\toprule", blocks), (r"\midrule", blocks), (r"\bottomrule", blocks), (r"\label{tab:x}", 1)):
        assert text.count(command) == times
    body = [line.replace(r"\&", "") for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 3 * blocks  # a head and two rows
    assert sum(line.count("&") for line in body) == 3 * 14  # each block repeats the first of fifteen columns


def test_the_terminal_table_shows_every_row_and_what_is_missing() -> None:
    suite = demo_like_suite()
    suite.records.pop()
    table = main_table(row_frame(suite.plan(), suite.records), tasks=TASK_NAMES, title="Suite [incomplete]")
    for width in (100, 150, 200):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(to_rich(table, width=width))
        text = console.export_text()
        console.file.close()
        assert "Suite [incomplete]" in text
        assert "MTLoRA+ (r=8): 1/2: not run (seed 1)" in text
        assert text.count("LoRA") >= 7


def test_records_of_two_devices_or_codes_are_warned_of() -> None:
    suite = two_row_suite()
    suite.records[-1]["env"] = suite.records[-1]["env"] | {"device": "gpu"}
    suite.records[-2]["code_id"] = "other"
    notes = footnotes(suite.plan(), suite.records, row_frame(suite.plan(), suite.records))
    warnings = [note for note in notes if note.startswith("WARNING")]
    assert len(warnings) == 2
    assert "c0de, other" in warnings[0]
    assert "cpu, gpu" in warnings[1]


def test_four_hundred_rows_are_reported_within_reason() -> None:
    suite = MadeSuite(tasks=("semseg",))
    suite.add(FULL, {0: {"semseg": 50.0}, 1: {"semseg": 51.0}}, kind="single_task")
    for rank in range(1, 400):
        suite.add(made_method(value=rank), {0: {"semseg": 40 + rank / 50}, 1: {"semseg": 40.5 + rank / 50}})
    rows = row_frame(suite.plan(), suite.records)
    assert len(rows) == 400
    assert len(to_markdown(main_table(rows, tasks=suite.tasks, title="t")).splitlines()) == 405


# Findings


def test_findings_claim_an_order_only_where_the_test_does() -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0, 1, 2))
    noise = {0: 0.0, 1: 0.3, 2: -0.2}
    suite.add(FULL, {seed: {"semseg": 50.0 - change} for seed, change in noise.items()}, kind="single_task")
    for rank, mean in ((4, 61.0), (8, 61.05), (16, 40.0)):
        suite.add(made_method(value=rank), {seed: {"semseg": mean + (change if rank == 4 else -change)} for seed, change in noise.items()})
    lines = findings(row_frame(suite.plan(), suite.records), ["semseg"])
    assert lines[0].endswith("Not told apart from it: LoRA (r=8).")
    assert lines[1] == "Told apart from the reference by the test, better: LoRA (r=4), LoRA (r=8)."
    assert lines[2] == "Told apart from the reference by the test, worse: LoRA (r=16)."
    assert lines[3].endswith("1 of the other 3 rows are not told apart from it.")


def test_findings_of_one_seed_claim_no_order() -> None:
    suite = demo_like_suite(seeds=(0,))
    lines = findings(row_frame(suite.plan(), suite.records), TASK_NAMES)
    assert lines[0].endswith("One seed and no per-image sums: no order is claimed.")
    assert not any("told apart" in line.lower() for line in lines)
    assert any(line.startswith("No test against the reference: ") for line in lines)


def test_findings_follow_the_tests_and_not_an_interval_of_seeds_alone() -> None:
    # seeds alone put rank 4 below the reference; the correction for all pairs of the column does not tell it apart
    suite, noise = MadeSuite(tasks=("semseg",), seeds=(0, 1, 2)), ((0, 0.3, -0.3), (0.2, -0.2, 0.0), (-0.3, 0.1, 0.2))
    suite.add(FULL, {seed: {"semseg": 50.0 + noise[0][seed]} for seed in suite.seeds}, kind="single_task")
    for rank, mean in ((4, 49.1), (8, 49.9)):
        suite.add(made_method(value=rank), {seed: {"semseg": mean + noise[rank // 4][seed]} for seed in suite.seeds})
    rows = row_frame(suite.plan(), suite.records).set_index("label")
    assert rows.loc["LoRA (r=4)", "delta_m_high"] < 0
    assert rows.loc["LoRA (r=4)", "delta_m_against_reference"] == "not told apart"
    said = findings(rows.reset_index(), ["semseg"])
    assert "Not told apart from the reference by the test: LoRA (r=8), LoRA (r=4)." in said
    assert "over seeds, n = 3" in said[0]
