"""Settings on Ray Tune: ASHA compares within a row alone, what it stops is a record, a killed setting goes on; Optuna forgets nothing."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from test_tuning import BASE, HELD_OUT, SERIAL, tune

from bench import progress
from bench.record import read_record, write_record
from bench.status import log_tail, tuning_status
from bench.suites import Suite, multi_task_row, single_task_row
from bench.sweep.attempts import Attempts
from bench.trial import Launch
from bench.tuning import point as point_module
from bench.tuning.on_ray.schedulers import RowSchedulers, scores_at_rungs
from bench.tuning.on_ray.searchers import RowSearchers
from bench.tuning.outcome import setting_outcome
from bench.tuning.plan import Point, Protocol, quasi_random_points, records_of, to_do, tuned_rows
from bench.tuning.point import PROVISIONAL, run_point, take_stopped

LONG = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, epochs=3))
SUITE = Suite(
    name="tiny",
    title="Tiny",
    description="",
    rows=(single_task_row(LONG, "frozen", (0,), label="One model a task"), multi_task_row(LONG, "lora", (0,), rank=2)),
    reference="One model a task",
)
PROTOCOL = Protocol(budget=4, held_out=HELD_OUT, asha=True)
ROWS = tuned_rows(SUITE, PROTOCOL)
POINTS = {(point.row, point.index): point for point in quasi_random_points(ROWS, PROTOCOL)}
SINGLE, LORA = (row.label for row in SUITE.rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered data, by the shortest tune there is."""
    results = tmp_path_factory.mktemp("rendered")
    tune(results, 1, only="Decoders only")
    return results / "data"


@pytest.fixture
def launch(data: Path, tmp_path: Path) -> Launch:
    shutil.copytree(data, tmp_path / "data")
    return Launch(suite="tiny", suite_dir=tmp_path / "tiny" / "tuning", results=tmp_path, command="test")


class StopError(BaseException):
    """Stands for the end of a worker that ASHA stops: `tune.report` does not return."""


def train(point: Point, launch: Launch, stop_at: int | None = None) -> list[dict]:
    reports = []

    def report(values: dict) -> None:
        reports.append(values)
        if values["rung"] == stop_at:
            raise StopError

    run = lambda: run_point(list(point.trials), launch, 0.0, report)  # noqa: E731
    if stop_at is None:
        run()
    else:
        with pytest.raises(StopError):
            run()
    return reports


def fake_tune_trial(row: str, index: int) -> SimpleNamespace:
    run_ids = [trial.run_id for trial in POINTS[row, index].trials]
    return SimpleNamespace(trial_id=f"trial-{row}-{index}", config={"row": row, "index": index, "run_ids": run_ids})


def decide(schedulers: RowSchedulers, row: str, index: int, rung: int, score: float) -> str:
    trial = fake_tune_trial(row, index)
    if rung == 1:
        schedulers.on_trial_add(None, trial)
    return schedulers.on_trial_result(None, trial, {"rung": rung, "score": score})


@pytest.fixture(autouse=True)
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "CURRENT", SimpleNamespace(finished=lambda *_: None))


def test_asha_compares_a_setting_with_its_own_row_alone(tmp_path: Path):
    schedulers = RowSchedulers({SINGLE: 3, LORA: 3}, [], tmp_path, asha=True)
    assert [decide(schedulers, SINGLE, i, 1, 300.0 + i) for i in range(3)] == [TrialScheduler.CONTINUE] * 3
    assert decide(schedulers, LORA, 0, 1, 10.0) == TrialScheduler.CONTINUE  # far below the other row, best of its own
    assert decide(schedulers, LORA, 1, 1, 9.0) == TrialScheduler.STOP
    assert decide(schedulers, SINGLE, 3, 1, 299.0) == TrialScheduler.STOP


def test_a_restarted_asha_knows_the_scores_of_earlier_launches(tmp_path: Path):
    known = [(POINTS[LORA, 0], [(1, 10.0), (3, 12.0)]), (POINTS[LORA, 1], [(1, 9.0)])]
    schedulers = RowSchedulers({SINGLE: 3, LORA: 3}, known, tmp_path, asha=True)
    assert decide(schedulers, LORA, 2, 1, 9.5) == TrialScheduler.STOP
    assert decide(schedulers, SINGLE, 0, 1, -5.0) == TrialScheduler.CONTINUE
    assert decide(schedulers, LORA, 3, 1, 11.0) == TrialScheduler.CONTINUE


