"""The page: `report.html`, one file that needs neither network nor server, from the same numbers as tables and figures.

`facts` are the sentences at its top, `payload` the data that its script draws from, `assets` the bytes inside of it; the templates lie in
`bench/report/templates`. Text from records is escaped by jinja2 where it is markup, set as text by the script, and its policy (CSP) forbids
every request.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report.family import with_titles
from bench.report.page.assets import PAGE_LIMIT_BYTES, data_uri, downloads, packed, pictures, plotly_packed, small_png
from bench.report.page.facts import facts
from bench.report.page.payload import payload
from bench.report.plots import Drawn, caption
from bench.report.plots.tasks import shown_labels
from bench.report.style import interval_note
from bench.report.summary import paragraphs
from bench.report.tables import MainTable, printed_parts

TEMPLATES = Path(__file__).parents[1] / "templates"
PAGE = "report.html"
SCRIPTS = ("table", "charts", "detail", "main")


def make_page(
    plan: Mapping,
    records: Sequence[Mapping],
    rows: pd.DataFrame,
    table: MainTable,
    *,
    drawn: Drawn,
    contents: Mapping[str, str | bytes],
    findings: Sequence[str],
    evidence: Mapping[str, str],
    damaged: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: Records of the plan.
        rows: As `bench.report.stats.row_frame` returns it.
        table: The printed table of these rows, line by line.
        drawn: The figures.
        contents: The other files of the report, for the downloads.
        findings: Sentences on what holds and what does not.
        evidence: Markdown by heading: claims, ours beside published, audit, fronts; what is not there is left out.
        damaged: Why, per file of the suite that could not be used.
    """
    rows, damaged = with_titles(rows), damaged or {}
    labels = list(rows["label"])
    data = payload(plan, records, rows, damaged) | {"panels": pictures(drawn.panels, labels, shown_labels(rows, labels))}
    page = partial(
        _template().render,
        plan=plan,
        description=paragraphs(plan.get("description") or ""),
        title=table.title,
        facts=facts(plan, records, rows, damaged),
        findings=findings,
        evidence={heading: Markup(to_markup(text)) for heading, text in evidence.items()},
        heads=[_head(name) for name in table.cells.columns],
        lines=_lines(table, rows),
        printed=printed_parts(list(table.cells.columns)),
        footnotes=table.footnotes,
        figures=[_figure(name, rows, contents) for name in drawn.names if not (name.startswith("panels_") and data["panels"])],
        not_drawn=drawn.not_drawn,
        has_panels=data["panels"] is not None,
        intervals=interval_note(rows["seeds_complete"]),
        css=_source("page.css"),
        script=_source(*(f"{name}.js" for name in SCRIPTS)),
        plotly=plotly_packed(),
        data=packed(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()),
    )
    offered = partial(downloads, contents, _download_names(contents))
    return page(downloads=offered(room=PAGE_LIMIT_BYTES - len(page(downloads=offered(room=0)).encode())))


def _template() -> jinja2.Template:
    """Return the page's template, which fails at a name that it is not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2")


def _source(*names: str) -> Markup:
    """Return style sheets or scripts, one after the other."""
    return Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def _figure(name: str, rows: pd.DataFrame, contents: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return a figure as the template takes it, in the resolution of a screen."""
    return {"name": name, "caption": caption(name, rows), "image": data_uri("x.png", small_png(contents[f"{name}.png"]))}


def to_markup(text: str) -> str:
    """Return Markdown as HTML; markup in it is text, and its top heading goes, because the page has its own."""
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    return MarkdownIt("commonmark", {"html": False}).enable("table").render("\n".join(lines))


def _head(name: str) -> dict[str, str]:
    """Return a column head with what sorting by it means: text, or a number whose best end comes first."""
    kind = "text" if name in ("Method", "Seeds", "One path") else "number"
    return {"name": name, "kind": kind, "first": "descending" if "↑" in name else "ascending"}


def _lines(table: MainTable, rows: pd.DataFrame) -> list[dict]:
    """Return the table's lines for the template: number, family and cells with their marks."""
    return [
        {
            "number": place + 1,
            "family": rows["family"].iloc[place],
            "break": place > 0 and table.groups[place] != table.groups[place - 1],
            "incomplete": bool(rows["seeds_complete"].iloc[place] < rows["seeds_planned"].iloc[place]),
            "cells": [
                {"text": text, "bold": bool(bold)} for text, bold in zip(table.cells.iloc[place], table.bold.iloc[place], strict=True)
            ],
        }
        for place in range(len(table.cells))
    ]


def _download_names(contents: Mapping[str, str | bytes]) -> list[str]:
    """List what can be downloaded: the table, figures as PDF, other tables, the figures' numbers; the figures' PNG are on the page."""
    kinds = [
        [name for name in contents if name.startswith("table")],
        [name for name in contents if name.endswith(".pdf")],
        [name for name in contents if name.endswith((".tex", ".md"))],
        sorted(name for name in contents if name.endswith(".csv")),
    ]
    return list(dict.fromkeys(name for kind in kinds for name in kind))
