"""Names of the official MTLoRA release's state dict (arXiv 2403.20320), in the suite's terms.

| release | here |
|---|---|
| `backbone.layers.I.downsample.` (ends stage I) | `backbone.swin.layers.(I+1).downsample.` (timm: starts the next stage) |
| `backbone.` else | `backbone.swin.` |
| `.lora_shared_A`, `.lora_shared_B` | `.lora_A`, `.lora_B` |
| `.lora_tasks_A.T`, `.lora_tasks_B.T` | `.task_A.T`, `.task_B.T` |
| `.lora_norm` | `.norm` |
| `.lora_shared_scale` (1,), TRAINABLE_SCALE_SHARED | `.scale` () |
| `downsampler.T.downsample_K.` | `decoders.T.narrow.K.` |
| `decoders.decoders.T.last_layer.K.` | `decoders.T.head.K.` |
| tasks `sal`, `edge` | tasks `saliency`, `edges` |

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
    (r"\.lora_shared_scale$", ".scale"),
    (r"^downsampler\.(\w+)\.downsample_(\d)\.", r"decoders.\1.narrow.\2."),
    (r"^decoders\.decoders\.(\w+)\.last_layer\.", r"decoders.\1.head."),
    (r"(^|\.)sal(\.|$)", r"\1saliency\2"),
    (r"(^|\.)edge(\.|$)", r"\1edges\2"),
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
    tasks = tuple(task for task in TASKS if f"decoders.{task}.head.0.weight" in state)
    widths = tuple(len(state[key]) for key in (f"decoders.{tasks[0]}.narrow.{i}.weight" for i in range(4)) if key in state) if tasks else ()
    if not tasks or len(widths) != 4 or not any(name.startswith("backbone.swin.layers.") for name in state):
        raise WeightsError(
            f"{path} is no whole model of the MTLoRA release: expected are backbone.layers.*, downsampler.<task>.* and "
            "decoders.decoders.<task>.last_layer.* (the default decoders). Weights of a backbone alone go with `run SUITE --weights FILE`"
        )
    if not any(".lora_A" in name or ".task_A." in name for name in state):
        state = {name.replace(".linear.", "."): value for name, value in state.items()}
        return ReleasedModel(state=state, method="full", dials={}, tasks=tasks, decoder_channels=widths)
    state = with_scalar_scales(without_dead_pairs(state, path))
    plus = any("downsample.reduction.lora_A" in name for name in state)
    return ReleasedModel(
        state=state,
        method="mtlora_plus" if plus else "mtlora",
        dials=_dials(state, tasks, path),
        tasks=tasks,
        decoder_channels=widths,
    )


def without_dead_pairs(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Leave out the tasks' pairs of a stage's earlier blocks (INTERMEDIATE_SPECIALIZATION): the release computes and then drops them.

    Raises:
        WeightsError: Their sum has entered the shared stream ("addition"), so that they cannot be left out.
    """
    block = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
    found = [(name, match) for name in state if (match := block.search(name))]
    last = {stage: max(int(match[2]) for _, match in found if match[1] == stage) for stage in {match[1] for _, match in found}}
    dead = {name for name, match in found if int(match[2]) < last[match[1]] and re.search(r"\.task_[AB]\.", name)}
    if dead and any(re.search(r"(proj|fc1|fc2)\.norm\.", name) for name in state):
        raise WeightsError(f"{path} specialises intermediate blocks in the mode 'addition', which this suite does not compute")
    return {name: value for name, value in state.items() if name not in dead}


def with_scalar_scales(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the trained scales of shared pairs scalars, as they are here, and leave out that of a layer without such a pair."""
    scales = {name for name in state if name.endswith(".scale")}
    kept = {name for name in scales if name.replace(".scale", ".lora_A") in state}
    return {name: value.reshape(()) if name in kept else value for name, value in state.items() if name not in scales - kept}


def _dials(state: dict[str, Tensor], tasks: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Read a configuration's fields off a state dict with low-rank pairs.

    Raises:
        WeightsError: The release computes something here that this suite does not.
    """
    site = re.compile(r"layers\.(\d+)\.blocks\.\d+\.(?:attn|mlp)\.(qkv|proj|fc1|fc2)\.(lora_A|task_A\.(\w+))$")
    found = [(int(match[1]), match[2], match[4], len(value)) for name, value in state.items() if (match := site.search(name))]
    stages = range(1 + max(int(match[1]) for name in state if (match := re.search(r"layers\.(\d+)\.blocks", name))))
    shared = {stage: rank for stage, _, task, rank in found if task is None}
    own = {(task, stage): rank for stage, _, task, rank in found if task is not None}
    dials: dict[str, Any] = {"stage_ranks": tuple(shared.get(stage, 0) for stage in stages)}
    kinds = [kind for kind in ("qkv", "proj", "fc1", "fc2") if any(kind == there for _, there, _, _ in found)]
    dials["layers"] = (*kinds, *(["reduction"] if any("downsample.reduction.lora_A" in name for name in state) else []))
    if any(name.endswith(".scale") for name in state):
        dials["trainable_scale"] = True
    if not own:
        return dials | {"mode": "lora_only"}
    if not {"proj", "fc2"} <= set(kinds):
        raise WeightsError(
            f"{path} has task pairs but none in {'proj' if 'proj' not in kinds else 'fc2'}: there the release loses the residual or every "
            "task's stream, which this suite does not repeat (methods/mtlora.py)"
        )
    if any(re.search(r"(proj|fc1|fc2)\.norm\.", name) for name in state):
        dials["mode"] = "addition"
        dials["stage_ranks"] = tuple(shared.get(stage, max(own.get((task, stage), 0) for task in tasks)) for stage in stages)
    return dials | {"task_ranks": tuple((task, tuple(own.get((task, stage), 0) for stage in stages)) for task in tasks)}