def test_the_tasks_of_a_setting_wait_for_each_other_at_a_rung(launch: Launch):
    point = POINTS[SINGLE, 0]
    reports = train(point, launch)
    assert [(report["rung"], report["status"]) for report in reports] == [(1, "running"), (3, "ok")]
    records = records_of(point, launch.suite_dir)
    for rung, report in zip((1, 3), reports, strict=True):
        scores = [record["history"][rung - 1]["held_out"]["score"] for record in records]
        assert report["score"] == pytest.approx(sum(scores) / 2)
    assert scores_at_rungs(records, [1, 3]) == [(report["rung"], pytest.approx(report["score"])) for report in reports]
    for record in records:  # a pause is no other attempt, and its log tells the course of both parts
        timing, log = record["timing"], log_tail(launch.suite_dir.parent, record["run_id"], 100).splitlines()
        assert record["attempt"] == 1
        assert timing["total_seconds"] == pytest.approx(timing["attempt_seconds"] + timing["earlier_attempts"][0]["seconds"])
        assert [line.partition(": ")[0] for line in log if line.startswith("epoch")] == [f"epoch {i} of 3" for i in (1, 2, 3)]
        assert [line.split()[1] for line in log if line.startswith("---")] == ["attempt", "paused", "attempt"]


def test_deaths_of_a_setting_count_over_launches_and_lost_nodes_do_not(launch: Launch):
    point = POINTS[LORA, 0]
    run_id = point.trials[0].run_id
    attempts = Attempts(launch.suite_dir / "checkpoints" / f"{run_id}.attempts")
    for end in ("died with its worker", "lost with its node", "died with its worker", "lost with its node", "died with its worker"):
        attempts.add("start 2026-01-01T00:00:00+00:00 launch earlier slot a:1 pid 1")
        attempts.add(end, at="2026-01-01T00:00:05+00:00")
    reports = train(point, launch)
    (record,) = records_of(point, launch.suite_dir)
    assert ([report["rung"] for report in reports], record["status"], record["attempt"]) == ([1, 3], "killed", 5)
    assert "died 3 times" in record["reason"]
    assert record["timing"]["total_seconds"] == 25.0
    assert not record["history"]
    assert log_tail(launch.suite_dir.parent, run_id, 1) == f"--- recorded as killed: {record['reason']}"


@pytest.mark.parametrize("row", [SINGLE, LORA])
def test_what_asha_stops_is_a_record_with_its_score_and_not_to_do_again(launch: Launch, row: str):
    point = POINTS[row, 1]
    reports = train(point, launch, stop_at=1)
    run_ids = [trial.run_id for trial in point.trials]
    assert take_stopped(run_ids, launch.suite_dir) == run_ids
    records = records_of(point, launch.suite_dir)
    for record in records:
        assert record["status"] == "stopped"
        assert "after epoch 1 of 3" in record["reason"]
        assert len(record["history"]) == 1
        assert record["timing"]["total_seconds"] > 0
        assert log_tail(launch.suite_dir.parent, record["run_id"], 1) == f"--- {record['reason']}"
    outcome = setting_outcome(point, records)
    assert (outcome["status"], outcome["scored_at_epoch"]) == ("stopped", 1)
    assert outcome["score"] == pytest.approx(reports[-1]["score"])
    assert outcome["epochs"] == len(run_ids)
    assert not [path for path in (launch.suite_dir / "checkpoints").rglob("*") if path.is_file()]
    nothing = {"rerun": frozenset(), "code_id": ""}
    assert not to_do([point], launch.suite_dir, asha=True, **nothing)
    assert set(to_do([point], launch.suite_dir, asha=False, **nothing)) == set(run_ids)  # without ASHA it is trained to its end


