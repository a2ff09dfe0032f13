"""The board of a sweep: a table on a terminal, plain lines elsewhere, nothing when quiet."""

import io

from rich.console import Console

from bench.progress import Board

TRIALS = {"a-s0": ("LoRA", 2), "a-s1": ("LoRA", 2), "b-s0": ("BitFit", 2)}


def played(*, terminal: bool, quiet: bool = False) -> tuple[str, str]:
    """Play a sweep in which one trial ends well and one fails; return what was written, and the table at its end."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, height=20, quiet=quiet, color_system=None)
    with Board(TRIALS, console=console) as board:
        board.started("a-s0")
        for epoch in (1, 2):
            board.epoch("a-s0", {"epoch": epoch, "loss": 3.0 / epoch, "seconds": 4.0, "images_per_second": 12.5})
        board.finished("a-s0", "ok")
        board.started("b-s0")
        board.finished("b-s0", "oom")
        board.started("a-s1")
        shown = io.StringIO()
        Console(file=shown, width=120).print(board.render())
    return out.getvalue(), shown.getvalue()


def test_elsewhere_than_on_a_terminal_each_end_is_one_plain_line():
    written, _ = played(terminal=False)
    first, second = written.splitlines()
    assert first.startswith("a-s0: ok · 1 done, 0 running, 2 left")
    assert second.startswith("b-s0: oom · 2 done, 1 failed, 0 running, 1 left")
    assert "\x1b" not in written


def test_the_table_of_a_terminal_has_a_line_a_row_with_progress_loss_speed_time_left_and_failures():
    written, table = played(terminal=True)
    assert "\x1b[" in written  # drawn over and over
    head, lora, bitfit, summary = (line.split() for line in table.splitlines())
    assert head == ["row", "done", "running", "epoch", "loss", "images/s", "left", "failed"]
    assert lora == ["LoRA", "1/2", "1", "2/4", "1.500", "12.5", "0:08"]  # two epochs of four seconds are left
    assert bitfit == ["BitFit", "1/1", "2/2", "0:00", "1"]
    assert summary[:8] == ["2", "done,", "1", "failed,", "1", "running,", "0", "left"]
    assert "b-s0: oom" in written
    assert "a-s0: ok" not in written  # the table says it


def test_a_quiet_board_writes_nothing():
    assert played(terminal=False, quiet=True)[0] == ""
    assert played(terminal=True, quiet=True)[0] == ""


def test_profiles_tell_the_time_left_before_any_epoch_is_done(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("bench.progress.time.monotonic", lambda: now[0])
    known = {None: {}, "profile-a": {"a-s0": 20.0, "a-s1": 20.0}, "profile-b": {"b-s0": 5.0}}
    trials = {"profile-a": ("profiles", 0), "profile-b": ("profiles", 0), "a-s0": ("LoRA", 2), "a-s1": ("LoRA", 2), "b-s0": ("BitFit", 2)}
    board = Board(trials, quiet=True, expected=known.get)
    assert board.time_left() == "time left unknown"
    board.started("profile-a")
    now[0] = 7.0
    board.finished("profile-a", "ok")
    assert board.time_left() == "1:07 left"  # a profile of 7 s; 4 epochs of 10 s, and 2 of an unknown row at the mean, 10 s
    board.started("profile-b")
    now[0] = 10.0
    board.finished("profile-b", "ok")
    assert board.time_left() == "0:45 left"  # 4 epochs of 10 s, 2 of 2.5 s
    board.epoch("b-s0", {"epoch": 1, "loss": 1.0, "seconds": 4.0})
    assert board.time_left() == "0:44 left"  # what was seen counts, not what was expected


def test_profiles_of_an_earlier_launch_tell_the_time_left_at_once():
    assert Board(TRIALS, quiet=True, expected={None: {"a-s0": 6.0, "b-s0": 10.0}}.get).time_left() == "0:22 left"
