"""What a launch, a plan and a tune do about files that are damaged: they name them and go on."""

import dataclasses
import errno
import json
from pathlib import Path

import pytest
from made_records import made_record
from rich.console import Console

from bench.errors import SuiteError
from bench.estimate import plan_rows
from bench.launch import clear_leftovers, new_plan, render_data, summarize, work_left
from bench.migration import LATER
from bench.plan import profiled_seconds
from bench.profile import Session, profile_id
from bench.record import read_plan, write_record
from bench.storage import StorageError
from bench.suites import Suite, load

TRIAL = next(row for row in load("smoke").rows if row.label == "Decoders only").trials[0]


def finished(suite_dir: Path) -> Path:
    """Write the record of the trial and a profile of its row, cut short; return the profile's path."""
    of_trial = {"values": {task: 1.0 for task in TRIAL.tasks}, "cell_id": TRIAL.cell_id, "seed": TRIAL.seed}
    write_record(suite_dir / "records", made_record(run_id=TRIAL.run_id, **of_trial) | {"config": TRIAL.to_dict()})
    path = write_record(suite_dir / "profiles", made_record(run_id=profile_id(TRIAL), **of_trial) | {"kind": "profile"})
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    return path


def test_a_truncated_profile_of_a_finished_row_is_named_set_aside_and_measured_again(tmp_path: Path, capsys):
    profile = finished(tmp_path)
    other = dataclasses.replace(TRIAL, seed=TRIAL.seed + 1)
    assert profiled_seconds([TRIAL, other], tmp_path) == {}
    rules = {"rerun": frozenset(), "console": Console(stderr=True)}
    assert work_left([TRIAL], tmp_path, accuracy=True, profiles=False, **rules) == ([], [])
    assert profile.exists()
    assert work_left([TRIAL], tmp_path, accuracy=True, profiles=True, **rules) == ([], [Session(TRIAL, 1)])
    assert not profile.exists()
    assert [path.name for path in (tmp_path / "profiles" / "set_aside").iterdir()] == [profile.name]
    assert "cut short" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["cell_id", "seed", "config"])
def test_a_record_of_another_trial_under_the_name_of_a_planned_one_is_named_set_aside_and_run_again(field: str, tmp_path: Path, capsys):
    finished(tmp_path)
    path = tmp_path / "records" / f"{TRIAL.run_id}.json"
    record = json.loads(path.read_text())
    other = {"cell_id": "0" * 12, "seed": 7, "config": dataclasses.replace(TRIAL, seed=7).to_dict()}
    path.write_text(json.dumps(record | {field: other[field]}))
    rules = {"rerun": frozenset(), "console": Console(stderr=True)}
    assert work_left([TRIAL], tmp_path, accuracy=True, profiles=False, **rules) == ([TRIAL], [])
    assert not path.exists()
    assert (tmp_path / "records" / "set_aside" / path.name).exists()
    assert "it was edited, or is not the record of this trial" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_former_plan_is_no_obstacle_and_comes_back_as_it_was(tmp_path: Path):
    suite, former = load("smoke"), b"\xff\xfe no text"
    (tmp_path / "plan.json").write_bytes(former)
    with pytest.raises(SuiteError, match="planted"), new_plan(suite, tmp_path, "command", []):
        raise SuiteError("planted")
    assert (tmp_path / "plan.json").read_bytes() == former
    with new_plan(suite, tmp_path, "command", []):
        pass
    assert read_plan(tmp_path / "plan.json")["suite"] == "smoke"


def test_a_disk_that_fills_while_data_is_rendered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bench.launch.ensure_synthetic", full)
    with pytest.raises(StorageError, match="full"):
        render_data(tmp_path, TRIAL.data.synthetic)


def damaged_record(suite_dir: Path) -> Path:
    """Write the record of the trial, cut short, and a checkpoint beside it; return the record's path."""
    path = write_record(suite_dir / "records", made_record(run_id=TRIAL.run_id, values={"semseg": 1.0}))
    path.write_text(path.read_text()[:200])
    (suite_dir / "checkpoints").mkdir()
    (suite_dir / "checkpoints" / f"{TRIAL.run_id}.pt").touch()
    return path


def test_profiles_are_measured_beside_a_damaged_record_which_is_named_and_stays(tmp_path: Path, capsys):
    record = damaged_record(tmp_path)
    left = work_left([TRIAL], tmp_path, accuracy=False, profiles=True, rerun=frozenset(), console=Console(stderr=True))
    assert left == ([], [Session(TRIAL, 1), Session(TRIAL, 2), Session(TRIAL, 3)])
    clear_leftovers([TRIAL], tmp_path)
    assert (record.exists(), (tmp_path / "checkpoints" / f"{TRIAL.run_id}.pt").exists()) == (True, True)  # `run` goes on from there
    assert summarize([TRIAL.run_id], record.parent, verbose=False).ok == 0
    assert [line.startswith(said) for line, said in zip(capsys.readouterr().err.splitlines(), ("not counted", TRIAL.run_id), strict=True)]


def test_a_plan_counts_a_damaged_record_as_missing_and_names_it(tmp_path: Path):
    row = next(row for row in load("smoke").rows if TRIAL in row.trials)
    suite = Suite(name="one", title="", description="", rows=(row,), reference=row.label)
    record, told = damaged_record(tmp_path), []
    (planned,) = plan_rows(suite, tmp_path, data_root=None, say=told.append, estimate=False)
    assert (planned["missing"], planned["trials"]) == (len(row.trials), len(row.trials))
    assert [record.name in line and "cut short" in line for line in told] == [True]
    assert record.exists()


def test_records_of_an_older_schema_are_counted_in_one_line(tmp_path: Path, capsys):
    trials = [dataclasses.replace(TRIAL, seed=seed) for seed in range(5)]
    for trial in trials:
        own = {"values": {task: 1.0 for task in trial.tasks}, "cell_id": trial.cell_id, "seed": trial.seed}
        path = write_record(tmp_path / "records", made_record(run_id=trial.run_id, **own))
        older = json.loads(path.read_text())
        path.write_text(json.dumps({key: older[key] for key in older if key not in LATER[1]} | {"schema_version": 1}))
    rules = {"rerun": frozenset(), "console": Console(stderr=True)}
    assert work_left(trials, tmp_path, accuracy=True, profiles=False, **rules) == ([], [])
    (line,) = capsys.readouterr().err.splitlines()
    assert "(5 records): " in line
    assert line.endswith(" and 2 more.")
