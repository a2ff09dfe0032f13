"""The evidence beside the main table as Markdown, for page and summary: what each table says, how to read it, and its lines."""

from collections.abc import Sequence

import pandas as pd

from bench.report.footnotes import MINUS
from bench.report.pareto import AXES
from bench.report.seeds import metric_column
from bench.report.tables import DAGGER, with_sign
from bench.tasks import TASKS

LINES_AT_MOST = 60
"""Lines of a table that page and summary show; the CSV holds all."""

NOT_THE_PAPERS = (
    "These records are not of PASCAL-Context with Swin-T at 448 px: the answers hold for these records and say nothing about the "
    "papers' own results.\n\n"
)
WIDE = (
    " That of the means stands first; where many rows are close it flatters: the best of several noisy means is too good. The interval, "
    "over seeds, for these validation images, holds the true one with 95 % or more: it joins intervals of all rows at once and is wide."
)
QUANTITIES = {"delta_m": "Δm"} | {metric_column(name): f"{task.title} {task.metric_title}" for name, task in TASKS.items()}


def claims_markdown(claims: pd.DataFrame, *, comparable: bool) -> str:
    """Return the answers as a Markdown table, and a warning where the records are not of what the papers trained."""
    warning = "" if comparable else NOT_THE_PAPERS
    shown = pd.DataFrame(
        {
            "Claim": claims["claim"],
            "Source": claims["source"],
            "Answer": "**" + claims["answer"] + "**",
            "Effect": [_effect(line) for line in claims.itertuples()],
            "Note": claims["note"].fillna(""),
        }
    )
    return "# Claims of papers, asked of these records\n\n" + warning + _table(shown)


