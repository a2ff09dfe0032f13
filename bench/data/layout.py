"""The directory layouts that the suite reads: which file of an image lies where, which splits there are, how a data set is told apart.

`PASCAL_MT` and `NYUD_MT` are the directories that the multi-task literature passes around (Maninis et al., arXiv 1904.08918). A root's
layout is told by its folder of split files. Nothing here writes, and nothing opens an image or a label.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import SuiteError

SPLITS = ("train", "val")
MANIFEST = "synthetic.json"
_SHOWN = 5


class DataError(SuiteError):
    """Something in the data set is missing, unreadable or contradictory; the message names the file and the remedy."""


class Modality(NamedTuple):
    """One kind of file: `folders` are alternatives (the first that holds the file wins), `suffix` follows the image id."""

    folders: tuple[str, ...]
    suffix: str

    @property
    def pattern(self) -> str:
        """The path below the root, as messages show it."""
        return ", else ".join(f"{folder}/ID{self.suffix}" for folder in self.folders)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A directory layout.

    Attributes:
        name: Key of `bench.tasks.DATA_SETS`.
        title: The directory's usual name.
        data_set: The data set's name in print.
        split_folder: Folder of the split files, one image id a line.
        image_folder: Folder of the images, for messages.
        modalities: Kinds of files by name; "image" is one of them.
        needed: Modalities that each task's labels are made from.
        counts: Images of each split as published.
    """

    name: str
    title: str
    data_set: str
    split_folder: str
    image_folder: str
    modalities: Mapping[str, Modality]
    needed: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, int]

    @property
    def hint(self) -> str:
        """What to point at, as messages say it."""
        return f"{self.title}, the folder that holds {self.split_folder.partition('/')[0]}/ and {self.image_folder}/"

    def modalities_of(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """List the modalities that `tasks` need, each once: the image first, then theirs."""
        return tuple(dict.fromkeys(("image", *(modality for task in tasks for modality in self.needed[task]))))


PASCAL_MT = Layout(
    name="pascal_context",
    title="PASCAL_MT",
    data_set="PASCAL-Context",
    split_folder="ImageSets/Context",
    image_folder="JPEGImages",
    modalities={
        "image": Modality(("JPEGImages",), ".jpg"),
        "semseg": Modality(("semseg/VOC12", "semseg/pascal-context"), ".png"),
        "human_parts": Modality(("human_parts",), ".mat"),
        "saliency": Modality(("sal_distill",), ".png"),
        "normals": Modality(("normals_distill",), ".png"),
        "context": Modality(("pascal-context/trainval",), ".mat"),
    },
    needed={
        "semseg": ("semseg",),
        "human_parts": ("human_parts",),
        "saliency": ("saliency",),
        "normals": ("normals", "context"),
        "edges": ("context",),
    },
    counts={"train": 4998, "val": 5105},
)
NYUD_MT = Layout(
    name="nyud",
    title="NYUD_MT",
    data_set="NYUD-v2",
    split_folder="gt_sets",
    image_folder="images",
    modalities={
        "image": Modality(("images",), ".jpg"),
        "semseg": Modality(("segmentation",), ".png"),
        "normals": Modality(("normals",), ".npy"),
        "depth": Modality(("depth",), ".npy"),
        "edges": Modality(("edge",), ".npy"),
    },
    needed={"semseg": ("semseg",), "normals": ("normals",), "depth": ("depth",), "edges": ("edges",)},
    counts={"train": 795, "val": 654},
)
LAYOUTS = {layout.name: layout for layout in (PASCAL_MT, NYUD_MT)}


def layout_of(root: Path | str) -> Layout:
    """Tell the layout of a directory by its folder of split files.

    Raises:
        DataError: The root is no directory, or holds neither folder: point at one that does.
    """
    for layout in LAYOUTS.values():
        if (Path(root) / layout.split_folder).is_dir():
            return layout
    known = " or at ".join(layout.hint for layout in LAYOUTS.values())
    if not Path(root).is_dir():
        raise DataError(f"data root {str(root)!r} is not a directory: point it at {known}")
    folders = " nor ".join(f"{layout.split_folder}/" for layout in LAYOUTS.values())
    inside = roots_inside(root)
    nearer = f"; {inside[0]}, one folder further down, is one" if inside else ""
    raise DataError(f"data root {str(root)!r} holds neither {folders}: split file folders are missing{nearer}; point it at {known}")


def roots_inside(root: Path | str) -> list[Path]:
    """List the folders right below `root` that have a layout: what somebody meant who gave the folder above."""
    folders = [(layout.split_folder, len(Path(layout.split_folder).parts)) for layout in LAYOUTS.values()]
    return sorted(path.parents[depth - 1] for folder, depth in folders for path in Path(root).glob(f"*/{folder}"))


def read_split(root: Path | str, split: str) -> list[str]:
    """List the image ids of a split, in the order of its file.

    Raises:
        DataError: The root or the split file is not there, empty, not text, or lists an id twice: point at the folder that holds
            the splits and the images, or mend the file.
    """
    path = Path(root) / layout_of(root).split_folder / f"{split}.txt"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt"))
        known = f"splits there: {', '.join(there)}" if there else "no split file there"
        raise DataError(f"split file {path} is missing ({known})")
    try:
        ids = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"split file {path} cannot be read ({error}): it must be text, one image id a line") from error
    if not ids:
        raise DataError(f"split file {path} is empty: it must list one image id a line")
    if len(set(ids)) < len(ids):
        twice = [i for i, times in Counter(ids).items() if times > 1]
        raise DataError(f"split file {path} lists {len(twice)} ids more than once: {first(twice)}; remove the repetitions")
    return ids


