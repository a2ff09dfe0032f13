"""Settings on Ray Tune: ASHA compares within a row alone, what it stops is a record, a killed setting goes on; Optuna forgets nothing."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from test_tuning import BASE, HELD_OUT, SERIAL, tune
from typer.testing import CliRunner

from bench import progress
from bench.cli import app
from bench.record import read_record
from bench.status import log_tail, look_at, tuning_status
from bench.suites import Suite, multi_task_row, single_task_row
from bench.sweep.attempts import Attempts
from bench.sweep.jobs import Limits, make_job
from bench.sweep.supervise import Supervisor
from bench.trial import Launch
from bench.tuning.on_ray.schedulers import RowSchedulers, scores_at_rungs
from bench.tuning.on_ray.searchers import RowSearchers, asked_dir, asked_points
from bench.tuning.outcome import setting_outcome
from bench.tuning.plan import Point, Protocol, quasi_random_points, records_of, rungs, to_do, tuned_rows
from bench.tuning.point import ENTRY, PROVISIONAL, WORST_SCORE, run_point, take_stopped

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


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the stubs
        with Supervisor() as supervisor:
            yield supervisor


@pytest.fixture
def train(supervisor: Supervisor) -> Callable[..., list[dict]]:
    """Bring a setting to its records, or to the rung where it is stopped; returns what it reported."""

    def run(point: Point, launch: Launch, stop_at: int | None = None, entry: str = ENTRY, **limits) -> list[dict]:
        reports, jobs = [], [make_job(trial, launch, Limits(**limits), entry=entry) for trial in point.trials]

        def report(values: dict) -> None:
            reports.append(values)
            if values["rung"] == stop_at:
                raise StopError

        with contextlib.nullcontext() if stop_at is None else pytest.raises(StopError):
            run_point(jobs, rungs(3), supervisor, report)
        return reports

    return run


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


def test_the_tasks_of_a_setting_wait_for_each_other_at_a_rung(train: Callable, launch: Launch):
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


def test_deaths_of_a_setting_count_over_launches_and_lost_nodes_do_not(train: Callable, launch: Launch):
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
def test_what_asha_stops_is_a_record_with_its_score_and_not_to_do_again(train: Callable, launch: Launch, row: str):
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
def test_a_setting_that_is_killed_after_a_rung_reports_the_rung_again_and_goes_on(train: Callable, launch: Launch, row: str):
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


def test_a_diverging_setting_ranks_last(train: Callable, launch: Launch):
    reports = train(POINTS[LORA, 3], launch, entry="stub_trials:diverge")
    assert [(report["score"], report["status"]) for report in reports] == [(WORST_SCORE, "running"), (WORST_SCORE, "diverged")]


@pytest.mark.parametrize(
    ("deed", "limits", "status", "why"),
    [
        ("hang", {"hang_seconds": 6, "max_attempts": 1}, "killed", "hung: killed after 6 s without a sign of life"),
        ("hang", {"time_limit_seconds": 6}, "timeout", "time limit of 6 s over"),
        ("die", {"max_attempts": 2}, "killed", "died 2 times"),
        ("abort for memory", {"memory_bytes": 2**33}, "oom", "out of memory under its limit of 8.00 GiB"),
    ],
)
def test_limits_hold_for_the_trials_of_a_setting(deed: str, limits: dict, status: str, why: str, train: Callable, launch: Launch):
    point = POINTS[SINGLE, 3]
    first, second = (trial.run_id for trial in point.trials)
    (launch.suite_dir / "deeds").parent.mkdir(parents=True, exist_ok=True)
    (launch.suite_dir / "deeds").write_text(json.dumps({first: deed}))
    reports = train(point, launch, entry="stub_trials:tune", **limits)
    records = dict(zip((first, second), records_of(point, launch.suite_dir), strict=True))
    assert (records[first]["status"], records[second]["status"]) == (status, "ok")
    assert why in records[first]["reason"]
    assert records[first]["log_tail"].splitlines()[-1] == f"--- recorded as {status}: {records[first]['reason']}"
    assert [(report["rung"], report["status"], report["score"]) for report in reports] == [
        (1, "running", (WORST_SCORE + 5) / 2),
        (3, status, (WORST_SCORE + 5) / 2),
    ]
    assert not [path for path in (launch.suite_dir / "checkpoints").rglob("*") if path.is_file()]


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
    counted = {row["row"]: (row["trials"], row["missing"]) for row in tuning_status(look_at(launch.suite_dir))}
    assert counted == {SINGLE: (4, 4), LORA: (2, 2)}  # two tasks, two settings


@pytest.mark.parametrize("content", ["", '{"row": "One', "[]", '{"row": "x", "values": {"peak_lr": NaN}}', '{"row": "x", "values": {}}'])
def test_a_torn_setting_is_named_and_set_aside_and_its_number_is_never_given_again(content: str, tmp_path: Path):
    pytest.importorskip("optuna")
    tuning_dir = tmp_path / "tiny" / "tuning"
    searcher = RowSearchers(ROWS[1:], 3, 0, tuning_dir)
    drawn = [searcher.suggest(f"t{i}") for i in range(3)]
    directory = asked_dir(ROWS[1], tuning_dir)
    for index in (2, 1):  # the last one, and one amid the others
        (directory / f"{index:04d}.json").write_text(content)
        if content.startswith('{"row": "x", "values": {}'):
            continue  # status does not know the space of a row
        outcome = CliRunner().invoke(app, ["status", "tiny", "--results", str(tmp_path), "--json"])
        assert outcome.exit_code == 1, outcome.exception
        assert f"{index:04d}.json" in "".join(json.loads(outcome.output)["remarks"])
    told = []
    assert [point.index for point in asked_points(ROWS[1], tuning_dir, told.append)] == [0]
    assert [f"{index:04d}.json" in line for index, line in zip((1, 2), told, strict=True)] == [True, True]
    assert {path.name for path in (directory / "set_aside").iterdir()} == {"0001.json", "0002.json"}
    restarted = RowSearchers(ROWS[1:], 3, 0, tuning_dir)
    assert list(restarted.queue) == [(LORA, 0), (LORA, 3), (LORA, 4)]
    again = [restarted.suggest(f"u{i}") for i in range(4)]
    assert again[0] == drawn[0]
    assert again[3] == "FINISHED"
    values = [tuple(asked["values"].values()) for asked in (*drawn, *again[1:3])]
    assert len(set(values)) == 5  # nothing is drawn twice
    assert [path.name for path in sorted(directory.glob("*.json"))] == ["0000.json", "0003.json", "0004.json"]


@pytest.fixture
def stubs_on_ray(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """Let the trials of a tune on Ray be stubs, which do what the deeds say."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr("bench.tuning.on_ray.run.ENTRY", "stub_trials:tune")

    def plant(tuning_dir: Path, deeds: str) -> None:
        tuning_dir.mkdir(parents=True)
        (tuning_dir / "deeds").write_text(deeds)

    return plant


