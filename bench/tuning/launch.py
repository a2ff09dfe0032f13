"""What `tune` does: the settings that lack a record on an executor, then the outcome."""

import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import provenance
from bench.config import ConfigError, TrialConfig
from bench.data.roots import open_split
from bench.launch import RERUN, new_launch, prepare_weights, render_data
from bench.memory import machine_memory
from bench.plan import Reader, write_plan
from bench.prepare import prepare_trials
from bench.suites import Row, Suite
from bench.sweep.jobs import Limits
from bench.sweep.lock import only_launch
from bench.sweep.on_ray import set_environment
from bench.sweep.place import AUTO, Plan, Slots, place
from bench.sweep.room import require_memory
from bench.trial import Launch
from bench.tuning.outcome import outcome_of, write_outcome
from bench.tuning.plan import Point, Protocol, TunedRow, quasi_random_points, records_of, rungs, to_do, tuned_rows
from bench.tuning.point import forget

TUNING = "tuning"
SEARCHERS = ("halton", "optuna")
SPLITS = ("train", "held_out")
"""All that a tune reads."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where and how the trials of a tune run; as on the command line of `run`."""

    executor: str
    slots: Slots = field(default_factory=Slots)
    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    cache_dir: Path | None = None
    trackers: tuple[str, ...] = ()
    rerun: frozenset[str] = frozenset()
    command: str = ""
    quiet: bool = False


def tune_suite(
    suite: Suite,
    protocol: Protocol,
    options: Options,
    *,
    results: Path,
    data_root: Path | None,
    weights_file: Path | None,
    only: str | None,
) -> dict[str, Any]:
    """Run what is missing of a tune; write and return its outcome, which `tuning.json` holds.

    Args:
        suite: To tune.
        protocol: How.
        options: Where.
        results, data_root, weights_file: As for `run`.
        only: Pattern of row labels; the outcome then has these rows alone, and is incomplete.
    """
    check(protocol, options)
    console, suite_dir = Console(stderr=True, quiet=options.quiet), (results / suite.name).resolve()
    tuning_dir = suite_dir / TUNING
    rows = [tuned for tuned in tuned_rows(suite, protocol) if only is None or fnmatch.fnmatchcase(tuned.row.label, only)]
    if not rows:
        raise ConfigError(f"--only {only!r} matches no row; rows: {', '.join(row.label for row in suite.rows)}")
    prepare_training_data([base for tuned in rows for base in tuned.bases], suite_dir.parent, data_root, console)
    with only_launch(tuning_dir, console.print) as launch_id:
        launch = new_launch(
            suite,
            tuning_dir,
            results=suite_dir.parent,
            id=launch_id,
            data_root=data_root,
            weights_file=weights_file,
            cache_dir=options.cache_dir,
            workers=options.workers,
            trackers=options.trackers,
            executor=options.executor,
            command=options.command,
        )
        bases = [base for tuned in rows for base in tuned.bases]
        prepare_trials(bases, launch.cache_dir, results=launch.results, data_root=data_root, console=console)
        if protocol.searcher == "halton":
            points = quasi_random_points(rows, protocol)
            run_fixed(suite, rows, points, protocol, launch, options, console)
        else:
            points = run_searched(rows, protocol, launch, options, console)
        outcome = outcome_of(suite, rows, points, protocol, tuning_dir)
        write_outcome(outcome, suite_dir, options.command)
    return outcome


def check(protocol: Protocol, options: Options) -> None:
    """Raise ConfigError where the options do not go together, RoomError where a trial does not fit on this machine."""
    if options.rerun - set(RERUN):
        raise ConfigError(f"--rerun takes {' and '.join(RERUN)}, separated by a comma; got {', '.join(sorted(options.rerun))}")
    if protocol.searcher not in SEARCHERS:
        raise ConfigError(f"--searcher takes {' or '.join(SEARCHERS)}; got {protocol.searcher!r}")
    if options.executor == "serial" and (protocol.asha or protocol.searcher == "optuna"):
        raise ConfigError("--asha and --searcher optuna are Ray Tune's: use --executor ray, or leave them out with serial")
    if options.executor == "serial" and options.slots != Slots():
        raise ConfigError("--address, --gpus-per-trial and --cpus-per-trial are for --executor ray; leave them out with serial")
    if options.executor == "serial":
        require_memory(options.limits.memory_bytes, machine_memory())
    if options.slots.gpus == AUTO:
        raise ConfigError("--gpus-per-trial auto needs profiles, which a tune does not measure: give a number")


def prepare_training_data(trials: Sequence[TrialConfig], results: Path, data_root: Path | None, console: Console) -> None:
    """Render what synthetic trials read, and open the two parts of the training split; the validation split stays closed."""
    for data in dict.fromkeys(trial.data for trial in trials):
        if data.synthetic is None and data_root is None:
            raise ConfigError("this suite reads a data set from a directory: give it with --data-root DIR")
        root = data_root if data.synthetic is None else render_data(results, data.synthetic)[0]
        tasks = tuple(dict.fromkeys(task for trial in trials if trial.data == data for task in trial.tasks))
        counts = {split: len(open_split(root, split, tasks, held_out=data.held_out, store=results / "data")) for split in SPLITS}
        console.print(
            f"{root}: {' + '.join(f'{count} {split}' for split, count in counts.items())} images", soft_wrap=True, highlight=False
        )


