"""Statements of papers as checks over the records: holds, does not hold, cannot be separated, not run.

The statements are data, `results/claims.toml`, which also says what each test means. A statement about two rows is judged by the interval
of their difference (`bench.report.paired`); it was chosen before the numbers, so it is not corrected for the other statements. One about
the Pareto front looks at many pairs that the numbers choose, and is judged by the tests of the table, corrected for all pairs.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.record import RecordError
from bench.report.paired import Pairs
from bench.report.pareto import AXES, pareto_front
from bench.report.seeds import EXACT_COSTS, reference_means, reference_position, scored_seed_frame, zero_references
from bench.report.stats import column_pairs
from bench.report.uncertainty import seed_costs, seed_values, separable_ends

CLAIMS = Path(__file__).parents[2] / "results" / "claims.toml"
HOLDS, FAILS, OPEN, NOT_RUN = "holds", "does not hold", "cannot be separated", "not run"


def read_claims(path: Path = CLAIMS) -> list[dict]:
    """Return the declared claims.

    Raises:
        RecordError: Naming the claim that lacks a field or asks for an unknown test.
    """
    claims = tomllib.loads(Path(path).read_text(encoding="utf-8"))["claim"]
    needs = {"better": {"quantity", "than"}, "fewer": {"factor", "than"}, "on_front": {"axis"}}
    for claim in claims:
        absent = {"text", "source", "test", "row"} - set(claim) | needs.get(claim.get("test"), {"a known test"}) - set(claim)
        if absent:
            raise RecordError(f"{path}: the claim {claim.get('text')!r} lacks {', '.join(sorted(absent))}; tests: {', '.join(needs)}.")
    return claims


def answer_claims(
    plan: Mapping,
    records: Sequence[Mapping],
    records_dir: Path | None = None,
    *,
    claims: Sequence[Mapping] | None = None,
    pairs: Mapping[str, Pairs] | None = None,
) -> pd.DataFrame:
    """Answer every claim from the records; arguments as of `bench.report.stats.row_frame`.

    Returns:
        One line a claim: claim, source, answer, rows (labels compared), effect, low, high (95 % interval of the effect where there is one),
        unit, note.
    """
    seeds = scored_seed_frame(plan, records)
    pairs = column_pairs(plan, records, seeds, records_dir) if pairs is None else pairs
    lines = []
    for claim in read_claims() if claims is None else claims:
        row, than = _find(plan, claim["row"]), _find(plan, claim.get("than", {}))
        known = {"claim": claim["text"], "source": claim["source"]}
        if not row or (claim["test"] != "on_front" and not than):
            absent = claim["row"] if not row else claim["than"]
            lines.append(known | {"answer": NOT_RUN, "note": f"no row of the plan is {_said(absent)}"})
        elif claim["test"] == "on_front":
            lines.append(known | _on_front(plan, seeds, pairs["delta_m"], row, claim["axis"]))
        elif claim["test"] == "fewer":
            lines.append(known | _fewer(plan, seeds, row[0], than[0], claim["factor"]))
        else:
            lines.append(known | _better(plan, seeds, pairs, row[0], than[0], claim["quantity"]))
    columns = ["claim", "source", "answer", "rows", "effect", "low", "high", "unit", "note"]
    return pd.DataFrame(lines).reindex(columns=columns)


def _find(plan: Mapping, wanted: Mapping) -> list[int]:
    """Return the positions of the plan's rows that a claim means."""

    def fits(row: Mapping) -> bool:
        found = {"method": row["method"]["name"], "dial": row["method"]["dial_value"], "kind": row["kind"], "label": row["label"]}
        starts = wanted.get("label_starts")
        return all(found[key] == value for key, value in wanted.items() if key in found) and (
            starts is None or row["label"].startswith(starts)
        )

    return [position for position, row in enumerate(plan["rows"]) if wanted and fits(row)]


def _said(wanted: Mapping) -> str:
    return ", ".join(f"{key} {value}" for key, value in wanted.items())


def _rows(plan: Mapping, *positions: int) -> str:
    return "; ".join(plan["rows"][position]["label"] for position in positions)


def _why_not(plan: Mapping, seeds: pd.DataFrame, *positions: int) -> str:
    """Say what became of the trials of rows, or the reference of delta_m, that have no complete seed."""
    reference = reference_position(plan)
    said = []
    for position in dict.fromkeys([*positions, *([] if reference is None else [reference])]):
        own = seeds[seeds["row"] == position]
        if not own["complete"].any():
            problems = dict.fromkeys(problem for problems in own["problems"] for problem in problems)
            said.append(f"{plan['rows'][position]['label']}: {', '.join(problems)}")
    if zero_references(reference_means(plan, seeds)):
        said.append("the reference of Δm is 0")
    return "; ".join(said) or "no complete seed in common, or no reference of Δm"


