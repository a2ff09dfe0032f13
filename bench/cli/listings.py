"""The command `list`."""

from enum import StrEnum
from typing import Annotated

import typer

from bench.catalogue import backbones, described, tasks
from bench.cli.options import Json, show_rows


class Listing(StrEnum):
    """What `list` can list."""

    methods = "methods"
    suites = "suites"
    backbones = "backbones"
    tasks = "tasks"


def list_(what: Annotated[Listing, typer.Argument(help="What to list.")], as_json: Json = False) -> None:
    """List methods, suites, backbones or tasks."""
    rows = {
        Listing.methods: lambda: described("methods", decorated="register"),
        Listing.suites: lambda: described("bench/suites", defining="suite"),
        Listing.backbones: backbones,
        Listing.tasks: tasks,
    }[what]()
    show_rows(rows, as_json)