def run_fixed(
    suite: Suite, rows: Sequence[TunedRow], points: Sequence[Point], protocol: Protocol, launch: Launch, options: Options, console: Console
) -> None:
    """Run the trials of given settings that have no record yet."""
    missing = remaining(points, protocol, launch.suite_dir, options.rerun, console)
    write_plan(plan_of(suite, rows, points), launch.suite_dir, options.command)
    total = [trial.run_id for point in points for trial in point.trials]
    forget([run_id for run_id in total if run_id not in missing], launch.suite_dir)
    console.print(
        f"{suite.name}: {protocol.budget} settings for each of {len(rows)} rows, {len(total)} trials, {len(missing)} to run",
        highlight=False,
    )
    if not missing:
        return
    prepare_weights(list(missing.values()), launch.weights_file)
    if protocol.asha:
        waiting, known = split_known(points, launch.suite_dir, missing)
        run_on_tune(rows, waiting, known, protocol, launch, options, again=frozenset(missing))
        return
    plan = Plan(plan_of(suite, rows, points), [], list(missing.values()), redo=True)  # also of what ASHA stopped
    place(plan, launch, options.slots, options.limits, quiet=options.quiet)


def remaining(
    points: Sequence[Point], protocol: Protocol, tuning_dir: Path, rerun: frozenset[str], console: Console
) -> dict[str, TrialConfig]:
    """Return the trials to run, by run id; a damaged record is set aside, and named, first."""
    say = partial(console.print, style="yellow", markup=False, highlight=False, soft_wrap=True)
    with Reader(say, move=True) as reader:
        for point in points:
            for trial in point.trials:
                reader.read(tuning_dir / "records" / f"{trial.run_id}.json")
    return to_do(points, tuning_dir, asha=protocol.asha, rerun=rerun, code_id=provenance.code_id())


def run_searched(rows: Sequence[TunedRow], protocol: Protocol, launch: Launch, options: Options, console: Console) -> list[Point]:
    """Let Optuna choose the settings of each row; return all that it asked for within the budget."""
    set_environment(options.slots.address)
    from bench.tuning.on_ray.searchers import asked_points

    def asked() -> list[Point]:
        say = partial(console.print, style="yellow", markup=False, highlight=False, soft_wrap=True)
        return [point for tuned in rows for point in asked_points(tuned, launch.suite_dir, say)[: protocol.budget]]

    points = asked()
    missing = remaining(points, protocol, launch.suite_dir, options.rerun, console)
    forget([trial.run_id for point in points for trial in point.trials if trial.run_id not in missing], launch.suite_dir)
    waiting, known = split_known(points, launch.suite_dir, missing)
    console.print(
        f"{protocol.budget} settings for each of {len(rows)} rows by Optuna; {len(known)} have their records, {len(waiting)} go on",
        highlight=False,
    )
    if len(known) < protocol.budget * len(rows):
        prepare_weights([base for tuned in rows for base in tuned.bases], launch.weights_file)
        run_on_tune(rows, None, known, protocol, launch, options, again=frozenset(missing))
    return asked()


def run_on_tune(
    rows: Sequence[TunedRow],
    points: Sequence[Point] | None,
    known: Sequence[tuple[Point, list[dict[str, Any]]]],
    protocol: Protocol,
    launch: Launch,
    options: Options,
    *,
    again: Collection[str],
) -> None:
    """Run settings on Ray Tune, or let Optuna choose them there; `again` are run ids of trials whose record is made again."""
    set_environment(options.slots.address)
    from bench.tuning.on_ray.run import run_points
    from bench.tuning.on_ray.schedulers import scores_at_rungs

    marks = rungs(rows[0].bases[0].recipe.epochs)
    run_points(
        rows,
        points=points,
        known=[(point, scores_at_rungs(records, marks)) for point, records in known],
        again=again,
        budget=protocol.budget,
        asha=protocol.asha,
        launch=launch,
        slots=options.slots,
        limits=options.limits,
        quiet=options.quiet,
    )


def split_known(
    points: Sequence[Point], tuning_dir: Path, missing: Collection[str]
) -> tuple[list[Point], list[tuple[Point, list[dict[str, Any]]]]]:
    """Return the settings that have trials to run, by `missing` run ids, and the others with their records."""
    waiting = [point for point in points if any(trial.run_id in missing for trial in point.trials)]
    return waiting, [(point, records_of(point, tuning_dir)) for point in points if point not in waiting]


def plan_of(suite: Suite, rows: Sequence[TunedRow], points: Sequence[Point]) -> Suite:
    """Return a tune as a suite of its trials, so that `status` and other tools can read its directory."""
    of_row = {tuned.row.label: tuple(t for point in points if point.row == tuned.row.label for t in point.trials) for tuned in rows}
    made = tuple(Row(label=label, trials=trials) for label, trials in of_row.items())
    reference = suite.reference if suite.reference in of_row else made[0].label
    return Suite(name=suite.name, title=f"{suite.title}: tuning", description=suite.description, rows=made, reference=reference)
