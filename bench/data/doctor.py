"""Look at the machine, the data set and the weights before a long run, and say what to do about what is wrong."""

import os
import pickle
import platform
import shutil
import struct
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bench.data.layout import PASCAL_MT, DataError, find_files, read_split
from bench.data.pascal_context import PascalContext
from bench.tasks import IGNORE
from bench.tasks import PASCAL_TASKS as TASK_NAMES

PUBLISHED_COUNTS = {"train": 4998, "val": 5105}
SAMPLED = 20
_GIB = 2**30
# torch's restricted unpickler lets most of these through on a file that is none
_BROKEN_WEIGHTS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    AttributeError,
    EOFError,
    struct.error,
    SafetensorError,
)
_PACKAGES = ("torch", "timm", "ray", "numpy", "scipy", "opencv-python-headless", "pillow", "pandas", "safetensors")


class Finding(NamedTuple):
    """One thing looked at: `remedy` says what to do, None where nothing needs doing."""

    subject: str
    status: Literal["ok", "warn", "fail"]
    message: str
    remedy: str | None = None


def diagnose(data_root: Path | None = None, weights: Path | None = None) -> list[Finding]:
    """Diagnose the environment, and the data root and the weights file where they are given. Reads only; nothing is raised or written."""
    findings = [*check_packages(), check_cuda(), *check_machine()]
    if data_root is not None:
        findings += check_data_root(Path(data_root))
    if weights is not None:
        findings.append(check_weights(Path(weights)))
    return findings


def check_packages() -> list[Finding]:
    """Report Python and the versions of the packages that the suite stands on, without importing them."""
    findings = [Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")]
    for package in _PACKAGES:
        try:
            findings.append(Finding(package, "ok", metadata.version(package)))
        except metadata.PackageNotFoundError:
            findings.append(Finding(package, "fail", "is not installed", "run the set-up of the README again (make demo does it)"))
    return findings


def check_cuda() -> Finding:
    """Name the CUDA devices and their memory."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        devices = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        return Finding("CUDA", "ok", "; ".join(f"{d.name}, {d.total_memory / _GIB:.0f} GiB" for d in devices))
    if caught or shutil.which("nvidia-smi"):
        why = str(caught[0].message).splitlines()[0] if caught else "nvidia-smi is there, but torch sees no device"
        remedy = (
            f"install a torch build that fits the driver (this one is built for CUDA {torch.version.cuda}), or check CUDA_VISIBLE_DEVICES"
        )
        return Finding("CUDA", "warn", f"no usable device: {why}", remedy)
    return Finding("CUDA", "ok", "no device: trials run on the processor cores")


def check_machine() -> list[Finding]:
    """Report cores, memory, free disk space of the working directory, and whether HOME can be written."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [Finding("cores", "ok", f"{cores} of {os.cpu_count()} usable by this process")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    short = memory < 4
    findings.append(Finding("memory", "warn" if short else "ok", f"{memory:.1f} GiB", "run fewer trials at a time" if short else None))
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    full = free < 2
    remedy = "free some space: results and checkpoints go here" if full else None
    findings.append(Finding("disk", "warn" if full else "ok", f"{free:.1f} GiB free in the working directory", remedy))
    home = os.path.expanduser("~")
    if os.access(home, os.W_OK | os.X_OK):
        return [*findings, Finding("HOME", "ok", f"{home} can be written")]
    remedy = "set HOME to a writable directory: Ray and downloaded weights put files there"
    return [*findings, Finding("HOME", "warn", f"{home} cannot be written", remedy)]


def check_data_root(root: Path) -> list[Finding]:
    """Check the layout, the splits, every modality's files, and a sample of images that is read in full."""
    if not (root / PASCAL_MT.split_folder).is_dir():
        inside = sorted(p.parent.parent for p in root.glob(f"*/{PASCAL_MT.split_folder}")) if root.is_dir() else []
        remedy = f"use --data-root {inside[0]}" if inside else "point --data-root at the folder that holds ImageSets/ and JPEGImages/"
        message = f"{root} has no {PASCAL_MT.split_folder}/" if root.is_dir() else f"{root} is not a directory"
        return [Finding("data root", "fail", message, remedy)]
    findings, splits = [Finding("data root", "ok", f"PASCAL_MT layout in {root}")], {}
    for split in PUBLISHED_COUNTS:
        try:
            splits[split] = read_split(root, split)
        except DataError as error:
            findings.append(Finding(f"split {split}", "fail", str(error), f"mend {PASCAL_MT.split_folder}/{split}.txt"))
        else:
            findings.append(_count_finding(root, split, len(splits[split])))
    findings += _overlap(splits)
    for split, ids in splits.items():
        complete, found = _check_files(root, split, ids)
        findings += found
        if complete:
            findings += _read_sample(root, split, complete)
    return findings


def check_weights(path: Path) -> Finding:
    """Read a weights file (safetensors, or .pth through torch's restricted unpickler) and count what it holds."""
    subject = f"weights {path}"
    if not path.is_file():
        return Finding(subject, "fail", "no such file", "check the path given to --weights")
    try:
        with warnings.catch_warnings(action="ignore"):
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return Finding(
            subject,
            "fail",
            "is damaged, or holds more than tensors",
            "save its state dict as safetensors; files that carry code are refused",
        )
    except _BROKEN_WEIGHTS as error:
        return Finding(subject, "fail", f"cannot be read ({type(error).__name__}: {str(error)[:120]})", "fetch or make the file again")
    content = content.get("model", content) if isinstance(content, dict) else content
    tensors = [value for value in content.values() if isinstance(value, torch.Tensor)] if isinstance(content, dict) else []
    if not tensors:
        return Finding(subject, "fail", "holds no tensors", "give a state dict, or a checkpoint with one under 'model'")
    if not all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point()):
        return Finding(subject, "fail", "holds values that are not finite", "fetch or make the file again")
    count = sum(t.numel() for t in tensors)
    return Finding(subject, "ok", f"{len(tensors)} tensors, {count / 1e6:.2f} M values, {path.stat().st_size / 1e6:.1f} MB")


