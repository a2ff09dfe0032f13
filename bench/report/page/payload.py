"""What the page's script works with: numbers of every axis, trials, configurations, curves and pictures, as plain JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.report.commands import row_command, trial_command
from bench.report.pareto import AXES, front_frame
from bench.report.plots.pareto import COSTS
from bench.report.plots.published import published_points
from bench.report.profiles import row_time_ranges
from bench.report.seeds import scored_seed_frame
from bench.report.stats import metric_column, plan_tasks
from bench.report.style import family_styles
from bench.tasks import TASKS

POINTS_AT_MOST = 40
"""Epochs of a curve that the page holds; longer ones are thinned, the last epoch kept."""

_SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "p": "pentagon", "h": "hexagon",
    "<": "triangle-left", ">": "triangle-right", "*": "star", "P": "cross", "X": "x", "d": "diamond-tall",
}  # fmt: skip
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


def payload(plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, damaged: Mapping[str, str]) -> dict[str, Any]:
    """Return the page's data.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: Records of the plan.
        rows: As `bench.report.stats.row_frame` returns it; the page numbers its rows from one in this order.
        damaged: Why, per file of the suite that could not be used.
    """
    scores, costs = axes_of(plan), {key: {"title": cost.title, "column": cost.column, "scale": cost.scale} for key, cost in COSTS.items()}
    published, chances = published_points(records), front_chances(plan, records)
    by_id, planned = {record["run_id"]: record for record in records}, {row["label"]: row for row in plan["rows"]}
    return {
        "suite": plan["suite"],
        "scores": scores,
        "costs": {key: {"title": cost["title"]} for key, cost in costs.items()},
        "styles": {family: _style(style) for family, style in family_styles(rows).items()},
        "rows": [
            _row(plan, planned[row["label"]], row, by_id, scores, costs)
            | {"front": chances.get(row["label"], {}), "absent": _absent(planned[row["label"]], by_id, damaged)}
            for _, row in rows.iterrows()
        ],
        "published": None if published is None else plain(published.to_dict("records")),
        "tasks": {task: TASKS[task].title for task in plan_tasks(plan)},
    }


def front_chances(plan: Mapping, records: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """Return, per row and cost axis, the probability that the row is on the front of delta_m (`bench.report.pareto.front_probability`)."""
    seeds, chances = scored_seed_frame(plan, records), {}
    for name in AXES:
        for line in front_frame(plan, seeds, name).itertuples():
            chances.setdefault(line.label, {})[name] = _rounded(line.front_probability, digits=3)
    return chances


def axes_of(plan: Mapping) -> dict[str, dict[str, Any]]:
    """Return the score axes: delta_m and every task's headline metric."""
    axes = {"delta_m": {"title": "Δm (%)", "column": "delta_m", "higher": True}}
    for name in plan_tasks(plan):
        task = TASKS[name]
        title = f"{task.title} {task.metric_title} ({task.unit})"
        axes[name] = {"title": title, "column": metric_column(name), "higher": task.higher_is_better}
    return axes


def _style(style: Mapping[str, str]) -> dict[str, str]:
    """Return a family's look in plotly's words, with a colour that is seen on a dark ground."""
    color = style["color"]
    grey = len({color[1:3], color[3:5], color[5:7]}) == 1
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    dark = "#" + "".join(f"{255 - part * 2 // 3 if grey else part + (255 - part) * 3 // 10:02x}" for part in parts)
    return {"color": color, "dark": dark, "symbol": _SYMBOLS[style["marker"]], "dash": _DASHES[style["linestyle"]]}


