"""Bytes inside of the page: compressed script and data, pictures, and files to download, within a size that mail and phones take."""

import base64
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from bench.report.panels import ERRORS, UNITS, Panel

FILE_LIMIT_BYTES = 400_000
"""Largest file that is put into the page; a larger one is named with the place where it lies."""

COMPRESSED_FROM_BYTES = 100_000
"""A text of more bytes is offered compressed (gzip), as pandas and most tools read it too."""

PAGE_LIMIT_BYTES = 7_400_000
"""The page with everything in it."""

PICTURES_LIMIT_BYTES = 1_800_000
MIME = {
    "csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex", "pdf": "application/pdf", "png": "image/png",
    "json": "application/json", "html": "text/html", "gz": "application/gzip",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file of the report.

    Attributes:
        name: Its name.
        size: Bytes.
        href: Data URI, or None where the file is too large for the page.
    """

    name: str
    size: int
    href: str | None


def packed(content: bytes) -> str:
    """Return bytes compressed (gzip, the same bytes every time) and as base64, which no HTML parser reads as markup."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


@cache
def plotly_packed() -> str:
    """Return plotly's offline bundle, which its package brings, packed."""
    return packed((files("plotly") / "package_data" / "plotly.min.js").read_bytes())


def data_uri(name: str, content: bytes) -> str:
    """Return a data URI of a file, typed by its name."""
    return f"data:{MIME[name.rpartition('.')[2]]};base64,{base64.b64encode(content).decode()}"


def downloads(contents: Mapping[str, str | bytes], names: Iterable[str], *, room: int) -> list[Download]:
    """Return the files to download, long texts as `NAME.gz`; what does not fit is named without content.

    Args:
        contents: The files.
        names: Which of them, in order.
        room: Bytes of the page that they may take, encoded.
    """
    found = []
    for name in names:
        content = whole = contents[name] if isinstance(contents[name], bytes) else contents[name].encode()
        offered = name
        if isinstance(contents[name], str) and len(whole) > COMPRESSED_FROM_BYTES:
            offered, content = f"{name}.gz", gzip.compress(whole, 9, mtime=0)
        href = data_uri(offered, content) if len(content) <= FILE_LIMIT_BYTES else None
        href = href if href is not None and len(href) <= room else None
        room -= len(href or "")
        found.append(
            Download(name=name, size=len(whole), href=None) if href is None else Download(name=offered, size=len(content), href=href)
        )
    return found


def small_png(content: bytes, colours: int = 128) -> bytes:
    """Return a figure's PNG with a palette: a third of the size, the same to the eye."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def pictures(panels: Sequence[Panel], labels: Sequence[str], first: Sequence[str] = ()) -> dict | None:
    """Return the panels as data URIs, as many rows as fit.

    Args:
        panels: The panels.
        labels: The rows' labels, in the order in which they stand.
        first: Labels of the rows that come in before the others.

    Returns:
        `tasks`: per task `kind`, `reading` (of the error maps), `unit`, `ids`, `images`, `truth`, and `rows` of label, run id, predictions,
        error maps and errors; `left_out`: labels that did not fit. None without panels.
    """
    if not panels:
        return None
    shared: dict[str, str] = {}
    tasks: dict[str, dict] = {}
    room, left_out = PICTURES_LIMIT_BYTES, []
    for label in dict.fromkeys([*first, *labels]):
        own = [_entry(panel) for panel in panels if panel.label == label]
        size = sum(len(uri) for entry in own for part in ("prediction", "error") for uri in entry[part])
        if size > room:
            left_out.append(label)
            continue
        room -= size
        for panel, entry in zip([panel for panel in panels if panel.label == label], own, strict=True):
            if panel.task not in tasks:
                images = [shared.setdefault(name, _uri(image)) for name, image in zip(panel.ids, panel.images, strict=True)]
                head = {"kind": panel.kind, "reading": ERRORS[panel.kind], "unit": UNITS[panel.kind], "ids": list(panel.ids), "rows": []}
                tasks[panel.task] = head | {"images": images, "truth": [_uri(truth) for truth in panel.truth]}
            if list(panel.ids) == tasks[panel.task]["ids"]:
                tasks[panel.task]["rows"].append(entry)
    place = {label: position for position, label in enumerate(labels)}
    for task in tasks.values():
        task["rows"].sort(key=lambda entry: place[entry["label"]])
    return {"tasks": tasks, "left_out": sorted(left_out, key=place.get)}


def _entry(panel: Panel) -> dict:
    errors = [None if error is None else round(error, 2) for error in panel.errors]
    pictures = {"prediction": [_uri(picture) for picture in panel.prediction], "error": [_uri(picture) for picture in panel.error]}
    return {"label": panel.label, "run_id": panel.run_id, "errors": errors} | pictures


def _uri(picture: np.ndarray) -> str:
    """Return an RGB picture (h, w, 3) uint8 as a data URI: PNG with a palette where it has few colours, else JPEG."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    if image.getcolors(256) is not None:
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    image.save(buffer, format="jpeg", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