def fronts_markdown(fronts: pd.DataFrame, summary: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the fronts over all axes, how probably each row is on them, and the robust companions of delta_m.

    Args:
        fronts: As `bench.report.pareto.front_frame` returns it, of all axes, with a column axis.
        summary: As `bench.report.pareto.front_summary` returns it.
        rows: As `bench.report.stats.row_frame` returns it.
    """
    volumes = [
        _short(v) + ("" if pd.isna(a) else f" [{_short(a)}, {_short(b)}]") for v, a, b in summary[["hypervolume", "low", "high"]].to_numpy()
    ]
    several = summary["low"].notna().any()
    by_axis = pd.DataFrame(
        {
            "Cost": summary["title"],
            "Rows on the front, by means": summary["on_front"],
            "Knee": summary["knee"].fillna("none"),
            "Hypervolume [95 % at least]" if several else "Hypervolume": volumes,
        }
    )
    robust = pd.DataFrame(
        {
            "Row": rows["label"],
            "Mean rank (tasks and shared seeds)": rows["mean_rank"].map(lambda rank: "" if pd.isna(rank) else f"{rank:.2f}"),
            "Interquartile mean change (%)": rows["iqm_change"].map(lambda change: "" if pd.isna(change) else _signed(change)),
        }
    )
    return (
        "# Pareto fronts, and robust companions of Δm\n\n"
        "How to read: a row is on a front where no other is cheaper and better at once; the knee is where more cost begins to pay less; "
        "the hypervolume, percent of Δm times decades of cost, is what the front covers against the worst and dearest row."
        + (WIDE if several else " One seed: how sure that is, nothing tells.")
        + "\n\n"
        + _table(by_axis)
        + "\nHow to read: the probability that a row is on the front once what the seeds leave open is drawn again and again; **bold**: on "
        "it by the means; near 0.5 means that these seeds cannot tell. What a seed "
        "does to several rows alike is drawn for them together. Times are drawn again too, as far as their measurement leaves them open; "
        "counted costs are exact.\n\n"
        + _probabilities(fronts, rows)
        + "\nHow to read: companions of Δm that no single task or seed can carry; a low rank and a high change are good. Ranks are over "
        "the seeds that all rows with a result share, empty where they share none.\n\n" + _table(robust)
    )


def _probabilities(fronts: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the front probabilities, a line a row, a column a cost axis; rows on some front by their means first where there are many."""
    said = fronts["front_probability"].map(lambda share: "one seed" if pd.isna(share) else f"{share:.2f}")
    cells = fronts.assign(text=said.where(~fronts["on_front"], "**" + said + "**")).pivot(index="label", columns="axis", values="text")
    order = [label for label in rows["label"] if label in cells.index]
    if len(order) > LINES_AT_MOST:
        best = fronts.groupby("label")["on_front"].any()
        order = sorted(order, key=lambda label: not best[label])
    shown = cells.loc[order, [axis for axis in AXES if axis in cells]].fillna("").rename(columns={name: AXES[name].title for name in AXES})
    return _table(shown.reset_index().rename(columns={"label": "Row"}), "fronts.csv")


def pairs_markdown(pairs: pd.DataFrame) -> str:
    """Return the tests of every row against the best and the reference, a table a quantity.

    Args:
        pairs: As `bench.report.evidence.pairs_frame` returns it, one line or more.
    """
    parts = [
        "# Tests between rows: every row against the best and the reference\n\n"
        "How to read: the difference of the means over the same seeds with its 95 % interval, and p after Holm's correction over all pairs "
        "of the column; **bold**: told apart at 5 %; the interval is of one pair alone and may leave 0 out where p is 0.05 or more.\n"
    ]
    for quantity, own in sorted(pairs.groupby("quantity", sort=False), key=lambda group: group[0] != "delta_m"):
        columns = {"Row": list(dict.fromkeys(own["label"]))}
        for than, lines in own.groupby("minus", sort=False):
            said = dict(zip(lines["label"], map(_tested, lines.itertuples()), strict=True))
            columns[f"{MINUS} {than}"] = [said.get(label, "") for label in columns["Row"]]
        parts.append(f"**{QUANTITIES[quantity]}**, resampled: {own['resampled'].iloc[0]}\n\n" + _table(pd.DataFrame(columns), "pairs.csv"))
    return "\n".join(parts)


def _tested(line: tuple) -> str:
    if pd.isna(line.adjusted):
        return f"{_signed(line.difference)}, no test"
    chance = "p < 0.001" if line.adjusted < 0.001 else f"p = {line.adjusted:.3f}"
    said = f"{_signed(line.difference)} [{_signed(line.low)}, {_signed(line.high)}], {chance}"
    return f"**{said}**" if line.adjusted < 0.05 else said


def iso_markdown(frames: dict[str, pd.DataFrame]) -> str:
    """Return the comparisons at equal cost.

    Args:
        frames: By key of `bench.report.pareto.AXES`, as `bench.report.iso.iso_frame` returns it; empty where no sweep spans a row's cost.
    """
    parts = [
        "# Methods at equal cost\n\nHow to read: Δm of a row minus what another method's sweep gives at the row's own cost, interpolated "
        "between the two settings named, never beyond the swept range; above 0 the row is the better one at that cost. The "
        "95 % interval is over seeds, for these validation images, of this line alone, not corrected for their number: it is no test; "
        "nothing is bold.\n"
    ]
    for axis, frame in frames.items():
        parts.append(f"**{AXES[axis].title}**\n")
        if frame.empty:
            parts.append("No row's cost lies inside the range of another method's sweep.\n")
            continue
        shown = frame.sort_values("difference", key=abs, ascending=False, kind="stable") if len(frame) > LINES_AT_MOST else frame
        cells = pd.DataFrame(
            {
                "Row": shown["label"],
                "Cost": shown["cost"].map(lambda cost: f"{cost:.4g}"),
                "Against": shown["family"],
                "Between": shown["between"].str.replace("; ", " and "),
                "Difference [95 %], points of Δm": [_at_equal_cost(line) for line in shown.itertuples()],
            }
        )
        parts.append(_table(cells, f"iso_{axis}.csv"))
    return "\n".join(parts)


def _at_equal_cost(line: tuple) -> str:
    if pd.isna(line.low):
        return f"{_signed(line.difference)} (one seed)"
    return f"{_signed(line.difference)} [{_signed(line.low)}, {_signed(line.high)}]"


def audit_markdown(findings: pd.DataFrame) -> str:
    """Return the findings as a Markdown table."""
    marked = findings["detail"].str.contains(DAGGER).any()
    note = f"\n{DAGGER} recalled, not checked against the paper; `report --primary-only` leaves these numbers out.\n" if marked else ""
    return "# Audit of the published tables\n\n" + _table(findings.rename(columns=str.capitalize)) + note


def _table(frame: pd.DataFrame, file: str | None = None) -> str:
    """Return a Markdown table, of a long one that a file holds the first lines."""
    cut = file is not None and len(frame) > LINES_AT_MOST
    shown = (frame.head(LINES_AT_MOST) if cut else frame).map(lambda text: str(text).replace("|", r"\|"))
    more = f"\n{len(frame) - LINES_AT_MOST} further lines are in `{file}`.\n" if cut else ""
    return _aligned(shown, list(frame.columns)) + "\n" + more


def _aligned(frame: pd.DataFrame, heads: Sequence[str]) -> str:
    named = frame.set_axis([head.replace("|", r"\|") for head in heads], axis="columns")
    return named.to_markdown(index=False, disable_numparse=True)


def _signed(value: float) -> str:
    return with_sign(value, 2, plus=True)


def _short(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3g}"


def _effect(line: tuple) -> str:
    if pd.isna(line.effect):
        return ""
    interval = "" if pd.isna(line.low) or line.low == line.high else f" [{_signed(line.low)}, {_signed(line.high)}]"
    return f"{_signed(line.effect)}{interval} {line.unit}" if interval or "Δm" in line.unit else f"{line.effect:.2f} {line.unit}"
