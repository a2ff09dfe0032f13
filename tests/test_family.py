"""Families: which rows a line may join, by hand, on the published table's plan."""

import pandas as pd
import pytest

from bench.plan import plan_row
from bench.report.family import families
from bench.report.style import family_styles
from bench.suites import load

JOINED = {
    "MTLoRA": {"MTLoRA (r=16)", "MTLoRA (r=32)", "MTLoRA (r=64)"},
    "LoRA, multi-task": {"Shared LoRA (r=16)", *(f"Shared LoRA at MTLoRA r={rank}" for rank in (16, 32, 64))},
    "LoRA, multi-task · also train norm+relative_position+2 more": {
        "Shared LoRA (r=16) + MTLoRA's trainable rest",
        *(f"Shared LoRA + MTLoRA's trainable rest at MTLoRA r={rank}" for rank in (16, 32, 64)),
    },
    "LoRA, single-task": {f"LoRA, one a task, at MTLoRA r={rank}" for rank in (16, 32, 64)},
    "MTLoRA+": {f"MTLoRA+ (r={rank}, task r=4)" for rank in (4, 16, 32, 64)},
    "MTLoRA+ · task rank 8": {"MTLoRA+ (r=8, task r=8)"},
    "MTLoRA+ · task rank 16": {"MTLoRA+ (r=16, task r=16)"},
    "Adapter, multi-task": {"VL-Adapter"},
    "Adapter, multi-task · by width, also train none": {f"Shared Adapter at MTLoRA r={rank}" for rank in (16, 32, 64)},
    "Decoders only": {"Decoders only"},
    "MTLoRA's trainable rest alone": {"MTLoRA's trainable rest alone"},
}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [plan_row(row) for row in load("table1").rows]


def named(rows: list[dict]) -> dict[str, set[str]]:
    """Labels, without the solved dial of rows at a budget, by family."""
    found: dict[str, set[str]] = {}
    for family, row in zip(families(rows), rows, strict=True):
        label = row["label"].rpartition(" (")[0] if " at MTLoRA" in row["label"] else row["label"]
        found.setdefault(family, set()).add(label)
    return found


def test_only_rows_that_differ_in_the_dial_alone_are_joined(rows: list[dict]):
    found = named(rows)
    assert {family: labels for family, labels in found.items() if family in JOINED} == JOINED
    assert all(len(labels) == 1 for family, labels in found.items() if family not in JOINED)


def test_no_two_families_of_the_published_table_look_the_same(rows: list[dict]):
    frame = pd.DataFrame([{"family": name, "dial": row["method"]["dial"]} for name, row in zip(families(rows), rows, strict=True)])
    looks = [(style["color"], style["marker"]) for style in family_styles(frame).values()]
    assert len(set(looks)) == len(looks) == frame["family"].nunique()


def test_plans_of_before_join_a_methods_rows_in_one_mode(rows: list[dict]):
    old = [{key: value for key, value in row.items() if key not in ("settings", "sweep_id")} for row in rows]
    found = {name for name, row in zip(families(old), old, strict=True) if row["method"]["name"] == "lora"}
    assert found == {
        "LoRA, multi-task",
        "LoRA, single-task",
    }
