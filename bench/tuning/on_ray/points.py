"""A setting as Ray Tune holds it: one Tune trial is one setting."""

from typing import Any

from bench.tuning.plan import Point


def describe_point(point: Point) -> dict[str, Any]:
    """Return a setting as a Tune trial holds it."""
    return {"row": point.row, "index": point.index, "values": point.values, "run_ids": [trial.run_id for trial in point.trials]}


def point_name(trial: Any) -> str:
    """Return the name of a setting, by which the board knows it."""
    return f"{trial.config['row']} #{trial.config['index']}"


def point_folder(trial: Any) -> str:
    """Return the name of a setting's folder at Tune."""
    return f"{trial.config['run_ids'][0]}-{trial.trial_id}"
