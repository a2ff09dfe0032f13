"""From a suite to its results: data, plan, the missing trials on an executor, the report's inputs. What `run` does."""

import contextlib
import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench import provenance
from bench.config import ConfigError, DataConfig, TrialConfig
from bench.data.layout import LAYOUTS, fingerprint, layout_of
from bench.data.roots import ensure_synthetic, open_split
from bench.data.synthetic import SyntheticConfig
from bench.data.untouched import refuse_inside
from bench.errors import SuiteError
from bench.memory import machine_memory
from bench.model.backbone import WeightsError, build_backbone
from bench.plan import Reader, damaged_profiles, missing, missing_profiles, write_plan
from bench.prepare import prepare_trials
from bench.profile import Session, sessions_of
from bench.record import RecordError, examine, read_plan, write_atomically
from bench.storage import refuse
from bench.suites import Suite
from bench.sweep.jobs import Limits
from bench.sweep.lock import only_launch
from bench.sweep.place import Plan, Slots, place
from bench.sweep.room import require_memory
from bench.trial import Launch

RERUN = ("failed", "stale")
RERUN_WITH_PROFILES = (*RERUN, "busy")
"""Where profiles are measured, those of a busy device can be measured again."""

GPU_WORKERS = 2
CACHE_FOLDER = "cache"
"""Prepared caches lie in this folder of the results unless `--cache-dir` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class LaunchStatus:
    """Outcome of a launch: how many of the suite's trials have a good record."""

    ok: int
    trials: int

    @property
    def complete(self) -> bool:
        """Whether every trial has one."""
        return self.ok == self.trials


def data_config(data_root: Path) -> DataConfig:
    """Return the configuration of a directory, PASCAL_MT or NYUD_MT."""
    return DataConfig(source=layout_of(data_root).name, fingerprint=fingerprint(data_root))


def weights_name(file: Path) -> str:
    """Return the name of a weights file in a configuration: the hash of its content."""
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def launch_suite(
    suite: Suite,
    *,
    results: Path,
    data_root: Path | None,
    weights_file: Path | None,
    only: str | None,
    executor: str,
    slots: Slots,
    limits: Limits,
    profiles: bool,
    cache_dir: Path | None,
    workers: int | None,
    rerun: frozenset[str],
    trackers: tuple[str, ...],
    command: str,
    verbose: bool,
    quiet: bool,
    accuracy: bool = True,
) -> LaunchStatus:
    """Run what is missing of a suite, without `accuracy` only profiles; returns how many of the chosen trials have a good record now."""
    require_sound(rerun, executor, slots, limits)
    console, suite_dir = Console(stderr=True, quiet=quiet), (results / suite.name).resolve()
    chosen = chosen_trials(suite, only)
    prepare_data(chosen, suite_dir.parent, data_root, console)
    with only_launch(suite_dir, console.print) as launch_id:
        to_do, to_profile = work_left(chosen, suite_dir, accuracy=accuracy, profiles=profiles, rerun=rerun, console=console)
        to_prepare = to_do or list(dict.fromkeys(session.trial for session in to_profile))
        prepare_weights(to_prepare, weights_file)
        launch = new_launch(
            suite,
            suite_dir,
            results=suite_dir.parent,
            id=launch_id,
            data_root=data_root,
            weights_file=weights_file,
            cache_dir=cache_dir,
            workers=workers,
            trackers=trackers,
            executor=executor,
            command=command,
        )
        prepare_trials(to_prepare, launch.cache_dir, results=suite_dir.parent, data_root=data_root, console=console)
        clear_leftovers([trial for trial in chosen if trial not in to_do], suite_dir)
        console.print(f"{suite.name}: {counted(chosen, to_do, to_profile, accuracy=accuracy)}", highlight=False)
        with new_plan(suite, suite_dir, command if accuracy else training_command(suite_dir, command), to_do):
            if to_do or to_profile:
                place(Plan(suite, to_profile, to_do, bool(rerun)), launch, slots, limits, quiet=quiet)
    wanted = [trial.run_id for trial in chosen] if accuracy else [session.run_id for session in sessions_of(chosen)]
    return summarize(wanted, suite_dir / ("records" if accuracy else "profiles"), verbose=verbose)


def counted(chosen: list[TrialConfig], to_do: list[TrialConfig], to_profile: list[Session], *, accuracy: bool) -> str:
    """Say how much is there and how much is left."""
    trials = f"{len(chosen)} trials, {len(chosen) - len(to_do)} with a record, {len(to_do)} to run; " if accuracy else ""
    return f"{trials}{len(to_profile)} sessions of profiles to measure"


