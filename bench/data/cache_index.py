"""Which prepared cache belongs to a split of a directory, and how its files looked when they were hashed: one small JSON file each."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from bench.record import write_atomically


class Index(NamedTuple):
    """What is known of a split of a directory.

    Attributes:
        directory: Name of its cache.
        root: The data set's directory, for people who look.
        settings, content: Hashes, see `bench.data.cache`.
        stamp: Hash of the sizes and times of the files whose bytes make up `content`.
        settled: Whether the stamp can be trusted, see `bench.data.contents.Stamp`.
    """

    directory: str
    root: str
    settings: str
    content: str
    stamp: str
    settled: bool


def read_index(place: Path) -> Index | None:
    """Read the index of a place, None without a good one: it spares time, and proves nothing."""
    try:
        return Index(**json.loads(_file(place).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def replace_index(place: Path, index: Index) -> None:
    """Write the index of a place, and remove the cache that the place had before where no other place has it.

    Trials that have that cache open may go on.
    """
    before = read_index(place)
    if before == index:
        return
    write_atomically(_file(place), json.dumps(index._asdict(), indent=1))
    if before is None or before.directory == index.directory:
        return
    used = {other.directory for file in place.parent.glob("*.json") if (other := read_index(file.with_name(file.stem))) is not None}
    if before.directory not in used and Path(before.directory).name == before.directory:
        shutil.rmtree(place.parent / before.directory, ignore_errors=True)


def _file(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")
