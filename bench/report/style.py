"""How every figure looks: fonts, sizes, one colour, marker, dash and hatch a method family; and how a figure becomes files.

Sized for the text width of a two-column paper. Colours are Okabe and Ito's, which all colour visions tell apart; families without a dial
(baselines) are grey. Marker, dash and hatch (of bars) tell families apart where they share a colour, or a print has none. Files hold no
dates: the same records give the same bytes. Fonts are embedded as TrueType (Type 42), as publishers ask for.
"""

import io
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bench.report.family import SEPARATOR

FAMILIES = Path(__file__).with_name("families.toml")
TEXT_WIDTH_INCHES = 7.0
DPI = 200
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.formatter.useoffset": False, "hatch.linewidth": 0.5,
    "font.family": "DejaVu Sans", "pdf.fonttype": 42, "ps.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "0.92", "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.linewidth": 0.6, "svg.hashsalt": "report",
}  # fmt: skip
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")  # Okabe and Ito, without black and yellow
_GREYS = ("#000000", "#595959", "#8c8c8c", "#b3b3b3")
_MARKERS, _GREY_MARKERS = ("o", "s", "^", "D", "v", "p", "h", "<", ">"), ("*", "P", "X", "d")
_DASHES = ("-", "--", ":", "-.")
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo", "||||", "//..")
_VARIANT_TURNS = (2, 3, 5, 6, 7)
"""How far the marker of a method's further sweeps is turned; a turn of 4 is that of one model a task."""


def family_styles(rows: pd.DataFrame) -> dict[str, dict]:
    """Give each family its colour, marker, dash and hatch, the same in every suite (`families.toml`).

    No two share colour and marker, nor, of up to ten families of a colour, colour and hatch, nor, of up to four, colour and dash.

    Baselines differ in their dashes too, for greys are near each other. Where no row has a dial, colours are free: those that are not in
    `families.toml` take them.

    Args:
        rows: As `bench.report.stats.row_frame` returns it, or `bench.report.family.with_titles`.

    Returns:
        Per family, in the order of the rows, `color` (hex), `marker`, `linestyle` and `hatch`; families without a dial are grey.
    """
    if "look" in rows:
        styles = family_styles(rows.assign(family=rows["look"]).drop(columns="look"))
        return {family: styles[look] for family, look in zip(rows["family"], rows["look"], strict=True)}
    known = tomllib.loads(FAMILIES.read_text(encoding="utf-8"))
    styles: dict[str, dict] = {}
    with_dial = rows.groupby("family", sort=False)["dial"].first().notna()
    for name, families, colors, markers in (
        ("with_dial", with_dial[with_dial].index, _PALETTE, _MARKERS),
        ("without_dial", with_dial[~with_dial].index, _GREYS, _GREY_MARKERS),
    ):
        places, own = _places(families, known[name]), {}
        for family in sorted(places, key=lambda family: places[family][0] >= len(known[name])):  # strangers take what is left
            position, turn = places[family]
            turn += position // len(colors) * (len(colors) == len(markers))
            stranger = position - len(known[name])
            color = _PALETTE[stranger % len(_PALETTE)] if stranger >= 0 and not with_dial.any() else colors[position % len(colors)]
            alike = [style for style in own.values() if style["color"] == color]
            dashes = {style["linestyle"] for style in (own.values() if colors is _GREYS and len(own) < len(_DASHES) else alike)}
            own[family] = {
                "color": color,
                "marker": markers[(position + turn) % len(markers)],
                "linestyle": _free(_DASHES, position + turn, dashes),
                "hatch": _free(_HATCHES, position + turn, {style["hatch"] for style in alike}),
            }
        styles |= own
    return {family: styles[family] for family in with_dial.index}


