"""What a launch, a plan and a tune do about files that are damaged: they name them and go on."""

import dataclasses
import errno
from pathlib import Path

import pytest
from made_records import made_record
from rich.console import Console

from bench.errors import SuiteError
from bench.launch import new_plan, render_data, work_left
from bench.plan import profiled_seconds
from bench.profile import profile_id
from bench.record import read_plan, write_record
from bench.storage import StorageError
from bench.suites import load

TRIAL = next(row for row in load("smoke").rows if row.label == "Decoders only").trials[0]


def finished(suite_dir: Path) -> Path:
    """Write the record of the trial and a profile of its row, cut short; return the profile's path."""
    of_trial = {"values": {"semseg": 1.0}, "cell_id": TRIAL.cell_id, "seed": TRIAL.seed}
    write_record(suite_dir / "records", made_record(run_id=TRIAL.run_id, **of_trial))
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
    assert work_left([TRIAL], tmp_path, accuracy=True, profiles=True, **rules) == ([], [TRIAL])
    assert not profile.exists()
    assert [path.name for path in (tmp_path / "profiles" / "set_aside").iterdir()] == [profile.name]
    assert "cut short" in capsys.readouterr().err


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