def find_files(root: Path | str, modality: Modality, ids: Sequence[str]) -> dict[str, str | None]:
    """Map every id to its file of `modality`, None where there is none. One directory listing a folder, no stat a file.

    Raises:
        DataError: A folder is there and cannot be listed: mind its permissions.
    """
    found = {}
    for folder in reversed(modality.folders):
        path = os.path.join(root, folder)
        try:
            names = set(os.listdir(path)) if os.path.isdir(path) else set()
        except OSError as error:
            raise DataError(f"folder {path} cannot be listed ({error.strerror}): allow this user to read it") from error
        found.update((i, os.path.join(path, i + modality.suffix)) for i in ids if i + modality.suffix in names)
    return {i: found.get(i) for i in ids}


def fingerprint(root: Path | str) -> str:
    """Hash the identity of a data set (sha256, hex): both split lists and, in a rendered tree, the content hash of `synthetic.json`.

    It does not depend on tasks, so that the trials of one table row share it, nor on the place of the root.

    Raises:
        DataError: A split file is missing or broken, an image is in both splits, or synthetic.json holds no content_hash.
    """
    splits = {split: read_split(root, split) for split in SPLITS}
    if both := in_both(splits):
        raise DataError(f"{root}: {len(both)} images are in train and val: {first(both)}; take them out of one of the two lists")
    identity: dict[str, Any] = dict(splits)
    if (layout := layout_of(root)) is not PASCAL_MT:  # PASCAL_MT's fingerprints are older than the second layout
        identity["layout"] = layout.name
    if (content_hash := content_hash_of(root)) is not None:
        identity["content_hash"] = content_hash
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def in_both(splits: Mapping[str, Sequence[str]]) -> list[str]:
    """List the ids that are in train and in val, sorted: what is trained on must not be measured."""
    return sorted(set(splits["train"]) & set(splits["val"]))


def content_hash_of(root: Path | str) -> str | None:
    """Return the content hash of a rendered tree, None for any other.

    Raises:
        DataError: synthetic.json is there and holds none: render the tree again.
    """
    path = Path(root) / MANIFEST
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text("utf-8"))["content_hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no content_hash ({error!r}): render the synthetic data set again") from error


def first(names: Sequence[str]) -> str:
    """Join the first few names, for messages."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
