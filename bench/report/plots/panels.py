"""The figure of a task's panels: images down, rows across, predictions over error maps."""

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from bench.report.panels import ERRORS, UNITS, Panel
from bench.report.style import STYLE, TEXT_WIDTH_INCHES, new_figure, set_title
from bench.tasks import TASKS

METHODS_AT_MOST = 6
_SIDE_AT_MOST_INCHES = 1.1


def panel_numbers(panels: Sequence[Panel]) -> pd.DataFrame:
    """Return the errors that stand under the pictures: columns task, label, run_id, image, error, unit."""
    lines = [
        {"task": panel.task, "label": panel.label, "run_id": panel.run_id, "image": name, "error": error, "unit": UNITS[panel.kind].strip()}
        for panel in panels
        for name, error in zip(panel.ids, panel.errors, strict=True)
    ]
    return pd.DataFrame(lines)


def labelled_places(panels: Sequence[Panel]) -> list[int]:
    """Return the places of the images that have a label of the panels' task."""
    return [place for place in range(len(panels[0].ids)) if any(panel.errors[place] is not None for panel in panels)]


def draw_panels(panels: Sequence[Panel], *, title: str) -> Figure:
    """Draw the panels of one task.

    Args:
        panels: One a shown row, of one task and of the same images, one of them labelled.
        title: Title of the figure.
    """
    first, places = panels[0], labelled_places(panels)
    columns, lines = 1 + len(panels), 2 * len(places)
    height, width = first.images.shape[1:3]
    side = min(TEXT_WIDTH_INCHES / columns, _SIDE_AT_MOST_INCHES)
    with mpl.rc_context(STYLE | {"axes.grid": False, "image.interpolation": "nearest"}):
        figure = new_figure(side * columns + 0.2, lines * (side * height / width + 0.02) + len(places) * 0.16 + 0.75)
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        grid = figure.subplots(lines, columns, squeeze=False)
        for line, place in enumerate(places):
            name, top, bottom = first.ids[place], grid[2 * line], grid[2 * line + 1]
            top[0].imshow(first.images[place])
            bottom[0].imshow(first.truth[place])
            top[0].set_ylabel(f"image {name}", fontsize=6)
            bottom[0].set_ylabel("ground truth", fontsize=6)
            for axes, below, panel in zip(top[1:], bottom[1:], panels, strict=True):
                axes.imshow(panel.prediction[place])
                below.imshow(panel.error[place])
                error = panel.errors[place]
                below.set_xlabel("no label" if error is None else f"{error:.1f}{UNITS[panel.kind]}", fontsize=6, labelpad=1.5)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, panel in zip(grid[0][1:], panels, strict=True):
            axes.set_title(_folded(panel.label), fontsize=6.5)
        said = f"{TASKS[first.task].title}: prediction over error map ({ERRORS[first.kind]})"
        if len(places) < len(first.ids):
            said += f"; {len(first.ids) - len(places)} of the {len(first.ids)} images kept have no label of this task and are left out"
        set_title(figure, title, said)
    return figure


def _folded(label: str, width: int = 17) -> str:
    """Break a label at a space near its middle where it is too long for a column."""
    if len(label) <= width or " " not in label:
        return label
    spaces = [place for place, sign in enumerate(label) if sign == " "]
    place = min(spaces, key=lambda position: abs(position - len(label) / 2))
    return label[:place] + "\n" + label[place + 1 :]
