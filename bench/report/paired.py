"""Which rows can be told apart: paired over seeds and over images, all pairs of a column at once, corrected by Holm.

The difference of two rows' means over seeds has two sources of chance, which are added:

- **seeds**: variances over seeds, what a seed does to all rows taken out, moderated over the rows (`bench.report.intervals`);
- **images**: a bootstrap that draws validation images, the same for all rows and seeds, from the per-image sums of the records.

The degrees of freedom are those of the seeds' part alone (Satterthwaite over the two rows): those of the sum would be near infinite
wherever two seeds happen to lie close together, and simulation shows that such tests find differences where there are none.

A pair of which a row has one seed, or that has fewer than two seeds in common, is not tested in a column where other rows have several:
images alone would leave out what a seed changes. It cannot be separated, and shares marks and ranks. Where every row has one seed, only
images are resampled; that says what other images would change, not what another seed would. Where records have no per-image sums only
seeds count, and the statement holds for these images. With neither there is no test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.measure.scores import RESAMPLED
from bench.record import read_arrays
from bench.report.intervals import LEVEL, holm, moderated, residual_variances, t_quantile, two_sided_p, welch
from bench.report.seeds import zero_references
from bench.tasks import TASKS

RESAMPLES = 1000
BOOTSTRAP_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All pairs of rows of one column; entry [i, j] is about row i minus row j.

    Attributes:
        difference: (R, R) of the means over the seeds that both have.
        low, high: (R, R) 95 % interval, for one pair at a time; NaN where there is no test.
        p: (R, R) two-sided p-values, not corrected.
        adjusted: (R, R) the same by Holm over all pairs of the column.
        resampled: What was resampled: "seeds and images", "seeds", "images" or "nothing".
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    resampled: str

    def better(self, *, higher_is_better: bool, level: float = LEVEL) -> np.ndarray:
        """Return (R, R) bool: row i is better than row j beyond chance."""
        signed = self.difference if higher_is_better else -self.difference
        with np.errstate(invalid="ignore"):
            return (self.adjusted < 1 - level) & (signed > 0)


def compare_rows(values: np.ndarray, replicates: np.ndarray | None = None) -> Pairs:
    """Compare all rows of a column with each other.

    Args:
        values: (R, S) a line a row, a column a seed; NaN where a seed does not count.
        replicates: (R, B) the rows' means over seeds on resampled images, the same images for all rows; NaN lines for rows without
            per-image sums; None: images are not resampled.
    """
    rows = len(values)
    present = (~np.isnan(values)).astype(float)
    common = present @ present.T
    sums = np.nan_to_num(values) @ present.T  # [i, j]: sum of row i over the seeds that j has too
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.where(common > 0, (sums - sums.T) / common, np.nan)
    seed_part, total_df = _seed_variance(values, common)
    seeds = bool((~np.isnan(seed_part[~np.eye(rows, dtype=bool)])).any())
    image = np.full((rows, rows), np.nan) if replicates is None else _image_variance(replicates)
    one_seed = bool((present.sum(axis=1) < 2).all())
    known = ~np.isnan(image) if one_seed else ~np.isnan(seed_part)
    total = np.nan_to_num(seed_part) + np.nan_to_num(image)
    total_df = np.full((rows, rows), np.inf) if one_seed else total_df
    deviation = np.sqrt(np.where(known & (total > 0), total, np.nan))
    p = two_sided_p(difference / deviation, total_df)
    p = np.where(known & (total == 0), np.where(difference == 0, 1.0, 0.0), p)  # no spread at all: equal, or surely different
    np.fill_diagonal(p, np.nan)
    half = np.where(known & (total == 0), 0.0, t_quantile(np.where(np.isinf(total_df), 1e9, total_df)) * deviation)
    upper = np.triu_indices(rows, 1)
    adjusted = np.full((rows, rows), np.nan)
    adjusted[upper] = holm(p[upper])
    adjusted.T[upper] = adjusted[upper]
    return Pairs(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=p,
        adjusted=adjusted,
        resampled=_resampled(seeds, bool((known & ~np.isnan(image))[upper].any())),
    )


def _seed_variance(values: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (R, R) variances of the differences over seeds and their degrees of freedom; NaN for fewer than two common seeds."""
    shape = common.shape
    variance, df = moderated(*residual_variances(values))
    several = np.where(common > 1, common, np.nan)
    parts = np.stack([np.broadcast_to(part, shape) for part in (variance[:, None], variance[None])]) / several
    dfs = np.stack([np.broadcast_to(part, shape) for part in (df[:, None], df[None])])
    _, joint = welch(np.nan_to_num(parts), dfs)
    return parts.sum(axis=0), np.where(np.isnan(joint), dfs.sum(axis=0), joint)  # no spread in either: what the seeds have


def _resampled(seeds: bool, images: bool) -> str:
    return " and ".join([name for name, done in (("seeds", seeds), ("images", images)) if done]) or "nothing"


