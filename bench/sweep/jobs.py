"""What is to run, as plain JSON types that travel to supervisors and children: one job a trial or session of a profile."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.config import TrialConfig
    from bench.trial import Launch

HANG_SECONDS = 1800.0
"""Far beyond the slowest step or evaluated batch, and nothing against a week: what is silent for so long will not speak again."""

ENTRIES = {"accuracy": "bench.sweep.entries:train", "profile": "bench.sweep.entries:profile"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds a trial.

    Attributes:
        time_limit_seconds: The most seconds of one start; then the trial is killed and recorded as `timeout`. None sets no limit.
        hang_seconds: A trial that has shown no sign of life (`bench.heartbeat`) for so long is killed, which counts as a death. None waits.
        max_attempts: So often may its process die, over all launches, until that is its record.
        memory_bytes: What it may allocate (enforced where it has no GPU), and what Ray sets aside for it; None sets no limit.
    """

    time_limit_seconds: float | None = None
    hang_seconds: float | None = HANG_SECONDS
    max_attempts: int = 3
    memory_bytes: int | None = None


def make_job(
    trial: "TrialConfig",
    launch: "Launch",
    limits: Limits,
    *,
    session: int | None = None,
    gpus: float = 0,
    cpus: int | None = None,
    redo: bool = False,
    entry: str | None = None,
) -> dict[str, Any]:
    """Return the job of a trial, or of a session that measures its profile.

    Args:
        trial: Its configuration.
        launch: Where and how it runs.
        limits: What bounds it.
        session: Number of the session; None is the trial itself.
        gpus: Its share of GPUs; 0 hides them all.
        cpus: CPUs set aside for it; None means its threads and its loader processes.
        redo: Whether a record of another launch is to be made again.
        entry: What runs it, `module:function`; None means this suite's own.
    """
    from bench.profile import profile_id

    kind, folder, run_id = "accuracy", "records", trial.run_id
    if session is not None:
        kind, folder, run_id = "profile", "profiles", profile_id(trial, session)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(launch).items()}
    return {
        "kind": kind,
        "session": session,
        "run_id": run_id,
        "entry": entry or ENTRIES[kind],
        "config": trial.to_dict(),
        "launch": plain,
        "launch_id": launch.id,
        "suite_dir": str(launch.suite_dir),
        "record": str(launch.suite_dir / folder / f"{run_id}.json"),
        "redo": redo,
        "epochs": trial.recipe.epochs if kind == "accuracy" else 0,
        "gpus": gpus,
        "cpus": cpus or trial.recipe.threads + launch.loader_workers,
    } | dataclasses.asdict(limits)
