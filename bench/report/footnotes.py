"""What a reader must know beside the numbers: one sentence a fact, generated from plan and records, never written by hand."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from bench.report.intervals import FEWEST_ROWS_TO_POOL
from bench.report.lacking import DAMAGED_AT_MOST, damage_notes, missing_notes, schema_notes
from bench.report.seeds import metric_column
from bench.report.time_notes import busy_notes, time_notes
from bench.tasks import TASKS

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def planned_records(plan: Mapping, records: Sequence[Mapping]) -> list[Mapping]:
    """Return the records that some row of the plan names."""
    planned = {run_id for row in plan["rows"] for run_id in row["run_ids"]}
    return [record for record in records if record["run_id"] in planned]


def trial_counts(plan: Mapping, records: Sequence[Mapping]) -> tuple[int, int]:
    """Return the number of trials with an "ok" record, and of planned trials."""
    planned = {run_id for row in plan["rows"] for run_id in row["run_ids"]}
    return sum(record["run_id"] in planned and record["status"] == "ok" for record in records), len(planned)


def partial_mark(plan: Mapping, records: Sequence[Mapping]) -> str:
    """Return what a title of incomplete results must say, or an empty string where every planned trial is there and ok."""
    done, planned = trial_counts(plan, records)
    if not done and (failed := len(planned_records(plan, records))):
        return f" [no results: {'every trial' if failed == planned else f'each of the {failed} trials'} that ran failed, {planned} planned]"
    return "" if done == planned else f" [incomplete: {done} of {planned} trials]"


def distinct(records: Sequence[Mapping], pick: Callable[[Mapping], object]) -> list[str]:
    """Return the distinct values of something over records, as sorted text; what a record lacks is left out."""
    return sorted({str(value) for value in map(pick, records) if value is not None})


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) if values else "not recorded"


def footnotes(
    plan: Mapping,
    records: Sequence[Mapping],
    rows: pd.DataFrame,
    *,
    tuning: Mapping | None = None,
    damaged: Mapping[str, str] | None = None,
    set_aside: Sequence[str] = (),
) -> list[str]:
    """Return the footnotes of the main table.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.
        rows: As `bench.report.stats.row_frame` returns it.
        tuning: What `tuning.json` beside the plan holds, or None.
        damaged: Why, per file of the suite that could not be used.
        set_aside: Files that a launch set aside.
    """
    own = planned_records(plan, records)
    usable = [record for record in own if record["status"] == "ok"]
    return [
        *_setting_notes(plan, usable, rows, tuning),
        *_test_notes(plan, rows),
        *_convention_notes(usable, rows),
        *time_notes(plan, usable, rows),
        *busy_notes(plan, usable),
        *damage_notes(damaged or {}, DAMAGED_AT_MOST),
        *schema_notes(plan, own, set_aside),
        *missing_notes(plan, records, own, rows, damaged or {}),
        *_mixture_notes(usable),
        *plan.get("notes", []),
    ]


_QUANTILES = ("12.7", "4.3", "3.2")
"""Student's t at 97.5 % for one, two and three degrees of freedom."""


def _few_seeds(count: int) -> str:
    """Say why intervals of so few seeds are wide."""
    wide = f"{_QUANTILES[count - 2]} standard errors to either side, where many seeds would take 2"
    return f"with {count} seeds it is {wide}: that few seeds leave so much open"


