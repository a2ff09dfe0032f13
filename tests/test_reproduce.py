"""A trial run again from its record: identical, inside or outside, and why."""

import json
import math
import subprocess
import time
from pathlib import Path

import pytest
from made_records import made_record
from scipy import stats
from typer.testing import CliRunner

from bench.cli import app
from bench.cli.reports import _print_reproduction
from bench.data.roots import ensure_synthetic
from bench.provenance import code_changes
from bench.record import write_record
from bench.reproduce import ReproduceError, compare, differences, find_record, judge, rerun_interval
from bench.suites import load
from bench.trial import Launch, run_trial

VALUES = {"semseg": 60.0, "normals": 20.0}


def made(run_id: str = "a", semseg: float = 60.0, **changes) -> dict:
    return made_record(run_id=run_id, values=VALUES | {"semseg": semseg}, **changes)


def test_the_interval_is_where_a_trial_falls_that_differs_as_seeds_do():
    half = 12.706204736 * math.sqrt(2) * math.sqrt(2)  # t of one degree of freedom, sample deviation of 1 and 3, a difference of two
    assert rerun_interval(5.0, [[1.0, 3.0], [7.0], []]) == pytest.approx((5 - half, 5 + half))
    rows = [[4.0, 5.0, 7.0, 4.5], [14.0, None, 15.0, 13.5]]
    pooled = math.sqrt((3 * stats.tvar(rows[0]) + 2 * stats.tvar([14.0, 15.0, 13.5])) / 5)
    assert rerun_interval(5.0, rows) == pytest.approx(stats.t(5, loc=5.0, scale=pooled * math.sqrt(2)).interval(0.95))
    assert rerun_interval(1.0, [[1.0], [2.0, None]]) is None
    assert rerun_interval(None, rows) is None


@pytest.mark.parametrize(
    ("recorded", "now", "interval", "verdict"),
    [
        (1.0, 1.0, None, "identical"), (None, None, None, "identical"), (1.0, 1.5, (0.0, 2.0), "inside"), (1.0, 2.5, (0.0, 2.0), "outside"),
        (1.0, 1.5, None, "unknown"), (1.0, None, (0.0, 2.0), "outside"), (None, 1.0, (0.0, 2.0), "outside"),
    ],
)  # fmt: skip
def test_a_metric_is_identical_inside_outside_or_unknown(recorded, now, interval, verdict: str):
    assert judge(recorded, now, interval) == verdict


def test_the_verdict_is_the_worst_of_the_tables_metrics():
    row = [made("a"), made("b", 61.0, seed=1), made("c", 62.0, seed=2)]
    strangers = [made("d", 90.0, cell_id="1" * 12), made("e", 10.0, status="failed")]
    assert compare(row[0], made("a"), row + strangers).verdict == "identical"
    near = compare(row[0], made("a", 62.5), row + strangers)
    assert near.verdict == "inside"
    assert near.seeds == 2
    assert compare(row[0], made("a", 75.0), row + strangers).verdict == "outside"
    assert compare(row[0], made("a", 60.1), row[:2]).verdict == "unknown"
    assert compare(row[0], made("a", status="diverged"), row).verdict == "outside"
    assert compare(made("a", status="oom"), made("a", status="oom"), []).verdict == "identical"


def test_a_record_that_says_too_much_does_not_widen_its_own_interval():
    false = made("a", 80.0)
    others = [
        made("b", 26.1, seed=1),
        made("c", 26.6, seed=2),
        made("d", 30.1, cell_id="1" * 12),
        made("e", 30.6, cell_id="1" * 12, seed=1),
    ]
    outcome = compare(false, made("a", 26.4), [false, *others])
    assert outcome.verdict == "outside"
    (metric,) = (metric for metric in outcome.metrics if metric.headline and metric.task == "semseg")
    assert (metric.high - metric.low) / 2 == pytest.approx(4.302652730 * 0.5 / math.sqrt(2) * math.sqrt(2))  # two degrees of freedom


