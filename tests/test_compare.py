"""Two results of one suite: what is identical, what moved, what noise explains; and the export that another machine reports from."""

import copy
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_records import MadeSuite, demo_like_suite, made_method
from typer.testing import CliRunner

from bench.cli import app
from bench.record import RecordError
from bench.report import make_report
from bench.report.compare import compare_results, what_was_tested
from bench.report.export import export
from bench.report.loading import load_results
from bench.report.stats import row_frame

pytestmark = pytest.mark.usefixtures("quick_figures")

ROOT = Path(__file__).parent.parent


def shifted(suite: MadeSuite, changes: dict[str, float], noise: float = 0.0) -> MadeSuite:
    """Return a copy whose rows' metrics are moved by label, and by noise."""
    other, generator = copy.deepcopy(suite), np.random.default_rng(9)
    for record in other.records:
        for values in record["metrics"].values():
            for name in values:
                values[name] += changes.get(record["method"]["label"], 0.0) + noise * generator.normal()
    return other


def made(rows: int = 10) -> MadeSuite:
    suite, generator = MadeSuite(tasks=("semseg",), seeds=(0, 1, 2)), np.random.default_rng(1)
    for rank in range(1, rows + 1):
        suite.add(made_method(value=rank), {seed: {"semseg": 50 + rank + generator.normal(0, 0.3)} for seed in (0, 1, 2)})
    return suite


def test_a_planted_move_is_found_among_noise_and_a_copy_is_identical(tmp_path: Path) -> None:
    suite = made()
    first = suite.write(tmp_path / "a")
    assert set(compare_results(first, suite.write(tmp_path / "b"))["verdict"]) == {"identical"}
    other = shifted(suite, {"LoRA (r=7)": 3.0}, noise=0.2)
    lines = compare_results(first, other.write(tmp_path / "c")).query("quantity == 'semseg_miou'").set_index("label")
    assert list(lines.index[lines["verdict"] == "moved"]) == ["LoRA (r=7)"]
    assert (lines.drop("LoRA (r=7)")["verdict"] == "within noise").all()
    assert lines.loc["LoRA (r=7)", "difference"] == pytest.approx(3, abs=0.5)


def test_a_row_that_lost_seeds_is_not_tested_by_images_alone(tmp_path: Path) -> None:
    suite = made()
    other = shifted(suite, {"LoRA (r=7)": 3.0}, noise=0.2)
    other.records = [record for record in other.records if record["method"]["label"] != "LoRA (r=7)" or record["seed"] == 0]
    lines = compare_results(suite.write(tmp_path / "a"), other.write(tmp_path / "b")).query("quantity == 'semseg_miou'").set_index("label")
    assert lines.loc["LoRA (r=7)", "n"] == 1
    assert lines.loc["LoRA (r=7)", "verdict"] == "no test"
    assert (lines.drop("LoRA (r=7)")["verdict"] == "within noise").all()


def test_counts_that_differ_and_rows_without_a_test_are_named(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0,))
    suite.add(made_method(value=4), {0: {"semseg": 50.0}})
    suite.add(made_method(value=8), {})
    other = shifted(suite, {"LoRA (r=4)": 1.0})
    other.records[0]["params"]["trainable"] += 5
    other.records[0]["params"]["groups"]["method_shared"]["trainable"] += 5
    other.records[0]["params"]["trainable_without_decoders"] += 5
    lines = compare_results(suite.write(tmp_path / "a"), other.write(tmp_path / "b")).set_index(["label", "quantity"])
    assert lines.loc[("LoRA (r=4)", "trainable_params"), "verdict"] == "counts differ"
    assert lines.loc[("LoRA (r=4)", "semseg_miou"), "verdict"] == "no test"
    assert lines.loc[("LoRA (r=8)", "semseg_miou"), "verdict"] == "no result (a: not run; b: not run)"


def test_with_one_common_seed_and_no_images_it_is_said_that_nothing_was_testable(tmp_path: Path) -> None:
    suite = MadeSuite(tasks=("semseg",), seeds=(0,))
    suite.add(made_method(value=4), {0: {"semseg": 50.0}})
    first, other = suite.write(tmp_path / "a"), shifted(suite, {"LoRA (r=4)": 9.0})
    done = CliRunner().invoke(app, ["compare", str(first), str(other.write(tmp_path / "b"))])
    assert done.exit_code == 0, done.output
    assert "Nothing could be tested: every row has one seed in common" in done.output
    assert what_was_tested(compare_results(first, first)) is None  # nothing differs, so nothing is to be tested
    several = made().write(tmp_path / "c")
    assert what_was_tested(compare_results(several, several)) is None
    nothing = copy.deepcopy(suite)
    nothing.records[0] |= {"status": "diverged", "reason": "loss is NaN", "metrics": None, "params": None, "cost": None, "data": None}
    lines = compare_results(first, nothing.write(tmp_path / "d"))
    assert set(lines["verdict"]) == {"lost (b: diverged)"}
    assert what_was_tested(lines) == "Nothing could be tested: no row has a seed with a result in both."