def _setting_notes(plan: Mapping, usable: Sequence[Mapping], rows: pd.DataFrame, tuning: Mapping | None) -> list[str]:
    """Say what was trained on what, and how the shown numbers were chosen."""

    def recipe(key: str) -> str:
        return _listed(distinct(usable, lambda record: record["config"].get("recipe", {}).get(key)))

    def env(key: str) -> str:
        return _listed(distinct(usable, lambda record: record["env"].get(key)))

    seeds = sorted({seed for row in plan["rows"] for seed in row["seeds"]})
    spread = (
        "mean ± half of the 95 % t interval over seeds, for these validation images: other images are not in it, nor does it tell rows "
        "apart, which the tests do; of a metric it is cut at the values that the metric can take, of times and memory "
        "it is the interval of their logarithm, so that it stays positive; where it is not symmetric, its ends are given"
        if len(seeds) > 1
        else "one seed, hence no spread is known"
    )
    spread += f"; {_few_seeds(len(seeds))}" if 1 < len(seeds) < len(_QUANTILES) + 2 else ""
    source = _listed(distinct(usable, lambda record: record["config"].get("data", {}).get("source")))
    sizes = distinct(usable, lambda record: f"{record['data']['n_train']} training and {record['data']['n_val']} validation images")
    rates = distinct(usable, lambda record: record["config"].get("recipe", {}).get("peak_lr"))
    backbones = _listed(distinct(usable, lambda record: record["config"].get("backbone", {}).get("name")))
    return [
        f"Seeds: {', '.join(map(str, seeds))} ({spread}).",
        f"Data: {source}, {'; '.join(sizes)}; image size {recipe('image_size')} px. Backbone: {backbones}.",
        f"Training: {recipe('epochs')} epochs, batch {recipe('batch_size')}, {recipe('precision')}.",
        "The result is the last epoch's; no epoch is selected on the validation split." + _second_column_note(usable, rows),
        _tuning_note(rates, tuning),
        f"Device: {env('device')}; threads a trial: {env('threads')}.",
    ]


def _second_column_note(usable: Sequence[Mapping], rows: pd.DataFrame) -> str:
    """Say how the epochs of the second column were chosen, where there is one."""
    if "delta_m_held_out_mean" not in rows or rows["delta_m_held_out_mean"].isna().all():
        return ""
    count = _listed(distinct(usable, lambda record: record["data"].get("n_held_out")))
    every = distinct(usable, lambda record: record["config"].get("recipe", {}).get("evaluate_every"))
    looked = (
        f"every {', '.join(every)} epochs and the last" if every and every != ["1"] else "every epoch" if every else "the last epoch alone"
    )
    return (
        f" The column “Δm, epoch chosen on held-out” is measured there too, but at the epoch that scored best on images held out from "
        f"training ({count}; evaluated: {looked}), the reference's epoch chosen alike; its metrics are in table.csv."
    )


def _tuning_note(rates: Sequence[str], tuning: Mapping | None) -> str:
    """Say what was spent on choosing learning rates and other dials."""
    if tuning is not None:
        spent = sum(row.get("epochs", 0) for row in tuning["rows"])
        done = "" if tuning.get("complete") else " (the tuning is incomplete)"
        return (
            f"Tuning budget: {tuning['budget']} settings a row on a split held out from training, the same for every row, "
            f"{spent} epochs in all{done}; learning rates in use: {_listed(rates)}."
        )
    if len(rates) == 1:
        return f"Tuning budget: none; one learning rate ({rates[0]}) for every row."
    return f"Tuning budget: not recorded; learning rates: {_listed(rates)}."


def _test_notes(plan: Mapping, rows: pd.DataFrame) -> list[str]:
    """Say how rows were told apart, and what that covers."""
    kinds = set(rows.filter(regex="_resampled$").to_numpy().ravel())
    tested = [name.removesuffix("_resampled") for name in rows if name.endswith("_resampled")]
    pooled = any((rows[f"{name}_std"] > 0).sum() >= FEWEST_ROWS_TO_POOL for name in tested)
    seeds = "seeds (variance moderated over rows)" if pooled else "seeds"
    covers = {
        "seeds and images": f"{seeds} and validation images (paired bootstrap from per-image sums) both count",
        "seeds": "seeds alone count, so that they hold for these validation images",
        "images": "one seed, so that only validation images are resampled: they do not cover what another seed would change",
    }
    said = "; ".join(text for kind, text in covers.items() if kind in kinds)
    if not said:
        why = "No tests: no two rows share two seeds, or all have one seed and no per-image sums."
        return [f"{why} Bold: best of a column at the digits shown; that is no statement about chance."]
    notes = [
        f"Tests between rows are paired on seeds and images: {said}. All pairs of a column, Holm-corrected at 5 %. Bold: the best and "
        "every row that is not told apart from it; where that would be all rows, none is bold. Rank: by Δm, the places that the tests "
        "leave open."
        + (" Seeds and images each count with their own degrees of freedom (Banerjee's interval)." if "seeds and images" in kinds else ""),
        *detectable_note(rows),
    ]
    single = list(rows.loc[rows["seeds_complete"] == 1, "label"])
    if single and (rows["seeds_complete"] > 1).any():
        notes.append(f"Not tested, for one seed shows no spread, and so not told apart from any other row: {_listed(single)}.")
    reference = rows[rows["is_reference"]]
    if len(reference) and reference["seeds_complete"].iloc[0] == 1 and (rows["seeds_complete"] > 1).any():
        notes.append("The reference of Δm has one seed: its spread is unknown and missing from the intervals of Δm.")
    return notes


