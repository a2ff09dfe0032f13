"""What is on disk of a suite, row by row. No torch."""

from pathlib import Path
from typing import Any

from bench.record import read_plan, read_record


def suite_status(suite_dir: Path) -> list[dict[str, Any]]:
    """Count, for each row of the last plan, the trials with a record, those that failed, have begun, and are missing.

    Raises:
        FileNotFoundError: The suite has not been launched here.
        bench.record.RecordError: A record is damaged.
    """
    plan_file = suite_dir / "plan.json"
    if not plan_file.exists():
        raise FileNotFoundError(f"no {plan_file}: this suite has not been run here; start it with `run_suite.py run {suite_dir.name}`")
    rows = []
    for row in read_plan(plan_file)["rows"]:
        records = {run_id: suite_dir / "records" / f"{run_id}.json" for run_id in row["run_ids"]}
        statuses = [read_record(path)["status"] for path in records.values() if path.exists()]
        begun = [run_id for run_id in records if (suite_dir / "checkpoints" / f"{run_id}.attempts").exists()]
        failures = sorted({status for status in statuses if status != "ok"})
        rows.append(
            {
                "row": row["label"],
                "trials": len(records),
                "ok": statuses.count("ok"),
                "not_ok": ", ".join(f"{statuses.count(status)} {status}" for status in failures),
                "begun": len(begun),
                "missing": len(records) - len(statuses),
            }
        )
    return rows
