"""Weights from files: safetensors or .pth, in timm's key layout or the original authors'."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bench.errors import SuiteError

CLASSIFIER = ("norm.", "head.", "fc_norm.", "head_dist.", "pre_logits.")
"""How the names of a final norm and of a classifier begin, which no backbone here has."""


class WeightsError(SuiteError):
    """A weights file does not fit the backbone."""


def load_weights(model: nn.Module, path: Path, translate: Callable[[dict, nn.Module], dict]) -> None:
    """Load a timm backbone, without final norm and classifier.

    Args:
        model: What timm made.
        path: The file.
        translate: timm's filter of the family, which turns the authors' key layout into timm's and resizes tables of another window or
            image size.

    Raises:
        WeightsError: The file is unreadable, or a key is missing or surplus; the message lists them.
    """
    stored, expected = read_state(path), {key for key in model.state_dict() if not key.startswith(CLASSIFIER)}
    foreign = {key for key in stored if key.endswith("relative_position_bias_table") and key not in expected}  # timm's filter stops there
    try:
        state = translate({key: value for key, value in stored.items() if key not in foreign}, model)
    except (ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise WeightsError(f"{path} does not fit this backbone: {error}. Choose the backbone that the file was made for") from error
    state = {key: value.float() for key, value in state.items() if not key.startswith(CLASSIFIER)}
    missing, surplus = sorted(expected - set(state)), sorted(set(state) - expected | foreign)
    wrong = [f"{k}: {tuple(state[k].shape)} in the file" for k, v in model.state_dict().items() if k in state and state[k].shape != v.shape]
    if missing or surplus or wrong:
        raise WeightsError(
            f"{path} does not fit this backbone: {len(missing)} missing {missing}; {len(surplus)} surplus {surplus}; "
            f"{len(wrong)} of another shape {wrong}. Choose the backbone that the file was made for"
        )
    model.load_state_dict(state, strict=False)  # what the file lacks are norm and classifier, which go


class Inert:
    """Stands for a class that a checkpoint names beside its tensors, such as a configuration's; an object becomes an unused mapping."""

    def __new__(cls, *args: object, **kwargs: object) -> OrderedDict:
        """Return an empty mapping, of a kind that torch fills without asking."""
        return OrderedDict()


def read_torch(path: Path) -> object:
    """Read a torch file without running code of it: classes that torch does not know as harmless are replaced by `Inert`.

    The official MTLoRA release stores its whole configuration, a `yacs.config.CfgNode`, beside the model.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # torch's format from before 1.6, which it cannot look through
        foreign = []
    with torch.serialization.safe_globals([(Inert, name) for name in foreign]):
        return torch.load(path, map_location="cpu", weights_only=True)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors or from a torch file (weights only).

    `model` or `state_dict` inside are unwrapped, and `module.` before every name, which distributed training writes, is taken off.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = read_torch(path)
    except FileNotFoundError:
        raise WeightsError(f"no weights file at {path}") from None
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise WeightsError(f"{path} is not a readable weights file (.safetensors or .pth): {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; give a state dict, as such or under 'model' or 'state_dict'")
    return (
        {name.removeprefix("module."): value for name, value in tensors.items()}
        if all(n.startswith("module.") for n in tensors)
        else tensors
    )