def _places(families: Iterable[str], known: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return each family's place in the palette, and how far its marker is turned from that place's: one a task shares the colour."""
    places, strangers, variants = {}, len(known), {}
    for family in families:
        base, variant, _ = family.partition(SEPARATOR)
        if variant and (base in places or base in known):  # a further sweep of a method: its colour, another marker
            turn = variants[base] = variants.get(base, 0) + 1
            position, start = places.get(base, (known.index(base) if base in known else 0, 0))
            places[family] = position, start + _VARIANT_TURNS[(turn - 1) % len(_VARIANT_TURNS)]
            continue
        title, _, mode = family.rpartition(", ")
        title, mode = (title, mode) if mode in ("single-task", "multi-task") else (family, "")
        if family in known:
            places[family] = known.index(family), 0
        elif title in known:
            places[family] = known.index(title), 4 * (mode == "single-task")
        else:
            places[family] = strangers, 0
            strangers += 1
    return places


def _free(looks: Sequence[str], place: int, used: set[str]) -> str:
    """Return the look at a place, or the next one that is not in use; where all are, the one at the place."""
    turned = [looks[(place + step) % len(looks)] for step in range(len(looks))]
    return next((look for look in turned if look not in used), turned[0])


def bar_look(style: Mapping[str, str]) -> dict[str, object]:
    """Return how a family's bars are filled, in figure and legend: its colour under its hatch in white."""
    return {"facecolor": style["color"], "hatch": style["hatch"], "edgecolor": "white", "linewidth": 0.0}


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches, laid out by constraints, that can be drawn without a screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_columns(labels: Sequence[str], most: int = 4, width: float = TEXT_WIDTH_INCHES) -> int:
    """Return how many columns a legend below a figure may have without running off the page: matplotlib does not look.

    Args:
        labels: Its texts, in order; columns are filled one after the other.
        most: Largest answer.
        width: Of the page, inches.
    """
    for columns in range(min(most, len(labels)), 1, -1):
        long, rest = divmod(len(labels), columns)
        ends = np.cumsum([long + (place < rest) for place in range(columns)])
        parts = np.split(np.arange(len(labels)), ends[:-1])
        if sum(0.058 * max(len(labels[place]) for place in part) + 0.5 for part in parts) <= width:  # 7 pt text, handle and gap
            return columns
    return 1


def make_room(figure: Figure, lines: int) -> None:
    """Make a figure higher for a legend below it of more than three lines, which would else press the panels flat."""
    figure.set_figheight(figure.get_figheight() + 0.16 * max(lines - 3, 0))


def keep_in_view(axes: Axes, values: Iterable[float], which: str, *, spans: float) -> None:
    """Keep intervals of few seeds, many times wider than what they belong to, from flattening a plot: they run out of the frame instead.

    Args:
        axes: Axes with everything drawn.
        values: What must be seen, in data units: means, reference lines.
        which: "x" or "y".
        spans: How many spans of the values are shown beyond them at most, on either side (of their logarithms on a log axis).
    """
    log = getattr(axes, f"get_{which}scale")() == "log"
    known = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    if not len(known):
        return
    known = np.log(known) if log else known
    low, high = known.min(), known.max()
    span = max(high - low, 0.1 if log else 0.02 * max(abs(low), abs(high), 1e-9))
    now = np.asarray(getattr(axes, f"get_{which}lim")())
    now = np.log(now) if log else now
    limits = np.array([max(now[0], low - spans * span), min(now[1], high + spans * span)])
    getattr(axes, f"set_{which}lim")(*(np.exp(limits) if log else limits))


def leave_margin(axes: Axes, ends: Iterable[float], which: str, *, share: float = 0.02) -> None:
    """Move the frame off the intervals that end inside of it or on it, so that none looks as if it went on.

    Args:
        axes: Axes whose limits are final but for this.
        ends: Ends of the intervals, in data units; NaN is left out.
        which: "x" or "y".
        share: The margin, as a share of the axis.
    """
    log = getattr(axes, f"get_{which}scale")() == "log"
    known = np.sort([end for end in ends if np.isfinite(end) and (end > 0 or not log)])
    limits = np.asarray(getattr(axes, f"get_{which}lim")())
    known, limits = (np.log(known), np.log(limits)) if log else (known, limits)
    margin = share * (limits[1] - limits[0])
    for end in known:  # upwards: a moved frame may come upon the next end
        if end <= limits[1] < end + margin:
            limits[1] = end + margin
    for end in known[::-1]:
        if end >= limits[0] > end - margin:
            limits[0] = end - margin
    getattr(axes, f"set_{which}lim")(*(np.exp(limits) if log else limits))


def draw_intervals(axes: Axes, intervals: Iterable[tuple[float, float, float, Mapping]], which: str) -> bool:
    """Draw intervals as thin lines; one that runs out of the frame ends there in an arrow head, so that none looks shorter than it is.

    Args:
        axes: Axes whose limits are final.
        intervals: Per interval its place on the other axis, low, high, and `color` and `alpha`; NaN and widthless ones are left out.
        which: Axis along which the intervals lie, "x" or "y".

    Returns:
        Whether an arrow head was drawn, for the legend.
    """
    start, end = sorted(getattr(axes, f"get_{which}lim")())
    arrows = False
    heads = {"x": ("<", ">"), "y": ("v", "^")}[which]
    for place, low, high, look in intervals:
        if np.isnan(low) or np.isnan(high) or low == high:
            continue
        shown = [max(low, start), min(high, end)]
        at = [place, place]
        axes.plot(*((shown, at) if which == "x" else (at, shown)), linewidth=0.7, zorder=2.5, scalex=False, scaley=False, **look)
        for beyond, edge, head in ((low < start, start, heads[0]), (high > end, end, heads[1])):
            if beyond:
                spot = ([edge], [place]) if which == "x" else ([place], [edge])
                axes.plot(*spot, head, markersize=3.2, markeredgewidth=0, clip_on=False, zorder=2.6, scalex=False, scaley=False, **look)
                arrows = True
    return arrows


def interval_note(n: Iterable[float]) -> str:
    """Say what intervals over seeds are, such as "95 % t interval of the mean, n = 3 seeds"; that there are none where n is below two."""
    n = list(n)
    return f"95 % t interval of the mean, n = {seeds_note(n)}" if any(value >= 2 for value in n) else "no intervals: one seed a row"


def seeds_note(n: Iterable[float]) -> str:
    """Say over how many seeds intervals are, such as "2 seeds" or "1 to 3 seeds"."""
    known = sorted({int(value) for value in n if value >= 2})  # one seed gives no interval
    return "seeds" if not known else f"{known[0]} to {known[-1]} seeds" if len(known) > 1 else f"{known[0]} seeds"


_STEPS = (
    (1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 3, 4, 5, 7), (1, 1.5, 2, 3, 4, 6, 8), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
)  # fmt: skip
"""Ticks of a decade, from sparse to dense."""

_TICKS_WANTED = 4
"""Labelled ticks between the lowest and the highest value of a log axis, if some `_STEPS` give that many."""


def log_axis(axes: Axes, values: Iterable[float], which: str = "x") -> None:
    """Make an axis logarithmic and label it with plain numbers all along its values, also where they span less than a decade."""
    values = np.asarray(list(values), dtype=float)
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    decades = 10.0 ** np.arange(np.floor(np.log10(values.min())), np.log10(values.max()) + 1)

    def inside(steps: Sequence[float]) -> int:
        ticks = np.outer(decades, steps)
        return int(((ticks >= 0.98 * values.min()) & (ticks <= 1.02 * values.max())).sum())

    steps = next((steps for steps in _STEPS if inside(steps) >= _TICKS_WANTED), None)
    axis.set_major_locator(MaxNLocator(5) if steps is None else LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def set_title(figure: Figure, *parts: str, size: float = 8) -> None:
    """Set a figure's title in `size` points, a line or more for each line of its parts; the figure grows by what it wraps."""
    width = max(28, int(figure.get_figwidth() * 112 / size))  # characters that fit, nearly
    lines = [line for part in parts for own in part.splitlines() for line in textwrap.wrap(own, width)]
    figure.set_figheight(figure.get_figheight() + 0.015 * size * (len(lines) - len(parts)))
    figure.suptitle("\n".join(lines), fontsize=size)


def render(figure: Figure) -> dict[str, bytes]:
    """Return a figure as the bytes of a PNG (200 dpi) and a PDF (fonts embedded), without dates.

    The canvases are asked themselves, for `savefig` draws everything once more before each file, only to lay it out.
    """
    picture, document = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        figure.set_layout_engine("none")  # laid out once, for both
        imsave(picture, canvas.buffer_rgba(), format="png", dpi=DPI, metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(document, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return {"png": picture.getvalue(), "pdf": document.getvalue()}


def present_families(styles: Mapping[str, dict], families: Iterable[str]) -> list[str]:
    """Return the families of `styles`, in its order, that are among `families`."""
    wanted = set(families)
    return [family for family in styles if family in wanted]
