"""Tables a reviewer may hold against us: real TeX, ours beside published, iso-cost rows, held-out selection, refusals."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_records import REFERENCE, MadeSuite, demo_like_suite, made_method, pairs_of

from bench.record import RecordError
from bench.report import make_report
from bench.report.evidence import evidence_files
from bench.report.evidence_text import pairs_markdown
from bench.report.footnotes import footnotes
from bench.report.iso import between, iso_frame
from bench.report.latex import to_latex
from bench.report.page import to_markup
from bench.report.published import against_published_reference, comparison, is_comparable, published_table
from bench.report.seeds import delta_m
from bench.report.stats import row_frame
from bench.report.table_html import to_html
from bench.report.tables import DAGGER, MainTable, main_table, to_markdown
from bench.tasks import PASCAL_TASKS

NEEDS_TEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO TEX: install texlive-latex-recommended to compile the tables")


def pascal_suite(seeds: tuple[int, ...] = (0, 1, 2)) -> MadeSuite:
    """Return records as if of PASCAL-Context with Swin-T: the reference at its published numbers, MTLoRA and an adapter beside it."""
    suite = MadeSuite(seeds=seeds, tasks=PASCAL_TASKS)
    wobble = {seed: 0.1 * (seed - 1) for seed in seeds}
    full = made_method("full", "Full", None, None, label="Single-task full fine-tuning")
    suite.add(full, {s: {t: v + wobble[s] for t, v in REFERENCE.items()} for s in seeds}, kind="single_task")
    values = {"semseg": 67.9, "human_parts": 59.84, "saliency": 60.0, "normals": 16.6}
    suite.add(made_method("mtlora", "MTLoRA", value=64), {s: {t: v + wobble[s] for t, v in values.items()} for s in seeds})
    adapter = made_method("adapter", "Adapter", None, None, label="Adapter")
    suite.add(adapter, {s: {t: v + wobble[s] for t, v in values.items()} for s in seeds})
    for record in suite.records:
        record["config"] |= {"data": {"source": "pascal_context"}, "backbone": {"name": "swin_tiny_patch4_window7_224"}}
        record["config"]["recipe"] = record["config"]["recipe"] | {"image_size": 448}
    return suite


def test_published_numbers_stand_beside_ours_with_difference_and_mark() -> None:
    suite = pascal_suite()
    assert is_comparable(suite.plan(), suite.records)
    rows = row_frame(suite.plan(), suite.records, published=against_published_reference)
    lines = comparison(rows).set_index(["label", "quantity"])
    assert lines.loc[("MTLoRA (r=64)", "semseg_miou"), "inside"]
    assert lines.loc[("MTLoRA (r=64)", "saliency_miou"), "difference"] == pytest.approx(-5.4)
    assert not lines.loc[("MTLoRA (r=64)", "saliency_miou"), "inside"]
    ours = delta_m({"semseg": 67.9, "human_parts": 59.84, "saliency": 60.0, "normals": 16.6}, REFERENCE)
    assert lines.loc[("MTLoRA (r=64)", "delta_m"), "ours"] == pytest.approx(ours)
    table = published_table(comparison(rows), title="t")
    line = table.cells.set_index(["Method", "Quantity"]).loc[("Adapter", "SemSeg mIoU")]
    low, high = (lines.loc[("Adapter", "semseg_miou"), end] for end in ("low", "high"))
    assert line["Published"] == f"69.21{DAGGER}"
    assert line["Ours [95 %]"] == f"67.90 [{low:.2f}, {high:.2f}]"
    assert line["Ours − published"] == "−1.31"
    assert line["Inside"] == "no"
    assert f"*69.21{DAGGER}*" in to_markdown(table)
    assert f"<em>69.21{DAGGER}</em>" in to_markup(to_markdown(table))  # grey on the page, see page.css
    assert r"\itshape" in to_latex(table, label="x")
    assert "class='recalled'" in to_html(table)
    assert "Adapter" not in set(comparison(rows, primary_only=True)["label"])
    inside = table.cells.set_index(["Method", "Quantity"])["Inside"]
    assert inside[("MTLoRA (r=64)", "SemSeg mIoU")] == "yes"
    assert list(table.bold["Ours − published"]) == [text == "no" for text in inside]


def test_rendered_data_are_not_held_against_published_numbers(tmp_path: Path) -> None:
    suite = demo_like_suite()
    assert not is_comparable(suite.plan(), suite.records)
    rows = row_frame(suite.plan(), suite.records)
    table = main_table(rows, tasks=suite.tasks, title="t", footnotes=footnotes(suite.plan(), suite.records, rows))
    files = evidence_files(suite.plan(), suite.records, rows, table, pairs_of(suite))
    assert not {"published.csv", "audit.md"} & set(files)
    assert "published" not in to_markdown(table)


def test_one_seed_says_nothing_about_inside() -> None:
    suite = pascal_suite(seeds=(1,))
    rows = row_frame(suite.plan(), suite.records, published=against_published_reference)
    assert comparison(rows)["inside"].isna().all()
    table = published_table(comparison(rows), title="t")
    assert set(table.cells["Inside"]) <= {"one seed", "—"}
    assert not table.bold.any(axis=None)


def test_the_held_out_selection_is_a_second_column() -> None:
    suite = MadeSuite(tasks=("semseg",))
    for rank, last, best in ((4, 50.0, 50.0), (8, 55.0, 60.0)):
        suite.add(made_method(value=rank), {seed: {"semseg": last} for seed in (0, 1)})
        for record in suite.records[-2:]:
            record["best_on_held_out"] = {"epoch": 3, "score": 1.0, "metrics": {"semseg": {"miou": best}}}
            record["data"]["n_held_out"], record["config"]["recipe"] = 24, record["config"]["recipe"] | {"evaluate_every": 15}
    rows = row_frame(suite.plan(), suite.records)
    assert list(rows["delta_m_mean"].round(6)) == [0, 10]
    assert list(rows["delta_m_held_out_mean"].round(6)) == [0, 20]
    table = main_table(rows, tasks=suite.tasks, title="t")
    assert list(table.cells["Δm, epoch chosen on held-out (%) ↑"].str[:6]) == ["0.00", "+20.00"]
    (note,) = [note for note in footnotes(suite.plan(), suite.records, rows) if "The result is the last epoch's" in note]
    assert "at the epoch that scored best on images held out from training (24; evaluated: every 15 epochs and the last)" in note


def test_strict_refuses_what_is_incomplete(tmp_path: Path) -> None:
    suite = demo_like_suite()
    suite.records.pop()
    with pytest.raises(RecordError, match=r"incomplete: 31 of 32 trials.*without --strict"):
        make_report(suite.write(tmp_path), strict=True)


def test_the_tuning_budget_is_a_footnote() -> None:
    suite = demo_like_suite()
    rows = row_frame(suite.plan(), suite.records)
    tuning = {"budget": 8, "complete": True, "rows": [{"epochs": 40}, {"epochs": 2}]}
    notes = " ".join(footnotes(suite.plan(), suite.records, rows, tuning=tuning))
    assert "Tuning budget: 8 settings a row" in notes
    assert "42 epochs" in notes
    assert "Tuning budget: none" in " ".join(footnotes(suite.plan(), suite.records, rows))


def test_interpolation_is_linear_in_log_cost_and_stays_in_the_swept_range() -> None:
    cost = np.array([10.0, 1.0, 100.0])
    low, high, weight = between(cost, 10**0.25)
    assert (low, high, round(weight, 9)) == (1, 0, 0.25)
    assert between(cost, 100.0)[2] == 1
    assert between(cost, 100.1) is None
    assert between(np.array([1.0]), 1.0) is None


def test_iso_parameter_rows_equal_hand_arithmetic() -> None:
    suite = MadeSuite(tasks=("semseg",))
    for rank, mean in ((4, 50.0), (16, 60.0)):
        suite.add(made_method(value=rank), {0: {"semseg": mean}, 1: {"semseg": mean + 1}}, trainable=1_000_000 * rank)
    other = made_method("adapter", "Adapter", "reduction", 2, label="Adapter")
    suite.add(other, {0: {"semseg": 58.0}, 1: {"semseg": 59.0}}, trainable=8_000_000)
    lines = iso_frame(row_frame(suite.plan(), suite.records), "params")
    line = lines[lines["label"] == "Adapter"].iloc[0]
    assert line["weight"] == pytest.approx(0.5)  # 8 lies halfway between 4 and 16 in decades
    expected = 100 * (58.5 - (50.5 + 60.5) / 2) / 50.5
    assert line["difference"] == pytest.approx(expected)
    assert line["low"] < expected < line["high"]
    assert len(lines) == 1  # one adapter row is no sweep


@NEEDS_TEX
@pytest.mark.parametrize("many", [False, True])
def test_the_latex_tables_compile(tmp_path: Path, many: bool) -> None:
    suite = pascal_suite()
    if many:
        for rank in range(1, 70):
            suite.add(made_method(value=rank), {s: {t: v + s * 0.1 for t, v in REFERENCE.items()} for s in suite.seeds})
    rows = row_frame(suite.plan(), suite.records, published=against_published_reference)
    notes = footnotes(suite.plan(), suite.records, rows)
    tables = [main_table(rows, tasks=suite.tasks, title="All & more", footnotes=notes), published_table(comparison(rows), title="p")]
    body = "\n".join(to_latex(table, label=f"t{place}") for place, table in enumerate(tables))
    packages = r"\usepackage[margin=1cm,landscape]{geometry}\usepackage{booktabs,graphicx,xcolor}"
    (tmp_path / "t.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 5000


@NEEDS_TEX
def test_a_table_with_all_its_notes_fits_a_two_column_paper(tmp_path: Path) -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    rows = row_frame(suite.plan(), suite.records)
    notes = [*footnotes(suite.plan(), suite.records, rows), *(f"Note {place}: " + "word " * 60 for place in range(20)), "The last note"]
    body = to_latex(main_table(rows, tasks=suite.tasks, title="Demo", footnotes=notes), label="t")
    assert body.index(r"\end{table*}") < body.index("The last note")
    packages = r"\usepackage{booktabs,graphicx}"
    (tmp_path / "t.tex").write_text(rf"\documentclass[twocolumn]{{article}}{packages}\begin{{document}}{body}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "too large" not in done.stdout


@NEEDS_TEX
def test_a_table_of_four_hundred_rows_compiles_in_a_two_column_paper_and_every_row_is_printed(tmp_path: Path) -> None:
    cells = pd.DataFrame({"Method": [f"Row {row:03d}" for row in range(400)], "Seeds": "3"})
    costs = ["Trainable (M) ↓", "Step memory (MiB) ↓", "GFLOPs / image ↓", "Inference (ms) ↓", "Step (ms) ↓"]
    for head in ("SemSeg mIoU ↑", "Human parts mIoU ↑", "Δm (%) ↑", *costs):
        cells[head] = "12.34 [11.22, 13.44]"
    bold = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    groups = [f"family {row // 25}" for row in range(400)]
    table = MainTable(title="Many & more", cells=cells, bold=bold, groups=groups, footnotes=("Trainable: in millions.", "A note."))
    body = to_latex(table, label="t")
    assert "longtable" not in body
    assert all(body.count(f"Row {row:03d}") == body.count("Row 000") for row in range(400))
    text = rf"\documentclass[twocolumn]{{article}}\usepackage{{booktabs,graphicx,xcolor}}\begin{{document}}Text.{body}\end{{document}}"
    (tmp_path / "t.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = [subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False) for _ in range(2)][-1]
    assert done.returncode == 0, done.stdout[-2000:]
    for complaint in ("too large", "Overfull \\hbox", "undefined references", "Too many unprocessed floats"):
        assert complaint not in done.stdout
    assert body.count(r"\begin{table*}") >= 9


def test_equal_cost_front_chances_and_tests_are_printed_with_a_reading_guide(tmp_path: Path) -> None:
    suite = demo_like_suite(seeds=(0, 1, 2))
    suite.add(made_method("far", "Far", None, None, label="Far | ahead"), {s: dict(REFERENCE) for s in (0, 1, 2)})
    rows = row_frame(suite.plan(), suite.records)
    files = evidence_files(suite.plan(), suite.records, rows, main_table(rows, tasks=suite.tasks, title="t"), pairs_of(suite))
    frames = {name: pd.read_csv(io.StringIO(files[name])) for name in ("iso_params.csv", "fronts.csv", "pairs.csv")}
    for name, per_table in (("iso.md", 1), ("fronts.md", 3), ("pairs.md", 1)):
        assert files[name].count("How to read:") == per_table
        assert to_markup(files[name]).count("<table>") >= 2
    first = frames["iso_params.csv"].iloc[0]
    assert f"{first['difference']:+.2f} [{first['low']:+.2f}, {first['high']:+.2f}]".replace("-", "−") in files["iso.md"]
    far = frames["fronts.csv"].query("label == 'Far | ahead' and axis == 'params'").iloc[0]
    assert f"| Far \\| ahead | **{far['front_probability']:.2f}**" in " ".join(files["fronts.md"].split())
    apart = frames["pairs.csv"].query("adjusted < 0.05")
    assert 0 < len(apart) == len(re.findall(r"\*\*[+−][^*]*, p [<=] [\d.]+\*\*", files["pairs.md"]))


def test_long_evidence_is_cut_and_says_where_the_rest_is() -> None:
    frame = pd.DataFrame({"label": [f"row {i}" for i in range(70)], "minus": "best", "quantity": "delta_m", "resampled": "seeds"})
    frame = frame.assign(difference=1.0, low=0.5, high=1.5, adjusted=[0.2] * 69 + [np.nan])
    text = pairs_markdown(frame)
    assert "row 59 " in text
    assert "row 60 " not in text
    assert "10 further lines are in `pairs.csv`" in text
    assert "+1.00, no test" in pairs_markdown(frame.tail(1))