def _better(plan: Mapping, seeds: pd.DataFrame, pairs: Mapping, row: int, than: int, quantity: str) -> dict:
    own = pairs[quantity]
    effect, low, high = (float(part[row, than]) for part in (own.difference, own.low, own.high))
    found = {"rows": _rows(plan, row, than), "effect": effect, "low": low, "high": high, "unit": "points of Δm"}
    if np.isnan(effect):
        return {
            "answer": NOT_RUN,
            "rows": found["rows"],
            "note": _why_not(plan, seeds, row, than),
        }
    if np.isnan(low):
        return found | {"answer": OPEN, "note": "one seed and no per-image sums: no test"}
    answer = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    return found | {"answer": answer, "note": f"resampled: {own.resampled}"}


def _fewer(plan: Mapping, seeds: pd.DataFrame, row: int, than: int, factor: str) -> dict:
    counts = seed_values(seeds, EXACT_COSTS[0], len(plan["rows"]))
    rows = _rows(plan, row, than)
    if not len(counts[row]) or not len(counts[than]):
        return {"answer": NOT_RUN, "rows": rows, "note": _why_not(plan, seeds, row, than)}
    ratio = float(counts[than][0] / counts[row][0])
    digits = len(factor.partition(".")[2])
    answer = HOLDS if round(ratio, digits) >= float(factor) else FAILS
    note = f"{int(counts[than][0]):,} and {int(counts[row][0]):,} parameters, decoders included"
    return {"answer": answer, "rows": rows, "effect": ratio, "low": ratio, "high": ratio, "unit": "times", "note": note}


def _on_front(plan: Mapping, seeds: pd.DataFrame, pairs: Pairs, rows: Sequence[int], axis: str) -> dict:
    """Answer whether rows are on the front, with the pair that decides: for "does not hold" the surest, else the one of the least lead."""
    count, named = len(plan["rows"]), _rows(plan, *rows)
    low, high = separable_ends(seeds, AXES[axis].column, count)
    score = np.array([own.mean() if len(own) else np.nan for own in seed_values(seeds, "delta_m", count)])
    known = ~np.isnan(low) & ~np.isnan(score)
    if not known[list(rows)].all():
        return {"answer": NOT_RUN, "rows": named, "note": f"not all of these rows have a Δm and this cost ({_why_not(plan, seeds, *rows)})"}
    low, high = np.where(known, low, np.nan), np.where(known, high, np.nan)
    answer, decisive = judge_front(low, high, pairs, rows)
    on_front = pareto_front(seed_costs(seeds, AXES[axis].column, count).means, score)[list(rows)]
    notes = [f"by means {on_front.sum()} of {len(rows)} {'row is' if len(rows) == 1 else 'rows are'} on the front"]
    if not known.all():
        notes.append(f"{(~known).sum()} rows of the plan without a result are left out")
    if decisive is None:
        return {"answer": answer, "rows": named, "note": "; ".join([*notes, "no other row is as cheap"])}
    p, ends = pairs.adjusted[decisive], {"effect": pairs.difference, "low": pairs.low, "high": pairs.high}
    chance = "not tested" if np.isnan(p) else f"{'p < 0.001' if p < 0.001 else f'p = {p:.3f}'} after Holm; resampled: {pairs.resampled}"
    what = "surest defeat" if answer == FAILS else "least lead"
    row, rival = (plan["rows"][position]["label"] for position in decisive)
    notes.append(f"{what}: {row} against {rival}, no dearer ({chance})")
    return {"answer": answer, "rows": named, "unit": "points of Δm", "note": "; ".join(notes)} | {
        name: float(part[decisive]) for name, part in ends.items()
    }


def judge_front(low: np.ndarray, high: np.ndarray, pairs: Pairs, rows: Sequence[int]) -> tuple[str, tuple[int, int] | None]:
    """Judge by the Holm-corrected tests of delta_m whether rows are on the front of a cost.

    A row is off the front where one that is surely no dearer is better beyond chance. It is on the front for sure where every row that may
    be no dearer is tested worse. Either answer is false in at most 5 % of all tables where costs are exact, as Holm's correction is.

    Args:
        low: (R,) lower ends of the costs, all at once; NaN for rows that do not count.
        high: (R,) upper ends, the same where a cost is exact.
        pairs: All pairs of rows in delta_m.
        rows: The rows claimed to be on the front.

    Returns:
        The answer, and the pair (row, rival) that decides; None where no other row is as cheap as a claimed one.
    """
    rivals = [(row, other) for row in rows for other in np.flatnonzero(low <= high[row]) if other != row]
    if not rivals:
        return HOLDS, None
    better = pairs.better(higher_is_better=True)
    beaten = [(row, other) for row, other in rivals if better[other, row] and high[other] <= low[row]]
    if beaten:
        return FAILS, min(beaten, key=lambda pair: (pairs.adjusted[pair], pairs.difference[pair]))
    closest = min(rivals, key=lambda pair: np.nan_to_num(pairs.difference[pair], nan=-np.inf))
    return (HOLDS if all(better[pair] for pair in rivals) else OPEN), closest
