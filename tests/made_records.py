"""Made-up plans and records with known numbers, for the tests of the report."""

import json
from pathlib import Path

import numpy as np

from bench.record import SCHEMA_VERSION, write_record
from bench.report.paired import Pairs
from bench.report.seeds import scored_seed_frame
from bench.report.stats import column_pairs
from bench.tasks import TASK_NAMES, TASKS

REFERENCE = {"semseg": 67.21, "human_parts": 61.93, "saliency": 62.35, "normals": 17.97}


def made_method(
    name: str = "lora", title: str = "LoRA", dial: str | None = "rank", value: float | None = 4, label: str | None = None
) -> dict:
    """Return the method block of a record."""
    return {"name": name, "title": title, "label": label or (f"{title} (r={value})" if dial else title), "dial": dial, "dial_value": value}


def made_record(
    *,
    run_id: str,
    values: dict[str, float | None],
    cell_id: str = "0" * 12,
    seed: int = 0,
    method: dict | None = None,
    status: str = "ok",
    trainable: int = 3_000_000,
    decoders: int = 1_000_000,
    memory: int = 100 * 2**20,
    step_seconds: float = 0.1,
    spread: float = 0.0,
    device: str = "cpu",
    code_id: str = "c0de",
) -> dict:
    """Return a valid record whose headline metrics are `values`; single times reach `spread` (a share) beyond their medians."""
    ok = status == "ok"
    quarter = memory // 4
    groups = {
        "backbone": {"total": 28_000_000, "trainable": 0},
        "method_shared": {"total": trainable - decoders, "trainable": trainable - decoders},
    }
    groups["decoders"] = {"total": decoders, "trainable": decoders}
    counts = {"total": 28_000_000 + trainable, "trainable": trainable, "trainable_without_decoders": trainable - decoders}
    bytes_of = dict.fromkeys(("weights", "gradients", "optimizer_state"), quarter) | {"saved_activations": memory - 3 * quarter}

    def measured(median: float, n: int) -> dict:
        return {"median": median, "p05": median * (1 - spread), "p95": median * (1 + spread), "n": n}

    times = {"trial_start": "2026-01-01T10:00:00+00:00", "end": "2026-01-01T10:05:00+00:00"}
    recipe = {"epochs": 5, "batch_size": 8, "image_size": 64, "peak_lr": 5e-4, "precision": "fp32", "threads": 1}
    return {
        "schema_version": SCHEMA_VERSION, "run_id": run_id, "cell_id": cell_id, "suite": "made", "status": status,
        "reason": None if ok else f"made up to be {status}",
        "config": {"method": {"name": "made"}, "backbone": {"name": "swin_made", "weights": "demo"}, "tasks": list(values),
                   "data": {"source": "synthetic"}, "recipe": recipe, "seed": seed},
        "method": method or made_method(), "tasks": list(values), "seed": seed,
        "metrics": {task: {TASKS[task].metric: value} for task, value in values.items()} if ok else None,
        "history": [{"epoch": 1, "loss": 1.5, "losses": dict.fromkeys(values, 0.5), "lr": 1e-4, "seconds": 1.0}],
        "params": {"groups": groups} | counts if ok else None,
        "cost": {
            "flops_per_image": 1_000_000_000, "flops_uncovered_ops": {},
            "inference_seconds": measured(0.02, 10),
            "merged_layers": 0, "merged_flops_per_image": 900_000_000,
            "merged_inference_seconds": measured(0.01, 10),
            "step_memory_bytes": bytes_of | {"total": memory},
            "peak_allocated_bytes": None, "peak_reserved_bytes": None,
            "step_seconds": measured(step_seconds, 9),
            "images_per_second": 8 / step_seconds, "stored_bytes": 4 * trainable,
        } if ok else None,
        "data": {"fingerprint": "da7a", "n_train": 40, "n_val": 20} if ok else None,
        "env": {"python": "3.11", "torch": "2", "device": device, "cpu": "made", "threads": 1}, "code_id": code_id,
        "git": {"commit": None, "dirty": None}, "command": "python run_suite.py run made",
        "timing": times | {"train_seconds": 60.0, "total_seconds": 70.0},
        "attempt": 1,
    }  # fmt: skip