@pytest.mark.parametrize("row", [SINGLE, LORA])
def test_a_setting_that_is_killed_after_a_rung_reports_the_rung_again_and_goes_on(launch: Launch, row: str):
    point = POINTS[row, 2]
    before = train(point, launch, stop_at=1)  # killed, not stopped: nobody took the record
    assert not any(records_of(point, launch.suite_dir))
    after = train(point, launch)
    assert after[0]["score"] == pytest.approx(before[-1]["score"])
    assert [report["rung"] for report in after if report["rung"]][-1] == 3
    elsewhere = dataclasses.replace(launch, suite_dir=launch.suite_dir.parent / "unbroken")
    train(point, elsewhere)
    for broken, whole in zip(records_of(point, launch.suite_dir), records_of(point, elsewhere.suite_dir), strict=True):
        assert broken["metrics"] == whole["metrics"]
        assert [line["held_out"] for line in broken["history"]] == [line["held_out"] for line in whole["history"]]


def test_a_diverging_setting_ranks_last(launch: Launch, monkeypatch: pytest.MonkeyPatch):
    def diverged(trial, launch, **rest):
        record = point_module.describe(trial, launch, 1) | {"status": "diverged", "reason": "planted", "timing": {}}
        write_record(launch.suite_dir / "records", record)

    monkeypatch.setattr(point_module, "run_trial", diverged)
    assert [report["score"] for report in train(POINTS[LORA, 3], launch)][-1] == point_module.WORST_SCORE


def test_optuna_keeps_what_it_asked_for_and_goes_on_with_it(launch: Launch):
    pytest.importorskip("optuna")
    searcher = RowSearchers(ROWS, 2, 0, launch.suite_dir)
    first = [searcher.suggest(f"t{i}") for i in range(3)]
    assert [(asked["row"], asked["index"]) for asked in first] == [(SINGLE, 0), (LORA, 0), (SINGLE, 1)]
    assert set(first[1]["values"]) == {"peak_lr", "scale", "dropout"}
    searcher.on_trial_complete("t1", {"rung": 3, "score": 5.0})
    restarted = RowSearchers(ROWS, 2, 0, launch.suite_dir)
    again = [restarted.suggest(f"u{i}") for i in range(5)]
    assert again[:3] == first
    assert again[3]["row"] == LORA
    assert again[3]["values"] != first[1]["values"]
    assert again[4] == "FINISHED"
    counted = {row["row"]: (row["trials"], row["missing"]) for row in tuning_status(launch.suite_dir.parent)}
    assert counted == {SINGLE: (4, 4), LORA: (2, 2)}  # two tasks, two settings


@pytest.mark.slow
def test_asha_and_optuna_on_ray_spend_the_same_budget_on_every_row(data: Path, tmp_path: Path):
    shutil.copytree(data, tmp_path / "data")
    options = dataclasses.replace(SERIAL, executor="ray")
    outcome = tune(tmp_path, 4, suite=SUITE, options=options, asha=True)
    statuses = [[setting["status"] for setting in row["settings"]] for row in outcome["rows"]]
    assert outcome["complete"], statuses
    assert {status for row in statuses for status in row} <= {"ok", "stopped"}  # who is stopped depends on who comes first
    tuning = tmp_path / "tiny" / "tuning"
    found = {path.stem: read_record(path) for path in (tuning / "records").glob("*.json")}
    assert len(found) == 4 * 2 + 4
    assert not list((tuning / "checkpoints").glob("*.pt"))
    assert not list((tuning / PROVISIONAL).glob("*.json"))
    *others, last = (tuning / "records" / f"{setting['run_ids'][0]}.json" for setting in outcome["rows"][1]["settings"])
    for path in others:  # beside them the last setting has no chance: it is stopped at its first rung
        record = json.loads(path.read_text())
        record["history"][0]["held_out"]["score"] = 1000.0
        path.write_text(json.dumps(record))
    last.unlink()
    again = tune(tmp_path, 4, suite=SUITE, options=options, asha=True)
    assert again["complete"]
    assert [setting["status"] for setting in again["rows"][1]["settings"]] == [*statuses[1][:3], "stopped"]
    assert again["rows"][1]["settings"][3]["scored_at_epoch"] == 1
    assert again["rows"][0] == json.loads((tmp_path / "tiny" / "tuning.json").read_text())["rows"][0] == outcome["rows"][0]
    searched = tune(tmp_path, 2, suite=dataclasses.replace(SUITE, name="searched"), options=options, searcher="optuna")
    assert searched["complete"]
    assert searched["sequence"] is None
    assert [[setting["status"] for setting in row["settings"]] for row in searched["rows"]] == [["ok", "ok"]] * 2
