"""Run a trial again from its record alone, and say whether its numbers come out the same, and what differs in how they were made.

A metric is *identical* to the bit, *inside* the 95 % interval in which one trial of a row differs from another (the recorded value
+- t s sqrt(2)), or *outside*. The spread s over seeds is pooled over the rows of the suite that train the same tasks, so that few seeds a
row give enough degrees of freedom; the record under check is not in it. Where no row has two other seeds there is no interval: what is not
identical is then *unknown*. The verdict follows the headline metrics, those of the table; the others are listed.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench.config import TrialConfig
from bench.data.roots import ensure_synthetic
from bench.errors import SuiteError
from bench.provenance import code_changes
from bench.record import examine, read_record
from bench.tasks import TASKS
from bench.trial import Launch, run_trial

NEEDS_DATA_ROOT = "this trial read a data set from a directory; give the same one with --data-root DIR"
NEEDS_WEIGHTS = "this trial started from a weights file; give the same file with --weights FILE"
EXPLANATIONS = {
    "code_id": "the code that can change a result is another one",
    "run_id": "this code gives the configuration another name: a field was added, or a default changed",
    "data fingerprint": "the images or labels are other ones",
    "data content": "the rendered images or labels are other ones",
    "device": "another device sums in another order: expect differences in the last digits that training makes larger",
    "cpu": "another processor may round differently",
    "threads": "another number of threads sums in another order",
    "torch": "another version may compute differently",
    "torchvision": "another version may compute differently",
    "timm": "another version may build or load the backbone differently",
    "numpy": "another version may draw or compute differently",
    "opencv-python-headless": "another version may decode or resample images differently",
    "pillow": "another version may decode images differently",
    "deterministic": "without deterministic algorithms no two runs agree to the bit",
    "cuda": "another version may compute differently",
    "tf32": "the precision of matrix products differs",
}
"""What a difference means; differences that are not named here cannot change a result."""


class ReproduceError(SuiteError):
    """A trial cannot be run again; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of the record and of the new run.

    Attributes:
        task, metric: Which.
        headline: Whether it is the metric of the table.
        recorded, now: Values; None where the metric is undefined.
        low, high: 95 % interval around the recorded value, as of the module; None where no row has two other seeds.
        verdict: "identical", "inside", "outside", or "unknown" where there is no interval.
    """

    task: str
    metric: str
    headline: bool
    recorded: float | None
    now: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came out.

    Attributes:
        run_id: The trial.
        status, status_now: Status of the record and of the new run.
        reason: Why the new run did not end well, or None.
        seeds: Number of other trials that the intervals' spread comes from.
        damaged: Why, per record of the suite that could not be read and so is not in the spread.
        metrics: Every metric.
        differences: What differs in how the two were made: `what`, `recorded`, `now`, `meaning` (None: it cannot change a result).
    """

    run_id: str
    status: str
    status_now: str
    reason: str | None
    seeds: int
    metrics: tuple[Comparison, ...]
    differences: tuple[dict[str, Any], ...]
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worst verdict of the headline metrics; for a record of a failed trial, whether it failed alike."""
        if self.status != self.status_now:
            return "outside"
        found = {comparison.verdict for comparison in self.metrics if comparison.headline}
        return next((verdict for verdict in ("outside", "unknown", "inside") if verdict in found), "identical")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self) | {"verdict": self.verdict}


def find_record(run_id: str, results: Path, suite: str | None = None) -> Path:
    """Return the path of a record.

    Args:
        run_id: The trial.
        results: Directory that holds suites, or one suite's.
        suite: Name of the suite, where several hold the trial.

    Raises:
        ReproduceError: None holds it, or several do.
    """
    folders = [results / suite] if suite else [results, *sorted(path for path in results.glob("*") if path.is_dir())]
    found = [path for folder in folders if (path := folder / "records" / f"{run_id}.json").exists()]
    if not found:
        raise ReproduceError(f"no record of {run_id} in {results}: name the directory of the results with --results DIR")
    if len(found) > 1:
        names = ", ".join(path.parents[1].name for path in found)
        raise ReproduceError(f"several suites hold {run_id} ({names}): choose one with --suite NAME")
    return found[0]


def reproduce(
    path: Path, *, data_root: Path | None, weights_file: Path | None, keep: Path | None, on_epoch: Callable[[dict], None]
) -> Reproduction:
    """Run a record's trial again in a scratch directory, and compare.

    Args:
        path: The record; those beside it that are whole give the interval.
        data_root: Directory of the data set, for trials that did not render theirs.
        weights_file: The weights file, for trials that started from one.
        keep: Where the new record and the data stay; None: nowhere.
        on_epoch: Called with each epoch's line of the history.

    Raises:
        ReproduceError: Data or weights are needed and not given.
        bench.config.ConfigError: This code does not know the record's configuration.
    """
    record = read_record(path)
    config = TrialConfig.from_dict(record["config"])
    if config.data.synthetic is None and data_root is None:
        raise ReproduceError(NEEDS_DATA_ROOT)
    if config.backbone.weights.startswith("sha256:") and weights_file is None:
        raise ReproduceError(NEEDS_WEIGHTS)
    others, damaged = whole_records(path.parent)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        scratch = (Path(temporary) if keep is None else keep).resolve()
        if config.data.synthetic is not None:
            ensure_synthetic(scratch, config.data.synthetic)
        launch = Launch(
            suite=record["suite"],
            suite_dir=scratch / record["suite"],
            data_root=data_root,
            weights_file=weights_file,
            command=f"python run_suite.py reproduce {record['run_id']}",
        )
        again = run_trial(config, launch, started=time.time(), on_epoch=on_epoch)
    return dataclasses.replace(compare(record, again, others), damaged=damaged)


def whole_records(directory: Path) -> tuple[list[dict], dict[str, str]]:
    """Return the records of a directory that can be read, and why the others cannot, by file name."""
    found = {path.name: examine(path) for path in sorted(directory.glob("*.json"))}
    return [record for record, _ in found.values() if record], {name: str(why) for name, (record, why) in found.items() if not record}


def compare(record: Mapping, again: Mapping, others: Sequence[Mapping]) -> Reproduction:
    """Compare a record with the record of the new run.

    Args:
        record: The old one.
        again: The new one.
        others: Records of the suite; those of the same tasks give the spread, except `record` itself.
    """
    rows: dict[str, list[Mapping]] = {}
    for other in others:
        if other["tasks"] == record["tasks"] and other["status"] == "ok" and other["run_id"] != record["run_id"]:
            rows.setdefault(other["cell_id"], []).append(other)
    rows = {cell: row for cell, row in rows.items() if len(row) > 1}
    metrics = []
    for task, values in (record["metrics"] or {}).items():
        for metric, value in values.items():
            now = ((again["metrics"] or {}).get(task) or {}).get(metric)
            interval = rerun_interval(value, [[other["metrics"].get(task, {}).get(metric) for other in row] for row in rows.values()])
            low, high = interval or (None, None)
            verdict = judge(value, now, interval)
            headline = metric == TASKS[task].metric
            metrics.append(
                Comparison(task=task, metric=metric, headline=headline, recorded=value, now=now, low=low, high=high, verdict=verdict)
            )
    return Reproduction(
        run_id=record["run_id"],
        status=record["status"],
        status_now=again["status"],
        reason=again["reason"],
        seeds=sum(map(len, rows.values())),
        metrics=tuple(metrics),
        differences=tuple(differences(record, again)),
    )


def rerun_interval(recorded: float | None, rows: Sequence[Sequence[float | None]], level: float = 0.95) -> tuple[float, float] | None:
    """Return where another trial falls with a probability, seen from a recorded one, for normal values.

    Args:
        recorded: The recorded value.
        rows: Per row the values of other trials over seeds; a row of one value tells nothing.
        level: The probability.

    Returns:
        recorded +- t s sqrt(2), s pooled over the rows with as many degrees of freedom as they leave; None where they leave none.
    """
    known = [np.array([value for value in row if value is not None], dtype=float) for row in rows]
    df = sum(max(len(row) - 1, 0) for row in known)
    if recorded is None or df == 0:
        return None
    variance = sum(((row - row.mean()) ** 2).sum() for row in known if len(row)) / df
    half = float(stats.t.ppf((1 + level) / 2, df) * np.sqrt(2 * variance))
    return recorded - half, recorded + half


def judge(recorded: float | None, now: float | None, interval: tuple[float, float] | None) -> str:
    """Return the verdict on one metric, see `Comparison`."""
    if recorded == now:
        return "identical"
    if now is None or recorded is None:
        return "outside"
    if interval is None:
        return "unknown"
    return "inside" if interval[0] <= now <= interval[1] else "outside"


def differences(record: Mapping, again: Mapping) -> list[dict[str, Any]]:
    """Return what differs in how two records were made, what can change a result first."""

    def circumstances(one: Mapping) -> dict[str, Any]:
        data = one["data"] or {}
        found = {"run_id": one["run_id"], "code_id": one["code_id"], "data fingerprint": data.get("fingerprint")}
        found |= {"data content": data.get("content_hash"), "git commit": one["git"].get("commit")}
        found |= {"uncommitted changes": one["git"].get("dirty")}
        launch = {f"launch {name}" if name in ("id", "slot") else name: value for name, value in (one.get("launch") or {}).items()}
        return found | one["env"] | {name: None if value == "" else value for name, value in launch.items()}

    old, new = circumstances(record), circumstances(again)
    found = [
        {"what": what, "recorded": old.get(what), "now": new.get(what), "meaning": EXPLANATIONS.get(what)}
        for what in dict.fromkeys([*old, *new])
        if old.get(what) != new.get(what)
    ]
    for line in found:
        if line["what"] == "code_id":
            line["meaning"] += f"; {code_changes(record['git'])}"
    return sorted(found, key=lambda line: line["meaning"] is None)
