"""Where a number comes from: versions, device, code and commit. Environment variables are never recorded."""

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
RESULT_SOURCES = (
    "bench/config.py",
    "bench/plain.py",
    "bench/tasks.py",
    "bench/trial.py",
    "bench/outcome.py",
    "bench/profile.py",
    "bench/assets",
    "bench/data",
    "bench/model",
    "bench/training",
    "bench/measure",
    "methods",
)
"""Files and folders whose content can change a result."""

PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "scipy", "pillow", "ray")


@cache
def code_id() -> str:
    """Return a hash of all code, tables and weights in the repository that can change a result; comments and docstrings do not count."""
    return hash_sources(RESULT_SOURCES)


def hash_sources(sources: tuple[str, ...]) -> str:
    """Hash files, and all code, tables and weights in folders, of the repository; comments and docstrings of Python do not count."""
    paths = [REPOSITORY / source for source in sources]
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.suffix in (".py", ".c", ".json", ".safetensors")
    ]
    hasher = hashlib.sha256()
    for file in sorted(files):
        hasher.update(file.relative_to(REPOSITORY).as_posix().encode())
        hasher.update(ast.dump(without_docstrings(ast.parse(file.read_bytes()))).encode() if file.suffix == ".py" else file.read_bytes())
    return hasher.hexdigest()[:12]


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Drop the docstrings of a module, in place."""
    nodes: list[ast.AST] = [tree]
    while nodes:  # statements alone: walking expressions takes most of the time, and none holds a definition
        node = nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        for blocks in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, blocks, ())
            nodes += inner if isinstance(inner, list) else ()  # a lambda's body is an expression
    return tree


def git_state() -> dict[str, Any]:
    """Return the commit and whether tracked files but for results differ from it; nulls outside of a git checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
        status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]  # a launch rewrites results
        changed = subprocess.run(status, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed.strip())}


def code_changes(recorded: Mapping[str, Any], repository: Path = REPOSITORY) -> str:
    """Say which files that can change a result differ from those that a record was made by, or why that cannot be known.

    Args:
        recorded: `commit` and `dirty`, as `git_state` returns them.
        repository: The checkout to compare with, what is not committed there included.
    """
    commit, unknown = recorded.get("commit"), "which files differ cannot be known"
    if not commit:
        return f"{unknown}: the record names no commit"
    try:
        subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=repository, capture_output=True, check=True)
        asked = (["git", "diff", "--name-only", commit], ["git", "ls-files", "--others", "--exclude-standard"])
        found = [
            subprocess.run([*ask, "--", *RESULT_SOURCES], cwd=repository, capture_output=True, text=True, check=True).stdout.splitlines()
            for ask in asked
        ]
    except (FileNotFoundError, subprocess.CalledProcessError):
        return f"{unknown}: commit {commit} of the record is not in this checkout (where it is a clone, `git fetch` may bring it)"
    files = sorted({name for names in found for name in names})
    said = f"changed since commit {commit}: {', '.join(files)}" if files else f"no file differs from commit {commit}"
    return said + ("; the record's checkout had further changes, not committed, that cannot be known" if recorded.get("dirty") else "")


@cache
def environment(threads: int) -> dict[str, Any]:
    """Return versions and device of this process."""
    import torch

    versions = {package: version for package in PACKAGES if (version := installed(package)) is not None}
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **versions,
        "cuda": torch.version.cuda if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu": f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": threads,
        "platform": platform.platform(),
        "deterministic": not cuda,
        "tf32": False,
    }


def installed(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the processor's name with family and model, which a virtual machine's name may not tell apart."""
    info = Path("/proc/cpuinfo")
    return described_cpu(info.read_text()) if info.exists() else platform.processor() or platform.machine()


def described_cpu(info: str) -> str:
    """Return what the text of /proc/cpuinfo says of its first processor."""
    first = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.split("\n\n")[0].splitlines())}
    name = first.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{short} {first[key]}" for key, short in (("cpu family", "family"), ("model", "model")) if key in first]
    return ", ".join([name, *numbers])
