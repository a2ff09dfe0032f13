"""Which rows can be told apart: paired over seeds and over images, all pairs of a column at once, corrected by Holm.

The difference of two rows' means over seeds has two sources of chance, which are added:

- **seeds**: variances over seeds, what a seed does to all rows taken out, moderated over the rows (`bench.report.intervals`);
- **images**: a bootstrap that draws validation images, the same for all rows and seeds, from the per-image sums of the records.

Each source counts with its own degrees of freedom, those of the seeds (Satterthwaite over the two rows) and one fewer than there are
images, by Banerjee's interval (`bench.report.intervals.joint_half_width`). Satterthwaite's degrees of freedom of the sum would be near
infinite wherever two seeds happen to lie close together, and simulation shows that such tests find differences where there are none. One
variance pooled over all rows (Tukey's test) would find more, but where rows spread by unlike amounts, say by a factor of two about their
middle, it errs in a tenth to a quarter of all tables, not in a twentieth.

A pair of which a row has one seed, or that has fewer than two seeds in common, is not tested in a column where other rows have several:
images alone would leave out what a seed changes. It cannot be separated, and shares marks and ranks. Where every row has one seed, only
images are resampled; that says what other images would change, not what another seed would. Where records have no per-image sums only
seeds count, and the statement holds for these images. With neither there is no test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.measure.scores import RESAMPLED
from bench.record import read_arrays
from bench.report.intervals import LEVEL, holm, joint_half_width, joint_p, moderated, residual_variances, welch
from bench.report.seeds import zero_references
from bench.tasks import TASKS

RESAMPLES = 1000
BOOTSTRAP_SEED = 0
POWER_Z = 0.8416
"""Quantile of the normal distribution that stands for a power of 80 %."""


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Scores on resampled images.

    Attributes:
        scores: Per task (R, B) means over a row's complete seeds, rows in the order of the plan; NaN for a row of which a record has no
            sums, or whose images are not those of the first. Only tasks whose headline metric the sums give.
        images: How many images were drawn from; None where no record has sums.
    """

    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All pairs of rows of one column; entry [i, j] is about row i minus row j.

    Attributes:
        difference: (R, R) of the means over the seeds that both have.
        low, high: (R, R) 95 % interval, for one pair at a time; NaN where there is no test.
        p: (R, R) two-sided p-values, not corrected.
        adjusted: (R, R) the same by Holm over all pairs of the column.
        detectable: (R, R) the true difference that is told apart with a probability of about 80 %, at Holm's first and hardest step; NaN
            where there is no test.
        resampled: What was resampled: "seeds and images", "seeds", "images" or "nothing".
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    detectable: np.ndarray
    resampled: str

    def better(self, *, higher_is_better: bool, level: float = LEVEL) -> np.ndarray:
        """Return (R, R) bool: row i is better than row j beyond chance."""
        signed = self.difference if higher_is_better else -self.difference
        with np.errstate(invalid="ignore"):
            return (self.adjusted < 1 - level) & (signed > 0)


def compare_rows(values: np.ndarray, replicates: np.ndarray | None = None, images: int | None = None) -> Pairs:
    """Compare all rows of a column with each other.

    Args:
        values: (R, S) a line a row, a column a seed; NaN where a seed does not count.
        replicates: (R, B) the rows' means over seeds on resampled images, the same images for all rows; NaN lines for rows without
            per-image sums; None: images are not resampled.
        images: How many images they are drawn from; None: as many as make the images' variance known.
    """
    rows = len(values)
    present = (~np.isnan(values)).astype(float)
    common = present @ present.T
    sums = np.nan_to_num(values) @ present.T  # [i, j]: sum of row i over the seeds that j has too
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.where(common > 0, (sums - sums.T) / common, np.nan)
    upper = np.triu_indices(rows, 1)
    seed_variance, seed_df = (part[upper] for part in _seed_variance(values, common))
    image = np.full(len(upper[0]), np.nan) if replicates is None else _image_variance(replicates)[upper]
    one_seed = bool((present.sum(axis=1) < 2).all())
    test = two_source_test(difference[upper], seed_variance, seed_df, image, images, one_seed=one_seed)
    known = ~np.isnan(test.p)
    hardest = 1 - (1 - LEVEL) / max(int(known.sum()), 1)
    detectable = joint_half_width(test.parts, test.dfs, hardest) + POWER_Z * np.sqrt(test.parts.sum(axis=0))

    def both_ways(pairs: np.ndarray) -> np.ndarray:
        full = np.full((rows, rows), np.nan)
        full[upper] = full.T[upper] = pairs
        return full

    half = both_ways(test.half)
    return Pairs(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=both_ways(test.p),
        adjusted=both_ways(holm(test.p)),
        detectable=both_ways(detectable),
        resampled=_resampled(bool((~np.isnan(seed_variance)).any()), bool((known & ~np.isnan(image)).any())),
    )


@dataclass(frozen=True, kw_only=True)
class TwoSourceTest:
    """Tests of differences whose chance comes from seeds and from images.

    Attributes:
        half: (n,) half widths of 95 % intervals, one difference at a time; NaN where there is no test.
        p: (n,) two-sided p-values, not corrected.
        parts: (2, n) variances of the differences by seeds and by images, 0 for a source that does not count.
        dfs: (2, n) their degrees of freedom.
    """

    half: np.ndarray
    p: np.ndarray
    parts: np.ndarray
    dfs: np.ndarray


def two_source_test(
    difference: np.ndarray,
    seed_variance: np.ndarray,
    seed_df: np.ndarray,
    image_variance: np.ndarray,
    images: int | None,
    *,
    one_seed: bool,
) -> TwoSourceTest:
    """Test differences against 0.

    Args:
        difference: (n,) estimates; NaN where there is none.
        seed_variance: (n,) their variances over seeds; NaN where fewer than two seeds are in common.
        seed_df: (n,) degrees of freedom of these.
        image_variance: (n,) their variances over images; NaN where images are not resampled.
        images: How many images there are; None: as many as make the images' variance known.
        one_seed: No row has two seeds, so that images alone are to count; else they would leave out what a seed changes.
    """
    known = ~np.isnan(difference) & ~np.isnan(image_variance if one_seed else seed_variance)
    parts = np.where(known, np.nan_to_num(np.stack([seed_variance, image_variance])), np.nan)
    dfs = np.stack([np.where(seed_df > 0, seed_df, 1.0), np.full(len(difference), np.inf if images is None else max(images - 1.0, 1.0))])
    without_spread = np.where(difference == 0, 1.0, 0.0)
    p = np.where(parts.sum(axis=0) == 0, without_spread, joint_p(difference, parts, dfs))
    return TwoSourceTest(half=joint_half_width(parts, dfs), p=p, parts=parts, dfs=dfs)


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


def typical_detectable(pairs: Pairs) -> float:
    """Return the median over pairs of the difference that is told apart with a probability of about 80 %; NaN without any test."""
    known = pairs.detectable[~np.isnan(pairs.detectable)]
    return float(np.median(known)) if len(known) else np.nan


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
) -> Replicates:
    """Resample validation images, the same for every record, and score every row on them.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.
        seeds: As `bench.report.seeds.seed_frame` returns it.
        records_dir: Where the records' `.npz` files lie.
        resamples: B.
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
    return Replicates(scores=result, images=int(drawn["images"][1][0].sum()) if drawn else None)


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