class MadeSuite:
    """A plan with its records, built row by row."""

    def __init__(self, *, tasks: tuple[str, ...] = TASK_NAMES, seeds: tuple[int, ...] = (0, 1)) -> None:
        self.tasks, self.seeds = tasks, seeds
        self.rows: list[dict] = []
        self.records: list[dict] = []

    def add(
        self,
        method: dict,
        values: dict[int, dict[str, float | None]],
        *,
        kind: str = "multi_task",
        status: dict | None = None,
        **costs: object,
    ) -> dict:
        """Add a row; `values` maps a seed to its metrics (a seed that is left out has no record), `status` a run id's end to a status."""
        cell_id = f"{len(self.rows):012x}"
        label = method["label"]
        groups = [(task,) for task in self.tasks] if kind == "single_task" else [self.tasks]
        names = {(seed, group): f"row{len(self.rows)}-{'_'.join(group)}-s{seed}" for seed in self.seeds for group in groups}
        row = {
            "cell_id": cell_id,
            "label": label,
            "method": method,
            "kind": kind,
            "run_ids": list(names.values()),
            "tasks": list(self.tasks),
        }
        self.rows.append(row | {"seeds": list(self.seeds)})
        for (seed, group), run_id in names.items():
            present = {task: values.get(seed, {})[task] for task in group if task in values.get(seed, {})}
            if present:
                own = (status or {}).get(run_id.removeprefix(f"row{len(self.rows) - 1}-"), "ok")
                self.records.append(
                    made_record(run_id=run_id, values=present, cell_id=cell_id, seed=seed, method=method, status=own, **costs)
                )
        return row

    def plan(self, reference: int = 0) -> dict:
        """Return the plan, with the reference row at a position."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "suite": "made",
            "title": "Made-up suite",
            "description": "Numbers made up.",
            "created_at": "2026-01-01",
        }
        return head | {
            "command": "python run_suite.py run made",
            "reference_cell_id": self.rows[reference]["cell_id"],
            "rows": self.rows,
            "notes": [],
        }

    def write(self, directory: Path, reference: int = 0) -> Path:
        """Write plan and records as a finished suite; return the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "plan.json").write_text(json.dumps(self.plan(reference)))
        for record in self.records:
            write_record(directory / "records", record)
        return directory


def demo_like_suite(seeds: tuple[int, ...] = (0, 1), noise: float = 1.2) -> MadeSuite:
    """Return a suite shaped like the demo: baselines, LoRA, adapters, VPT, MTLoRA and MTLoRA+."""
    generator = np.random.default_rng(0)
    suite = MadeSuite(seeds=seeds)
    base = {"semseg": 32.0, "human_parts": 28.0, "saliency": 60.0, "normals": 24.0}

    def values(change: float) -> dict[int, dict[str, float]]:
        signs = {task: 1 if TASKS[task].higher_is_better else -1 for task in TASK_NAMES}
        return {s: {t: base[t] * (1 + signs[t] * (change + generator.normal(0, noise)) / 100) for t in TASK_NAMES} for s in seeds}

    mib = 2**20
    full = {"name": "full", "title": "Full fine-tuning", "dial": None, "dial_value": None}
    suite.add(
        full | {"label": "Single-task full fine-tuning"},
        values(0),
        kind="single_task",
        trainable=4_100_000,
        decoders=500_000,
        memory=190 * mib,
    )
    suite.add(
        full | {"label": "Multi-task full fine-tuning"},
        values(-3),
        trainable=5_600_000,
        decoders=2_000_000,
        memory=240 * mib,
        step_seconds=0.19,
    )
    suite.add(made_method("frozen", "Decoders only", None, None), values(-24), trainable=2_000_000, decoders=2_000_000, memory=70 * mib)
    for rank, change in ((4, -12), (8, -10.5), (16, -9.7)):
        suite.add(
            made_method(value=rank), values(change), trainable=2_000_000 + 20_000 * rank, decoders=2_000_000, memory=(150 + rank // 4) * mib
        )
    for reduction, change in ((8, -9), (4, -8)):
        method = made_method("adapter", "Adapter", "reduction", reduction, label=f"Adapter (reduction {reduction})")
        suite.add(method, values(change), trainable=2_000_000 + 2_400_000 // reduction, decoders=2_000_000, memory=(190 - reduction) * mib)
    vpt = made_method("vpt", "VPT-deep", "prompts", 10, label="VPT-deep (10 prompts)")
    suite.add(vpt, values(-18), trainable=2_030_000, decoders=2_000_000, memory=210 * mib)
    for rank, change in ((4, -6.5), (8, -5.5), (16, -5.2)):
        method = made_method("mtlora", "MTLoRA", "rank", rank)
        suite.add(method, values(change), trainable=2_550_000 + 25_000 * rank, decoders=2_000_000, memory=(205 + rank) * mib)
    suite.add(made_method("mtlora_plus", "MTLoRA+", "rank", 8), values(-6), trainable=2_420_000, decoders=2_000_000, memory=206 * mib)
    return suite


def pairs_of(suite: MadeSuite) -> dict[str, Pairs]:
    """Compare the rows of a suite over its seeds."""
    return column_pairs(suite.plan(), suite.records, scored_seed_frame(suite.plan(), suite.records))
