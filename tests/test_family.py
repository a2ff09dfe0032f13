"""Families: which rows a line may join, by hand, on the published table's plan."""

import pandas as pd
import pytest
from made_records import demo_like_suite
from matplotlib.colors import to_hex

from bench.plan import plan_row
from bench.report.family import families
from bench.report.plots.tasks import change_numbers, draw_task_bars
from bench.report.stats import row_frame
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
    styles = family_styles(frame)
    for second in ("marker", "hatch", "linestyle"):  # points, bars and lines
        looks = [(style["color"], style[second]) for style in styles.values()]
        assert len(set(looks)) == len(looks) == frame["family"].nunique()


def test_a_family_looks_the_same_whatever_else_a_suite_holds(rows: list[dict]):
    frame = pd.DataFrame([{"family": name, "dial": row["method"]["dial"]} for name, row in zip(families(rows), rows, strict=True)])
    alone = [name for name in ("MTLoRA", "MTLoRA+", "Decoders only", "BitFit") if name in set(frame["family"])]
    assert len(alone) > 2
    everywhere = family_styles(frame)
    assert all(family_styles(frame[frame["family"] == name])[name] == everywhere[name] for name in alone)


def test_bars_and_their_legend_show_colour_and_hatch_of_the_family():
    suite = demo_like_suite()
    table = row_frame(suite.plan(), suite.records)
    styles = family_styles(table)
    figure = draw_task_bars(change_numbers(table, tasks=suite.tasks), table, styles, title="t")
    legend = {text.get_text(): patch for text, patch in zip(figure.legends[0].get_texts(), figure.legends[0].get_patches(), strict=True)}
    shown = table[~table["is_reference"]]
    assert set(legend) == set(shown["family"])
    for family, patch in legend.items():
        assert (to_hex(patch.get_facecolor()), patch.get_hatch() or "") == (styles[family]["color"], styles[family]["hatch"])
    bars = [(to_hex(bar.get_facecolor()), bar.get_hatch() or "") for bar in figure.axes[0].patches]
    assert sorted(bars) == sorted((styles[family]["color"], styles[family]["hatch"]) for family in shown["family"])
    greys = {style["hatch"] for family, style in styles.items() if table.set_index("family").loc[[family], "dial"].notna().all()}
    assert len(greys) == shown.loc[shown["dial"].notna(), "family"].nunique()  # told apart without colour


def test_plans_of_before_join_a_methods_rows_in_one_mode(rows: list[dict]):
    old = [{key: value for key, value in row.items() if key not in ("settings", "sweep_id")} for row in rows]
    found = {name for name, row in zip(families(old), old, strict=True) if row["method"]["name"] == "lora"}
    assert found == {
        "LoRA, multi-task",
        "LoRA, single-task",
    }
