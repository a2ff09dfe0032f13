"""Commands about models: params, evaluate, pretrain."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.ledger import show_ledger
from bench.cli.options import Json, Quiet, SuiteName, console, outside_of_data, show_rows
from bench.cli.steps import Steps


def params(
    suite: SuiteName,
    backbone: Annotated[str | None, typer.Option(help="Another backbone than the suite's.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Another image size, pixels.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the parameter ledger, without data or weights: what each row trains, counted, by formula and as published.

    Beside it: what trains by group, and what trains but never gets a gradient. --json tells all tensors, numbers and sources row by row.
    """
    from bench.ledger import ledger_rows
    from bench.measure.cost import PARAMETER_GROUPS
    from bench.suites import load

    with Steps("counts", quiet=quiet) as steps:
        rows = ledger_rows(load(suite, backbone=backbone, image_size=img_size), progress=steps)
    if as_json:
        show_rows(rows, as_json)
    elif not quiet:
        show_ledger(console, rows, PARAMETER_GROUPS)


def evaluate(
    weights: Annotated[Path, typer.Option(help="Checkpoint of the official MTLoRA release (.pth).", metavar="FILE")],
    data_root: Annotated[Path, typer.Option(help="A PASCAL_MT directory.", metavar="DIR")],
    backbone: Annotated[str, typer.Option(help="The Swin of timm that it was trained on.")] = "swin_tiny_patch4_window7_224",
    img_size: Annotated[int, typer.Option(help="Side of its input, pixels.")] = 448,
    scale: Annotated[float, typer.Option(help="Scale of its low-rank updates; a checkpoint does not hold it.")] = 4.0,
    mode: Annotated[str, typer.Option(help="matrix or matrixv2; a checkpoint does not tell them apart.")] = "matrix",
    workers: Annotated[int, typer.Option(help="Threads that prepare batches.", min=0)] = 0,
) -> None:
    """Evaluate a checkpoint of the official MTLoRA release on the validation split and print JSON; ranks and tasks are read off it."""
    from bench.evaluate import evaluate_released

    result = evaluate_released(weights, data_root, backbone=backbone, image_size=img_size, workers=workers, scale=scale, mode=mode)
    print(json.dumps(result, indent=1))


def pretrain(
    out: Annotated[Path, typer.Option(help="Directory for weights and manifest.", metavar="DIR", callback=outside_of_data)] = Path(
        "bench/assets"
    ),
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
