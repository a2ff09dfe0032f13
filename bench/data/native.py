"""Compile `resample.c` once a machine and load it. Where there is no C compiler the feed computes the same bits in torch, more slowly."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

logger = logging.getLogger(__name__)

_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC")


@cache
def kernels() -> ctypes.CDLL | None:
    """Return the compiled kernels; None, after a warning, where they cannot be had."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        logger.warning("no C compiler (cc): the feed resamples in torch, with the same results but many times slower on a CPU; install gcc")
        return None
    source = resources.files("bench.data").joinpath("resample.c").read_bytes()
    try:
        return ctypes.CDLL(str(_library(compiler, source)))
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or error
        logger.warning("%s does not compile resample.c, so that the feed resamples in torch, slowly: %.2000s", compiler, detail)
        return None


def _library(compiler: str, source: bytes) -> Path:
    """Return the library of this source, compiler and processor; compiled where it is not kept in the user's cache directory yet."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    identity = "\0".join([version, _processor(), *_FLAGS]).encode() + source
    name = f"resample-{hashlib.sha256(identity).hexdigest()[:16]}.so"
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dense-peft-bench"
    if (directory / name).exists():
        return directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _compiled(compiler, source, directory / name)
    except OSError:  # a home that is read-only or full: compile for this process alone
        return _compiled(compiler, source, Path(tempfile.mkdtemp(prefix="dense-peft-bench-")) / name)


def _compiled(compiler: str, source: bytes, path: Path) -> Path:
    """Compile to `path`; another process meets the whole library or none."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        command = [compiler, *_FLAGS, "-x", "c", "-", "-o", temporary, "-lm"]
        subprocess.run(command, input=source, capture_output=True, check=True)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _processor() -> str:
    """Return what the processor can do: a library compiled for one may not run on another that shares the home directory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{platform.system()} {platform.machine()} {platform.processor()} {flags}"
