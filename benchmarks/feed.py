"""How many images a second does the feed give, against a straightforward loader? A report, not a test.

    python -m benchmarks.feed --out results/reference/feed

Renders a synthetic PASCAL_MT tree at PASCAL's size (500 pixels), or reads --data-root, and measures in one run, at 448 px with all four
tasks: (a) a per-sample loader on the raw files that follows the release's recipe in PIL, SciPy and OpenCV (`benchmarks/per_sample.py`), in
loader processes; (b) the feed over the prepared cache, in worker threads; (c) the feed in memory. All give the same kind of batch on the
same device. Rounds are interleaved and the median counts, so that other load on the machine falls on all alike; CPU time counts that of
every process and thread. On a machine with a GPU the feed's batches are made there.

Then trains, with each mode of the feed and without any, and shows what share of a step is spent waiting (`benchmarks/waiting.py`).
"""

import argparse
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a file, too, not only with -m

from bench import provenance
from bench.data.cache import Request, open_cache
from bench.data.feed import Augmentation, Feed, epoch_order
from bench.data.native import kernels
from bench.data.roots import open_split
from bench.data.store import CachedStore, FileStore, WorkingSize
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
from bench.record import write_atomically
from bench.training.loop import to_device
from benchmarks import per_sample, waiting

TASKS = ("semseg", "human_parts", "saliency", "normals")
SIZE, BATCH = 448, 8
LEAST = 256


class PerSample(Dataset):
    """The release's order, one sample at a time: decode, flip, warp, resize. The suite only says where the files are."""

    def __init__(self, root: Path, train: bool) -> None:
        found = open_split(root, "train", TASKS)
        self.ids, self.files, self.train = found.ids, found.files, train

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.ids[index]
        sample = {"id": name} | per_sample.read({modality: paths[name] for modality, paths in self.files.items()})
        if self.train:
            sample = per_sample.augment(sample, np.random.default_rng((1, 0, 0, index)))
        return per_sample.resize_normalise(sample, SIZE)


def per_sample_batches(root: Path, workers: int, device: torch.device, epoch: int) -> Iterator[dict[str, Any]]:
    """Give the batches of (a): epochs in a row, `LEAST` images or more, so that the workers' start weighs little, as in one of PASCAL."""
    dataset = PerSample(root, train=True)
    passes = math.ceil(LEAST / len(dataset))
    order = [index for number in range(passes) for index in epoch_order(len(dataset), seed=0, epoch=passes * epoch + number)]
    batches = DataLoader(
        dataset,
        BATCH,
        sampler=order,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context="fork",
        worker_init_fn=lambda worker: cv2.setNumThreads(0),
        pin_memory=device.type == "cuda",
    )
    yield from (to_device(batch, device) for batch in batches)


def cpu_seconds() -> float:
    """Return the CPU time of this process, its threads and its ended children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(batches: Callable[[int], Iterable[dict[str, Any]]], epochs: int) -> dict[str, float]:
    """Run through some epochs: images a second of wall-clock time, and CPU milliseconds an image."""
    images, cpu, started = 0, cpu_seconds(), time.perf_counter()
    for epoch in range(epochs):
        for batch in batches(epoch):
            images += len(batch["id"])
            if batch["image"].is_cuda:
                torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"images_per_second": images / seconds, "cpu_ms_per_image": 1000 * (cpu_seconds() - cpu) / images}


def opened(root: Path, cache_dir: Path) -> CachedStore:
    """Open the training split's cache, and prepare it where there is none."""
    return open_cache(Request(root, "train", partial(open_split, root, "train")), TASKS, cache_dir)


