"""Nothing is ever written into a data set: the one check that every place of output goes through."""

from collections.abc import Iterator
from pathlib import Path

from bench.data.layout import LAYOUTS, DataError


def refuse_inside(path: Path, root: Path | None = None, *, option: str) -> Path:
    """Refuse a place of output inside of a data set; links are followed on both sides, before anything is made.

    Args:
        path: The file or directory that is going to be written; it need not exist.
        root: The data set that is read, None where none is known. Folders of it that are links elsewhere belong to it.
        option: What gave the path, as messages name it.

    Returns:
        `path`, as it was given.

    Raises:
        DataError: It is, or lies inside of, `root` or any directory that has the split files of a known layout.
    """
    place = Path(path).resolve()
    for data_set in (*_parts(root), *filter(is_data_set, (place, *place.parents))):
        if place.is_relative_to(data_set):
            raise DataError(f"{option} {path} lies inside of the data set {data_set}, which is never written to; give a place outside")
    return path


def is_data_set(directory: Path) -> bool:
    """Whether a directory has the folder of split files of a known layout."""
    return any((directory / layout.split_folder).is_dir() for layout in LAYOUTS.values())


def _parts(root: Path | None) -> Iterator[Path]:
    """Yield where a data set lies: its directory, and what each folder of its layout leads to."""
    if root is None:
        return
    yield Path(root).resolve()
    for layout in LAYOUTS.values():
        for folder in (layout.split_folder, *(folder for modality in layout.modalities.values() for folder in modality.folders)):
            steps = Path(folder).parts
            for depth in range(1, len(steps) + 1):
                if (inside := Path(root, *steps[:depth])).is_dir():
                    yield inside.resolve()
