"""Names of the official MTLoRA release's state dict (arXiv 2403.20320), in the suite's terms.

| release | here |
|---|---|
| `backbone.layers.I.downsample.` (ends stage I) | `backbone.swin.layers.(I+1).downsample.` (timm: starts the next stage) |
| `backbone.` else | `backbone.swin.` |
| `.lora_shared_A`, `.lora_shared_B` | `.lora_A`, `.lora_B` |
| `.lora_tasks_A.T`, `.lora_tasks_B.T` | `.task_A.T`, `.task_B.T` |
| `.lora_norm` | `.norm` |
| `downsampler.T.downsample_K.` | `decoders.T.narrow.K.` |
| `decoders.decoders.T.last_layer.K.` | `decoders.T.head.K.` |
| task `sal` | task `saliency` |

Buffers that follow from the sizes (`relative_position_index`, `attn_mask`) have no counterpart.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.model.backbone import WeightsError, read_state
from bench.tasks import TASKS

_DERIVED = ("relative_position_index", "attn_mask")
_RULES = (
    (r"^backbone\.layers\.(\d+)\.downsample\.", lambda match: f"backbone.swin.layers.{int(match[1]) + 1}.downsample."),
    (r"^backbone\.(?!swin\.)", "backbone.swin."),
    (r"\.lora_shared_([AB])$", r".lora_\1"),
    (r"\.lora_tasks_([AB])\.", r".task_\1."),
    (r"\.lora_norm\.", ".norm."),
    (r"^downsampler\.(\w+)\.downsample_(\d)\.", r"decoders.\1.narrow.\2."),
    (r"^decoders\.decoders\.(\w+)\.last_layer\.", r"decoders.\1.head."),
    (r"(^|\.)sal(\.|$)", r"\1saliency\2"),
)


def name_from_release(name: str) -> str | None:
    """Translate a name of the release's state dict; None for a buffer that is derived here."""
    if name.endswith(_DERIVED):
        return None
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """What a checkpoint of the release holds, as far as its names and shapes say.

    Attributes:
        state: State dict under our names.
        method: "full", "mtlora" or "mtlora_plus".
        dials: Fields of the method's configuration; not scale and mode, of which a state dict says nothing but "addition" and "lora_only".
        tasks: Tasks with a decoder, in our order.
        decoder_channels: Widths of the decoders' narrowing.
    """

    state: dict[str, Tensor]
    method: str
    dials: dict[str, Any]
    tasks: tuple[str, ...]
    decoder_channels: tuple[int, ...]


def read_released(path: Path) -> ReleasedModel:
    """Read a checkpoint that the release's training wrote (`{"model": state dict, ...}`), or its state dict alone.

    Raises:
        WeightsError: It cannot be read, or is no whole model of the release with the default decoders.
    """
    named = {name_from_release(name): value for name, value in read_state(path).items()}
    state = {name: value.float() if value.is_floating_point() else value for name, value in named.items() if name is not None}
    pairs = {name: len(value) for name, value in state.items() if name.endswith(".lora_A")}
    task_pairs = {name: len(value) for name, value in state.items() if ".task_A." in name}
    tasks = tuple(task for task in TASKS if f"decoders.{task}.head.0.weight" in state)
    widths = tuple(len(state[key]) for key in (f"decoders.{tasks[0]}.narrow.{i}.weight" for i in range(4)) if key in state) if tasks else ()
    if not tasks or len(widths) != 4 or not any(name.startswith("backbone.swin.layers.") for name in state):
        raise WeightsError(
            f"{path} is no whole model of the MTLoRA release: expected are backbone.layers.*, downsampler.<task>.* and "
            "decoders.decoders.<task>.last_layer.* (the default decoders). Weights of a backbone alone go with `run SUITE --weights FILE`"
        )
    if not pairs and not task_pairs:
        state = {name.replace(".linear.", "."): value for name, value in state.items()}
        return ReleasedModel(state=state, method="full", dials={}, tasks=tasks, decoder_channels=widths)
    dials: dict[str, Any] = {"stage_ranks": _per_stage(pairs)}
    if not task_pairs:
        dials["mode"] = "lora_only"
    else:
        dials["stage_task_ranks"] = _per_stage(task_pairs)
        if any(re.search(r"(proj|fc1|fc2)\.norm\.", name) for name in state):
            dials["mode"] = "addition"
    plus = any("downsample.reduction.lora_A" in name for name in pairs)
    return ReleasedModel(state=state, method="mtlora_plus" if plus else "mtlora", dials=dials, tasks=tasks, decoder_channels=widths)


def _per_stage(ranks: dict[str, int]) -> tuple[int, ...]:
    """Return the rank of each stage's blocks; the release has one a stage for all tasks."""
    found: dict[int, int] = {}
    for name, rank in ranks.items():
        if (match := re.search(r"layers\.(\d+)\.blocks\.", name)) is not None:
            found[int(match[1])] = rank
    return tuple(found[stage] for stage in sorted(found))
