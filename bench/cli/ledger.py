"""How `params` shows the parameter ledger on a terminal: tables that fit, and what holds for several rows said once."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.cli.tables import Column, Group, cell, fitted

COUNTS = {
    "models": "models",
    "trainable": "trainable",
    "trainable_without_decoders": "without decoders",
    "closed_form": "closed form",
    "dead": "without gradient",
}
EXPLAINED = (
    "printed: as the table prints it. released code: counted there, to the unit. their decoders: how many of it are decoders. "
    "ours - theirs: to the released count where there is one, else to the printed one, both without decoders. "
    "agrees with: code, to the unit; print, to half a unit of the last printed digit; code only, the table prints something else than its "
    "own code counts; neither."
)


def show_ledger(console: Console, rows: Sequence[dict[str, Any]], parts: Sequence[str]) -> None:
    """Print the ledger's rows (`bench.ledger.ledger_rows`); `parts` are the names of the parameter groups, in order."""
    labels = Column("row", tuple(row["row"] for row in rows))
    published = any(row.get("published") is not None for row in rows)
    groups = [
        Group("Trainable parameters", tuple(_column(rows, key, title) for key, title in COUNTS.items())),
        *([Group("Published", _published_columns(rows), EXPLAINED)] if published else []),
        Group("Trainable parameters by group", tuple(_column(rows, key, key.replace("_", " ")) for key in (*parts, "not_trained"))),
    ]
    for table in fitted(labels, groups, console.width):
        console.print(table, "", highlight=False)
    for heading, notes in _notes(rows).items():
        if notes:
            console.print(heading, style="bold", highlight=False)
            for names, text in notes:
                console.print(Text.assemble("- ", (names, "bold"), ": ", text))


def _column(rows: Sequence[dict[str, Any]], key: str, title: str) -> Column:
    return Column(title, tuple(cell(row.get(key)) for row in rows))


def _published_columns(rows: Sequence[dict[str, Any]]) -> tuple[Column, ...]:
    columns = {
        "printed": lambda row: f"{row['printed_millions']} M" if row["printed_millions"] else "",
        "released code": lambda row: f"{row['published']:,}" if _counted(row) else "",
        "their decoders": lambda row: "none" if row["published_decoders"] == 0 else _published_number(row, row["published_decoders"]),
        "ours - theirs": lambda row: "" if row["difference"] is None else _published_number(row, row["difference"], "+"),
        "agrees with": lambda row: row["agrees_with"],
    }
    return tuple(Column(title, tuple("" if row.get("published") is None else text(row) for row in rows)) for title, text in columns.items())


def _counted(row: dict[str, Any]) -> bool:
    return row["published_kind"] == "released code"


def _published_number(row: dict[str, Any], number: int, sign: str = "") -> str:
    """Write a number as exactly as what is published allows: to the unit, or as millions with one decimal more than is printed."""
    if _counted(row):
        return f"{number:{sign if number else ''},}"
    decimals = len(row["printed_millions"].partition(".")[2]) + 1
    return f"{number / 1e6:{sign}.{decimals}f} M"


def _notes(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Return, under headings, the names of the rows that share a note, and the note."""
    known = [row for row in rows if row.get("published") is not None]
    evidence = _gathered((row["evidence"], row) for row in known)
    return {
        "Train without ever getting a gradient": _shared((row["row"], dead_patterns(row)) for row in rows if row.get("dead")),
        **{f"What published counts contain ({kind})": _shared((row["row"], _about(row)) for row in own) for kind, own in evidence.items()},
        "Refused": _shared((row["row"], row["refused"]) for row in rows if row["refused"] is not None),
    }


def _about(row: dict[str, Any]) -> str:
    return ". ".join(filter(None, (row["published_includes"], row["note"])))


def _shared(notes: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(joined(names), text) for text, names in _gathered((text, name) for name, text in notes).items()]


def joined(names: Iterable[str]) -> str:
    """Enumerate rows, the dials of one method in one pair of brackets: "A (r=1; r=2), B"."""
    stems = _gathered(name.partition(" (")[::2] for name in names)
    dials = {stem: "; ".join(dial.removesuffix(")") for dial in own if dial) for stem, own in stems.items()}
    return ", ".join(f"{stem} ({dial})" if dial else stem for stem, dial in dials.items())


def _gathered(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def dead_patterns(row: dict[str, Any]) -> str:
    """Name a row's dead parameters in short: tensors whose names differ in numbers, or at the end, as one pattern, and their number."""
    names = _gathered((re.sub(r"\.\d+(?=\.)", ".*", name), name) for name in row["dead_names"])
    alike = _gathered(
        ((_common(own, pattern).rpartition(".")[0], row["dead_parts"].get(own[0], ""), len(own)), pattern.rpartition(".")[2])
        for pattern, own in names.items()
    )
    texts = []
    for (parent, part, count), last in alike.items():
        about = [f"{count * len(last)} tensors"] if count > 1 else []
        about += [f"{part} of each" if count > 1 else part] if part else []
        ends = last[0] if len(last) == 1 else f"{{{','.join(last)}}}"
        texts.append(f"{parent}.{ends}" + (f" ({', '.join(about)})" if about else ""))
    return ", ".join(texts)


def _common(names: Sequence[str], pattern: str) -> str:
    """Keep those numbers of a pattern that all names share."""
    parts = zip(pattern.split("."), *(name.split(".") for name in names), strict=True)
    return ".".join(values[0] if len(set(values)) == 1 else star for star, *values in parts)