def _row(plan: Mapping, planned: Mapping, row: pd.Series, by_id: Mapping[str, Mapping], scores: Mapping, costs: Mapping) -> dict[str, Any]:
    """Return one row: setting, value of every axis with its interval, its trials and what they share."""
    trials = [by_id[run_id] for run_id in planned["run_ids"] if run_id in by_id]
    first = next((record for record in trials if record["status"] == "ok"), trials[0] if trials else None)
    value = None if pd.isna(row["dial_value"]) else float(row["dial_value"])
    return {
        "label": row["label"],
        "family": row["family"],
        "kind": planned["kind"],
        "dial": None if pd.isna(row["dial"]) else row["dial"],
        "value": value,
        "n": int(row["seeds_complete"]),
        "planned": int(row["seeds_planned"]),
        "missing": row["missing"],
        "reference": bool(row["is_reference"]),
        "scores": {key: _interval(row, axis["column"], 1.0) for key, axis in scores.items()},
        "costs": {key: _interval(row, axis["column"], axis["scale"]) for key, axis in costs.items()},
        "ranges": {
            key: [_rounded(end, costs[key]["scale"], digits=3) for end in ends]
            for name, ends in row_time_ranges(planned, trials).items()
            for key in costs
            if costs[key]["column"] == name
        },
        "trials": [_trial(record) for record in trials],
        "config": None if first is None else {key: part for key, part in first["config"].items() if key not in ("seed", "tasks")},
        "env": _shared(trials),
        "params": None if first is None or not first["params"] else first["params"]["groups"],
        "command": row_command(plan, row["label"]),
        "reproduce": trial_command(plan, planned["run_ids"][0] if first is None else first["run_id"]),
    }


def _absent(planned: Mapping, by_id: Mapping[str, Mapping], damaged: Mapping[str, str]) -> list[list[str]]:
    """Return run id and reason of the row's trials that have no readable record."""
    reasons = {run_id: damaged.get(f"records/{run_id}.json") for run_id in planned["run_ids"] if run_id not in by_id}
    return [[run_id, "not run" if why is None else f"damaged record: {why}"] for run_id, why in reasons.items()]


def _interval(row: pd.Series, column: str, scale: float) -> list[float | None]:
    """Return mean, low and high of a quantity; a count is its own mean."""
    if column in row:
        return [_rounded(row[column], scale), None, None]
    return [_rounded(row.get(f"{column}_{part}"), scale) for part in ("mean", "low", "high")]


def _rounded(value: Any, scale: float = 1.0, digits: int = 6) -> float | None:
    """Return a number with a few significant digits, None where it is missing."""
    if value is None or pd.isna(value) or not math.isfinite(float(value)):
        return None
    return float(f"{float(value) / scale:.{digits}g}")


def _trial(record: Mapping) -> dict[str, Any]:
    """Return what the page says of one trial."""
    metrics = record["metrics"] or {}
    return {
        "run_id": record["run_id"],
        "seed": record["seed"],
        "status": record["status"],
        "reason": None if record["reason"] is None else record["reason"].strip()[:600],
        "tasks": record["tasks"],
        "metrics": {task: _rounded(metrics.get(task, {}).get(TASKS[task].metric)) for task in record["tasks"]},
        "minutes": _rounded(record["timing"].get("total_seconds"), 60, 3),
        "ended": record["timing"].get("end"),
        "history": _curve(record["history"]),
    }


def _curve(history: Sequence[Mapping]) -> dict[str, Any] | None:
    """Return a trial's losses over its epochs, thinned."""
    if not history:
        return None
    count = len(history)
    chosen = range(count) if count <= POINTS_AT_MOST else np.unique(np.linspace(0, count - 1, POINTS_AT_MOST).round().astype(int))
    lines = [history[place] for place in chosen]
    tasks = lines[0]["losses"]
    return {
        "epoch": [line["epoch"] for line in lines],
        "losses": {task: [_rounded(line["losses"].get(task), digits=4) for line in lines] for task in tasks},
    }


def _shared(trials: Sequence[Mapping]) -> dict[str, list[str]]:
    """Return where the trials were run, every value that occurs; what all rows must agree on is seen at a glance."""
    found: dict[str, list[str]] = {}
    for record in trials:
        parts = record["env"] | {"code_id": record["code_id"], "commit": record["git"].get("commit"), "dirty": record["git"].get("dirty")}
        parts |= record.get("launch") or {}
        parts["data fingerprint"] = (record["data"] or {}).get("fingerprint")
        for key, value in parts.items():
            if value is not None and str(value) not in found.setdefault(key, []):
                found[key].append(str(value))
    return {key: values for key, values in found.items() if values}


def plain(value: Any) -> Any:
    """Turn numpy numbers into Python's and NaN into None, recursively."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