@pytest.mark.slow
def test_asha_and_optuna_on_ray_spend_the_same_budget_on_every_row(data: Path, tmp_path: Path, stubs_on_ray: Callable):
    shutil.copytree(data, tmp_path / "data")
    options = dataclasses.replace(SERIAL, executor="ray")
    for name in ("tiny", "searched"):
        stubs_on_ray(tmp_path / name / "tuning", "{}")
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


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [{"asha": True}, {"searcher": "optuna"}])
def test_a_trial_that_hangs_in_a_tune_on_ray_is_a_failed_setting_and_the_others_finish(
    protocol: dict, data: Path, tmp_path: Path, stubs_on_ray: Callable
):
    shutil.copytree(data, tmp_path / "data")
    tuning_dir = tmp_path / "tiny" / "tuning"
    stubs_on_ray(tuning_dir, '{"*": "hang"}')
    limits = Limits(hang_seconds=6, max_attempts=1)
    outcome = tune(tmp_path, 2, suite=SUITE, options=dataclasses.replace(SERIAL, executor="ray", limits=limits), **protocol)
    settings = [setting for row in outcome["rows"] for setting in row["settings"]]
    hung = (tuning_dir / "first").read_text()
    assert {setting["status"] for setting in settings if hung not in setting["run_ids"]} <= {"ok", "stopped"}
    assert [setting["status"] for setting in settings if hung in setting["run_ids"]] == ["killed"]
    assert "hung: killed after 6 s without a sign of life" in read_record(tuning_dir / "records" / f"{hung}.json")["reason"]
    assert not outcome["complete"]
    assert not [path for path in (tuning_dir / "checkpoints").rglob("*") if path.is_file()]