def measure(root: Path, cache_dir: Path, rounds: int) -> dict[str, Any]:
    """Measure all ways of loading, interleaved."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    store = opened(root, cache_dir)
    prepared = time.perf_counter() - started

    def feed(store: CachedStore, mode: str, workers: int) -> Feed:
        return Feed(store, BATCH, image_size=SIZE, mode=mode, augmentation=Augmentation(), workers=workers, device=device)

    feeds = {f"(b) cached feed, {workers} workers": feed(store, "cache", workers) for workers in (1, 2)}
    feeds["(c) in memory, no worker"] = feed(store.on(device), "device", 0)
    ways = {f"(a) per sample, raw files, {n} workers": (partial(per_sample_batches, root, n, device), 1) for n in (1, 2)}
    ways |= {name: (lambda epoch, each=each: each(epoch), 6) for name, each in feeds.items()}
    for batches, _ in ways.values():  # page cache, compiled kernel, memory
        next(iter(batches(0)))
    results = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (batches, epochs) in ways.items():
            results[name].append(timed(batches, epochs))
    measured = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}
    rows = [{"way": name} | values for name, values in measured.items()]
    return {"device": str(device), "prepare_seconds": prepared, "rows": rows, "bytes": bytes_moved(root, feeds), "images": len(store.ids)}


def bytes_moved(root: Path, feeds: dict[str, Feed]) -> dict[str, float]:
    """Return bytes an image: read from files, read from the cache, and in the batch."""
    raw = open_split(root, "train", TASKS)
    sizes = [Path(files[name]).stat().st_size for files in raw.files.values() for name in raw.ids]
    batch = next(iter(feeds.values())).first()
    out = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor)) / BATCH
    return {"raw_files": sum(sizes) / len(raw), "cache": next(iter(feeds.values())).describe()["bytes_per_image"], "batch": out}


def fidelity(root: Path) -> dict[str, float]:
    """Compare the feed's evaluation samples with the per-sample loader's, which resize alike but round otherwise."""
    raw, found = open_split(root, "train", TASKS), []
    plain = PerSample(root, train=False)
    for index, batch in enumerate(Feed(FileStore(raw), 1, image_size=SIZE, mode="files")()):
        if index == 16:
            break
        other, ours = plain[index], {key: value[0] for key, value in batch.items() if key != "id"}
        deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        grey = ((other["image"] - ours["image"]) * deviation * 255).abs()
        both = (other["normals"][0] != 255) & (ours["normals"][0] != 255)
        difference = (other["normals"] - ours["normals"]).norm(dim=0)[both]
        angle = torch.rad2deg(2 * torch.asin((difference / 2).clamp(max=1)))
        labels = [(other[task] == ours[task]).float().mean().item() for task in TASKS[:3]]
        counted = ((other["normals"][0] == 255) == (ours["normals"][0] == 255)).float().mean().item()
        found.append([grey.mean().item(), grey.quantile(0.999).item(), min(labels), angle.mean().item(), counted])
    names = ("image_mean_grey_levels", "image_grey_levels_99.9%", "labels_equal", "normals_mean_deg", "normals_counted_equal")
    return dict(zip(names, np.nanmean(found, axis=0).tolist(), strict=True))


def working_size_trade(root: Path) -> dict[str, float]:
    """Compare augmented samples from a cache at 448 x 448 with those from native size."""
    raw, found = open_split(root, "train", TASKS), []
    stores = (FileStore(raw), FileStore(raw, WorkingSize(SIZE, square=True)))
    native, reduced = (Feed(store, 1, image_size=SIZE, mode="files", augmentation=Augmentation())() for store in stores)
    for _, one, other in zip(range(16), native, reduced, strict=False):
        deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        grey = ((other["image"] - one["image"]) * deviation * 255).abs().mean().item()
        found.append([grey, min((other[task] == one[task]).float().mean().item() for task in TASKS[:3])])
    grey, labels = np.mean(found, axis=0).tolist()
    return {"image_mean_grey_levels": grey, "labels_equal": labels, "bytes_per_image": SIZE * SIZE * 9}


def report(results: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    base = {row["way"][-9:]: row for row in results["rows"] if row["way"].startswith("(a)")}
    one = next(row for key, row in base.items() if key.startswith("1"))
    lines = []
    for row in results["rows"]:
        same = base.get(row["way"][-9:], one)
        ratios = (row["images_per_second"] / same["images_per_second"], one["cpu_ms_per_image"] / row["cpu_ms_per_image"])
        lines.append([row["way"], row["images_per_second"], row["cpu_ms_per_image"], 1000 / row["cpu_ms_per_image"], *ratios])
    head = ["", "images/s", "CPU ms/image", "images/s per core", "against (a), images/s", "against (a), per core"]
    moved, near, small = results["bytes"], results["fidelity"], results["working_size_448_square"]
    return f"""# The feed against a per-sample loader

