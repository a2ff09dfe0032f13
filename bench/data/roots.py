"""Where a trial's data lies: the user's directory, or a tree rendered once under the results; and how a split of it is opened."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.data.heldout import held_out_ids
from bench.data.identity import plain_fields
from bench.data.layout import LAYOUTS, DataError, content_hash_of, fingerprint, layout_of
from bench.data.nyud import NYUD
from bench.data.pascal_context import PascalContext
from bench.data.reader import RawSplit
from bench.data.synthetic import RENDERER_VERSION, SyntheticConfig, remove_abandoned, write_pascal_mt

READERS: dict[str, type[RawSplit]] = {reader.layout.name: reader for reader in (PascalContext, NYUD)}
HELD_OUT = "held_out"


class HeldOut(Protocol):
    """What draws the held-out ids: `bench.config.HeldOutConfig`."""

    fraction: float
    seed: int


def synthetic_root(results: Path, config: SyntheticConfig) -> Path:
    """Return where the tree of a configuration lies under the results."""
    canonical = json.dumps([RENDERER_VERSION, plain_fields(config)], sort_keys=True)
    return results / "data" / f"synthetic-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def ensure_synthetic(results: Path, config: SyntheticConfig, progress: Callable[[int, int], None] | None = None) -> tuple[Path, str]:
    """Render the tree unless it is there; return its directory and its content hash."""
    root = synthetic_root(results, config)
    if (digest := content_hash_of(root)) is not None:
        return root, digest
    root.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root.parent, "synthetic-*")
    return root, write_pascal_mt(root, config, processes=os.cpu_count() or 1, progress=progress)


def data_root_of(
    source: str, synthetic: SyntheticConfig | None, expected_fingerprint: str | None, *, results: Path, data_root: Path | None
) -> Path:
    """Return the root of a trial's data.

    Raises:
        DataError: The trial wants a directory and none, or another one, is given; or the rendered tree is gone.
    """
    if source == "synthetic":
        root = synthetic_root(results, synthetic)
        if not (root / "synthetic.json").exists():
            raise DataError(f"no rendered data at {root}; `run_suite.py run` renders it before the trials start")
        return root
    if data_root is None:
        raise DataError(f"this trial reads {LAYOUTS[source].data_set} from a directory; give it with --data-root DIR")
    if (found := fingerprint(data_root)) != expected_fingerprint:
        raise DataError(f"{data_root} is another data set (fingerprint {found[:12]}) than the trial's ({str(expected_fingerprint)[:12]})")
    return data_root


def open_split(root: Path, split: str, tasks: tuple[str, ...], *, held_out: HeldOut | None = None, store: Path | None = None) -> RawSplit:
    """Open a split with the reader of the root's layout.

    Args:
        root: The directory.
        split: A split file's name: "train", "val"; or "held_out", the part of the training split that `held_out` keeps away from it.
        tasks: The tasks whose labels are wanted.
        held_out: `fraction` and `seed` of the draw; None leaves the training split whole.
        store: Directory where draws are written down, see `bench.data.heldout`.

    Raises:
        DataError: Something of the split is missing or broken; or "held_out" without a draw.
    """
    ids = None
    if held_out is not None and split in ("train", HELD_OUT):
        whole = READERS[layout_of(root).name](root, "train", ("semseg",))
        drawn = held_out_ids(whole, held_out.fraction, held_out.seed, store=store)
        ids = drawn if split == HELD_OUT else [name for name in whole.ids if name not in set(drawn)]
    elif split == HELD_OUT:
        raise DataError("there is no held-out split without data.held_out in the configuration")
    return READERS[layout_of(root).name](root, "train" if split == HELD_OUT else split, tasks, ids=ids)
