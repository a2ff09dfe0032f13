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
