"""Say what a data set holds, in numbers and pictures: class and part frequencies, sizes, saliency, depth; and a contact sheet.

Reads a tree of any layout, real or rendered, and writes Markdown, CSV and PNG into a directory of its own.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data.contact_sheet import CLASS_NAMES, SHOWN, contact_sheet, spaced, telling
from bench.data.layout import SPLITS, DataError, layout_of
from bench.data.reader import RawSplit
from bench.data.roots import open_split
from bench.data.untouched import refuse_inside
from bench.record import write_atomically
from bench.tasks import DATA_SETS, IGNORE, TASKS

COUNTED = ("split", "task", "class", "pixels")


def describe(root: Path, out: Path, *, most: int | None = None, progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Describe a data set.

    Args:
        root: Its directory; only read.
        out: Directory of what is written: `README.md`, `classes.csv`, `images.csv`, `charts.png`, `contact_sheet.png`.
        most: Read at most this many images a split, evenly spaced; None reads all. The contact sheet may look at more, see `shown`.
        progress: Called with images read and their number.

    Returns:
        The files.

    Raises:
        DataError: Nothing can be read, `doctor` says what is wrong; or `out` lies inside of the data set.
    """
    layout = layout_of(root)
    refuse_inside(out, root, option="--out")
    splits = {split: open_split(root, split, tasks) for split in SPLITS if (tasks := readable(root, split))}
    if not splits:
        raise DataError(f"{root} holds no complete split; `run_suite.py doctor --data-root {root}` says what is missing")
    picks = {split: spaced(len(data), most or len(data)) for split, data in splits.items()}
    total, rows, classes = sum(map(len, picks.values())), [], []
    read: dict[str, dict[int, dict[str, Any]]] = {split: {} for split in splits}
    for split, data in splits.items():
        for index in picks[split]:
            image, pixels = measured(data, index)
            read[split][index] = image
            rows.append({"split": split} | image)
            classes += [{"split": split} | line for line in pixels]
            if progress is not None:
                progress(len(rows), total)
    tasks = {split: data.tasks for split, data in splits.items()}
    images, counted = pd.DataFrame(rows), frequencies(pd.DataFrame(classes, columns=COUNTED), layout.name, tasks)
    first = next(iter(splits.values()))
    written = {
        "images.csv": images.to_csv(index=False),
        "classes.csv": counted.to_csv(index=False),
        "charts.png": charts(images, counted),
        "contact_sheet.png": contact_sheet(first, shown(first, read[first.split])),
        "README.md": summary(root, layout.data_set, splits, images, counted),
    }
    for name, content in written.items():
        write_atomically(out / name, content)
    return [out / name for name in written]


def readable(root: Path, split: str) -> tuple[str, ...]:
    """List the tasks whose files a split has in full; none where the split itself is missing."""
    found = []
    for task in DATA_SETS[layout_of(root).name]:
        try:
            open_split(root, split, (task,))
        except DataError:
            continue
        found.append(task)
    return tuple(found)


