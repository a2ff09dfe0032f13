"""What a report holds beside its main table: fronts, comparisons at equal cost, pairs, ours beside published, claims, audit."""

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.report.audit import audit
from bench.report.claims import answer_claims
from bench.report.evidence_text import audit_markdown, claims_markdown, fronts_markdown, iso_markdown, pairs_markdown
from bench.report.iso import iso_frame
from bench.report.latex import to_latex
from bench.report.paired import Pairs
from bench.report.pareto import AXES, front_frame, front_summary
from bench.report.published import comparison, is_comparable, published_table
from bench.report.seeds import scored_seed_frame
from bench.report.table_html import to_html
from bench.report.tables import MainTable, to_csv, to_markdown

FILES = (
    "fronts.csv", "hypervolume.csv", "iso_params.csv", "iso_memory.csv", "pairs.csv", "claims.csv", "claims.md", "fronts.md",
    "iso.md", "pairs.md",
    "audit.csv", "audit.md",
    "published.csv", "published.md", "published.tex", "published.html", "table.html",
)  # fmt: skip
"""Every file that `evidence_files` may make."""


def evidence_files(
    plan: Mapping,
    records: Sequence[Mapping],
    rows: pd.DataFrame,
    table: MainTable,
    pairs: Mapping[str, Pairs],
    *,
    primary_only: bool = False,
) -> dict[str, str]:
    """Return the files by name; what has no lines is left out. `pairs`: what `bench.report.stats.column_pairs` returned."""
    seeds = scored_seed_frame(plan, records)
    frames = {
        "fronts.csv": pd.concat([front_frame(plan, seeds, axis).assign(axis=axis) for axis in AXES], ignore_index=True),
        "hypervolume.csv": front_summary(plan, seeds),
        "iso_params.csv": iso_frame(rows, "params"),
        "iso_memory.csv": iso_frame(rows, "memory"),
        "pairs.csv": pairs_frame(plan, rows, pairs),
    }
    files = {name: to_csv(frame) for name, frame in frames.items() if len(frame)}
    if len(frames["hypervolume.csv"]):
        files["fronts.md"] = fronts_markdown(frames["fronts.csv"], frames["hypervolume.csv"], rows)
    at_equal_cost = {axis: frames[f"iso_{axis}.csv"] for axis in ("params", "memory")}
    if any(map(len, at_equal_cost.values())):
        files["iso.md"] = iso_markdown(at_equal_cost)
    if len(frames["pairs.csv"]):
        files["pairs.md"] = pairs_markdown(frames["pairs.csv"])
    claims, comparable = answer_claims(plan, records, pairs=pairs), is_comparable(plan, records)
    files |= {"claims.csv": to_csv(claims), "claims.md": claims_markdown(claims, comparable=comparable), "table.html": to_html(table)}
    if "delta_m_published_reference_mean" in rows:
        found = audit(primary_only=primary_only)
        files |= {"audit.csv": to_csv(found), "audit.md": audit_markdown(found)}
        lines = comparison(rows, primary_only=primary_only)
        if len(lines):
            beside = published_table(lines, title=f"{table.title}: ours beside published")
            files |= {"published.csv": to_csv(lines), "published.md": to_markdown(beside), "published.html": to_html(beside)}
            files["published.tex"] = to_latex(beside, label=f"tab:{plan['suite']}-published")
    return files


def pairs_frame(plan: Mapping, rows: pd.DataFrame, compared: Mapping[str, Pairs]) -> pd.DataFrame:
    """Return every row against the best one and the reference, in every metric and delta_m: difference, interval, p-values."""
    labels = [row["label"] for row in plan["rows"]]
    ranked = rows.dropna(subset=["delta_m_mean"]).sort_values("delta_m_mean", ascending=False, kind="stable")["label"]
    others = dict.fromkeys([*ranked.head(1), *rows.loc[rows["is_reference"], "label"]])
    lines = []
    for quantity, pairs in compared.items():
        for than in map(labels.index, others):
            for row in range(len(labels)):
                if row != than and pairs.difference[row, than] == pairs.difference[row, than]:
                    found = {name: getattr(pairs, name)[row, than] for name in ("difference", "low", "high", "p", "adjusted", "detectable")}
                    lines.append(
                        {"quantity": quantity, "label": labels[row], "minus": labels[than]} | found | {"resampled": pairs.resampled}
                    )
    return pd.DataFrame(lines)
