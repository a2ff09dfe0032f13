"""Profiles are measured in several sessions, all rows once before any again; intervals over sessions keep their level."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from made_records import MadeSuite, made_method, made_record
from rich.console import Console
from scipy import stats

from bench import provenance
from bench.busy import busy_times, time_range
from bench.launch import work_left
from bench.measure.cost import summarize_seconds
from bench.plan import Reader, missing_profiles, profile_file, profiled_seconds, write_plan
from bench.profile import SESSIONS, Session, profile_id, sessions_of
from bench.record import write_record
from bench.report.footnotes import footnotes
from bench.report.profiles import joined, with_profiles
from bench.report.stats import row_frame
from bench.report.times import TimeError, time_error
from bench.status import look_at, missing_sessions
from bench.suites import load
from bench.sweep.room import learned_share

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


def test_the_range_over_sessions_is_that_of_a_typical_one_or_of_their_medians() -> None:
    def costs(*times: tuple) -> list[dict]:
        return [{"step_seconds": dict(zip(("p05", "median", "p95"), time, strict=True))} for time in times]

    quiet = costs((1.0, 1.1, 1.2), (1.1, 1.2, 1.4), (None, None, None))
    assert time_range(quiet, "step_seconds") == (pytest.approx(1.05), pytest.approx(1.3))
    assert time_range(quiet, "inference_seconds") is None
    assert time_range(costs((1.0, 1.1, 1.2), (0.9, 1.0, 9.0), (1.0, 1.0, 1.3)), "step_seconds") == (1.0, 1.3)  # one odd session
    assert time_range(costs((1.0, 1.1, 1.2), (1.0, 1.1, 1.2), (1.8, 1.9, 2.0)), "step_seconds") == (1.0, 1.9)  # one slow session
    assert busy_times(quiet) == {}
    assert busy_times(costs((1.0, 1.2, 1.51))) == {"step_seconds": (1.0, 1.51)}


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


def profiled(rows: dict[int, tuple[float, ...]], *, order: str) -> tuple[MadeSuite, list[dict]]:
    """Return a suite with a row a rank, and profiles of these step times; `order` of the sessions: "rows first" or "sessions first"."""
    suite, values = MadeSuite(tasks=("semseg",), seeds=(0, 1)), {0: {"semseg": 10.0}, 1: {"semseg": 12.0}}
    profiles = []
    for place, (rank, steps) in enumerate(rows.items()):
        row = suite.add(made_method(value=rank), values)
        for number, seconds in enumerate(steps, start=1):
            made = made_record(run_id=f"profile-{rank}-{number}", values={"semseg": 1.0}, cell_id=row["cell_id"], step_seconds=seconds)
            minute = number * len(rows) + place if order == "rows first" else 10 * place + number
            made["timing"] |= {"trial_start": f"2026-01-01T09:{minute:02d}:00+00:00"}
            profiles.append(made | {"kind": "profile", "session": number})
    return suite, profiles


def note_on_times(suite: MadeSuite, profiles: list[dict]) -> str:
    """Return the footnote about times."""
    records = with_profiles(suite.records, profiles)
    (note,) = [note for note in footnotes(suite.plan(), records, row_frame(suite.plan(), records)) if note.startswith("Times: ")]
    return note


def test_the_table_shows_what_sessions_found() -> None:
    suite, profiles = profiled({1: (0.1, 0.12, 0.11), 2: (0.2, 0.21, 0.22)}, order="rows first")
    records = with_profiles(suite.records, profiles[::-1])
    assert records[0]["cost"]["profile"] == "profile-1-1"
    first = row_frame(suite.plan(), records).iloc[0]
    assert (first["step_seconds_mean"], first["step_seconds_n"]) == (pytest.approx(stats.gmean((0.1, 0.12, 0.11))), 1)
    logs = np.log((0.1, 0.12, 0.11))
    ends = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    assert (first["step_seconds_low"], first["step_seconds_high"]) == pytest.approx(tuple(ends))


def test_the_footnote_says_what_was_done_and_no_more() -> None:
    three = (0.1, 0.12, 0.11)
    few = note_on_times(*profiled({1: three, 2: three}, order="rows first"))
    assert "measured in 3 sessions" in few
    assert "other rows between one of a row and its next." in few
    assert "Smyth" not in few  # two rows lend each other nothing
    generator = np.random.default_rng(0)
    many = {rank: tuple(0.1 * np.exp(0.02 * generator.normal(size=3))) for rank in range(1, 13)}
    assert "variances moderated over the rows (Smyth 2004)" in note_on_times(*profiled(many, order="rows first"))
    assert "those of a row one after the other." in note_on_times(*profiled({1: three, 2: three}, order="sessions first"))
    suite, profiles = profiled({1: three, 2: three, 3: three}, order="rows first")
    assert "Fewer sessions so far: LoRA (r=2) (1)." in note_on_times(suite, [*profiles[:3], profiles[3], *profiles[6:]])
    partly = note_on_times(suite, profiles[:6])
    assert partly.partition(" Without a profile, so that times are those of trials, which may have shared the device: ")[2].startswith(
        "LoRA (r=3)."
    )
    bare = note_on_times(suite, [])
    assert "not what another session or device would. Two times" in bare
    assert "Without a profile" in note_on_times(suite, profiles[:1])


def test_a_gpu_is_shared_by_the_highest_peak_of_all_sessions(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in (1, 2, 3)]
    assert learned_share(paths) == 1.0
    paths[0].write_text('{"status": "oom", "cost": null}')
    for path, peak in zip(paths[1:], (10 * 2**30, 20 * 2**30), strict=True):
        path.write_text(json.dumps({"cost": {"peak_reserved_bytes": peak, "device_memory_bytes": 80 * 2**30}}))
    assert learned_share(paths) == learned_share(paths[2:]) > learned_share(paths[1:2])


def test_rows_with_records_are_profiled_again_where_that_is_asked_for(tmp_path: Path) -> None:
    (trial,) = TRIALS[:1]
    values, own = dict.fromkeys(trial.tasks, 1.0), {"cell_id": trial.cell_id, "seed": trial.seed, "code_id": provenance.code_id()}
    write_record(tmp_path / "records", made_record(run_id=trial.run_id, values=values, **own) | {"config": trial.to_dict()})
    for session in sessions_of([trial]):
        measured(tmp_path, session, spread=0.3, code_id=own["code_id"])

    def asked(*rerun: str) -> list[int]:
        rules = {"rerun": frozenset(rerun), "console": Console(quiet=True)}
        to_do, sessions = work_left([trial], tmp_path, accuracy=True, profiles=True, **rules)
        assert to_do == []
        return [session.number for session in sessions]

    assert (asked(), asked("failed"), asked("busy")) == ([], [], [1, 2, 3])
    profile_file(tmp_path, sessions_of([trial])[1]).unlink()
    assert (asked(), asked("failed")) == ([], [2])


def test_status_says_how_many_sessions_are_missing(tmp_path: Path) -> None:
    suite = load("smoke")
    write_plan(suite, tmp_path, "python run_suite.py run smoke --results r")
    assert missing_sessions(look_at(tmp_path)) == []  # none was asked for
    planned = sessions_of(suite.trials)
    measured(tmp_path, planned[0])
    again = f"run_suite.py profile {tmp_path.name}"
    (said,) = missing_sessions(look_at(tmp_path))
    assert said == f"profiles: {len(planned) - 1} of {len(planned)} sessions have no good record; `{again} --results r` measures them"
    for session in planned:
        measured(tmp_path, session)
    assert missing_sessions(look_at(tmp_path)) == []
    measured(tmp_path, planned[1], status="oom")
    (said,) = missing_sessions(look_at(tmp_path))
    assert said == f"profiles: 1 of {len(planned)} sessions failed; `{again} --results r --rerun failed` measures them again"


def test_an_estimate_takes_the_first_good_session(tmp_path: Path) -> None:
    (trial,) = TRIALS[:1]
    first, second, third = sessions_of([trial])
    measured(tmp_path, first, status="oom")
    measured(tmp_path, third, step_seconds=0.4)
    assert profiled_seconds([trial], tmp_path) == {trial.run_id: pytest.approx(0.4 * trial.recipe.epochs * 20)}  # 40 images, batches of two
    measured(tmp_path, second, step_seconds=0.2)
    assert profiled_seconds([trial], tmp_path) == {trial.run_id: pytest.approx(0.2 * trial.recipe.epochs * 20)}
