"""A printed table as a web page of its own: no scripts, no network, light and dark."""

from html import escape

from bench.report.tables import DAGGER, LEFT, MainTable

_STYLE = """
:root { color-scheme: light dark }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; }
.wide { overflow-x: auto }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap }
th { border-bottom: 1px solid; vertical-align: bottom; white-space: normal }
.left { text-align: left } .best { font-weight: 700 } .recalled { font-style: italic; color: GrayText }
tr.group td { border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent) }
caption { text-align: left; font-weight: 700; padding: .4rem 0 }
ol { max-width: 70rem; padding-left: 1.2rem }
"""


def to_html(table: MainTable) -> str:
    """Return title, table and footnotes as one HTML file."""
    head = "".join(f'<th scope="col"{_left(name)}>{escape(name)}</th>' for name in table.cells.columns)
    body = []
    for position, line in enumerate(table.cells.itertuples(index=False)):
        starts = position > 0 and table.groups[position] != table.groups[position - 1]
        marks = table.bold.iloc[position]
        cells = "".join(_cell(name, text, bool(marks[name])) for name, text in zip(table.cells.columns, line, strict=True))
        body.append(f"<tr{' class=group' if starts else ''}>{cells}</tr>")
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.footnotes)
    title = escape(table.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><div class=wide><table><caption>{title}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(body) + f"\n</tbody></table></div><ol>{notes}</ol></body></html>\n"
    )


def _left(name: str) -> str:
    return ' class="left"' if name in LEFT else ""


def _cell(name: str, text: str, bold: bool) -> str:
    classes = [word for word, holds in (("left", name in LEFT), ("best", bold), ("recalled", text.endswith(DAGGER))) if holds]
    return f"<td{' class=' + repr(' '.join(classes)) if classes else ''}>{escape(text)}</td>"
