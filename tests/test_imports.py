"""Who may import whom, read from the sources, and that looking at results needs no deep-learning package."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from made_records import demo_like_suite

from methods import METHODS

REPOSITORY = Path(__file__).parent.parent
FILES = [REPOSITORY / "run_suite.py", *sorted((REPOSITORY / "bench").rglob("*.py")), *sorted((REPOSITORY / "methods").rglob("*.py"))]
HEAVY = ("torch", "torchvision", "timm", "ray")
COMMANDS = ("run_suite", "bench.cli")
LIGHT = (
    "bench.catalogue",
    "bench.errors",
    "bench.imports",
    "bench.migration",
    "bench.record",
    "bench.schema",
    "bench.secrecy",
    "bench.status",
    "bench.storage",
    "bench.tasks",
    "bench.tuning.asked",
)
"""Modules that import nothing heavy, `bench.report` and what is in it besides; the commands' lazy imports excepted."""

FOUNDATION = (
    "tasks",
    "errors",
    "imports",
    "heartbeat",
    "secrecy",
    "storage",
    "migration",
    "plain",
    "config",
    "data",
    "model",
    "training",
    "measure",
    "record",
    "schema",
    "provenance",
    "catalogue",
    "workers",
)
"""Parts of bench that know nothing of suites, sweeps and reports."""

NO_METHOD = {"bench/measure/cost.py": {"full"}, "bench/model/release.py": {"full", "mtlora", "mtlora_plus"}}
"""Strings that are a method's name by chance (`full` is an operator of aten), or because the file reads the release's checkpoints."""


@dataclass(frozen=True)
class Import:
    """One import of a module of the repository, or of a package outside of it; `lazy` inside of a function."""

    target: str
    lazy: bool


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def walk(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from walk(child, inside)


@cache
def imports(module: str) -> frozenset[Import]:
    found = set()
    for node, lazy in walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {Import(alias.name, lazy) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; the table of imports reads absolute names"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(Import(inner if inner in MODULES else str(node.module), lazy))
    return frozenset(found)


def packages(name: str) -> set[str]:
    """A module and the packages around it, which python imports with it."""
    parts = name.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts) + 1)}


def reachable(module: str, *, lazy: bool) -> set[str]:
    """All modules and packages that importing a module imports; with `lazy`, also those that its functions may import."""
    seen, queue = set(), list(packages(module))
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            if name in MODULES:
                queue += [part for found in imports(name) if lazy or not found.lazy for part in packages(found.target)]
    return seen


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def is_command(module: str) -> bool:
    return any(within(module, command) for command in COMMANDS)


def test_the_sources_are_found():
    assert {"run_suite", "bench.sweep", "bench.report", "methods.base"} <= set(MODULES)
    assert Import("ray", lazy=True) in imports("bench.sweep.on_ray")
    assert {"torch", "bench.trial", "methods.lora"} <= reachable("bench.sweep.entries", lazy=False)


def test_methods_never_import_bench():
    allowed = ("methods", "torch", "timm", *sys.stdlib_module_names)
    for module in MODULES:
        if within(module, "methods"):
            strangers = {found.target for found in imports(module) if found.target.partition(".")[0] not in allowed}
            assert not strangers, f"{module} imports {strangers}"


def test_only_the_sweep_and_the_tuner_import_ray():
    importers = {module for module in MODULES if any(within(found.target, "ray") for found in imports(module))}
    assert importers
    assert all(within(module, "bench.sweep") or within(module, "bench.tuning.on_ray") for module in importers)


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m in LIGHT or is_command(m) or within(m, "bench.report")))
def test_reports_and_records_import_nothing_heavy_not_even_lazily(module: str):
    found = reachable(module, lazy=not is_command(module))
    assert not {name for name in found if name.partition(".")[0] in (*HEAVY, "methods")}


@pytest.mark.parametrize(
    "module",
    [
        "bench.sweep.on_ray",
        "bench.sweep.supervise",
        "bench.sweep.nursery",
        "bench.sweep.serial",
        "bench.tuning.on_ray.worker",
        "bench.tuning.point",
    ],
)
def test_what_stays_beside_a_trial_imports_no_torch(module: str):
    heavy = set(HEAVY) - ({"ray"} if module == "bench.tuning.on_ray.worker" else set())
    assert not {name for name in reachable(module, lazy=False) if name.partition(".")[0] in (*heavy, "methods")}


def test_the_foundation_imports_no_suite_sweep_or_report():
    for module in MODULES:
        if module.split(".")[0] == "bench" and module.split(".")[1:2] and module.split(".")[1] in FOUNDATION:
            above = {name for name in reachable(module, lazy=True) if within(name, "bench")}
            above = {name for name in above if "." in name and name.split(".")[1] not in FOUNDATION}
            assert not above, f"{module} reaches {above}"


def test_only_suites_import_a_method_by_name():
    for module in MODULES:
        if within(module, "bench") and not within(module, "bench.suites"):
            named = {found.target for found in imports(module) if within(found.target, "methods")} - {
                "methods",
                "methods.base",
                "methods.shape",
            }
            assert not named, f"{module} imports {named}"


def test_a_method_is_named_in_suites_only():
    for module, file in MODULES.items():
        if within(module, "methods") or within(module, "bench.suites"):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        strings = {node.value for node, _ in walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        named = strings & set(METHODS) - NO_METHOD.get(file.relative_to(REPOSITORY).as_posix(), set())
        assert not named, f"{module} names the methods {named}: let the method's configuration carry what differs"


def test_modules_import_each_other_without_cycles():
    graph = {module: {found.target for found in imports(module) if found.target in MODULES and not found.lazy} for module in MODULES}
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(MODULES)  # raises CycleError, which names the cycle


WITHOUT_HEAVY = """
import contextlib, io, json, runpy, sys
for name in {heavy}:
    sys.modules[name] = None
import bench.report
outcomes = []
for arguments in {commands}:
    sys.argv = ["run_suite.py", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path("run_suite.py", run_name="__main__")
        except SystemExit as end:
            code = end.code
    outcomes.append([code, out.getvalue()])
assert all(sys.modules[name] is None for name in {heavy})
print(json.dumps(outcomes))
"""


def test_looking_at_results_needs_neither_torch_nor_timm_nor_ray(tmp_path: Path):
    directory = demo_like_suite().write(tmp_path / "made")
    commands = [["list", what, "--json"] for what in ("methods", "suites", "backbones", "tasks")]
    commands += [["status", "made", "--results", str(tmp_path)], ["report", "made", "--results", str(tmp_path)]]
    script = WITHOUT_HEAVY.format(heavy=HEAVY, commands=commands)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert [code for code, _ in outcomes] == [0] * len(commands), (outcomes, run.stderr)
    methods, suites, backbones, tasks = ([row["name"] for row in json.loads(out)] for _, out in outcomes[:4])
    assert "mtlora" in methods
    assert "demo" in suites
    assert "swin_tiny_patch4_window7_224" in backbones
    assert "semseg" in tasks
    assert "MTLoRA" in outcomes[4][1]
    assert "MTLoRA" in outcomes[5][1]
    assert {"table.csv", "summary.md", "pareto_params.png"} <= {file.name for file in directory.iterdir()}
