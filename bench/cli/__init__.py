"""The command line: one typer application; the commands lie beside by what they are about, heavy imports inside of them."""

import sys

import typer
from rich.console import Console

from bench.cli import data, evidence, listings, models, reports, sweeps, tuning
from bench.cli.options import HELP, USAGE
from bench.errors import SuiteError

app = typer.Typer(
    help="Benchmark of parameter-efficient fine-tuning on multi-task dense vision.",
    context_settings=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("list")(listings.list_)
for command in (
    sweeps.plan,
    tuning.tune,
    sweeps.run,
    sweeps.profile,
    sweeps.status,
    reports.report,
    reports.reproduce,
    evidence.compare,
    evidence.claims,
    evidence.export,
    models.params,
    models.evaluate,
    data.doctor,
    models.pretrain,
):
    app.command()(command)

data_app = typer.Typer(help="Data sets.", context_settings=HELP, no_args_is_help=True)
data_app.command()(data.synthesize)
data_app.command()(data.describe)
data_app.command()(data.held_out)
data_app.command()(data.cache)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; every expected error becomes one line and an exit code."""
    try:
        app()
    except (SuiteError, OSError) as error:  # of the system: paths, disks and networks, of which the message says enough
        system = isinstance(error, OSError) and error.strerror
        said = f"{error.strerror}: {error.filename}. Check the path that was given" if system else error
        Console(stderr=True).print(f"error: {said}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE)
