"""Tables that fit a terminal: a number is never broken over lines, labels wrap, and what has no room goes into a further table below."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.table import Table

GAP = 2
"""Characters between two columns."""

LABEL = 22
"""A longer label wraps at this width where columns need the room."""


@dataclass(frozen=True)
class Column:
    """One column: a title and the text of its cells, one a row, "" where there is nothing."""

    title: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Characters that it needs; titles wrap between words, cells do not."""
        return max(map(len, (*self.title.split(), *self.cells)))

    @property
    def header(self) -> str:
        """The title, wrapped to the width."""
        return "\n".join(textwrap.wrap(self.title, self.width, break_long_words=False, break_on_hyphens=False))


@dataclass(frozen=True)
class Group:
    """Columns that belong together, under a title, and what a reader must know of them, for under their table."""

    title: str
    columns: tuple[Column, ...]
    legend: str = ""


def fitted(labels: Column, groups: Sequence[Group], room: int) -> list[Table]:
    """Lay groups of columns beside the labels, as many as `room` characters take; what is left comes in further tables.

    A table has no line for a row of which it has no number. A group that is too wide alone is split between columns.
    """
    least = min(_natural(labels), LABEL)
    parts: list[tuple[list[Group], list[Column]]] = []
    for group in groups:
        if parts and least + _taken([*parts[-1][1], *group.columns]) <= room:
            parts[-1][0].append(group)
            parts[-1][1].extend(group.columns)
            continue
        parts.append(([group], []))
        for column in group.columns:
            if parts[-1][1] and least + _taken([*parts[-1][1], column]) > room:
                parts.append(([replace(group, title=f"{group.title}, continued")], []))
            parts[-1][1].append(column)
    return [_table(labels, within, columns, room) for within, columns in parts]


def _natural(labels: Column) -> int:
    return max(map(len, (labels.title, *labels.cells)))


def _taken(columns: Sequence[Column]) -> int:
    return sum(column.width + GAP for column in columns)


def _table(labels: Column, groups: Sequence[Group], columns: Sequence[Column], room: int) -> Table:
    table = Table(
        title=" · ".join(group.title for group in groups),
        title_justify="left",
        title_style="bold",
        caption="\n".join(group.legend for group in groups if group.legend) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    table.add_column(labels.title, width=max(1, min(_natural(labels), room - _taken(columns))), overflow="fold")
    for column in columns:
        table.add_column(column.header, width=column.width, justify="right", no_wrap=True, overflow="crop")
    for label, *cells in zip(labels.cells, *(column.cells for column in columns), strict=True):
        if any(cells):
            table.add_row(label, *cells)
    return table


def plain(rows: Sequence[dict[str, Any]]) -> Table:
    """Return rows as one table: numbers whole, texts wrapped."""
    table = Table()
    for i, key in enumerate(rows[0] if rows else ()):
        values = [row[key] for row in rows if row[key] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        column = Column(key.replace("_", " "), tuple(cell(value) for value in values))
        if numeric:
            table.add_column(column.header, justify="right", no_wrap=True)
        else:
            longest = max((len(word) for text in column.cells for word in text.split()), default=1)
            name = i == 0 and all(" " not in text for text in column.cells)  # to be copied, hence in one piece
            table.add_column(column.title, overflow="fold", no_wrap=name, min_width=min(longest, 8))
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    return table


def cell(value: Any) -> str:
    """Format a value of a terminal table."""
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    return "" if value is None else str(value)
