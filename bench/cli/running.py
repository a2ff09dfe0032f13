"""The options that `run` and `tune` share, defined once: where trials run, what they get, when they are given up."""

import dataclasses
import functools
import inspect
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from bench.cli.options import (
    DEFAULT_RESULTS,
    Address,
    Attempts,
    CacheDir,
    CpusPerTrial,
    DataRoot,
    Executor,
    GpusPerTrial,
    HangLimit,
    LeaveOut,
    MemoryPerTrial,
    Quiet,
    Rerun,
    Results,
    TimeLimit,
    Track,
    Verbose,
    Weights,
    Where,
    limits_of,
    rerun_of,
    slots_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """What the command line says of how trials run; each field is an option."""

    data_root: DataRoot = None
    results: Results = DEFAULT_RESULTS
    weights: Weights = None
    executor: Where = Executor.ray
    address: Address = None
    gpus_per_trial: GpusPerTrial = None
    cpus_per_trial: CpusPerTrial = None
    memory_per_trial: MemoryPerTrial = None
    time_limit: TimeLimit = None
    hang_limit: HangLimit = None
    attempts: Attempts = 3
    leave_out_broken_nodes: LeaveOut = False
    cache_dir: CacheDir = None
    workers: Annotated[int | None, typer.Option(help="Threads that prepare a trial's batches; by default 2 on a GPU, else 0.", min=0)] = (
        None
    )
    rerun: Rerun = ""
    track: Track = "tensorboard"
    verbose: Verbose = False
    quiet: Quiet = False

    def settings(self) -> dict[str, Any]:
        """Return what both launches take, in their words."""
        from bench.tracking import parse_trackers

        return {
            "executor": self.executor.value,
            "slots": slots_of(self.address, self.gpus_per_trial, self.cpus_per_trial, self.leave_out_broken_nodes),
            "limits": limits_of(self.time_limit, self.attempts, self.memory_per_trial, self.hang_limit),
            "cache_dir": self.cache_dir,
            "workers": self.workers,
            "rerun": rerun_of(self.rerun),
            "trackers": parse_trackers(self.track),
            "command": command_line(),
            "quiet": self.quiet,
        }

    def places(self) -> dict[str, Any]:
        """Return where data, weights and results lie, in the words of both launches."""
        return {"results": self.results, "data_root": self.data_root, "weights_file": self.weights}


def command_line() -> str:
    """Return the command as records and plans keep it."""
    return shlex.join(["python", "run_suite.py", *sys.argv[1:]])


def with_running(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose last parameter is `running`, the fields of `Running` as options of its own."""
    fields = dataclasses.fields(Running)
    own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != "running"]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        running = Running(**{field.name: given.pop(field.name) for field in fields})
        command(**given, running=running)

    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type) for field in fields
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
    called.__signature__ = inspect.Signature(parameters)
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called
