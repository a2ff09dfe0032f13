#!/usr/bin/env python
"""The command line of the suite. `list`, `status` and `report` import neither torch nor ray."""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.catalogue import backbones, described, tasks
from bench.errors import SuiteError

app = typer.Typer(
    help="Benchmark of parameter-efficient fine-tuning on multi-task dense vision.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets.", context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
app.add_typer(data_app, name="data")

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Listing(StrEnum):
    """What `list` can list."""

    methods = "methods"
    suites = "suites"
    backbones = "backbones"
    tasks = "tasks"


class Executor(StrEnum):
    """Where trials run."""

    ray = "ray"
    serial = "serial"


SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite; see `list suites`.")]
Results = Annotated[Path, typer.Option(help="Directory of the results; a suite's own are in DIR/SUITE.", metavar="DIR")]
DataRoot = Annotated[Path | None, typer.Option(help="A PASCAL_MT directory instead of the suite's synthetic data.", metavar="DIR")]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of the backbone (.safetensors or .pth) instead of the suite's.", metavar="FILE")
]
Seeds = Annotated[str | None, typer.Option(help="Seeds instead of the suite's, for instance 0,1,2.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
DEFAULT_RESULTS = Path("results")
console = Console(width=None if sys.stdout.isatty() else 200)


@app.command("list")
def list_(what: Annotated[Listing, typer.Argument(help="What to list.")], as_json: Json = False) -> None:
    """List methods, suites, backbones or tasks."""
    rows = {
        Listing.methods: lambda: described("methods", decorated="register"),
        Listing.suites: lambda: described("bench/suites", defining="suite"),
        Listing.backbones: backbones,
        Listing.tasks: tasks,
    }[what]()
    show_rows(rows, as_json)


@app.command()
def plan(
    suite: SuiteName,
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    seeds: Seeds = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Show what would run: rows, trainable parameters, missing trials, and an estimate of the time from steps measured here."""
    from bench.launch import plan_rows

    chosen = load_suite(suite, data_root, seeds, weights)
    rows = plan_rows(chosen, results / suite, data_root=data_root)
    show_rows(rows, as_json)
    if not as_json:
        to_do = sum(row["missing"] for row in rows)
        seconds = sum(row["missing"] * row["seconds_per_trial"] for row in rows)
        print(f"{to_do} of {sum(row['trials'] for row in rows)} trials to run, about {seconds / 60:.0f} minutes of one slot in all.")


@app.command()
def run(
    suite: SuiteName,
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    seeds: Seeds = None,
    only: Annotated[str | None, typer.Option(help="Run only rows or run ids that match, for instance 'LoRA*'.", metavar="PATTERN")] = None,
    weights: Weights = None,
    executor: Annotated[Executor, typer.Option(help="Ray Tune, or one trial after the other in this process.")] = Executor.ray,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster; by default RAY_ADDRESS, else one is started here.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs a trial; by default 1 where there are any.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPUs a trial; by default its threads and loader processes.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes a trial; by default 4 on a GPU, else 0.", min=0)] = None,
    rerun: Annotated[str, typer.Option(help="Make records again: failed, stale (made by other code), or failed,stale.")] = "",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run the trials that have no record yet; then write tables and plots."""
    from bench.launch import launch_suite

    chosen = load_suite(suite, data_root, seeds, weights)
    try:
        outcome = launch_suite(
            chosen,
            results=results,
            data_root=data_root,
            weights_file=weights,
            only=only,
            executor=executor.value,
            address=address,
            gpus_per_trial=gpus_per_trial,
            cpus_per_trial=cpus_per_trial,
            workers=workers,
            rerun=frozenset(filter(None, rerun.split(","))),
            command=shlex.join(["python", "run_suite.py", *sys.argv[1:]]),
            verbose=verbose,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        Console(stderr=True, quiet=quiet).print("interrupted; run the same command again to go on")
        raise typer.Exit(INTERRUPTED) from None
    if outcome.ok and not quiet:
        print_report(results / suite, keep_current=True)
    raise typer.Exit(OK if outcome.complete else SOME_FAILED)


@app.command()
def status(suite: SuiteName, results: Results = DEFAULT_RESULTS, as_json: Json = False) -> None:
    """Show which trials of the last launch have a record, which failed and which are missing."""
    from bench.status import suite_status

    rows = suite_status(results / suite)
    show_rows(rows, as_json)
    raise typer.Exit(OK if all(row["ok"] == row["trials"] for row in rows) else SOME_FAILED)


@app.command()
def report(suite: SuiteName, results: Results = DEFAULT_RESULTS, quiet: Quiet = False) -> None:
    """Write tables and plots again, from the records alone."""
    print_report(results / suite, quiet=quiet)


@app.command()
def params(
    suite: SuiteName,
    backbone: Annotated[str | None, typer.Option(help="Another backbone than the suite's.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Another image size, pixels.")] = None,
    as_json: Json = False,
) -> None:
    """Show the parameter ledger, without data or weights: what each row trains, counted, by formula and as published.

    The table holds the totals; --json also the groups, the names of the parameters that never get a gradient, and the sources.
    """
    from bench.ledger import ledger_rows
    from bench.suites import load

    rows = ledger_rows(load(suite, backbone=backbone, image_size=img_size))
    if as_json:
        show_rows(rows, as_json)
        return
    columns = ("row", "models", "trainable", "trainable_without_decoders", "closed_form", "published", "difference", "dead")
    show_rows([{key: row[key] for key in columns} for row in rows], as_json)
    for row in rows:
        if row["published"] is not None:
            console.print(f"[bold]{row['row']}[/]: {row['published_includes']} ({row['evidence']}). {row['note']}", highlight=False)


@app.command()
def evaluate(
    weights: Annotated[Path, typer.Option(help="Checkpoint of the official MTLoRA release (.pth).", metavar="FILE")],
    data_root: Annotated[Path, typer.Option(help="A PASCAL_MT directory.", metavar="DIR")],
    backbone: Annotated[str, typer.Option(help="The Swin of timm that it was trained on.")] = "swin_tiny_patch4_window7_224",
    img_size: Annotated[int, typer.Option(help="Side of its input, pixels.")] = 448,
    scale: Annotated[float, typer.Option(help="Scale of its low-rank updates; a checkpoint does not hold it.")] = 4.0,
    mode: Annotated[str, typer.Option(help="matrix or matrixv2; a checkpoint does not tell them apart.")] = "matrix",
    workers: Annotated[int, typer.Option(help="Loader processes.", min=0)] = 0,
) -> None:
    """Evaluate a checkpoint of the official MTLoRA release on the validation split and print JSON; ranks and tasks are read off it."""
    from bench.evaluate import evaluate_released

    result = evaluate_released(weights, data_root, backbone=backbone, image_size=img_size, workers=workers, scale=scale, mode=mode)
    print(json.dumps(result, indent=1))


@data_app.command()
def synthesize(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New directory for the PASCAL_MT tree.")],
    train: Annotated[int, typer.Option(help="Training images.", min=1)] = 400,
    val: Annotated[int, typer.Option(help="Validation images.", min=1)] = 150,
    size: Annotated[int, typer.Option(help="Longer side of an image, pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed: the same seed gives the same bytes.", min=0)] = 0,
    processes: Annotated[int, typer.Option(help="Processes that render; their number changes nothing else.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Render a synthetic data set in the PASCAL_MT layout and print its content hash."""
    from rich.progress import track

    from bench.data.synthetic import SyntheticConfig, write_pascal_mt

    steps = iter(track(range(train + val), description="rendering", console=Console(stderr=True, quiet=quiet)))
    config = SyntheticConfig(n_train=train, n_val=val, size=size, seed=seed)
    digest = write_pascal_mt(directory, config, processes=processes, progress=lambda done, total: next(steps, None))
    print(f"{digest}  {directory}")


@app.command()
def doctor(data_root: DataRoot = None, weights: Weights = None, as_json: Json = False) -> None:
    """Check environment, data set, weights and GPUs: what is fine, what is not, what to do."""
    from bench.data.doctor import Finding, diagnose
    from bench.pretrain import check_kept

    found = [*diagnose(data_root, weights), check_kept()]
    if data_root is None:
        text = "none given: demo, smoke and pretraining render theirs, the other suites read a PASCAL_MT directory"
        found.append(Finding("data set", "ok", text, "check one with --data-root DIR"))
    findings = [finding._asdict() for finding in found]
    show_rows(findings, as_json)
    raise typer.Exit(SOME_FAILED if any(finding["status"] == "fail" for finding in findings) else OK)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Directory for weights and manifest.", metavar="DIR")] = Path("bench/assets"),
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    images: Annotated[int, typer.Option(help="Images to train on.")] = 50_000,
    held_out: Annotated[int, typer.Option(help="Images to measure the source accuracy on.")] = 2_000,
    epochs: Annotated[int, typer.Option(help="Epochs.")] = 12,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 32,
    peak_lr: Annotated[float, typer.Option(help="Learning rate at the top of the schedule.")] = 1e-3,
    threads: Annotated[int, typer.Option(help="CPU threads; their number changes sums.")] = 2,
    quiet: Quiet = False,
) -> None:
    """Make the demo's backbone again: render its source classes, train, store weights and manifest."""
    from rich.progress import Progress

    from bench.pretrain import pretrain as make

    with Progress(console=Console(stderr=True, quiet=quiet)) as progress:
        bars = {stage: progress.add_task(stage, total=None) for stage in ("render", "train")}

        def show(stage: str, done: int, total: int, text: str) -> None:
            progress.update(bars[stage], completed=done, total=total, description=f"{stage} {text}")

        settings = {"seed": seed, "images": images, "held_out": held_out, "epochs": epochs}
        settings |= {"batch_size": batch_size, "peak_lr": peak_lr, "threads": threads}
        manifest = make(out, progress=show, **settings)
    print(json.dumps(manifest, indent=1))


def load_suite(name: str, data_root: Path | None, seeds: str | None, weights: Path | None) -> Any:
    """Build a suite with the command line's data, seeds and weights."""
    from bench.launch import data_config, weights_name
    from bench.suites import load

    try:
        values = None if seeds is None else tuple(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        raise typer.BadParameter(f"--seeds takes numbers separated by commas, for instance 0,1,2; got {seeds!r}") from None
    data = None if data_root is None else data_config(data_root)
    return load(name, data=data, seeds=values, weights=None if weights is None else weights_name(weights))


def print_report(suite_dir: Path, quiet: bool = False, keep_current: bool = False) -> None:
    """Make the report and print its table; with `keep_current`, a report that is up to date stays as it is."""
    from bench.report import make_report
    from bench.report.tables import to_rich

    made = make_report(suite_dir, keep_current=keep_current)
    if not quiet:
        console.print(to_rich(made.table, width=console.width))
        console.print(f"Written to {suite_dir}: {', '.join(sorted(made.files))}", highlight=False, soft_wrap=True)
        for reason in made.not_drawn:
            console.print(f"not drawn: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as JSON, or as a table."""
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table()
    for i, key in enumerate(rows[0] if rows else ()):
        numeric = all(isinstance(row[key], int | float) for row in rows)
        table.add_column(key.replace("_", " "), justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    console.print(table)


def cell(value: Any) -> str:
    """Format a value of a terminal table."""
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    return "" if value is None else str(value)


def main() -> None:
    """Run the command line; every expected error becomes one line and an exit code."""
    try:
        app()
    except (SuiteError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