def test_a_row_that_lost_its_result_is_named_and_so_are_trials_and_rows_that_one_side_lacks(tmp_path: Path) -> None:
    suite = made()
    first, other = suite.write(tmp_path / "a"), copy.deepcopy(suite)
    died = [record for record in other.records if record["cell_id"] == other.records[-1]["cell_id"]]
    for record in died:
        record |= {"status": "diverged", "reason": "loss is NaN", "metrics": None, "params": None, "cost": None, "data": None}
    other.add(made_method(value=64), {seed: {"semseg": 50.0} for seed in suite.seeds})
    second = other.write(tmp_path / "b")
    done = CliRunner().invoke(app, ["compare", str(first), str(second)], env={"COLUMNS": "400"})
    assert done.exit_code == 1, done.output
    assert "lost (b: diverged)" in done.output
    assert f"{died[0]['run_id']} (diverged)" in done.output
    assert "LoRA (r=64)" in done.output
    back = CliRunner().invoke(app, ["compare", str(second), str(first)], env={"COLUMNS": "400"})
    assert back.exit_code == 0, back.output  # a result more is no loss
    assert "no result (a: diverged)" in back.output


def test_results_without_a_common_row_are_an_error(tmp_path: Path) -> None:
    suite, other = made(2), MadeSuite(tasks=("semseg",))
    other.add(made_method("x", "X", None, None), {0: {"semseg": 1.0}, 1: {"semseg": 1.0}})
    with pytest.raises(RecordError, match="no row in common"):
        compare_results(suite.write(tmp_path / "a"), other.write(tmp_path / "b"))


def test_an_export_reports_elsewhere_with_the_same_table(tmp_path: Path) -> None:
    directory = demo_like_suite().write(tmp_path / "results" / "made")
    make_report(directory)
    (directory / "checkpoints").mkdir()
    (directory / "checkpoints" / "state.pt").write_bytes(b"large")
    names = export(directory, tmp_path / "made.zip").names
    assert {"constraints.txt", "LICENSE", "CITATION.cff", "README.txt", "results/made/plan.json", "results/made/report.html"} <= set(names)
    assert not any("checkpoints" in name for name in names)
    first = (tmp_path / "made.zip").read_bytes()
    export(directory, tmp_path / "made.zip")
    assert (tmp_path / "made.zip").read_bytes() == first
    elsewhere = tmp_path / "elsewhere"
    with zipfile.ZipFile(tmp_path / "made.zip") as archive:
        archive.extractall(elsewhere)
    for made_file in ("table.csv", "summary.md", "report.html"):
        (elsewhere / "results" / "made" / made_file).unlink()
    command = [sys.executable, str(ROOT / "run_suite.py"), "report", "made", "--results", str(elsewhere / "results"), "--strict", "-q"]
    subprocess.run(command, cwd=elsewhere, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert (elsewhere / "results/made/table.csv").read_bytes() == (directory / "table.csv").read_bytes()


def test_an_export_goes_on_at_damage_names_it_and_reports_elsewhere(tmp_path: Path) -> None:
    directory = demo_like_suite(seeds=(0,)).write(tmp_path / "results" / "made")
    lost, garbled = sorted((directory / "records").glob("*.json"))[:2]
    lost.write_text('{"run_id": "cut sh')
    garbled.write_text(garbled.read_text().replace('"metrics": {', '"metrics": [{', 1))
    target = tmp_path / "made.zip"
    done = CliRunner().invoke(app, ["export", "made", "--results", str(tmp_path / "results"), "--out", str(target)])
    assert done.exit_code == 0, done.output
    assert lost.name in done.output
    assert "lies under damaged/" in done.output
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
        assert {f"damaged/records/{path.name}" for path in (lost, garbled)} <= names
        assert {f"results/made/{name}" for name in ("table.csv", "table.tex", "report.html")} <= names  # made first
        assert not {f"results/made/records/{path.name}" for path in (lost, garbled)} & names
        assert archive.read(f"damaged/records/{lost.name}") == lost.read_bytes()
        assert lost.name in archive.read("damaged/README.txt").decode()
        assert "2 damaged files" in archive.read("README.txt").decode()
        archive.extractall(tmp_path / "elsewhere")
    elsewhere = load_results(tmp_path / "elsewhere" / "results" / "made")
    assert not elsewhere.damaged
    here = load_results(directory)
    assert [record["run_id"] for record in elsewhere.records] == [record["run_id"] for record in here.records]
    rows = [row_frame(results.plan, results.records) for results in (here, elsewhere)]
    pd.testing.assert_frame_equal(*rows)