def detectable_note(rows: pd.DataFrame) -> list[str]:
    """Say how large a difference must be for the tests to find it: what is smaller may exist all the same. Empty without any test."""
    titles = {"delta_m": "Δm"} | {metric_column(name): f"{task.title} {task.metric_title}" for name, task in TASKS.items()}
    units = {metric_column(name): task.unit.replace("%", "points") for name, task in TASKS.items()} | {"delta_m": "points"}
    found = {name: rows[f"{name}_detectable"].iloc[0] for name in titles if f"{name}_detectable" in rows}
    said = [
        f"{titles[name]} {value:.2g}{'' if units[name] == '°' else ' '}{units[name]}" for name, value in found.items() if pd.notna(value)
    ]
    if not said:
        return []
    return [
        f"Smallest differences that these tests would find with 80 % probability (median over pairs): {', '.join(said)}. A smaller one may "
        "exist and stay unseen."
    ]


def _convention_notes(usable: Sequence[Mapping], rows: pd.DataFrame) -> list[str]:
    """Say what a column counts."""
    reference = rows[rows["is_reference"]]
    uncovered = sorted({name for record in usable for name in record["cost"]["flops_uncovered_ops"]})
    shown = [TASKS[task] for task in TASKS if any(task in record["tasks"] for record in usable)]
    metrics = ", ".join(f"{task.title} {task.metric_title} in {task.unit}" for task in shown)
    notes = [f"Metrics: {metrics}. Arrows point to the better side; of counted costs, the lowest at the digits shown is bold."]
    if len(reference):
        notes.append(
            f"Δm: mean over tasks of the relative change against “{reference['label'].iloc[0]}” (its mean over seeds), in percent, "
            "sign turned where lower is better; its interval, over "
            "seeds, for these validation images, carries the spread of the row and of the reference (delta method, "
            "Welch-Satterthwaite), and the reference itself is 0 by definition."
        )
    if "delta_m_published_reference_mean" in rows:
        notes.append("Δm against published references divides by 67.21, 61.93, 62.35 % and 17.97°; these carry no spread.")
    notes.append("Trainable: parameters that training changes, in millions, decoders included; the next column leaves the decoders out.")
    if rows["single_path"].notna().any():
        notes.append("One path: a model of all tasks passes an image through the frozen layers once; no: once a task, or one model a task.")
    if (rows["kind"] == "single_task").any():
        notes.append(
            "Rows of one model a task: trainable parameters, FLOPs, inference and step time are sums over the models; step memory is the "
            "largest model's, since the models are trained one after another."
        )
    notes.append(
        "Step memory: weights, gradients, optimiser state and activations saved for the backward pass, counted, at the batch of training. "
        "GFLOPs and inference: forward pass of one image; merged: with low-rank updates folded into the frozen weights where that is "
        "possible. Step: wall-clock time of a training step."
    )
    if uncovered:
        notes.append(f"FLOPs leave out: {', '.join(uncovered)}.")
    return notes


def _mixture_notes(usable: Sequence[Mapping]) -> list[str]:
    """Warn where numbers beside each other were not made alike."""
    notes = []
    aspects: dict[str, Callable[[Mapping], object]] = {
        "code versions (code_id)": lambda record: record["code_id"],
        "devices": lambda record: record["env"].get("device"),
        "processors": lambda record: record["env"].get("cpu"),
        "thread counts": lambda record: record["env"].get("threads"),
        "torch versions": lambda record: record["env"].get("torch"),
        "data sets": lambda record: record["data"]["fingerprint"],
        "executors": lambda record: record.get("launch", {}).get("executor"),
        "shares of a GPU": lambda record: record.get("launch", {}).get("gpus_per_trial"),
        "numbers of loader processes": lambda record: record.get("launch", {}).get("loader_workers"),
    }
    for aspect, pick in aspects.items():
        values = distinct(usable, pick)
        if len(values) > 1:
            notes.append(f"WARNING: the records mix {len(values)} {aspect}: {', '.join(values)}. Rows may differ for that reason alone.")
    return notes
