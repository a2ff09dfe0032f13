"""What a killed trial goes on from: written whole or not at all, and used only where it is whole and this trial's own."""

import io
import logging
import pickle
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.record import write_atomically
from bench.storage import set_aside

logger = logging.getLogger(__name__)

PARTS = {"identity": str, "fit": dict, "model": dict, "optimizer": dict, "scaler": dict, "rng": torch.Tensor, "cuda_rng": list}
"""What a checkpoint holds."""


class CheckpointError(ValueError):
    """A file is no checkpoint, or a damaged one."""


@dataclass
class FitState:
    """What a killed trial needs to go on: everything that the next epoch depends on, and what has been measured so far."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    wait_seconds: float = 0.0
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    best: dict[str, Any] | None = None


def save_checkpoint(
    path: Path, identity: str, state: FitState, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """Write what `load_checkpoint` needs: trained parameters and buffers, optimiser, scaler and random state; atomically."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trained
    content = {
        "identity": identity,
        "fit": vars(state),
        "model": {name: value for name, value in model.state_dict().items() if name not in frozen},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU; no code of the file runs. `mmap` leaves tensors on the disk until they are used.

    Raises:
        CheckpointError: The file is damaged or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(f"damaged: {error}") from error
    if not isinstance(content, dict) or content.keys() != PARTS.keys():
        raise CheckpointError("no checkpoint of a trial")
    wrong = [name for name, kind in PARTS.items() if not isinstance(content[name], kind)]
    if wrong or content["fit"].keys() != {each.name for each in fields(FitState)}:
        raise CheckpointError(f"damaged: {', '.join(wrong) or 'fit'} is not what it should be")
    return content


def load_checkpoint(
    path: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> FitState:
    """Restore what `save_checkpoint` wrote into model, optimiser, scaler and torch's generators; a new state where there is nothing to use.

    Raises:
        RuntimeError: The checkpoint is of another model.
    """
    if not path.exists():
        return FitState()
    try:
        content = read_checkpoint(path)
    except CheckpointError as error:
        logger.warning("%s cannot be used (%s); it is set aside as %s and the trial starts again", path, error, set_aside(path))
        return FitState()
    if content["identity"] != identity:
        logger.warning("%s was written by other code or for other data; set aside as %s, the trial starts again", path, set_aside(path))
        return FitState()
    unexpected = model.load_state_dict(content["model"], strict=False).unexpected_keys
    if unexpected:
        raise RuntimeError(f"{path} was written by another model: it holds {unexpected[:5]}; delete it to start the trial again")
    optimizer.load_state_dict(content["optimizer"])
    scaler.load_state_dict(content["scaler"])
    torch.set_rng_state(content["rng"])
    if content["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["cuda_rng"])
    return FitState(**content["fit"])