{results["env"]["cpu"]}, {results["env"]["device"]}, torch {results["env"]["torch"]}. Batches of {BATCH} at {SIZE} px, four tasks, made on
{results["device"]} by the {results["kernel"]} kernel, from {results["images"]} images of about 500 x 375 pixels.
`{results["command"]}`

{tabulate(lines, head, tablefmt="github", floatfmt=".1f")}

Median of {results["rounds"]} interleaved rounds. Per core: CPU time of all processes and threads together. Images/s are compared with (a)
with as many workers, images/s per core with (a) with one.

{waiting.report(results["waiting"])}
## Bytes and fidelity

Bytes an image: {moved["raw_files"]:,.0f} in the raw files, {moved["cache"]:,.0f} read from the cache, {moved["batch"]:,.0f} in the batch.
The cache took {results["prepare_seconds"]:.1f} s to prepare, all five tasks.

What bounds (b): cubic interpolation of six channels over sixteen neighbours, in integers, on one core a worker.

Fidelity, evaluation samples of (b) against (a): the image differs by {near["image_mean_grey_levels"]:.3f} grey levels in the mean
({near["image_grey_levels_99.9%"]:.2f} at the 99.9 % quantile; (a) rounds to whole levels), {100 * near["labels_equal"]:.3f} % of label
pixels are equal, normals lie {near["normals_mean_deg"]:.2f}° apart (8 bits a component) and count at the same
{100 * near["normals_counted_equal"]:.3f} % of pixels.

Working size: the cache keeps every image at its own size, so that a training sample is resampled once. From a cache at {SIZE} x {SIZE}
(`data.longest_side = {SIZE}`, `data.squared`) an augmented sample differs from that by {small["image_mean_grey_levels"]:.2f} grey levels in
the mean, and {100 * (1 - small["labels_equal"]):.2f} % of its label pixels are others; it takes {small["bytes_per_image"]:,} bytes an image
whatever the image's size.
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="directory for feed.md and feed.json; printed otherwise")
    parser.add_argument("--data-root", type=Path, help="a PASCAL_MT directory instead of a rendered tree")
    parser.add_argument("--images", type=int, default=64, help="images to render")
    parser.add_argument("--rounds", type=int, default=5)
    waiting.add_options(parser)
    arguments = parser.parse_args()
    train = waiting.chosen_options(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.data_root
        if root is None:
            root = Path(scratch) / "PASCAL_MT"
            write_pascal_mt(root, SyntheticConfig(n_train=arguments.images, n_val=1, size=500, seed=0), processes=2)
        results = measure(root, Path(scratch) / "cache", arguments.rounds)
        results |= {
            "fidelity": fidelity(root),
            "working_size_448_square": working_size_trade(root),
            "waiting": waiting.measure(opened(root, Path(scratch) / "cache"), train),
            "rounds": arguments.rounds,
            "env": provenance.environment(1),
        }
    given = "".join(f" --train-{name} {value}" for name, value in train.items())
    results["command"] = f"python -m benchmarks.feed --images {arguments.images} --rounds {arguments.rounds}{given}"
    results["kernel"] = "compiled" if results["device"] == "cpu" and kernels() is not None else "torch"
    text = report(results)
    print(text)
    if arguments.out is not None:
        write_atomically(arguments.out / "feed.md", text)
        write_atomically(arguments.out / "feed.json", json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
