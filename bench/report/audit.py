"""What published tables say about themselves: delta_m that a row's own metrics do not give, counts of several kinds in one table, margins
smaller than what a rerun moved. From `results/published.csv` and `results/published_counts.csv` alone."""

import re

import pandas as pd

from bench.report.published import COLUMNS, PUBLISHED, published_reference, published_sets
from bench.report.seeds import delta_m
from bench.report.tables import DAGGER

COUNTS = PUBLISHED.with_name("published_counts.csv")
HALF_DIGIT = 0.005
"""Printed numbers have two decimals."""


def audit(*, primary_only: bool = False) -> pd.DataFrame:
    """Return the findings: columns finding, where, detail, evidence (of the numbers that it rests on).

    Args:
        primary_only: Leave out numbers that were only recalled; else a dagger marks their rows where several stand together.
    """
    sets, counts = published_sets(), pd.read_csv(COUNTS, keep_default_na=False)
    if primary_only:
        sets, counts = sets[~sets["recalled"]], counts[counts["evidence"] != "recalled"]
    lines = [*_inconsistent(sets), *_mixed_conventions(sets), *_mixed_decoders(counts), *_thin_margins(sets)]
    return pd.DataFrame(lines, columns=["finding", "where", "detail", "evidence"])


def recomputed(entry: pd.Series) -> tuple[float, float] | None:
    """Return delta_m from a row's printed metrics, and how far rounding of all printed numbers can move it; None where one is missing."""
    values = {task: pd.to_numeric(entry[column], errors="coerce") for task, column in COLUMNS.items()}
    if any(pd.isna(value) for value in values.values()):
        return None
    reference = published_reference()
    slack = sum(HALF_DIGIT / reference[task] * (1 + values[task] / reference[task]) for task in COLUMNS) * 100 / len(COLUMNS)
    return delta_m(values, reference), slack + HALF_DIGIT


def _name(entry: pd.Series) -> str:
    return f"{entry['source_paper'].split(' (')[0]}, {entry['table']}: {entry['method']} {entry['variant/rank']}".strip()


def _inconsistent(sets: pd.DataFrame) -> list[tuple]:
    found = []
    for _, entry in sets.iterrows():
        ours, printed = recomputed(entry), pd.to_numeric(entry["delta_m_pct"], errors="coerce")
        if ours is not None and pd.notna(printed) and abs(ours[0] - printed) > ours[1]:
            detail = f"the four metrics give {ours[0]:+.2f}, printed is {printed:+.2f}; rounding explains at most {ours[1]:.2f}"
            found.append(("delta_m that the row's own metrics do not give", _name(entry), detail, entry["evidence"]))
    return found


def _mixed_conventions(sets: pd.DataFrame) -> list[tuple]:
    found = []
    for (paper, table), own in sets[sets["params_convention"] != ""].groupby(["source_paper", "table"], sort=False):
        kinds = own.groupby("params_convention", sort=False)["method"].agg(lambda names: ", ".join(dict.fromkeys(names)))
        if len(kinds) > 1:
            detail = "; ".join(f"{kind.strip()}: {names}" for kind, names in kinds.items())
            evidence = "; ".join(dict.fromkeys(text.split(" (")[0] for text in own["evidence"]))
            found.append(("counts that mix conventions", f"{paper.split(' (')[0]}, {table}", detail, evidence))
    return found


def _mixed_decoders(counts: pd.DataFrame) -> list[tuple]:
    marked = counts.assign(row=counts["row"] + counts["evidence"].map(lambda evidence: DAGGER if evidence == "recalled" else ""))
    kinds = marked.groupby("decoders", sort=False)["row"].agg(", ".join)
    detail = "; ".join(f"{decoders / 1e6:.3f} M in {rows}" for decoders, rows in kinds.items())
    evidence = "; ".join(dict.fromkeys(counts["evidence"]))
    return [("decoders counted differently from row to row", COUNTS.name, detail, evidence)] if len(kinds) > 1 else []


def _thin_margins(sets: pd.DataFrame) -> list[tuple]:
    """Find headline margins over multi-task full fine-tuning that are smaller than what an independent rerun of the row moved."""
    found = []
    for _, rerun in sets[sets["table"].str.contains("rerun")].iterrows():
        rank = re.search(r"r=\d+", rerun["variant/rank"])
        peers = sets[(sets["source_paper"] == rerun["source_paper"]) & (sets["table"] == "Table 1")]
        row = peers[(peers["method"] == rerun["method"]) & peers["variant/rank"].str.startswith(rank[0] if rank else "?")]
        full = peers[peers["method"] == "MTL full fine-tuning"]
        both = [recomputed(part.iloc[0]) for part in (row, full) if len(part)] + [recomputed(rerun)]
        if len(both) < 3 or None in both:
            continue
        margin, gap = both[0][0] - both[1][0], abs(both[0][0] - both[2][0])
        if abs(margin) < gap:
            detail = f"{margin:+.2f} over multi-task full fine-tuning, where a rerun of the released code moved it by {gap:.2f}"
            evidence = f"{row.iloc[0]['evidence'].split(' (')[0]}; rerun: {rerun['evidence'].split(' (')[0]}"
            found.append(("margin smaller than the reproduction gap", _name(row.iloc[0]), detail, evidence))
    return found