def shown(data: RawSplit, lines: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Choose the images of the contact sheet, see `bench.data.contact_sheet.telling`, out of those read and eight over the split.

    Where these show nothing of a task, the others are looked at in order until one does.

    Args:
        data: The split.
        lines: What `measured` says of images that were read, by index.
    """
    known = {index: measured(data, index)[0] for index in spaced(len(data), SHOWN) if index not in lines} | dict(lines)
    for task in data.tasks:
        if not any(_shows(data, line, task) for line in known.values()):
            alone = type(data)(data.root, data.split, (task,), ids=data.ids)
            others = (index for index in range(len(data)) if index not in known)
            found = next((index for index in others if _shows(alone, measured(alone, index)[0], task)), None)
            if found is not None:
                known[found] = measured(data, found)[0]
    indices = sorted(known)
    shows = [[_shows(data, known[index], task) for task in data.tasks] for index in indices]
    return [indices[place] for place in telling(np.array(shows, bool), SHOWN)]


def _shows(data: RawSplit, line: Mapping[str, Any], task: str) -> bool:
    """Whether an image shows something of a task: a labelled pixel, or foreground where every pixel is labelled."""
    return line[f"{task}_{'share' if DATA_SETS[data.layout.name][task].label == 'binary' else 'labelled'}"] > 0


def measured(data: RawSplit, index: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a line about an image, and one about each class that it shows (`task`, `class`, `pixels`, `share`)."""
    sample = data[index]
    height, width = sample["image"].shape[:2]
    line: dict[str, Any] = {"id": sample["id"], "height": height, "width": width}
    lines = []
    for task in data.tasks:
        kind, label = DATA_SETS[data.layout.name][task].label, sample[task]
        if kind == "classes":
            counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
            line[f"{task}_labelled"] = 1 - counts[IGNORE] / label.size
            lines += [{"task": task, "class": int(k), "pixels": int(counts[k])} for k in np.flatnonzero(counts[:IGNORE])]
        elif kind == "binary":
            line[f"{task}_share"] = float((label == 1).mean())
        elif kind == "normals":
            line["normals_labelled"] = float(label.any(axis=2).mean())
        else:
            valid = label > 0
            line["depth_labelled"] = float(valid.mean())
            line["depth_median_m"] = float(np.median(label[valid])) if valid.any() else None
    return line, lines


def frequencies(lines: pd.DataFrame, layout: str, tasks: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Sum the classes of all images, of all splits together and of each.

    Args:
        lines: As `measured` returns them, with their `split`.
        layout: The data set's.
        tasks: Tasks that were read, by split.

    Returns:
        A line for each class, those without any pixel included: `task`, `class`, `name`, `images`, `pixels`, and their share of those
        labelled, `percent`; then the last three of each split, as `train_images`. NaN where no pixel has a label of the task, and in a
        split of which the task was not read.
    """
    read = [task for task in DATA_SETS[layout] if any(task in some for some in tasks.values())]
    known = [(task, k, name) for task in read for k, name in enumerate(CLASS_NAMES[layout].get(task, ()))]
    table = pd.DataFrame(known, columns=["task", "class", "name"]).set_index(["task", "class"])
    for prefix, some in {"": lines, **{f"{split}_": lines[lines["split"] == split] for split in tasks}}.items():
        counts = some.groupby(["task", "class"])["pixels"].agg(images="size", pixels="sum")
        counts = counts.astype("Int64").reindex(table.index, fill_value=0)
        if prefix:
            counts[~table.index.get_level_values("task").isin(tasks[prefix[:-1]])] = pd.NA
        pixels = counts["pixels"].astype(float)
        counts["percent"] = 100 * pixels / pixels.groupby(level="task").transform("sum").replace(0, np.nan)
        table = table.join(counts.add_prefix(prefix))
    return table.reset_index()


def summary(root: Path, name: str, splits: dict[str, RawSplit], images: pd.DataFrame, classes: pd.DataFrame) -> str:
    """Return the Markdown page."""
    counts = pd.DataFrame(
        [
            {
                "split": split,
                "images": len(data),
                "read": int((images["split"] == split).sum()),
                "labels": ", ".join(data.tasks),
            }
            for split, data in splits.items()
        ]
    )
    by_split = {split: images[images["split"] == split].drop(columns=["id", "split"]) for split in splits}
    numbers = pd.concat({split: rows.describe().T[["mean", "std", "min", "50%", "max"]] for split, rows in by_split.items()})
    numbers = numbers.rename_axis(["split", "quantity"]).reset_index().dropna(subset="mean")
    parts = [
        f"# {name}: what is in `{root.name}`",
        counts.to_markdown(index=False),
        "## Images",
        numbers.to_markdown(index=False, floatfmt=".3g"),
    ]
    parts += ["Shares are of an image's pixels, 0 to 1.", "![charts](charts.png)"]
    for task, rows in sorted(classes.groupby("task"), key=lambda group: list(TASKS).index(group[0])):
        kept = ["class", "name", "images", "pixels", "percent", *(f"{split}_percent" for split in splits)]
        table = rows[kept].sort_values("pixels", ascending=False, kind="stable").dropna(axis="columns", how="all")
        parts += [f"## {TASKS[task].title}", table.to_markdown(index=False, floatfmt=".2f")]
    return "\n\n".join([*parts, "## Contact sheet", "![contact sheet](contact_sheet.png)"]) + "\n"


def charts(images: pd.DataFrame, classes: pd.DataFrame) -> bytes:
    """Draw class frequencies, sizes and shares as PNG."""
    from matplotlib.figure import Figure

    classes = classes[classes["pixels"] > 0]
    tasks = [task for task in TASKS if task in set(classes["task"])]
    shares = [column for column in images if column.endswith(("_share", "_labelled"))][::-1]
    longest = max([len(classes[classes["task"] == task]) for task in tasks], default=4)
    figure = Figure(figsize=(5.2 * (len(tasks) + 1), max(4.5, 0.22 * longest + 1)), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(tasks) + 1, squeeze=False)[0]
    for ax, task in zip(axes, tasks, strict=False):
        rows = classes[classes["task"] == task].sort_values("pixels")
        ax.barh(rows["name"], rows["percent"], color="#4477aa")
        ax.set(xscale="log", xlabel="labelled pixels, % (log scale)", title=f"{TASKS[task].title}: frequency of classes")
        ax.tick_params(axis="y", labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    means = [100 * float(images[column].mean()) for column in shares]
    bars = axes[-1].barh([column.replace("_", " ") for column in shares], means, color="#ccbb44")
    axes[-1].bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    title = f"{len(images)} images, median {images['width'].median():.0f} x {images['height'].median():.0f} pixels"
    axes[-1].set(xlabel="mean share of an image's pixels, %", title=title, xlim=(0, 112))
    axes[-1].spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
