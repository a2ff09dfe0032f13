"""Two results of the same suite: which rows moved beyond noise. For upgrades of torch or timm, another GPU, other code.

Rows are matched by label, trials by seed. Of a row, the differences B minus A over common seeds are tested against 0: their variance
(moderated over the rows) plus, where data and images are the same and per-image sums exist, that of a bootstrap over images, each with its
own degrees of freedom (as in `bench.report.paired`); Holm within a quantity. A row with one common seed is not tested where others have
several. Parameter counts must be equal.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.record import RecordError, load_records, read_plan
from bench.report.intervals import LEVEL, holm, moderated
from bench.report.paired import delta_m_replicates, image_replicates, two_source_test
from bench.report.seeds import EXACT_COSTS, metric_column, plan_tasks, reference_means, scored_seed_frame


def compare_results(first: Path, second: Path) -> pd.DataFrame:
    """Compare two suites' directories, each with `plan.json` and `records/`.

    Returns:
        One line a common row and quantity: label, quantity, n (common seeds), a, b (means over them), difference (b - a), low, high (95 %),
        p (Holm within the quantity), verdict: "identical" (every seed), "within noise", "moved", "counts differ", "no test" (differs,
        but one seed, where other rows have several or there are no common images), "no result (...)" with what became of the trials,
        "lost (...)" where A has a result and B none, "no common seed", "undefined" (such as delta_m against 0).

    Raises:
        RecordError: Where the two have no row label in common.
    """
    sides = [_load(Path(path)) for path in (first, second)]
    labels = [row["label"] for row in sides[0]["plan"]["rows"] if row["label"] in sides[1]["places"]]
    if not labels:
        raise RecordError(f"{first} and {second} have no row in common; compare two results of the same suite.")
    tasks = [task for task in plan_tasks(sides[0]["plan"]) if task in plan_tasks(sides[1]["plan"])]
    same_data = sides[0]["fingerprints"] == sides[1]["fingerprints"]
    frames = [_compare_counts(sides, labels)]
    for quantity, task in [(metric_column(task), task) for task in tasks] + [("delta_m", None)]:
        images = [_replicates(side, task, labels) if same_data else None for side in sides]
        frames.append(_compare_quantity(sides, labels, quantity, images))
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def what_differs(first: Path, second: Path) -> pd.DataFrame:
    """Say in what two results differ: suite, rows, trials without a result, data, backbone, recipe, code, versions, devices.

    Returns:
        Columns aspect, a, b; one line an aspect that differs, empty where nothing does.
    """
    sides = [(read_plan(path / "plan.json"), load_records(path / "records")) for path in map(Path, (first, second))]
    aspects: dict[str, Callable[[Mapping], object]] = {
        "data": lambda record: (record["data"] or {}).get("fingerprint"),
        "backbone": lambda record: record["config"].get("backbone"),
        "recipe": lambda record: record["config"].get("recipe"),
        "code": lambda record: record["code_id"],
    }
    keys = sorted({key for _, records in sides for record in records for key in record["env"]})
    aspects |= {key: lambda record, key=key: record["env"].get(key) for key in keys}
    lines = [{"aspect": "suite", "a": sides[0][0]["suite"], "b": sides[1][0]["suite"]}]
    labels = [[row["label"] for row in plan["rows"]] for plan, _ in sides]
    alone = [[label for label in own if label not in other] for own, other in (labels, labels[::-1])]
    ends = [_not_ok(plan, records) for plan, records in sides]
    for aspect, (a, b) in (("rows only here", alone), ("trials without a result", ends)):
        lines.append({"aspect": aspect, "a": ", ".join(a), "b": ", ".join(b)})
    for aspect, pick in aspects.items():
        a, b = (", ".join(sorted({str(pick(record)) for record in records if record["status"] == "ok"})) for _, records in sides)
        lines.append({"aspect": aspect, "a": a, "b": b})
    return pd.DataFrame([line for line in lines if line["a"] != line["b"]], columns=["aspect", "a", "b"])


def _not_ok(plan: Mapping, records: Iterable[Mapping]) -> list[str]:
    """Name a plan's trials that have no result, each with what became of it."""
    status = {record["run_id"]: record["status"] for record in records}
    known = {run_id: status.get(run_id, "missing") for row in plan["rows"] for run_id in row["run_ids"]}
    return [f"{run_id} ({end})" for run_id, end in known.items() if end != "ok"]


def _load(path: Path) -> dict:
    plan, records = read_plan(path / "plan.json"), load_records(path / "records")
    seeds = scored_seed_frame(plan, records)
    return {
        "plan": plan,
        "seeds": seeds,
        "places": {row["label"]: position for position, row in enumerate(plan["rows"])},
        "fingerprints": {record["data"]["fingerprint"] for record in records if record["status"] == "ok"},
        "images": image_replicates(plan, records, seeds, path / "records"),
        "means": reference_means(plan, seeds),
    }