def work_left(
    chosen: list[TrialConfig], suite_dir: Path, *, accuracy: bool, profiles: bool, rerun: frozenset[str], console: Console
) -> tuple[list[TrialConfig], list[Session]]:
    """Return the trials to run and profiles to measure: what has no record, and of the others what is damaged and what `rerun` names.

    Damage is set aside where the launch makes it good; a record that this launch does not make again is named only. Where nothing is made
    again, rows whose trials all have records are not profiled any more.
    """
    rules = {"rerun": rerun, "code_id": provenance.code_id()}
    say = partial(console.print, style="yellow", markup=False, highlight=False, soft_wrap=True)
    with Reader(say, move=accuracy) as reader:
        lacking = missing(chosen, suite_dir, reader, **rules)
    to_do = lacking if accuracy else []
    if not profiles:
        return to_do, []
    with Reader(say, move=True) as reader:
        again = damaged_profiles(chosen, suite_dir, reader)
        lacking = missing_profiles(chosen if rerun or not accuracy else to_do, suite_dir, reader, **rules)
    return to_do, sorted(dict.fromkeys((*again, *lacking)), key=lambda session: session.number)


def new_launch(
    suite: Suite,
    directory: Path,
    *,
    results: Path,
    data_root: Path | None,
    weights_file: Path | None,
    cache_dir: Path | None,
    workers: int | None,
    **more: Any,
) -> Launch:
    """Return how the trials of a suite run, from what the command line gave; `more` are fields of `Launch`.

    Their records go under `directory`. Without a cache directory the caches lie in the results, and the nodes of a cluster copy them.
    """
    if cache_dir is not None:
        refuse_inside(cache_dir, data_root, option="--cache-dir")
    return Launch(
        suite=suite.name,
        suite_dir=directory,
        results=results,
        data_root=None if data_root is None else data_root.resolve(),
        weights_file=None if weights_file is None else weights_file.resolve(),
        cache_dir=(cache_dir or results / CACHE_FOLDER).resolve(),
        node_copies=cache_dir is None,
        loader_workers=default_workers() if workers is None else workers,
        git=provenance.git_state(),
        **more,
    )


def require_sound(rerun: frozenset[str], executor: str, slots: Slots, limits: Limits) -> None:
    """Raise ConfigError where options are unknown or do not go together, RoomError where a trial does not fit on this machine."""
    if rerun - set(RERUN_WITH_PROFILES):
        raise ConfigError(f"--rerun takes {', '.join(RERUN_WITH_PROFILES)}, separated by a comma; got {', '.join(sorted(rerun))}")
    if executor == "serial" and slots != Slots():
        raise ConfigError(
            "--address, --gpus-per-trial, --cpus-per-trial and --leave-out-broken-nodes are for --executor ray; leave them out with serial"
        )
    if executor == "serial":
        require_memory(limits.memory_bytes, machine_memory())


@contextlib.contextmanager
def new_plan(suite: Suite, suite_dir: Path, command: str, to_do: list[TrialConfig]) -> Iterator[None]:
    """Write the plan; where the launch is refused before a trial of it ran, the former plan, which the records belong to, comes back."""
    file = suite_dir / "plan.json"
    former = file.read_bytes() if file.exists() else None  # a damaged one comes back as it was
    write_plan(suite, suite_dir, command)
    try:
        yield
    except SuiteError:
        if former is not None and not any((suite_dir / "records" / f"{trial.run_id}.json").exists() for trial in to_do):
            write_atomically(file, former)
        raise


def training_command(suite_dir: Path, profile_command: str) -> str:
    """Return what a launch of profiles alone leaves in the plan as the command: the one that stands there, else its own as `run`."""
    with contextlib.suppress(RecordError):
        return read_plan(suite_dir / "plan.json")["command"]
    return profile_command.replace(" profile ", " run ", 1)


