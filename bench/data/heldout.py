"""A held-out part of the training split, for choosing epochs and learning rates without looking at the validation split.

The rule is iterative stratification (Sechidis et al., ECML PKDD 2011) over the semantic classes that an image shows: the class with the
fewest images left is dealt out first, each image to the side that still wants more of that class. The draw depends on the ids, their
labels, the fraction and the seed, and on nothing else; the ids are written down beside the results, never into the data set.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench.data.layout import DataError, fingerprint
from bench.data.reader import RawSplit
from bench.data.untouched import refuse_inside
from bench.record import write_atomically
from bench.tasks import DATA_SETS, IGNORE

RULE = 1
"""Raised when the rule changes, so that no stored draw of another rule is used."""


def held_out_ids(train: RawSplit, fraction: float, seed: int, *, store: Path | None = None) -> tuple[str, ...]:
    """Draw the held-out ids of a training split, in the split's order.

    Args:
        train: The whole training split, with the task semseg.
        fraction: Share to hold out; the number is rounded, and at least one image is left on either side.
        seed: Of the draw.
        store: Directory where draws are kept: read from there when the same was drawn before, else written.

    Raises:
        DataError: The split has one image only, a label cannot be read, a stored draw is damaged: delete that file; or `store` lies in the
            data set.
    """
    if len(train) < 2:
        raise DataError(f"{train.root}: a training split of one image has nothing to hold out; leave data.held_out away")
    if store is not None:
        refuse_inside(store, train.root, option="the directory of held-out ids")
    path = None if store is None else held_out_file(store, fingerprint(train.root), fraction, seed)
    if path is not None and path.exists():
        return _stored(path, set(train.ids))
    count = min(max(round(fraction * len(train)), 1), len(train) - 1)
    chosen = stratified(classes_present(train), count, seed)
    ids = tuple(name for name, held in zip(train.ids, chosen, strict=True) if held)
    if path is not None:
        content = {"rule": RULE, "fraction": fraction, "seed": seed, "fingerprint": fingerprint(train.root), "ids": ids}
        write_atomically(path, json.dumps(content, indent=1) + "\n")
    return ids


def held_out_file(store: Path, identity: str, fraction: float, seed: int) -> Path:
    """Return where the draw of a data set is kept."""
    return store / f"held-out-{identity[:12]}-f{fraction:g}-s{seed}-r{RULE}.json"


def classes_present(train: RawSplit) -> np.ndarray:
    """Return which semantic classes each image shows: bool (images, classes), in the order of `train.ids`."""
    count = DATA_SETS[train.layout.name]["semseg"].channels
    paths = [train.files["semseg"][name] for name in train.ids]

    def present(path: str) -> np.ndarray:
        return np.bincount(train.read_classes(path).ravel(), minlength=IGNORE + 1)[:count] > 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves the interpreter's lock
        return np.stack(list(pool.map(present, paths)))


def stratified(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` images so that each class has the same share among them as among all.

    Args:
        present: bool (images, classes).
        count: How many to choose, 1 .. images - 1.
        seed: Of the order in which images of equal need are taken.

    Returns:
        bool (images,), exactly `count` of them True.
    """
    images, classes = present.shape
    order = np.random.default_rng(seed).permutation(images)
    share = count / images
    wanted = {True: share * present.sum(axis=0), False: (1 - share) * present.sum(axis=0)}
    room = {True: float(count), False: float(images - count)}
    side = np.full(images, -1)
    for _ in range(classes + 1):
        left = present[side < 0].sum(axis=0)
        rarest = int(np.where(left > 0, left, images + 1).argmin())
        for image in (i for i in order if side[i] < 0 and (present[i, rarest] or not left.any())):
            held = _wants_more(wanted, room, rarest if left.any() else None)
            side[image] = held
            room[held] -= 1
            wanted[held] = wanted[held] - present[image]
    return side == 1


def _wants_more(wanted: dict[bool, np.ndarray], room: dict[bool, float], label: int | None) -> bool:
    """Whether the held-out side takes the next image: it wants more of the class; where both want the same, it has more room."""
    if min(room.values()) <= 0:
        return room[True] > 0
    need = {side: 0.0 if label is None else float(wanted[side][label]) for side in wanted}
    return (need[True], room[True]) > (need[False], room[False])


def _stored(path: Path, known: set[str]) -> tuple[str, ...]:
    try:
        ids = tuple(json.loads(path.read_text("utf-8"))["ids"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no stored draw of held-out ids ({error!r}): delete it, it is made again") from error
    if not ids or not set(ids) < known:
        raise DataError(f"{path} names images that the training split lacks, or all of it: delete it, it is made again")
    return ids
