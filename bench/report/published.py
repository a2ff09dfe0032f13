"""Ours beside published: only where the suite trained what the papers trained, PASCAL-Context with Swin-T at 448 px.

`results/published.csv` names in its column `row` the row of a suite that a published number set is about, and in `evidence` how we know the
number. What was only recalled carries a dagger. On rendered data, or with another backbone, a published number beside ours would say
nothing, and none is shown.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.report.footnotes import planned_records
from bench.report.seeds import delta_m_column, metric_column, plan_tasks
from bench.report.tables import DAGGER, DASH, MainTable, with_sign
from bench.tasks import TASKS

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
COMPARABLE = {"source": "pascal_context", "backbone": "swin_tiny_patch4_window7_224", "image_size": 448}
COLUMNS = {
    "semseg": "semseg_miou",
    "human_parts": "human_parts_miou",
    "saliency": "saliency_miou",
    "normals": "normals_rmse",  # the release's "rmse" is the mean angular error
}
"""Columns of `published.csv` by task."""


def published_sets(path: Path = PUBLISHED) -> pd.DataFrame:
    """Return the published number sets; text as printed, `recalled` where a number was not seen by us."""
    frame = pd.read_csv(path, keep_default_na=False)
    return frame.assign(recalled=frame["evidence"].str.startswith("recalled"))


def is_comparable(plan: Mapping, records: Sequence[Mapping]) -> bool:
    """Whether every result of the plan is of the data, backbone and image size that the published table is about."""
    usable = [record["config"] for record in planned_records(plan, records) if record["status"] == "ok"]
    found = [
        {
            "source": config.get("data", {}).get("source"),
            "backbone": config.get("backbone", {}).get("name"),
            "image_size": config.get("recipe", {}).get("image_size"),
        }
        for config in usable
    ]
    return bool(found) and set(plan_tasks(plan)) == set(COLUMNS) and all(one == COMPARABLE for one in found)


def published_reference() -> dict[str, float]:
    """Return the single-task metrics that published delta_m values divide by."""
    return {task: TASKS[task].published_reference for task in COLUMNS}


def against_published_reference(seeds: pd.DataFrame) -> pd.Series:
    """Return delta_m of every line of the seed frame against the published references, which carry no spread."""
    return delta_m_column(seeds, published_reference())


def comparison(rows: pd.DataFrame, *, primary_only: bool = False) -> pd.DataFrame:
    """Return ours beside published, one line a row and quantity.

    Args:
        rows: As `bench.report.stats.row_frame` returns it, with delta_m against the published references.
        primary_only: Leave out numbers that were only recalled.

    Returns:
        Columns label, quantity (a metric's column or "delta_m"), title, ours, low, high, n, published, difference, inside (whether the
        published number lies in our interval; missing with one seed), evidence, recalled, source.
    """
    sets = published_sets()
    sets = sets[(sets["row"] != "") & ~(sets["recalled"] & primary_only)].set_index("row")
    titles = {task: f"{TASKS[task].title} {TASKS[task].metric_title}" for task in COLUMNS}
    quantities = [(metric_column(task), metric_column(task), COLUMNS[task], titles[task]) for task in COLUMNS]
    quantities.append(("delta_m", "delta_m_published_reference", "delta_m_pct", "Δm"))
    lines = []
    for row in rows[rows["label"].isin(sets.index)].to_dict("records"):
        entry = sets.loc[row["label"]]
        for name, ours, column, title in quantities:
            published = pd.to_numeric(entry[column], errors="coerce")
            mean, low, high = (row[f"{ours}_{part}"] for part in ("mean", "low", "high"))
            unknown = np.isnan([mean, low, high, published]).any()
            lines.append(
                {"label": row["label"], "quantity": name, "title": title, "ours": mean, "low": low, "high": high, "n": row[f"{ours}_n"]}
                | {"published": published, "difference": mean - published, "inside": None if unknown else bool(low <= published <= high)}
                | {"evidence": entry["evidence"], "recalled": entry["recalled"], "source": entry["source_paper"]}
            )
    return pd.DataFrame(lines)


def published_table(lines: pd.DataFrame, *, title: str) -> MainTable:
    """Print the comparison, a line a row and quantity; the difference is bold where the published number lies outside of our interval.

    Args:
        lines: As `comparison` returns it, one line or more.
        title: Title of the table.
    """
    cells = pd.DataFrame([_printed(line) for line in lines.itertuples()])
    bold = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    bold["Ours − published"] = [line.inside is False for line in lines.itertuples()]
    notes = [
        "Ours: mean over seeds and its 95 % interval over seeds, for these validation images. "
        "Inside: whether the published number lies in it; bold: it does not.",
        "Δm here: against the published single-task references (67.21, 61.93, 62.35 % and 17.97°), ours too; they carry no spread.",
        "Published numbers are of one run, as far as the papers say. Their “rmse” of normals is the mean angular error.",
        "Evidence: how the published number is known to us; the files `published.csv` hold sources and the numbers with all digits.",
    ]
    if lines["recalled"].any():
        notes.append(f"{DAGGER} recalled, not checked against the paper; `report --primary-only` leaves these numbers out.")
    return MainTable(title=title, cells=cells, bold=bold, groups=list(lines["label"]), footnotes=notes)


def _printed(line: tuple) -> dict[str, str]:
    """Return the cells of one row and quantity."""
    signed, known = line.quantity == "delta_m", not np.isnan(line.published)
    shown = [DASH if np.isnan(value) else with_sign(value, 2, plus=signed) for value in (line.ours, line.low, line.high)]
    inside = {True: "yes", False: "no", None: DASH if np.isnan(line.ours) or not known else "one seed"}
    return {
        "Method": line.label,
        "Quantity": line.title,
        "Ours [95 %]": shown[0] if np.isnan(line.low) else f"{shown[0]} [{shown[1]}, {shown[2]}]",
        "Seeds": str(int(line.n)),
        "Published": f"{with_sign(line.published, 2, plus=signed)}{DAGGER if line.recalled else ''}" if known else DASH,
        "Ours − published": DASH if np.isnan(line.difference) else with_sign(line.difference, 2, plus=True),
        "Inside": inside[line.inside],
        "Evidence": line.evidence.split(" (")[0],
    }
