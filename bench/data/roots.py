"""Where a trial's data lies: the user's PASCAL_MT directory, or a tree rendered once under the results."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from bench.data.pascal_context import DataError, PascalContext, fingerprint
from bench.data.synthetic import RENDERER_VERSION, SyntheticConfig, write_pascal_mt


def synthetic_root(results: Path, config: SyntheticConfig) -> Path:
    """Return where the tree of a configuration lies under the results."""
    canonical = json.dumps([RENDERER_VERSION, dataclasses.asdict(config)], sort_keys=True)
    return results / "data" / f"synthetic-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def content_hash_of(root: Path) -> str | None:
    """Return the content hash of a rendered tree, None for any other."""
    marker = root / "synthetic.json"
    return json.loads(marker.read_text(encoding="utf-8"))["content_hash"] if marker.exists() else None


def ensure_synthetic(results: Path, config: SyntheticConfig, progress: Callable[[int, int], None] | None = None) -> tuple[Path, str]:
    """Render the tree unless it is there; return its directory and its content hash."""
    root = synthetic_root(results, config)
    if (digest := content_hash_of(root)) is not None:
        return root, digest
    root.parent.mkdir(parents=True, exist_ok=True)
    return root, write_pascal_mt(root, config, processes=os.cpu_count() or 1, progress=progress)


def data_root_of(
    source: str, synthetic: SyntheticConfig | None, expected_fingerprint: str | None, *, results: Path, data_root: Path | None
) -> Path:
    """Return the root of a trial's data.

    Raises:
        DataError: The trial wants a PASCAL_MT directory and none, or another one, is given; or the rendered tree is gone.
    """
    if source == "synthetic":
        root = synthetic_root(results, synthetic)
        if not (root / "synthetic.json").exists():
            raise DataError(f"no rendered data at {root}; `run_suite.py run` renders it before the trials start")
        return root
    if data_root is None:
        raise DataError("this trial reads PASCAL-Context from a directory; give it with --data-root DIR")
    if (found := fingerprint(data_root)) != expected_fingerprint:
        raise DataError(f"{data_root} is another data set (fingerprint {found[:12]}) than the trial's ({str(expected_fingerprint)[:12]})")
    return data_root


def open_split(root: Path, split: str, tasks: tuple[str, ...]) -> PascalContext:
    """Open the raw samples of a split."""
    return PascalContext(root, split, tasks)