def _count_finding(root: Path, split: str, count: int) -> Finding:
    expected = PUBLISHED_COUNTS[split]
    if count == expected:
        return Finding(f"split {split}", "ok", f"{count} images, as published")
    if (root / "synthetic.json").exists():
        return Finding(f"split {split}", "ok", f"{count} images (rendered data set)")
    remedy = "compare results only with runs on the same split"
    return Finding(f"split {split}", "warn", f"{count} images; PASCAL-Context's published split has {expected}", remedy)


def _overlap(splits: dict[str, list[str]]) -> list[Finding]:
    if len(splits) < 2:
        return []
    both = sorted(set(splits["train"]) & set(splits["val"]))
    if not both:
        return [Finding("splits", "ok", "train and val share no image")]
    message = f"{len(both)} images are in train and val, first {', '.join(both[:5])}"
    return [Finding("splits", "fail", message, "take them out of one of the two lists")]


def _check_files(root: Path, split: str, ids: list[str]) -> tuple[tuple[str, ...], list[Finding]]:
    """Count the files of every modality. Returns the tasks that have all of theirs, and the findings."""
    findings, lacking = [], set()
    for modality in PASCAL_MT.modalities_of(TASK_NAMES):
        pattern = PASCAL_MT.modalities[modality].pattern
        try:
            missing = [i for i, path in find_files(root, PASCAL_MT.modalities[modality], ids).items() if path is None]
        except DataError as error:
            lacking.add(modality)
            findings.append(Finding(f"{split} {modality}", "fail", str(error), "allow this user to read the folder"))
            continue
        subject, count = f"{split} {modality}", f"{len(ids) - len(missing)} of {len(ids)} files, {pattern}"
        if not missing:
            findings.append(Finding(subject, "ok", count))
            continue
        lacking.add(modality)
        tasks = "every task" if modality == "image" else ", ".join(t for t, needs in PASCAL_MT.needed.items() if modality in needs)
        remedy = f"complete the folder: it is needed for {tasks}"
        if len(missing) == len(ids):
            count += " (the whole modality is absent)"
            if modality in ("normals", "saliency"):
                remedy += "; some mirrors of PASCAL_MT lack it, the original archive holds it"
        findings.append(Finding(subject, "fail", f"{count}; missing: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}", remedy))
    complete = () if "image" in lacking else tuple(task for task in TASK_NAMES if not lacking & set(PASCAL_MT.needed[task]))
    return complete, findings


def _read_sample(root: Path, split: str, tasks: tuple[str, ...]) -> list[Finding]:
    """Read up to SAMPLED evenly spaced images with the labels of `tasks`, through the reader that training uses."""
    dataset = PascalContext(root, split, tasks)
    picks = np.unique(np.linspace(0, len(dataset) - 1, SAMPLED).round().astype(int)).tolist()
    labelled, broken = dict.fromkeys(tasks, 0), []
    for index in picks:
        try:
            sample = dataset[index]
        except DataError as error:
            broken.append(str(error))
            continue
        for task in tasks:
            labelled[task] += bool(np.any(sample[task] != (0 if task == "normals" else IGNORE)))
    subject = f"{split} sample"
    findings = [Finding(subject, "fail", message, "replace the file") for message in broken]
    if not broken:
        findings.append(Finding(subject, "ok", f"{len(picks)} evenly spaced images read in full: {', '.join(tasks)}"))
    for task in (t for t, count in labelled.items() if not count and len(broken) < len(picks)):
        remedy = "look at the labels of this task: its loss would be zero"
        findings.append(Finding(subject, "warn", f"none of the {len(picks) - len(broken)} images has a labelled pixel for {task}", remedy))
    return findings
