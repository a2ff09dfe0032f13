"""What there is to choose from, read from the sources without importing them: neither torch nor ray is needed to look around."""

import ast
import importlib.metadata
from pathlib import Path

from bench.tasks import TASKS

REPOSITORY = Path(__file__).parent.parent
TIMM_FAMILIES = ("swin_transformer", "swin_transformer_v2", "vision_transformer", "pvt_v2")
"""Modules of timm whose models the suite can build on; `bench.model.backbone` holds one family each."""


def described(folder: str, *, defining: str | None = None, decorated: str | None = None) -> list[dict[str, str]]:
    """List a folder's modules by name and the first line of their docstring.

    Args:
        folder: Relative to the repository.
        defining: List only modules that define this function.
        decorated: List only modules that call this function, under the names that it is called with.
    """
    rows = []
    for file in sorted((REPOSITORY / folder).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", None) == decorated]
        names = [call.args[0].value for call in calls if call.args and isinstance(call.args[0], ast.Constant)]
        if defining is not None and any(isinstance(node, ast.FunctionDef) and node.name == defining for node in tree.body):
            names = [file.stem]
        rows += [{"name": name, "description": summary} for name in names if file.stem != "__init__"]
    return rows


def tasks() -> list[dict[str, str | int | float]]:
    """List the tasks."""
    return [
        {
            "name": task.name,
            "channels": task.channels,
            "loss_weight": task.loss_weight,
            "metric": f"{task.metric_title} ({task.unit})",
            "better": "higher" if task.higher_is_better else "lower",
        }
        for task in TASKS.values()
    ]


def backbones() -> list[dict[str, str]]:
    """List the backbones: the suite's own and timm's of the supported families, read from the sources of the installed timm."""
    timm = [Path(str(importlib.metadata.distribution("timm").locate_file(f"timm/models/{module}.py"))) for module in TIMM_FAMILIES]
    rows = []
    for file, origin in ((REPOSITORY / "bench/model/backbone/swin.py", "this suite"), *((file, "timm") for file in timm)):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(getattr(d, "id", None) == "register_model" for d in node.decorator_list):
                rows.append(
                    {"name": node.name, "origin": origin, "description": (ast.get_docstring(node) or "").partition("\n")[0].strip()}
                )
    return rows
