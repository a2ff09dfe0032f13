"""Which validation images the qualitative panels show: chosen by labels alone, before training, the same for every trial of a data set.

The images lie in equal parts of the split, near the middle of each, and have labels of as many tasks as can be found there: PASCAL-Context
has labels of human parts only where there are people, and a panel without a label shows no error.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.layout import DataError, layout_of
from bench.data.reader import RawSplit
from bench.data.roots import READERS
from bench.tasks import DEFAULT_TASKS, IGNORE, TASKS

IMAGES = 4
LOOKED_AT = 12
"""Images of a part that are decoded at most to find one with labels of every task."""

LEAST_SHARE = 0.01
"""Share of an image's pixels that a task must label to count."""


def shown_ids(root: Path, ids: Sequence[str], split: str = "val", count: int = IMAGES) -> tuple[str, ...]:
    """Choose the images, whatever tasks a trial trains.

    Args:
        root: The data set.
        ids: Ids of the split, in its order.
        split: Its name.
        count: Images to choose; fewer where the split has fewer.

    Returns:
        One id a part, in the order of the split: of the images looked at, from the part's middle outwards, the first that has labels of
        most of the tasks that the literature trains on the data set and whose files are there.
    """
    count = min(count, len(ids))
    edges = [i * len(ids) // max(count, 1) for i in range(count + 1)]
    parts = [_from_the_middle(ids[start:end])[:LOOKED_AT] for start, end in pairwise(edges)]
    readers = _readers(root, split, [name for part in parts for name in part])
    return tuple(_best(part, readers) for part in parts)


def _from_the_middle(part: Sequence[str]) -> list[str]:
    return [part[place] for place in sorted(range(len(part)), key=lambda place: abs(2 * place + 1 - len(part)))]


def _readers(root: Path, split: str, candidates: Sequence[str]) -> list[RawSplit]:
    """Open the candidates a task at a time; a task whose files are not all there is left out for every trial alike."""
    layout, found = layout_of(root), []
    for task in DEFAULT_TASKS[layout.name]:
        try:
            found.append(READERS[layout.name](root, split, (task,), ids=candidates))
        except DataError:
            continue
    return found


def _best(part: Sequence[str], readers: Sequence[RawSplit]) -> str:
    best, most = part[0], -1
    for name in part:
        labelled = sum(_reads_as_labelled(reader, name) for reader in readers)
        if labelled > most:
            best, most = name, labelled
        if most == len(readers):
            break
    return best


def _reads_as_labelled(reader: RawSplit, name: str) -> bool:
    try:
        return is_labelled(reader[reader.ids.index(name)], reader.tasks[0])
    except DataError:  # a damaged file of a task that the trial may not even train; where it does, the trial has failed on it already
        return False


def is_labelled(sample: Mapping[str, Any], task: str) -> bool:
    """Whether a raw sample has labels of a task, see `bench.tasks` for its kinds of labels."""
    label = np.asarray(sample[task])
    kind = TASKS[task].label
    known = (label != 0).any(axis=-1) if kind == "normals" else label > 0 if kind == "depth" else label != IGNORE
    return bool(known.mean() >= LEAST_SHARE)
