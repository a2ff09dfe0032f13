"""What a model costs: parameters by group, FLOPs, memory of a training step, seconds a step, bytes to store.

Everything here is counted or measured on the model at hand, nothing estimated. FLOPs are 2 x multiply-accumulates, from the formulas of
`torch.utils.flop_counter`; operators without a formula are named with their calls, because a silent zero misleads. Saved activations are
the storages that autograd keeps for the backward pass, seen through `torch.autograd.graph.saved_tensors_hooks`: the same on any device.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from methods.base import merge

PARAMETER_GROUPS = (
    "backbone",
    "method_shared",
    "method_per_task",
    "norm",
    "relative_position",
    "patch_embed",
    "patch_merging",
    "decoders",
)

MOST_SKIPPED_UPDATES = 24

# Operators that only allocate or copy; views are recognised by their schema.
_WITHOUT_ARITHMETIC = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros", "zeros_like", "new_zeros", "ones", "ones_like"}
    | {"new_ones", "full", "full_like", "new_full", "scalar_tensor", "arange", "clone", "copy", "copy_", "_to_copy", "_unsafe_view"}
    | {"lift_fresh"}
)


def parameter_group(name: str, *, tasks: Iterable[str], method_parameter_names: frozenset[str]) -> str:
    """Return the group of the parameter with this dotted name within the model, one of `PARAMETER_GROUPS`.

    Decoders come first, then what the method added (per task where a component of the name is a task's name), then the backbone's parts.

    Raises:
        ValueError: The parameter is in neither `decoders` nor `backbone` and not the method's; move it there or declare it as the method's.
    """
    components = name.split(".")
    if components[0] == "decoders":
        return "decoders"
    if name in method_parameter_names:
        return "method_per_task" if not set(tasks).isdisjoint(components) else "method_shared"
    if components[0] != "backbone":
        raise ValueError(f"parameter {name} is in neither 'backbone' nor 'decoders', nor in method_parameter_names; do one of the three")
    if not {"relative_position_bias_table", "cpb_mlp"}.isdisjoint(components):
        return "relative_position"
    if "patch_embed" in components:
        return "patch_embed"
    if "downsample" in components and not {"reduction", "proj"}.isdisjoint(components):
        return "patch_merging"
    return "norm" if any(component.startswith("norm") for component in components) else "backbone"


def parameter_ledger(model: nn.Module) -> dict:
    """Count the model's parameters by group: the record's `params`.

    Args:
        model: Has `backbone`, `decoders`, `tasks` (names) and `method_parameter_names` (dotted names of what the method added).

    Returns:
        `groups` ({group: {"total", "trainable"}}, all eight), `total`, `trainable`, `trainable_without_decoders`. A parameter used in two
        places counts once.

    Raises:
        ValueError: `method_parameter_names` names what the model does not have, or a parameter belongs to no group.
    """
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    unknown = sorted(set(model.method_parameter_names) - names)
    if unknown:
        raise ValueError(f"method_parameter_names holds {unknown[:5]}, which the model has not; give dotted names within the model")
    groups = {group: {"total": 0, "trainable": 0} for group in PARAMETER_GROUPS}
    for name, parameter in model.named_parameters():
        entry = groups[parameter_group(name, tasks=model.tasks, method_parameter_names=model.method_parameter_names)]
        entry["total"] += parameter.numel()
        entry["trainable"] += parameter.numel() * parameter.requires_grad
    total, trainable = (sum(entry[key] for entry in groups.values()) for key in ("total", "trainable"))
    if total != sum(parameter.numel() for parameter in model.parameters()):
        raise AssertionError("the groups do not add up to the model")
    return {
        "groups": groups,
        "total": total,
        "trainable": trainable,
        "trainable_without_decoders": trainable - groups["decoders"]["trainable"],
    }


class _UncoveredOps(TorchDispatchMode):
    """Counts the calls of operators that compute something and have no FLOP formula."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # A view returns an alias that it does not write to; unbind and split return lists of such.
        aliases = [result.alias_info for result in func._schema.returns]
        is_view = bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)
        packet = func._overloadpacket
        if packet not in flop_registry and not is_view and packet.__name__ not in _WITHOUT_ARITHMETIC:
            self.calls[str(packet)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and back into its own mode at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def flops_per_image(model: nn.Module, image_size: int, device: torch.device | str) -> tuple[int, dict[str, int]]:
    """Count the FLOPs (2 x multiply-accumulates) of one forward pass of one image in eval mode.

    Attention is run by its plain kernel meanwhile, so that it is counted as two batched matrix products on every device and torch version
    (torch counts 0 for the fused kernel on a CPU before 2.15).

    Args:
        model: On `device`; takes (1, 3, image_size, image_size) float32. Its modes are restored.
        image_size: Height and width in pixels.
        device: Where to run.

    Returns:
        The FLOPs that have a formula (convolutions, matrix products, attention), and the calls of every operator that computes something
        but has none (element-wise, norms, softmax, gathers, resizing), by name. Views, allocations and plain copies are in neither.
    """
    image = torch.zeros(1, 3, image_size, image_size, device=device)
    uncovered, counter = _UncoveredOps(), FlopCounterMode(display=False)
    # The counter is the inner mode: it takes composite operators apart, and `uncovered` sees the parts.
    with _evaluation_mode(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), uncovered, counter:
        model(image)
    return counter.get_total_flops(), dict(sorted(uncovered.calls.items()))


def inference_seconds(model: nn.Module, image_size: int, device: torch.device | str, *, passes: int = 10) -> dict[str, float | int | None]:
    """Time forward passes of one image in eval mode, without gradients, after two that do not count.

    Args:
        model: On `device`; takes (1, 3, image_size, image_size) float32. Its modes are restored.
        image_size: Height and width in pixels.
        device: Where to run.
        passes: How many count.

    Returns:
        As `summarize_seconds`.
    """
    image, seconds, warmup = torch.zeros(1, 3, image_size, image_size, device=device), [], 2
    with _evaluation_mode(model), torch.inference_mode():
        for _ in range(warmup + passes):
            start = time.perf_counter()
            model(image)
            if image.is_cuda:
                torch.cuda.synchronize(image.device)
            seconds.append(time.perf_counter() - start)
    return summarize_seconds(seconds, warmup_steps=warmup)


def inference_cost(model: nn.Module, image_size: int, device: torch.device | str) -> dict[str, Any]:
    """Measure inference of a model as it trains and with its low-rank updates folded into the frozen weights (`methods.base.merge`).

    The model is left alone; a copy of it is merged. Where a method's algebra allows no folding, both are the same.

    Returns:
        `flops_per_image`, `flops_uncovered_ops` and `inference_seconds` of the model; `merged_layers`, how many layers were folded; and
        `merged_flops_per_image`, `merged_inference_seconds`.
    """
    flops, uncovered = flops_per_image(model, image_size, device)
    merged = copy.deepcopy(model)
    layers = merge(merged.backbone)
    return {
        "flops_per_image": flops,
        "flops_uncovered_ops": uncovered,
        "inference_seconds": inference_seconds(model, image_size, device),
        "merged_layers": layers,
        "merged_flops_per_image": flops_per_image(merged, image_size, device)[0],
        "merged_inference_seconds": inference_seconds(merged, image_size, device),
    }


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Sum the bytes of the storages under the tensors, each storage once however many tensors view it."""
    storages = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storage.nbytes() for storage in storages.values())


@dataclass
class SavedActivations:
    """What `saved_activation_bytes` has counted so far."""

    bytes: int = 0
    storages: int = 0


@contextmanager
def saved_activation_bytes(model: nn.Module) -> Iterator[SavedActivations]:
    """Count the bytes that autograd saves for the backward pass by what runs inside the block.

    Counts each storage once and whole, because a saved view keeps all of it alive. Storages of the model's parameters and buffers do not
    count. The input image and the labels do, where an operator saves them, and so do the low-precision copies of weights that autocast
    makes: both occupy memory until the backward pass. Activation checkpointing brings its own hooks and is not seen.

    Yields:
        The count, complete when the forward pass and the loss are.
    """
    excluded = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    # A weak reference keeps a dead storage's address from being taken by a new one, but not its memory.
    seen: dict[int, StorageWeakRef] = {}
    saved = SavedActivations()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in excluded and storage._cdata not in seen:
            seen[storage._cdata] = StorageWeakRef(storage)
            saved.bytes += storage.nbytes()
            saved.storages += 1
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def step_memory(model: nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[], object]) -> dict[str, int]:
    """Run one training step and measure where its memory is: the record's `step_memory_bytes`.

    Args:
        model: The model that `step` trains.
        optimizer: Its optimiser.
        step: Runs forward, loss, backward and `optimizer.step()`, and leaves the gradients in place (`zero_grad` at the start of a step).

    The step runs again, up to 24 times, while a gradient scaler skips the update (fp16 starts with a scale that is too high).

    Returns:
        Bytes of `weights` (all parameters and buffers), `gradients`, `optimizer_state`, `saved_activations`, and their `total`. A trainable
        parameter that got no gradient has neither gradient nor state, so it adds nothing to those two.

    Raises:
        RuntimeError: No gradients or no optimiser state after the step; clear gradients at its start instead of its end.
    """
    gradients, state = [], []
    for _ in range(1 + MOST_SKIPPED_UPDATES):
        with saved_activation_bytes(model) as saved:
            step()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
        if state:
            break
    if not gradients or not state:
        raise RuntimeError(
            f"after the measured step there are {len(gradients)} gradients and {len(state)} tensors of optimiser state; the step must "
            "clear gradients at its start, not at its end, and update the weights by an optimiser that has state"
        )
    parts = {
        "weights": tensor_bytes([*model.parameters(), *model.buffers()]),
        "gradients": tensor_bytes(gradients),
        "optimizer_state": tensor_bytes(state),
        "saved_activations": saved.bytes,
    }
    return parts | {"total": sum(parts.values())}


def summarize_seconds(seconds: Sequence[float], *, warmup_steps: int = 3) -> dict[str, float | int | None]:
    """Summarise the seconds of single training steps without the first `warmup_steps`: the record's `step_seconds`.

    Returns:
        `median`, `p05`, `p95` (seconds, linear between ranks; None when no step is left) and `n`, the steps that count.

    Raises:
        ValueError: `warmup_steps` is negative.
    """
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps is {warmup_steps}; it must be at least 0")
    measured = seconds[warmup_steps:]
    if not measured:
        return {"median": None, "p05": None, "p95": None, "n": 0}
    median, p05, p95 = (float(value) for value in np.percentile(measured, (50, 5, 95)))
    return {"median": median, "p05": p05, "p95": p95, "n": len(measured)}


def stored_bytes(model: nn.Module) -> int:
    """Count the bytes to store beside the pretrained weights: trainable parameters and their batch-norm statistics.

    A buffer counts when its own module holds a trainable parameter and the state dict holds the buffer. Tied tensors count once.
    """
    tensors = {id(parameter): parameter for parameter in model.parameters() if parameter.requires_grad}
    for module in model.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            saved = {name: buffer for name, buffer in module.named_buffers(recurse=False) if name not in module._non_persistent_buffers_set}
            tensors |= {id(buffer): buffer for buffer in saved.values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