def test_what_differs_is_named_with_what_it_means():
    new = made("a", device="NVIDIA", code_id="07e2")
    new["env"]["torch"] = "3"
    new["git"]["commit"] = "abc"
    found = differences(made("a"), new)
    assert {line["what"] for line in found} == {"device", "code_id", "torch", "git commit"}
    assert found[-1] == {"what": "git commit", "recorded": None, "now": "abc", "meaning": None}
    assert all(line["meaning"] for line in found[:-1])
    assert differences(made("a"), made("a")) == []


def test_what_is_known_of_other_code_is_named_and_what_is_not_is_said(tmp_path: Path):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "methods").mkdir()
    for name in ("methods/lora.py", "methods/vpt.py", "README.md"):
        (tmp_path / name).write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    first = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert code_changes(first, tmp_path) == f"no file differs from commit {first['commit']}"
    (tmp_path / "methods/vpt.py").write_text("2")
    (tmp_path / "README.md").write_text("2")
    git("commit", "-am", "second")
    (tmp_path / "methods/new.py").write_text("3")  # not committed
    assert code_changes(first, tmp_path) == f"changed since commit {first['commit']}: methods/new.py, methods/vpt.py"
    assert "not committed, that cannot be known" in code_changes(first | {"dirty": True}, tmp_path)
    assert "cannot be known: the record names no commit" in code_changes({"commit": None, "dirty": None}, tmp_path)
    assert "is not in this checkout" in code_changes({"commit": "0" * 40, "dirty": False}, tmp_path)


def test_nothing_that_differs_is_printed_empty(capsys):
    old, new = made("a"), made("a", code_id="07e2")
    old["launch"], new["launch"] = {"id": "2b63", "slot": "vm:1", "executor": "ray"}, {"id": "", "slot": None, "executor": "serial"}
    old["git"], new["git"] = {"commit": "0" * 40, "dirty": True}, {"commit": "abc", "dirty": False}
    _print_reproduction(compare(old, new, [old]), quiet=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "differs: launch id: recorded 2b63, now none:" in said
    assert "differs: code_id: recorded c0de, now 07e2: the code that can change a result is another one; which files differ" in said
    assert f"differs: git commit: recorded {'0' * 40}, now abc" in said
    assert "now :" not in said


def test_a_record_is_found_in_any_suite_and_doubt_is_an_error(tmp_path: Path):
    for suite in ("one", "two"):
        write_record(tmp_path / suite / "records", made("twice"))
    write_record(tmp_path / "one" / "records", made("once"))
    assert find_record("once", tmp_path) == tmp_path / "one" / "records" / "once.json"
    assert find_record("once", tmp_path / "one") == tmp_path / "one" / "records" / "once.json"
    assert find_record("twice", tmp_path, "two").parents[1].name == "two"
    with pytest.raises(ReproduceError, match="--suite"):
        find_record("twice", tmp_path)
    with pytest.raises(ReproduceError, match="--results"):
        find_record("nowhere", tmp_path)


def test_a_trial_from_its_record_alone_is_identical_and_a_changed_record_is_not(tmp_path: Path):
    trial = {row.label: row for row in load("smoke").rows}["Decoders only"].trials[0]
    results = tmp_path / "results"
    ensure_synthetic(results, trial.data.synthetic)
    launch = Launch(suite="smoke", suite_dir=results / "smoke", command="test")
    record = run_trial(trial, launch, started=time.time(), on_epoch=lambda line: None)
    assert record["status"] == "ok", record["reason"]
    arguments = ["reproduce", trial.run_id, "--results", str(results), "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.output)
    assert found["verdict"] == "identical"
    assert all(metric["verdict"] == "identical" for metric in found["metrics"])
    assert found["differences"] == []
    path = results / "smoke" / "records" / f"{trial.run_id}.json"
    changed = json.loads(path.read_text())
    changed["metrics"]["normals"]["mean_deg"] += 1
    changed["code_id"] = "other"
    path.write_text(json.dumps(changed))
    (path.parent / "torn.json").write_text("{")
    outcome = CliRunner().invoke(app, arguments[:-1])
    assert outcome.exit_code == 1
    assert "left out of the spread: torn.json" in outcome.output
    assert "unknown" in outcome.output  # one seed gives no interval
    assert "code_id" in outcome.output
