"""Limits of a trial that are none, or that this machine cannot give, are refused before anything starts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.launch import require_sound
from bench.memory import machine_memory
from bench.sweep.jobs import Limits
from bench.sweep.place import Slots
from bench.sweep.room import RoomError
from bench.tuning.launch import Options, check
from bench.tuning.plan import Protocol


@pytest.mark.parametrize("command", [["run", "smoke"], ["tune", "smoke", "--budget", "1"]])
@pytest.mark.parametrize(
    ("option", "value"),
    [("--memory-per-trial", value) for value in ("inf", "nan", "0", "-1", "1e300")]
    + [(option, value) for option in ("--time-limit", "--hang-limit") for value in ("nan", "inf", "-1")],
)
def test_a_limit_that_is_none_is_a_wrong_use(command: list[str], option: str, value: str, tmp_path: Path):
    outcome = CliRunner().invoke(app, [*command, "--executor", "serial", "--results", str(tmp_path / "new"), option, value])
    assert (outcome.exit_code, option in outcome.output) == (2, True), outcome.exception
    assert not (tmp_path / "new").exists()


def test_more_memory_than_this_machine_has_is_refused_with_the_numbers_before_a_serial_start():
    there = machine_memory()
    limits = Limits(memory_bytes=2 * there)
    said = rf"asks for {2 * there / 2**30:,.2f} GiB, but this machine has {there / 2**30:,.2f} GiB"
    with pytest.raises(RoomError, match=said):
        require_sound(frozenset(), "serial", Slots(), limits)
    with pytest.raises(RoomError, match=said):
        check(Protocol(budget=1), Options(executor="serial", limits=limits))
    require_sound(frozenset(), "serial", Slots(), Limits(memory_bytes=there))
