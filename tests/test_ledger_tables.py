"""How the ledger is shown: whole numbers at every width, equal notes once, dead parameters by pattern; and tables of other commands."""

import dataclasses
import io
import re
from functools import cache
from typing import Any

import pytest
from rich.console import Console

from bench.cli.ledger import dead_patterns, joined, show_ledger
from bench.cli.steps import Steps
from bench.cli.tables import Column, Group, fitted, plain
from bench.ledger import Dead, ledger_rows
from bench.measure.cost import PARAMETER_GROUPS
from bench.suites import load

KEYS = {f"backbone.swin.layers.{stage}.blocks.{block}.attn.qkv.bias": Dead(96, "the keys' third") for stage in (0, 1) for block in (0, 1)}
WIDTHS = (80, 100, 120, 200)


@cache
def rows() -> list[dict[str, Any]]:
    suite = load("table1", backbone="swin_tiny_patch4_window7_224", image_size=448, seeds=(0,))
    names = ("HyperFormer", "BitFit", "MTLoRA (r=16)", "MTLoRA (r=32)", "Shared LoRA + MTLoRA's trainable rest at MTLoRA r=64 (r=67)")
    chosen = tuple(row for row in suite.rows if "full fine-tuning" in row.label or row.label in names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.ledger.dead_parameters", lambda trial: KEYS if trial.method_name in ("full", "bitfit") else {})
        return ledger_rows(dataclasses.replace(suite, rows=chosen))


def shown(width: int) -> str:
    out = io.StringIO()
    show_ledger(Console(file=out, width=width), rows(), PARAMETER_GROUPS)
    return out.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_is_printed_whole_at_every_width(width: int):
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    tokens = set(text.split())
    for row in rows():
        keys = ("trainable", "trainable_without_decoders", "closed_form", "dead", *PARAMETER_GROUPS, "not_trained")
        assert {f"{row[key]:,}" for key in keys} <= tokens
        if row["printed_millions"]:
            assert f"{row['printed_millions']} M" in text


def test_counts_and_published_stand_side_by_side_only_where_there_is_room():
    assert "Trainable parameters · Published" in shown(200)
    for width in (80, 120):
        assert re.search("^Published *$", shown(width), re.MULTILINE)


def test_rounded_counts_look_rounded_and_counted_ones_exact():
    text = shown(80)
    assert "2,850,000" not in text
    line = {words[0]: words for words in map(str.split, text.partition("\nPublished")[2].partition("by group")[0].splitlines()) if words}
    assert line["BitFit"] == ["BitFit", "2.85", "M", "2.547", "M", "-0.004", "M", "print"]
    assert line["HyperFormer"] == ["HyperFormer", "72.77", "M", "none", "-1.715", "M", "neither"]
    assert line["Multi-task"] == ["Multi-task", "full", "30.06", "M", "29,464,442", "1,946,624", "0", "code", "only"]


def test_equal_notes_are_said_once_and_name_the_dead_part_only():
    text = " ".join(shown(80).split())
    assert text.count("qkv.bias") == 1
    assert (
        "Single-task full fine-tuning, Multi-task full fine-tuning, BitFit: backbone.swin.layers.*.blocks.*.attn.qkv.bias (4 tensors, the "
        "keys' third of each)" in text
    )
    assert "MTLoRA (r=16; r=32): low-rank pairs" in text


def test_patterns_keep_the_numbers_that_all_names_share():
    names = [f"layers.3.blocks.{block}.fc2.lora_{side}" for block in (0, 1) for side in "AB"] + ["norm.bias"]
    row = {"dead_names": names, "dead_parts": {"norm.bias": "2 of 8 entries"}}
    assert dead_patterns(row) == "layers.3.blocks.*.fc2.{lora_A,lora_B} (4 tensors), norm.bias (2 of 8 entries)"


def test_dials_of_one_method_share_their_brackets():
    assert joined(["A (r=1)", "B", "A (r=2)", "C (x)"]) == "A (r=1; r=2), B, C (x)"


@pytest.mark.parametrize("room", range(10, 120, 7))
def test_no_cell_is_broken_however_narrow_the_room(room: int):
    cells = [("1,234,567",), ("23",), ("987,654,321",)]
    groups = [
        Group("one", tuple(Column(f"a title {i}", cell) for i, cell in enumerate(cells))),
        Group("two", (Column("last", ("55,555",)),)),
    ]
    console = Console(file=io.StringIO(), width=200)
    for table in fitted(Column("row", ("a label of several words",)), groups, room):
        console.print(table)
    assert {"1,234,567", "23", "987,654,321", "55,555"} <= set(console.file.getvalue().split())


def test_numbers_of_other_tables_stay_whole_at_80_columns():
    made = [{"row": "A row with a rather long label", "trials": 12, "trainable_parameters": 112_017_896, "from": "2 steps of 2 images"}]
    console = Console(file=io.StringIO(), width=60)
    console.print(plain([*made, dict.fromkeys(made[0])]))
    assert "112,017,896" in console.file.getvalue()


def test_progress_is_a_line_a_row_without_a_terminal_and_nothing_when_quiet():
    for quiet, expected in ((False, "1/2 counts one\n2/2 counts two\n"), (True, "")):
        console = Console(file=io.StringIO(), quiet=quiet)
        with Steps("counts", quiet=quiet, console=console) as steps:
            steps(0, 2, "one")
            steps(1, 2, "two")
        assert console.file.getvalue() == expected


def test_progress_on_a_terminal_is_a_bar_that_goes_away():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Steps("counts", console=console) as steps:
        steps(1, 2, "[one]")
    assert "1/2" in console.file.getvalue()
    assert "counts [one]" in console.file.getvalue()
