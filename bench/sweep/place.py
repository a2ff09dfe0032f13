"""What a launch does once it knows what is missing: profiles first, each alone on its device; then the trials, the longest first."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.progress import Board
from bench.sweep.interrupt import Interrupt
from bench.sweep.jobs import Limits, make_job
from bench.sweep.room import learned_share, longest_first
from bench.sweep.serial import run_serial

if TYPE_CHECKING:
    from bench.config import TrialConfig
    from bench.profile import Session
    from bench.suites import Suite
    from bench.trial import Launch

AUTO = "auto"
PROFILES = "profiles, each alone"


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What a trial gets on Ray.

    Attributes:
        address: Of a running cluster; None joins the one in RAY_ADDRESS, or starts one on this machine.
        gpus: A trial's share of GPUs; None means 1 where the cluster has any; "auto" the share that the memory of its profile asks for.
        cpus: CPUs a trial; None means its threads and its loader processes.
        leave_out_broken_nodes: Whether to run without nodes that are not fit, instead of not at all.
    """

    address: str | None = None
    gpus: float | str | None = None
    cpus: int | None = None
    leave_out_broken_nodes: bool = False


@dataclass(frozen=True)
class Plan:
    """What a launch runs: sessions of profiles, trials to train, and whether records of older launches are made again."""

    suite: "Suite"
    profiles: "list[Session]"
    trials: "list[TrialConfig]"
    redo: bool


def place(plan: Plan, launch: "Launch", slots: Slots, limits: Limits, *, quiet: bool) -> None:
    """Run a plan on the launch's executor.

    Raises:
        KeyboardInterrupt: Ctrl-C: what ran has finished, or after a second one was killed.
        SuiteError: The sweep cannot start, or the disk does not take what trials write.
    """
    from bench.plan import profiled_seconds
    from bench.profile import profile_id

    sharing: dict[str, list[TrialConfig]] = {}
    for trial in plan.trials:
        sharing.setdefault(profile_id(trial), []).append(trial)

    def expected(run_id: str | None) -> dict[str, float]:
        return profiled_seconds(plan.trials if run_id is None else sharing.get(run_id, []), launch.suite_dir)

    labels = {trial.run_id: row.label for row in plan.suite.rows for trial in row.trials}
    shown = {session.run_id: (PROFILES, 0) for session in plan.profiles}
    shown |= {trial.run_id: (labels[trial.run_id], trial.recipe.epochs) for trial in plan.trials}
    with Board(shown, quiet=quiet, expected=expected) as board, Interrupt(board.say) as interrupt:
        if launch.executor == "serial":
            place_here(plan, launch, limits, board, interrupt)
        else:
            place_on_ray(plan, launch, slots, limits, board, interrupt)
    if interrupt.stopping:
        raise KeyboardInterrupt


def place_here(plan: Plan, launch: "Launch", limits: Limits, board: Board, interrupt: Interrupt) -> None:
    """Run a plan one after the other on this machine, with its first GPU where there is one."""
    import torch

    gpus, launch = float(torch.cuda.is_available()), replace(launch, node_copies=False)
    common = {"gpus": gpus, "redo": plan.redo}
    run_serial([make_job(own.trial, launch, limits, session=own.number, **common) for own in plan.profiles], board, interrupt)
    run_serial(ordered([make_job(trial, launch, limits, **common) for trial in plan.trials], plan, launch), board, interrupt)


def place_on_ray(plan: Plan, launch: "Launch", slots: Slots, limits: Limits, board: Board, interrupt: Interrupt) -> None:
    """Run a plan on Ray."""
    from bench.sweep import on_ray, preflight

    with on_ray.connected(slots.address) as cluster:
        launch = replace(launch, node_copies=launch.node_copies and not cluster.local)
        has_gpus = cluster.has_gpus()
        gpus = float(has_gpus) if slots.gpus is None else slots.gpus
        expected = preflight.expectation(launch.suite_dir, launch.data_root, launch.weights_file)
        try:
            wanted = 1.0 if gpus == AUTO else gpus
            for line in on_ray.check_nodes(cluster, expected, gpus=wanted, leave_out=slots.leave_out_broken_nodes):
                board.say(line)
        finally:
            preflight.forget(expected)
        alone = 1.0 if has_gpus and gpus else 0.0
        own_cpus = cluster.whole_node_cpus() if not alone else None  # without a GPU a profile has a node for itself
        exclusive = replace(launch, gpus_per_trial=alone)
        share = {"gpus": alone, "cpus": own_cpus, "redo": plan.redo}
        jobs = [make_job(own.trial, exclusive, limits, session=own.number, **share) for own in plan.profiles]
        trials = [trial_job(trial, launch, limits, gpus, slots.cpus, plan.redo) for trial in plan.trials]
        on_ray.require_fitting(jobs + trials, cluster)
        on_ray.run_ray(jobs, cluster, board, interrupt, launch.suite_dir)
        trials = [trial_job(trial, launch, limits, gpus, slots.cpus, plan.redo) for trial in plan.trials]  # now that shares are known
        on_ray.run_ray(ordered(trials, plan, launch), cluster, board, interrupt, launch.suite_dir)


def trial_job(trial: "TrialConfig", launch: "Launch", limits: Limits, gpus: float | str, cpus: int | None, redo: bool) -> dict[str, Any]:
    """Return the job of a trial with its share of a GPU."""
    from bench.plan import profile_file
    from bench.profile import sessions_of

    share = learned_share(profile_file(launch.suite_dir, session) for session in sessions_of([trial])) if gpus == AUTO else gpus
    return make_job(trial, replace(launch, gpus_per_trial=share), limits, gpus=share, cpus=cpus, redo=redo)


def ordered(jobs: list[dict[str, Any]], plan: Plan, launch: "Launch") -> list[dict[str, Any]]:
    """Order jobs of trials by what their profiles say of their length."""
    from bench.plan import profiled_seconds

    return longest_first(jobs, profiled_seconds(plan.trials, launch.suite_dir))