def _image_variance(replicates: np.ndarray) -> np.ndarray:
    """Return (R, R) variances of the differences over resamples."""
    centred = replicates - replicates.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / (replicates.shape[1] - 1)
    own = np.diag(covariance)
    spread = own[:, None] + own[None] - 2 * covariance
    return np.where(spread < 1e-12 * np.maximum(own[:, None] + own[None], 1e-300), 0.0, spread)  # equal predictions, up to rounding


def tied_with_best(pairs: Pairs, means: np.ndarray, *, higher_is_better: bool) -> np.ndarray:
    """Mark the best row and those that cannot be told apart from it, for want of a test too; where no pair of the column has one, the rows
    whose mean equals the best.

    Args:
        pairs: As `compare_rows` returns it.
        means: (R,) means of the rows; NaN where a row has none.
        higher_is_better: Direction.
    """
    tied = np.zeros(len(means), dtype=bool)
    if np.isnan(means).all():
        return tied
    best = int(np.nanargmax(means) if higher_is_better else np.nanargmin(means))
    worse = pairs.better(higher_is_better=higher_is_better)[best]
    untested = np.isnan(pairs.adjusted).all() & (means != means[best])
    return ~np.isnan(means) & ~worse & ~untested


def rank_intervals(pairs: Pairs, means: np.ndarray, *, higher_is_better: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's best and worst rank (1 is best) that the pairs leave open; NaN for rows without a mean, and without any test."""
    known = ~np.isnan(means)
    better = pairs.better(higher_is_better=higher_is_better)
    untested = ~known | np.isnan(pairs.adjusted).all()
    low = 1.0 + better.sum(axis=0)
    high = known.sum() - better.sum(axis=1).astype(float)
    return np.where(untested, np.nan, low), np.where(untested, np.nan, high)


def image_replicates(
    plan: Mapping, records: Sequence[Mapping], seeds: pd.DataFrame, records_dir: Path, *, resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """Resample validation images, the same for every record, and score every row on them.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.
        seeds: As `bench.report.seeds.seed_frame` returns it.
        records_dir: Where the records' `.npz` files lie.
        resamples: B.

    Returns:
        Per task (R, B) means over a row's complete seeds in the order of the plan; NaN for a row of which a record has no sums, or
        whose images are not those of the first. Only tasks whose headline metric the sums give.
    """
    tasks = [task for task in RESAMPLED if any(task in row["tasks"] for row in plan["rows"])]
    by_id = {record["run_id"]: record for record in records}
    result = {task: np.full((len(plan["rows"]), resamples), np.nan) for task in tasks}
    drawn: dict[str, tuple[tuple[str, bytes], np.ndarray]] = {}
    for position, row in enumerate(plan["rows"]):
        complete = set(seeds.loc[(seeds["row"] == position) & seeds["complete"], "seed"])
        scores: dict[str, list[np.ndarray | None]] = {task: [] for task in tasks}
        for run_id in row["run_ids"]:
            record = by_id.get(run_id)
            if record is None or record["seed"] not in complete:
                continue
            own = _record_replicates(record, tasks, records_dir, drawn, resamples)
            for task in set(record["tasks"]) & set(tasks):
                scores[task].append(own.get(task))
        for task, lines in scores.items():
            if lines and all(line is not None for line in lines):
                result[task][position] = np.mean(lines, axis=0)
    return result


def _record_replicates(record: Mapping, tasks: Sequence[str], records_dir: Path, drawn: dict, resamples: int) -> dict[str, np.ndarray]:
    """Return a record's headline metrics on the resamples; nothing where it has no sums or other images than the first record."""
    path = Path(records_dir) / str(record.get("per_image"))
    if record.get("per_image") is None or not path.exists():
        return {}
    file = read_arrays(path)
    ids = file["id"]
    key = (record["data"]["fingerprint"], ids.tobytes())
    if "images" not in drawn:
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        counts = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=resamples).astype(np.float64)
        drawn["images"] = (key, counts)
    first, counts = drawn["images"]
    if key != first:
        return {}
    found = {}
    for task in tasks:
        sums = {name.removeprefix(f"{task}/"): file[name] for name in file if name.startswith(f"{task}/")}
        if task in record["tasks"] and sums:
            found[task] = RESAMPLED[task](sums, counts)

    return found


def delta_m_replicates(replicates: Mapping[str, np.ndarray], reference: Mapping[str, float]) -> np.ndarray | None:
    """Return (R, B) delta_m on resampled images, in percent, against the reference's fixed means.

    None where a task has no resamples, or a reference is exactly 0.
    """
    if not reference or zero_references(reference) or set(reference) - set(replicates):
        return None
    changes = [(1 if TASKS[task].higher_is_better else -1) * (replicates[task] / reference[task] - 1) for task in reference]
    return 100 * np.mean(changes, axis=0)
