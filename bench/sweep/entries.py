"""What a forked child runs. Importing this imports all that a trial needs, which is the nursery's purpose."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.config import TrialConfig
from bench.heartbeat import listen
from bench.outcome import iso, total_seconds
from bench.profile import run_profile
from bench.progress import epoch_text
from bench.record import write_record
from bench.storage import tail
from bench.trial import Launch, describe, run_trial

Report = Callable[[dict[str, Any]], None]


def launch_of(plain: dict[str, Any]) -> Launch:
    """Turn plain JSON types into a launch."""
    paths = {field.name for field in fields(Launch) if "Path" in str(field.type)}
    return Launch(**{name: Path(value) if name in paths and value is not None else value for name, value in plain.items()})


def train(job: dict[str, Any], report: Report) -> None:
    """Run a trial to its record."""
    config, launch = TrialConfig.from_dict(job["config"]), launch_of(job["launch"])
    keep_to_share(launch.gpus_per_trial)
    listen(lambda: report({"alive": True}))

    def on_epoch(line: dict[str, Any]) -> None:
        print(epoch_text(line, config.recipe.epochs), flush=True)  # into the trial's log
        report(line)

    run_trial(config, launch, started=job["started"], attempt=job["attempt"], earlier=job["earlier_attempts"], on_epoch=on_epoch)


def profile(job: dict[str, Any], report: Report) -> None:
    """Measure a row's costs."""
    listen(lambda: report({"alive": True}))
    config, launch = TrialConfig.from_dict(job["config"]), launch_of(job["launch"])
    run_profile(config, launch, session=job["session"], started=job["started"], attempt=job["attempt"], earlier=job["earlier_attempts"])


def bury(job: dict[str, Any], report: Report) -> None:
    """Record a death that the trial could not record; its checkpoint goes, unless it was cut off by its time limit."""
    config, launch = TrialConfig.from_dict(job["config"]), launch_of(job["launch"])
    *earlier, last = job["earlier_attempts"] or [{"start": iso(job["started"]), "seconds": 0.0}]
    timing = {"trial_start": last["start"], "end": iso(job["started"])} | total_seconds(earlier, last["seconds"])
    ends = {"status": job["status"], "reason": job["reason"], "timing": timing}
    names = {"kind": job["kind"], "run_id": job["run_id"]}
    log = launch.suite_dir / "logs" / f"{job['run_id']}.log"
    record = describe(config, launch, job["attempt"]) | names | ends | {"log_tail": tail(log)}
    write_record(Path(job["record"]).parent, record, None)
    if job["status"] != "timeout":
        (launch.suite_dir / "checkpoints" / f"{job['run_id']}.pt").unlink(missing_ok=True)


def keep_to_share(gpus: float | None) -> None:
    """Cap the memory of a trial that shares a GPU: it runs out itself instead of its neighbours."""
    import torch

    if gpus is not None and 0 < gpus < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpus)
