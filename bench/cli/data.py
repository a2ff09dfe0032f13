"""Commands about data: synthesize, describe, held-out, cache; and the doctor."""

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.options import DEFAULT_RESULTS, OK, SOME_FAILED, CacheDir, DataRoot, Json, Quiet, Results, Weights, show_rows


class Layout(StrEnum):
    """Layouts that can be rendered."""

    pascal_context = "pascal_context"
    nyud = "nyud"


Directory = Annotated[Path | None, typer.Argument(metavar="DIR", help="A PASCAL_MT or NYUD_MT directory, read only.", show_default=False)]
SameDirectory = Annotated[Path | None, typer.Option("--data-root", help="The same, as an option.", metavar="DIR")]


def root_of(directory: Path | None, data_root: Path | None) -> Path:
    """Return the data set's directory from the argument or the option, one of which must be given."""
    if (directory is None) == (data_root is None):
        raise typer.BadParameter("give the data set's directory, once: DIR, or --data-root DIR")
    return directory or data_root


def synthesize(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New directory for the tree; must not exist, or be empty.")],
    train: Annotated[int, typer.Option(help="Training images.", min=1)] = 400,
    val: Annotated[int, typer.Option(help="Validation images.", min=1)] = 150,
    size: Annotated[int, typer.Option(help="Longer side of an image, pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed: the same seed gives the same bytes.", min=0)] = 0,
    layout: Annotated[Layout, typer.Option(help="PASCAL_MT, or NYUD_MT: indoor scenes with depth.")] = Layout.pascal_context,
    processes: Annotated[int, typer.Option(help="Processes that render; their number changes nothing else.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Render a synthetic data set in the layout of PASCAL_MT or NYUD_MT and print its content hash.

    DIR appears when all of it is there; what a killed run left beside it is removed by the next.
    """
    from rich.progress import track

    from bench.data.synthetic import SyntheticConfig, write_pascal_mt

    steps = iter(track(range(train + val), description="rendering", console=Console(stderr=True, quiet=quiet)))
    config = SyntheticConfig(n_train=train, n_val=val, size=size, seed=seed, layout=layout.value)
    digest = write_pascal_mt(directory, config, processes=processes, progress=lambda done, total: next(steps, None))
    print(f"{digest}  {directory}")


def cache(
    directory: Directory = None,
    data_root: SameDirectory = None,
    cache_dir: CacheDir = None,
    results: Results = DEFAULT_RESULTS,
    longest_side: Annotated[int | None, typer.Option(help="Reduce larger images; by default none.", min=16)] = None,
    squared: Annotated[bool, typer.Option("--squared", help="Bring all to a square of the longest side.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Hash every file and check every array, whatever the times say; exit 1 if one was missing or wrong."),
    ] = False,
    processes: Annotated[int | None, typer.Option(help="Processes that decode; by default one a core.", min=1)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode both splits once into the cache that every trial of this machine reads; `run` does it by itself.

    A cache is known by the bytes of the files that it was made from: files with other times or in another place keep it, other bytes are
    named and the split is decoded again. Nothing is written into DIR.
    """
    from bench.data.layout import SPLITS
    from bench.launch import CACHE_FOLDER, data_config
    from bench.prepare import prepare, request_of

    root = root_of(directory, data_root)
    rows, caches, console = [], cache_dir or results / CACHE_FOLDER, Console(stderr=True, quiet=quiet)
    data = dataclasses.replace(data_config(root), longest_side=longest_side, squared=squared)
    for split in SPLITS:
        store = prepare(request_of(data, root, split), None, caches, console=console, processes=processes, verify=verify)
        rows.append({"split": split, "images": len(store.ids), "built": store.built, "directory": str(store.directory)})
    if as_json or not quiet:
        show_rows(rows, as_json)
    raise typer.Exit(SOME_FAILED if verify and any(row["built"] for row in rows) else OK)


def describe(
    directory: Directory = None,
    data_root: SameDirectory = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of what is written; by default results/data/NAME-described.", metavar="DIR", show_default=False),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Read this many a split, evenly spaced; by default all. The contact sheet may need some more.", min=1)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a data set's statistics, charts and a contact sheet: class and part frequencies, sizes, shares of saliency and void.

    README.md, classes.csv, images.csv, charts.png and contact_sheet.png; their paths are printed. Nothing is written into DIR.
    """
    from rich.progress import Progress

    from bench.data.describe import describe as describe_tree

    root = root_of(directory, data_root)
    out = out or DEFAULT_RESULTS / "data" / f"{root.resolve().name}-described"
    with Progress(console=Console(stderr=True, quiet=quiet), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        files = describe_tree(root, out, most=images, progress=lambda done, total: bar.update(task, completed=done, total=total))
    for file in files:
        print(file)


def held_out(
    directory: Directory = None,
    data_root: SameDirectory = None,
    fraction: Annotated[float, typer.Option(help="Share of the training images to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0)] = 0,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print the training ids that are held out for tuning, drawn by class and written down under the results.

    The same draw as `tune` makes with this fraction and seed; a draw that is written down is read, not made again. Nothing is written into
    DIR.
    """
    from bench.config import HeldOutConfig
    from bench.data.roots import HELD_OUT, open_split

    held = HeldOutConfig(fraction=fraction, seed=seed)
    for name in open_split(root_of(directory, data_root), HELD_OUT, ("semseg",), held_out=held, store=results / "data").ids:
        print(name)


def doctor(
    data_root: DataRoot = None,
    weights: Weights = None,
    problems: Annotated[
        Path | None,
        typer.Option(help="Write every missing or broken file, and every image without labels of a task, to this file.", metavar="FILE"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check environment, data set, weights and GPUs: what is fine, what is not, what to do. Every file of a data set is read."""
    from rich.progress import Progress

    from bench.data.doctor import Finding, diagnose
    from bench.pretrain import check_kept

    with Progress(console=Console(stderr=True, quiet=quiet), transient=True) as bar:

        def start(total: int) -> Callable[[int], None]:
            return partial(bar.advance, bar.add_task("reading", total=total))

        found = [*diagnose(data_root, weights, start=start, problems=problems), check_kept()]
    if data_root is None:
        text = "none given: demo, smoke and pretraining render theirs, the other suites read a PASCAL_MT directory"
        found.append(Finding("data set", "ok", text, "check one with --data-root DIR"))
    findings = [finding._asdict() for finding in found]
    shown = findings if as_json or not quiet else [finding for finding in findings if finding["status"] == "fail"]
    if shown or as_json:
        show_rows(shown, as_json)
    raise typer.Exit(SOME_FAILED if any(finding["status"] == "fail" for finding in findings) else OK)