def _replicates(side: Mapping, task: str | None, labels: list[str]) -> np.ndarray | None:
    found = side["images"].scores.get(task) if task else delta_m_replicates(side["images"].scores, side["means"])
    return None if found is None else found[[side["places"][label] for label in labels]]


def _values(side: Mapping, label: str, quantity: str) -> pd.Series:
    seeds = side["seeds"]
    own = seeds[(seeds["row"] == side["places"][label]) & seeds["complete"]]
    return own.set_index("seed")[quantity].dropna().astype(float)


def _no_value(sides: list[dict], label: str) -> str:
    """Say why a row has no seed with a value in both: what became of its trials, or that the value is not defined."""
    said = []
    for name, side in zip("ab", sides, strict=True):
        own = side["seeds"][side["seeds"]["row"] == side["places"][label]]
        if not own["complete"].any():
            said.append(f"{name}: {', '.join(dict.fromkeys(problem for problems in own['problems'] for problem in problems))}")
    if said:
        return ("lost (" if len(said) == 1 and said[0].startswith("b") else "no result (") + "; ".join(said) + ")"
    own = [set(side["seeds"].loc[(side["seeds"]["row"] == side["places"][label]) & side["seeds"]["complete"], "seed"]) for side in sides]
    return "undefined" if own[0] & own[1] else "no common seed"


def what_was_tested(lines: pd.DataFrame) -> str | None:
    """Say where a comparison could test nothing, or images alone; None where seeds were tested, or nothing differs.

    Args:
        lines: As `compare_results` returns it.
    """
    tests = lines[~lines["quantity"].isin(EXACT_COSTS) & lines["n"].gt(0)]
    if tests.empty:
        return "Nothing could be tested: no row has a seed with a result in both."
    if tests["n"].max() > 1 or tests["verdict"].eq("identical").all():
        return None
    if tests.loc[tests["verdict"] != "identical", "p"].notna().any():
        return "One seed in common: only validation images were resampled, and what another seed would change is not covered."
    return (
        "Nothing could be tested: every row has one seed in common, which shows no spread, and there are no per-image sums of the same "
        "images on both sides. What is not identical may be noise. Run both with two seeds or more."
    )


def _compare_counts(sides: list[dict], labels: list[str]) -> pd.DataFrame:
    lines = []
    for label in labels:
        for name in EXACT_COSTS:
            a, b = (_values(side, label, name) for side in sides)
            if len(a) and len(b):
                known = {"label": label, "quantity": name, "n": min(len(a), len(b)), "a": a.iloc[0], "b": b.iloc[0]}
                same = a.iloc[0] == b.iloc[0]
                lines.append(known | {"difference": b.iloc[0] - a.iloc[0], "verdict": "identical" if same else "counts differ"})
    return pd.DataFrame(lines)


def _compare_quantity(sides: list[dict], labels: list[str], quantity: str, images: list[np.ndarray | None]) -> pd.DataFrame:
    """Test every row's difference in one quantity."""
    both = [pd.concat([_values(side, label, quantity) for side in sides], axis=1, join="inner", keys=["a", "b"]) for label in labels]
    differences = [(pair["b"] - pair["a"]).to_numpy() for pair in both]
    n = np.array([len(own) for own in differences])
    variance, df = moderated(np.array([own.var(ddof=1) if len(own) > 1 else np.nan for own in differences]), np.maximum(n - 1.0, 0.0))
    image = np.full(len(labels), np.nan)
    if images[0] is not None and images[1] is not None:
        image = (images[1] - images[0]).var(axis=1, ddof=1)
    mean = np.array([own.mean() if len(own) else np.nan for own in differences])
    drawn = sides[0]["images"].images
    test = two_source_test(mean, variance / np.maximum(n, 1), df, image, drawn, one_seed=bool((n < 2).all()))
    adjusted = holm(test.p)
    lines = []
    for position, label in enumerate(labels):
        own = differences[position]
        verdict = _no_value(sides, label) if not len(own) else "identical" if not own.any() else None
        verdict = verdict or ("no test" if np.isnan(test.p[position]) else None)
        verdict = verdict or ("moved" if adjusted[position] < 1 - LEVEL else "within noise")
        means = {side: both[position][side].mean() for side in ("a", "b")}
        ends = {"low": mean[position] - test.half[position], "high": mean[position] + test.half[position], "p": adjusted[position]}
        lines.append({"label": label, "quantity": quantity, "n": n[position]} | means | {"difference": mean[position]} | ends)
        lines[-1]["verdict"] = verdict
    return pd.DataFrame(lines)
