"""Read PASCAL_MT, the PASCAL-Context multi-task data set, exactly as it lies on disk.

Images and semantic labels are PASCAL VOC's, the 459 context classes PASCAL-Context's (Mottaghi et al., CVPR 2014), the parts
PASCAL-Part's (Chen et al., arXiv 1406.2031); surface normals and saliency are distilled from networks (Maninis et al., arXiv 1904.08918).
The reader never writes into the data set, and never unpickles anything from it. Human parts come from the `.mat` files alone: the derived
`ImageSets/Parts/*.txt` is neither needed nor rebuilt.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.data.pascal_files import DataError, read_human_parts, read_image, read_normals, read_saliency, read_semseg
from bench.tasks import TASK_NAMES, TASKS


class Modality(NamedTuple):
    """One kind of file: `folders` are alternatives (the first that holds the file wins), `suffix` follows the image id."""

    folders: tuple[str, ...]
    suffix: str

    @property
    def pattern(self) -> str:
        """The path below the root, as messages show it."""
        return ", else ".join(f"{folder}/ID{self.suffix}" for folder in self.folders)


MODALITIES = {
    "image": Modality(("JPEGImages",), ".jpg"),
    "semseg": Modality(("semseg/VOC12", "semseg/pascal-context"), ".png"),
    "human_parts": Modality(("human_parts",), ".mat"),
    "saliency": Modality(("sal_distill",), ".png"),
    "normals": Modality(("normals_distill",), ".png"),
    "context": Modality(("pascal-context/trainval",), ".mat"),
}
NEEDED = {"semseg": ("semseg",), "human_parts": ("human_parts",), "saliency": ("saliency",), "normals": ("normals", "context")}
SPLIT_FOLDER = "ImageSets/Context"
_SHOWN = 5


def read_split(root: Path | str, split: str) -> list[str]:
    """List the image ids of a split, in the order of its file.

    Raises:
        DataError: The root or the split file is not there, empty, not text, or lists an id twice: point at the folder that holds
            ImageSets/ and JPEGImages/, or mend the file.
    """
    path = Path(root) / SPLIT_FOLDER / f"{split}.txt"
    if not Path(root).is_dir():
        raise DataError(
            f"data root {str(root)!r} is not a directory: point it at PASCAL_MT, the folder that holds ImageSets/ and JPEGImages/"
        )
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt"))
        known = f"splits there: {', '.join(there)}" if there else "no split file there: is the data root the folder that holds ImageSets/?"
        raise DataError(f"split file {path} is missing ({known})")
    try:
        ids = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"split file {path} cannot be read ({error}): it must be text, one image id a line") from error
    if not ids:
        raise DataError(f"split file {path} is empty: it must list one image id a line")
    if len(set(ids)) < len(ids):
        twice = [i for i, times in Counter(ids).items() if times > 1]
        raise DataError(f"split file {path} lists {len(twice)} ids more than once: {_first(twice)}; remove the repetitions")
    return ids


def find_files(root: Path | str, modality: str, ids: Sequence[str]) -> dict[str, str | None]:
    """Map every id to its file of `modality`, None where there is none. One directory listing a folder, no stat a file.

    Raises:
        DataError: A folder is there and cannot be listed: mind its permissions.
    """
    suffix, found = MODALITIES[modality].suffix, {}
    for folder in reversed(MODALITIES[modality].folders):
        path = os.path.join(root, folder)
        try:
            names = set(os.listdir(path)) if os.path.isdir(path) else set()
        except OSError as error:
            raise DataError(f"folder {path} cannot be listed ({error.strerror}): allow this user to read it") from error
        found.update((i, os.path.join(path, i + suffix)) for i in ids if i + suffix in names)
    return {i: found.get(i) for i in ids}


def modalities_of(tasks: Sequence[str]) -> tuple[str, ...]:
    """List the modalities that `tasks` need: the image first, then theirs."""
    return ("image", *(modality for task in tasks for modality in NEEDED[task]))


def fingerprint(root: Path | str) -> str:
    """Hash the identity of a data set (sha256, hex): both split lists and, in a rendered tree, the content hash of `synthetic.json`.

    It does not depend on tasks, so that the trials of one table row share it, nor on the place of the root.

    Raises:
        DataError: A split file is missing or broken, or synthetic.json holds no content_hash: render the tree again.
    """
    identity: dict[str, Any] = {split: read_split(root, split) for split in ("train", "val")}
    path = Path(root) / "synthetic.json"
    if path.exists():
        try:
            identity["content_hash"] = json.loads(path.read_text("utf-8"))["content_hash"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no content_hash ({error!r}): render the synthetic data set again") from error
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class PascalContext(torch.utils.data.Dataset):
    """Raw samples of one split.

    A sample is a dict: `id` str; `image` uint8 (h, w, 3) RGB; and for each requested task
    `semseg` uint8 (h, w), 0..20, 255 ignored; `human_parts` uint8 (h, w), 0..6, all 255 in an image without a person that has parts;
    `saliency` uint8 (h, w), 0 or 1; `normals` float32 (h, w, 3), unit vectors (x right, y down, z along the view), zero where ignored.
    Every call hands out arrays of its own.

    Attributes:
        ids: The image ids, in the order of the split file.
        tasks: The requested tasks.
    """

    def __init__(self, root: Path | str, split: str, tasks: Sequence[str] = TASK_NAMES, *, keep_raw: bool = False) -> None:
        """Find every file that the tasks need; only those are demanded.

        Args:
            root: The PASCAL_MT directory.
            split: `train` or `val` (any `ImageSets/Context/SPLIT.txt`).
            tasks: Names out of `bench.tasks.TASKS`.
            keep_raw: Keep decoded samples in memory after their first read, as uint8: about 10 bytes a pixel with all four tasks.

        Raises:
            DataError: Files are missing: the message counts them and names the first.
            ValueError: An unknown, repeated or no task.
        """
        self.tasks = tuple(tasks)
        if not self.tasks or not set(self.tasks) <= set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks {list(self.tasks)} must be one or more different names out of {', '.join(TASK_NAMES)}")
        self.root, self.split = Path(root), split
        self.ids = read_split(root, split)
        self.files = {modality: find_files(root, modality, self.ids) for modality in modalities_of(self.tasks)}
        self._demand_complete()
        self._kept: dict[int, dict[str, np.ndarray]] | None = {} if keep_raw else None

    @property
    def keep_raw(self) -> bool:
        """Whether decoded samples stay in memory."""
        return self._kept is not None

    def preload(self) -> None:
        """Decode everything now (with `keep_raw`), so that forked workers share the arrays instead of decoding their own."""
        for index in range(len(self)):
            self._compact(index)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        compact = self._compact(index)
        sample = {"id": self.ids[index], "image": compact["image"].copy()}
        for task in self.tasks:
            sample[task] = _unit_normals(compact["normals"], compact["valid"]) if task == "normals" else compact[task].copy()
        return sample

    def _compact(self, index: int) -> dict[str, np.ndarray]:
        """Decode sample `index` to uint8 arrays, or recall it: normals stay their three bytes beside a `valid` mask."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        path = {modality: files[self.ids[index]] for modality, files in self.files.items()}
        compact = {"image": read_image(path["image"])}
        size = compact["image"].shape[:2]
        if "semseg" in self.tasks:
            compact["semseg"] = read_semseg(path["semseg"], size)
        if "human_parts" in self.tasks:
            compact["human_parts"] = read_human_parts(path["human_parts"], size)
        if "saliency" in self.tasks:
            compact["saliency"] = read_saliency(path["saliency"], size)
        if "normals" in self.tasks:
            compact["normals"], compact["valid"] = read_normals(path["normals"], path["context"], size)
        if self._kept is not None:
            self._kept[index] = compact
        return compact

    def _demand_complete(self) -> None:
        lines = []
        for modality, files in self.files.items():
            missing = [i for i, path in files.items() if path is None]
            if missing:
                pattern = MODALITIES[modality].pattern
                lines.append(f"  {modality}: {len(missing)} of {len(files)} files missing, path {pattern}, ids {_first(missing)}")
        if lines:
            head = f"data root {str(self.root)!r}, split {self.split!r} lacks files that the tasks {', '.join(self.tasks)} need:"
            raise DataError("\n".join([head, *lines, "Complete the data set, or leave out the tasks that need these files."]))


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _unit_normals(coded: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Decode normals, uint8 (h, w, 3), to unit vectors, float32 (h, w, 3), exactly zero where `valid`, bool (h, w), is False."""
    normals = 2 * coded.astype(np.float32) / 255 - 1
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))  # never zero: no byte decodes to exactly 0
    return normals * np.where(valid, 1 / length, np.float32(0))[..., None]