def default_workers() -> int:
    """Return the number of threads that prepare a trial's batches: up to two on a GPU, as far as the cores suffice; else 0."""
    gpus = torch.cuda.device_count()
    return 0 if gpus == 0 else max(0, min(GPU_WORKERS, (os.cpu_count() or 1) // gpus - 1))


def prepare_data(trials: list[TrialConfig], results: Path, data_root: Path | None, console: Console) -> None:
    """Render what the synthetic trials read, check that a directory holds all that the trials' tasks need, draw what they hold out."""
    refuse_inside(results, data_root, option="--results")
    for layout in LAYOUTS.values():
        if data_root is None and any(trial.data.source == layout.name for trial in trials):
            raise ConfigError(f"this suite reads {layout.data_set}: give its {layout.title} directory with --data-root DIR")
    for data in dict.fromkeys(trial.data for trial in trials):
        if data.synthetic is not None:
            console.print(f"synthetic data: {data.synthetic.n_train} + {data.synthetic.n_val} images", highlight=False)
            root, digest = render_data(results, data.synthetic)
            console.print(f"content {digest} in {root}", highlight=False, soft_wrap=True)
        root = data_root if data.synthetic is None else root
        tasks = tuple(dict.fromkeys(task for trial in trials if trial.data == data for task in trial.tasks))
        for split in ("train", "val") if data.held_out is None else ("train", "held_out", "val"):
            images = len(open_split(root, split, tasks, held_out=data.held_out, store=results / "data"))
            if data.synthetic is None or data.held_out is not None:
                console.print(f"{root} {split}: {images} images", highlight=False, soft_wrap=True)


def render_data(results: Path, config: SyntheticConfig) -> tuple[Path, str]:
    """Return where rendered data lies and the hash of its content; renders it first where it is not there yet.

    Raises:
        StorageError: The disk is full or read-only; what was rendered by half is gone.
    """
    try:
        return ensure_synthetic(results, config)
    except OSError as error:
        refuse(error, results)
        raise


def prepare_weights(trials: list[TrialConfig], weights_file: Path | None) -> None:
    """Load each backbone once before the trials do: weights that do not fit stop the launch, and downloads happen once.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
    """
    for backbone, size in dict.fromkeys((trial.backbone, trial.recipe.image_size) for trial in trials):
        try:
            build_backbone(
                backbone.name, image_size=size, tasks=("any",), drop_path=0.0, weights=backbone.weights, weights_file=weights_file
            )
        except (OSError, RuntimeError) as error:  # what a download without a network ends in
            raise WeightsError(f"no weights {backbone.weights!r} for {backbone.name}: {error}; give them with --weights FILE") from error


def chosen_trials(suite: Suite, only: str | None) -> list[TrialConfig]:
    """Return the trials whose row label or run id matches the pattern, all without one."""
    if only is None:
        return suite.trials
    rows = {trial.run_id for row in suite.rows if fnmatch.fnmatchcase(row.label, only) for trial in row.trials}
    chosen = [trial for trial in suite.trials if trial.run_id in rows or fnmatch.fnmatchcase(trial.run_id, only)]
    if not chosen:
        raise ConfigError(f"--only {only!r} matches no row and no run id; rows: {', '.join(row.label for row in suite.rows)}")
    return chosen


def clear_leftovers(recorded: list[TrialConfig], suite_dir: Path) -> None:
    """Remove what a trial leaves that was killed between its record and its end; one that outlived its time limit may go on from it.

    So may one without a record, or with a damaged one, of which only profiles are measured now.
    """
    for trial in recorded:
        left = [suite_dir / "checkpoints" / f"{trial.run_id}{suffix}" for suffix in (".pt", ".attempts", ".lock")]
        record = suite_dir / "records" / f"{trial.run_id}.json"
        if not any(path.exists() for path in left) or not record.exists():
            continue
        content, problem = examine(record)
        if problem is None and content["status"] != "timeout":
            for path in left:
                path.unlink(missing_ok=True)


def summarize(run_ids: Iterable[str], directory: Path, *, verbose: bool) -> LaunchStatus:
    """Count good records and name those without one, also when all else is quiet; `verbose` gives the whole reason."""
    console, ok, present, run_ids = Console(stderr=True), 0, provenance.code_id(), list(run_ids)
    for run_id in run_ids:
        path = directory / f"{run_id}.json"
        record, problem = examine(path) if path.exists() else (None, "no record; run the same command again")
        if problem is not None:
            record = {"status": "damaged" if path.exists() else "missing", "reason": str(problem)}
        ok += record["status"] == "ok"
        if record["status"] != "ok":
            reason = record["reason"] if verbose else record["reason"].partition("\n")[0]
            console.print(f"{run_id}: {record['status']}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
        elif record["code_id"] != present:
            message = f"{run_id}: made by other code; `--rerun stale` makes it again"
            console.print(message, style="yellow", highlight=False, soft_wrap=True)
    return LaunchStatus(ok=ok, trials=len(run_ids))
