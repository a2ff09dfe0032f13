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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bench.data.doctor_tree import check_data_root
from bench.data.findings import Finding

__all__ = ["Finding", "check_data_root", "check_weights", "diagnose"]
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


def diagnose(data_root: Path | None = None, weights: Path | None = None, **options: Any) -> list[Finding]:
    """Diagnose the environment, and the data root and the weights file where they are given; `options` as of `check_data_root`."""
    findings = [*check_packages(), check_cuda(), *check_machine()]
    if data_root is not None:
        findings += check_data_root(Path(data_root), **options)
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
    return Finding(
        subject,
        "ok",
        f"{len(tensors)} tensors, {count / 1e6:.2f} M values, {path.stat().st_size / 1e6:.1f} MB; `plan` says whether they fit",
    )
