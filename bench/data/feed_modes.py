"""Where a trial's samples lie: decoded on its device, in the machine's prepared cache, or in the data set's files.

The choice follows from sizes alone and changes no result; the record names it (`data.feed.mode`).
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.config import DataConfig, TrialConfig
from bench.data.cache import Request, open_cache
from bench.data.feed import Augmentation, Feed
from bench.data.node_copy import nearest
from bench.data.roots import open_split
from bench.data.store import CachedStore, FileStore, Store, WorkingSize

logger = logging.getLogger(__name__)

DEVICE_SHARE = 0.25
"""A trial's splits may take so much of its share of the GPU's memory, and half of what is free; the rest is the model's."""

EVALUATION_BATCH = 32

HOST_BYTES = 2**30
"""On a CPU splits are copied into a trial's memory below this; larger ones stay in the page cache, which all trials share."""


def request_of(data: DataConfig, root: Path, split: str, draws: Path | None = None) -> Request:
    """Return which cache holds a split of a trial's data; held-out draws are kept in the directory `draws`."""
    subset = "" if data.held_out is None or split == "val" else f"{data.held_out.fraction:g} {data.held_out.seed}"
    return Request(
        root,
        split,
        partial(open_split, root, split, held_out=data.held_out, store=draws),
        WorkingSize(data.longest_side, data.squared),
        subset,
    )


def open_store(
    request: Request,
    tasks: tuple[str, ...],
    *,
    cache_dir: Path | None,
    device: torch.device,
    share: float = 1.0,
    taken: int = 0,
    node_dir: Path | None = None,
    **told: Any,
) -> tuple[Store, str]:
    """Open a split in the fastest mode that there is room for.

    Args:
        request: The split.
        tasks: Of the trial.
        cache_dir: Directory of the caches; None reads the files themselves.
        device: The trial's.
        share: The trial's share of its GPU.
        taken: Bytes that the trial's other splits already take on the device.
        node_dir: Directory on the node's own disk to which the cache is copied first; None reads it where it is.
        told: `say`, `progress` and `processes` of `open_cache`.

    Returns:
        The store and its mode: "device", "cache" or "files".
    """
    if cache_dir is None:
        return FileStore(request.opener(tasks), request.size), "files"
    if node_dir is not None:
        cache_dir = nearest(request, cache_dir, node_dir, told.get("say", logger.warning))
    store = open_cache(request, tasks, cache_dir, **told)
    return (store.on(device), "device") if fits(store.bytes, device, share=share, taken=taken) else (store, "cache")


def fits(size: int, device: torch.device, *, share: float = 1.0, taken: int = 0) -> bool:
    """Tell whether a split of `size` bytes goes to the device, beside `taken` bytes of other splits."""
    if device.type != "cuda":
        return size + taken <= HOST_BYTES
    free, total = torch.cuda.mem_get_info(device)
    return size + taken <= DEVICE_SHARE * min(share, 1.0) * total and size <= free / 2


def resident_bytes(feed: Feed) -> int:
    """Return how many bytes of the device a feed's samples take."""
    return feed.store.bytes if feed.mode == "device" and isinstance(feed.store, CachedStore) else 0


def open_feeds(
    config: TrialConfig,
    root: Path,
    *,
    device: torch.device,
    draws: Path | None = None,
    cache_dir: Path | None,
    node_dir: Path | None = None,
    workers: int = 0,
    share: float = 1.0,
    splits: tuple[str, ...] = ("train", "val"),
) -> dict[str, Feed]:
    """Open the feeds of a trial: "train" is shuffled and augmented, all others are evaluated whole and in order.

    Args:
        config: The trial.
        root: Its data.
        draws: As of `request_of`.
        device, cache_dir, node_dir, share: As of `open_store`.
        workers: As of `Feed`.
        splits: Names, "held_out" among those allowed; the first have precedence on the device.
    """
    recipe, feeds = config.recipe, {}
    augmented = Augmentation(flip=recipe.flip, rotation=recipe.rotation, scale=recipe.scale)
    for split in splits:
        taken = sum(resident_bytes(feed) for feed in feeds.values())
        request = request_of(config.data, root, split, draws)
        where = {"cache_dir": cache_dir, "node_dir": node_dir, "device": device}
        store, mode = open_store(request, config.tasks, **where, share=share, taken=taken)
        feeds[split] = Feed(
            store,
            recipe.batch_size if split == "train" else EVALUATION_BATCH,
            image_size=recipe.image_size,
            mode=mode,
            augmentation=augmented if split == "train" else None,
            seed=config.seed,
            workers=workers,
            device=device,
        )
    return feeds
