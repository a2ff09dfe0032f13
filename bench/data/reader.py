"""What the readers of all layouts share: find an image's files, decode them, hand out samples.

The readers never write into the data set, and never unpickle anything from it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.data.layout import DataError, Layout, find_files, first, read_split
from bench.tasks import DEFAULT_TASKS


class RawSplit:
    """Raw samples of one split; a layout's reader says how its files are decoded.

    A sample is a dict: `id` str; `image` uint8 (h, w, 3) RGB; and for each requested task an array of the kind that `bench.tasks` names.
    Every call hands out arrays of its own.

    Attributes:
        ids: The image ids, in the order of the split file.
        tasks: The requested tasks.
        files: Path by modality and id.
    """

    layout: ClassVar[Layout]

    def __init__(
        self,
        root: Path | str,
        split: str,
        tasks: Sequence[str] | None = None,
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Find every file that the tasks need; only those are demanded.

        Args:
            root: The directory.
            split: `train` or `val` (any split file).
            tasks: Names of tasks that the layout has labels for; by default those that the literature trains on it.
            ids: A part of the split, instead of all its ids.

        Raises:
            DataError: Files are missing: the message counts them and names the first.
            ValueError: An unknown, repeated or no task.
        """
        self.tasks = DEFAULT_TASKS[self.layout.name] if tasks is None else tuple(tasks)
        known = self.layout.needed
        if not self.tasks or not set(self.tasks) <= set(known) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks {list(self.tasks)} must be one or more different names out of {', '.join(known)}")
        self.root, self.split = Path(root), split
        self.ids = read_split(root, split) if ids is None else list(ids)
        wanted = self.layout.modalities_of(self.tasks)
        self.files = {modality: find_files(root, self.layout.modalities[modality], self.ids) for modality in wanted}
        self._demand_complete()

    def decode(self, path: dict[str, str]) -> dict[str, np.ndarray]:
        """Decode one image and its labels into new arrays, by modality or task; `expand` makes a task's label of them.

        Args:
            path: File by modality, those that the tasks need.

        Raises:
            DataError: A file is damaged, of another kind or of other proportions than its image; the message names it.
        """
        raise NotImplementedError

    def expand(self, task: str, decoded: dict[str, np.ndarray]) -> np.ndarray:
        """Return a task's label, an array of its own, from what `decode` returned."""
        return decoded[task]

    @classmethod
    def read_classes(cls, path: str) -> np.ndarray:
        """Read a semantic label by itself: uint8 (h, w), 255 ignored."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        decoded = self.decode({modality: files[self.ids[index]] for modality, files in self.files.items()})
        return {"id": self.ids[index], "image": decoded["image"]} | {task: self.expand(task, decoded) for task in self.tasks}

    def _demand_complete(self) -> None:
        lines = []
        for modality, files in self.files.items():
            missing = [i for i, path in files.items() if path is None]
            if missing:
                pattern = self.layout.modalities[modality].pattern
                lines.append(f"  {modality}: {len(missing)} of {len(files)} files missing, path {pattern}, ids {first(missing)}")
        if lines:
            head = f"data root {str(self.root)!r}, split {self.split!r} lacks files that the tasks {', '.join(self.tasks)} need:"
            raise DataError("\n".join([head, *lines, "Complete the data set, or leave out the tasks that need these files."]))
