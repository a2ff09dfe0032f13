"""Profiles are measured in several sessions, all rows once before any again; intervals over sessions keep their level."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_records import MadeSuite, made_method, made_record
from scipy import stats

from bench.busy import busy_times, time_range
from bench.measure.cost import summarize_seconds
from bench.plan import Reader, missing_profiles, profile_file
from bench.profile import SESSIONS, Session, profile_id, sessions_of
from bench.record import write_record
from bench.report.footnotes import footnotes
from bench.report.profiles import joined, with_profiles
from bench.report.stats import row_frame
from bench.report.times import TimeError, time_error
from bench.suites import load

TRIALS = [trial for row in load("smoke").rows if row.label in ("Decoders only", "Multi-task full fine-tuning") for trial in row.trials]
RULES = {"rerun": frozenset(), "code_id": "c0de"}
TIMES = ("step_seconds", "inference_seconds", "merged_inference_seconds")


def test_all_rows_are_measured_once_before_any_of_them_again() -> None:
    first, second = (next(trial for trial in TRIALS if trial.method_name == name) for name in ("frozen", "full"))
    others = [dataclasses.replace(trial, seed=trial.seed + 1) for trial in (first, second)]
    planned = sessions_of([first, second, *others])
    assert planned == [Session(trial, number) for number in range(1, SESSIONS + 1) for trial in (first, second)]
    assert sessions_of([*others, first, second]) == planned  # the lowest seed of a row stands for all
    assert len({session.run_id for session in planned}) == 2 * SESSIONS
    assert planned[0].run_id == profile_id(first) == profile_id(others[0])
    assert planned[2].run_id == f"{profile_id(first)}-session2"


def measured(suite_dir: Path, session: Session, **costs: object) -> None:
    """Write the record of a session."""
    values = dict.fromkeys(session.trial.tasks, 1.0)
    made = made_record(run_id=session.run_id, values=values, cell_id=session.trial.cell_id, **costs)
    write_record(suite_dir / "profiles", made | {"kind": "profile", "session": session.number})


def left(suite_dir: Path, *rerun: str) -> list[str]:
    """Return the run ids of the sessions that are to be measured."""
    lacking = missing_profiles(TRIALS[:1], suite_dir, Reader(pytest.fail, move=False), rerun=frozenset(rerun), code_id="c0de")
    return [session.run_id for session in lacking]


def test_only_sessions_without_a_record_are_measured(tmp_path: Path) -> None:
    sessions = sessions_of(TRIALS[:1])
    measured(tmp_path, sessions[1])
    assert left(tmp_path) == [sessions[0].run_id, sessions[2].run_id]
    measured(tmp_path, sessions[0], status="oom")
    measured(tmp_path, sessions[2], code_id="other")
    assert left(tmp_path) == []
    assert left(tmp_path, "failed") == [sessions[0].run_id]
    assert left(tmp_path, "stale") == [sessions[2].run_id]
    assert profile_file(tmp_path, sessions[1]).exists()


@pytest.mark.parametrize(
    ("steps", "spread", "is_busy"), [((0.1, 0.11, 0.12), 0.05, False), ((0.1, 0.1, 0.1), 0.3, True), ((0.1, 0.16, 0.1), 0.0, True)]
)
def test_a_busy_session_or_sessions_far_apart_spoil_all_of_a_row(steps: tuple, spread: float, is_busy: bool, tmp_path: Path) -> None:
    sessions = sessions_of(TRIALS[:1])
    for session, seconds in zip(sessions, steps, strict=True):
        measured(tmp_path, session, step_seconds=seconds, spread=spread)
    assert left(tmp_path) == left(tmp_path, "stale", "failed") == []
    assert left(tmp_path, "busy") == ([session.run_id for session in sessions] if is_busy else [])


def test_the_range_over_sessions_is_that_of_all_measurements() -> None:
    costs = [{"step_seconds": {"p05": low, "p95": high}} for low, high in ((1.0, 1.2), (1.1, 1.4))] + [
        {"step_seconds": {"p05": None, "p95": None}}
    ]
    assert time_range(costs, "step_seconds") == (1.0, 1.4)
    assert time_range(costs, "inference_seconds") is None
    assert busy_times(costs) == {}
    assert busy_times([*costs, {"step_seconds": {"p05": 1.0, "p95": 1.51}}]) == {"step_seconds": (1.0, 1.51)}


def cost_of(steps: float, **more: object) -> dict:
    """Return the cost of a session."""
    return made_record(run_id="profile-x", values={"semseg": 1.0}, step_seconds=steps)["cost"] | more


def key(row: int, device: str = "cpu") -> tuple:
    """Return the key of a made profile."""
    return f"{row:012x}", ("semseg",), "c0de", device


def test_a_time_of_several_sessions_is_their_geometric_mean_with_the_error_of_how_far_they_lie_apart() -> None:
    steps = (0.1, 0.12, 0.11)
    cost = joined({key(0): [cost_of(seconds, peak_allocated_bytes=peak) for seconds, peak in zip(steps, (5, 7, None), strict=True)]})[
        key(0)
    ]
    time, logs = cost["step_seconds"], np.log(steps)
    assert time["median"] == pytest.approx(stats.gmean(steps))
    assert (time["p05"], time["p95"], time["n"]) == (0.1, 0.12, 27)
    assert time_error(time) == TimeError(log=pytest.approx(stats.sem(logs)), df=2.0)  # one row has no others to borrow from
    assert (cost["peak_allocated_bytes"], cost["peak_reserved_bytes"]) == (7, None)
    low, high = time_error(time).ends(time["median"])
    assert (np.log(low), np.log(high)) == pytest.approx(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))


def test_one_session_alone_stays_as_it_was_measured() -> None:
    cost = cost_of(0.1)
    assert joined({key(0): [cost]})[key(0)]["step_seconds"] == cost["step_seconds"]


def test_sessions_of_another_device_lend_no_variance() -> None:
    quiet = {key(row): [cost_of(seconds) for seconds in (0.1, 0.101, 0.1)] for row in range(10)}
    loud = {key(row, "other"): [cost_of(seconds) for seconds in (0.1, 0.2, 0.1)] for row in range(10)}
    together = joined(quiet | loud)
    assert together[key(0)]["step_seconds"] == joined(quiet)[key(0)]["step_seconds"]
    assert together[key(0, "other")]["step_seconds"]["session_log_error"] > 10 * together[key(0)]["step_seconds"]["session_log_error"]


@pytest.mark.parametrize(("rows", "sessions"), [(4, 3), (16, 3), (16, 2)])
@pytest.mark.parametrize("between", [0.0, 0.02, 0.2])
def test_intervals_over_sessions_keep_their_level(rows: int, sessions: int, between: float) -> None:
    generator, held, repeats = np.random.default_rng(0), [], 100
    for _ in range(repeats):
        costs = {}
        for row in range(rows):
            scale = np.exp(0.3 * generator.normal())  # sessions of some rows differ by more than those of others
            measured = [np.exp(scale * between * generator.normal() + 0.05 * generator.normal(size=13)) for _ in range(sessions)]
            costs[key(row)] = [cost_of(0.1) | {"step_seconds": summarize_seconds(list(seconds))} for seconds in measured]
        for cost in joined(costs).values():
            low, high = time_error(cost["step_seconds"]).ends(cost["step_seconds"]["median"])
            held.append(low <= 1 <= high)
    assert np.mean(held) >= 0.94


def test_the_table_shows_what_sessions_found_and_says_so() -> None:
    suite, values = MadeSuite(tasks=("semseg",), seeds=(0, 1)), {0: {"semseg": 10.0}, 1: {"semseg": 12.0}}
    profiles = []
    for rank, steps in ((1, (0.1, 0.12, 0.11)), (2, (0.2, 0.21, 0.22))):
        row = suite.add(made_method(value=rank), values)
        for number, seconds in enumerate(steps, start=1):
            made = made_record(run_id=f"profile-{rank}-{number}", values={"semseg": 1.0}, cell_id=row["cell_id"], step_seconds=seconds)
            profiles.append(made | {"kind": "profile", "session": number})
    records = with_profiles(suite.records, profiles[::-1])
    assert records[0]["cost"]["profile"] == "profile-1-1"
    frame = row_frame(suite.plan(), records)
    first = frame.iloc[0]
    assert (first["step_seconds_mean"], first["step_seconds_n"]) == (pytest.approx(stats.gmean((0.1, 0.12, 0.11))), 1)
    logs = np.log((0.1, 0.12, 0.11))
    ends = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    assert (first["step_seconds_low"], first["step_seconds_high"]) == pytest.approx(tuple(ends))
    (note,) = [note for note in footnotes(suite.plan(), records, frame) if note.startswith("Times: ")]
    assert "measured in 3 sessions" in note
    (before,) = [
        note for note in footnotes(suite.plan(), suite.records, row_frame(suite.plan(), suite.records)) if note.startswith("Times: ")
    ]
    assert "not what another session or device would" in before
