"""Sensitivity curves: the numbers behind them, and that the figure is drawn, also with settings that were stopped or diverged."""

import json
from pathlib import Path

import numpy as np
from made_records import demo_like_suite

from bench.report import make_report
from bench.report.plots.sensitivity import draw_sensitivity, sensitivity_numbers
from bench.report.stats import row_frame


def setting(index: int, lr: float, score: float | None, status: str = "ok", **dials: float) -> dict:
    return {"index": index, "values": {"peak_lr": lr} | dials, "score": score, "status": status, "scored_at_epoch": 3, "epochs": 3}


def made_tuning(plan: dict) -> dict:
    lr, scale = {"low": 1e-4, "high": 1e-2, "log": True}, {"low": 0.5, "high": 16, "log": True}
    rows = []
    for row in plan["rows"]:
        settings = [
            setting(0, 1e-3, 300.0),
            setting(1, 1e-4, 290.0),
            setting(2, 3e-3, 250.0, "stopped"),
            setting(3, 1e-2, None, "diverged"),
        ]
        space = {"peak_lr": lr}
        if row["method"]["name"] == "lora":
            space["scale"] = scale
            settings = [one | {"values": one["values"] | {"scale": 2.0**i}} for i, one in enumerate(settings)]
        chosen = {"index": 0, "values": settings[0]["values"], "score": 300.0}
        entry = {key: row[key] for key in ("label", "cell_id", "kind", "method")} | {"space": space, "settings": settings, "chosen": chosen}
        rows.append(entry | {"edge": [], "epochs": 12, "complete": True})
    return {"budget": 4, "complete": True, "rows": rows}


def test_the_curves_show_every_setting_against_the_choice(tmp_path: Path):
    suite = demo_like_suite()
    plan = suite.plan()
    rows = row_frame(plan, suite.records)
    tuning = made_tuning(plan)
    tuning["rows"].append(tuning["rows"][0] | {"label": "not in the plan"})
    (tmp_path / "tuning.json").write_text(json.dumps(tuning))
    numbers = sensitivity_numbers(tmp_path / "tuning.json", dict(zip(rows["label"], rows["family"], strict=True)))
    assert set(numbers["dial"]) == {"peak_lr", "scale"}
    assert len(numbers) == 4 * (len(plan["rows"]) + 3)  # three rows of LoRA have a second dial
    one = numbers[(numbers["row"] == "LoRA (r=4)") & (numbers["dial"] == "peak_lr")].set_index("value")
    assert one["below_best"][[1e-3, 1e-4, 3e-3]].tolist() == [0.0, -10.0, -50.0]
    assert one["below_best"].isna().tolist() == [False, False, False, True]
    assert one["chosen"].tolist() == [True, False, False, False]
    assert sensitivity_numbers(tmp_path / "none.json", {}).empty
    figure = draw_sensitivity(numbers, {}, title="Made")
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {"chosen", "diverged or failed"}


def test_each_setting_has_one_mark_also_where_it_was_stopped_far_below_the_best(tmp_path: Path):
    plan = demo_like_suite().plan()
    tuning = made_tuning(plan)
    row = next(row for row in tuning["rows"] if row["label"] == "LoRA (r=4)")
    row["settings"] += [setting(4, 2e-3, 100.0, "stopped", scale=32.0), setting(5, 5e-3, 90.0, scale=64.0)]
    (tmp_path / "tuning.json").write_text(json.dumps({"rows": [row]}))
    figure = draw_sensitivity(sensitivity_numbers(tmp_path / "tuning.json", {row["label"]: "LoRA"}), {}, title="Made")
    axes, marks = figure.axes[0], {}
    for line in axes.lines:
        for x in np.asarray(line.get_xdata())[line.get_markevery() if line.get_markevery() is not None else slice(None)]:
            if line.get_marker() not in ("*", "None"):
                marks.setdefault(float(x), []).append((line.get_marker(), line.get_markerfacecolor() == "white"))
    ok, stopped = ("o", False), ("o", True)
    below, stopped_below, lost = ("v", False), ("v", True), ("x", False)
    assert marks == {1e-3: [ok], 1e-4: [ok], 3e-3: [stopped], 1e-2: [lost], 2e-3: [stopped_below], 5e-3: [below]}


def test_a_report_draws_the_curves_and_claims_no_tuning_for_a_plan_that_is_not_tuned(tmp_path: Path):
    suite = demo_like_suite()
    directory = suite.write(tmp_path / "made")
    (directory / "tuning.json").write_text(json.dumps(made_tuning(suite.plan())))
    report = make_report(directory)
    assert {"sensitivity.png", "sensitivity.pdf", "sensitivity.csv"} <= set(report.files)
    assert "settings a row" not in (directory / "table.md").read_text()
