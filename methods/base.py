"""The contract of a method: its configuration, the registry, and `replace`, the only way to rewire a backbone.

A method is `apply(backbone, config)`. It mutates the backbone in place, leaves the backbone's input and output alone, and says what
trains through `requires_grad` only. Decoders, data, loss and optimiser are out of its reach.

A backbone is any `nn.Module` with the attribute `tasks: tuple[str, ...]` whose dotted module names follow timm's Swin:
`...layers.<stage>.blocks.<block>.{attn.qkv, attn.proj, mlp.fc1, mlp.fc2}` and `...layers.<stage>.downsample.reduction`. Where queries are
projected apart from keys and values, `attn.q` and `attn.kv` stand for `attn.qkv`.

Streams: activations are `(S * B, ...)`, stream-major in dim 0, with S = 1 (shared), T (one a task) or 1 + T (shared first). A parameter
that belongs to one task carries that task's name as a component of its dotted name.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, fields
from typing import ClassVar

from torch import nn

from methods.shape import Shape

LAYERS = {
    "qkv": ("attn.qkv", "attn.q", "attn.kv"),
    "proj": ("attn.proj",),
    "fc1": ("mlp.fc1",),
    "fc2": ("mlp.fc2",),
    "reduction": ("downsample.reduction",),
}
"""Short names of the linear layers that a method may rewire, and how their dotted names end."""

ALSO_TRAIN = {
    "norm": r"(^|\.)layers\..*\.norm\d?\.",
    "relative_position": r"\.(relative_position_bias_table$|cpb_mlp\.)",
    "patch_embed": r"(^|\.)patch_embed\.",
    "patch_merging": r"downsample\.(reduction|proj)\.",
    "bias": r"(?<!norm)(?<!norm1)(?<!norm2)\.([qv]_)?bias$",
}
"""Groups of a backbone's own parameters that a method may leave trainable, as patterns of dotted names."""

BIAS_VECTOR = re.compile(r"\.([qv]_)?bias$")
"""Names of all bias vectors, those of norms too."""

_SITE = re.compile(r"(?:^|\.)layers\.(\d+)\.(?:blocks\.(\d+)\.)?(attn\.(?:qkv|q|kv|proj)|mlp\.fc[12]|downsample\.reduction)$")


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval that a dial is tuned over.

    Attributes:
        low, high: Its ends, both included.
        log: Whether equal ratios, not equal differences, are equally likely; `low` must then be positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (self.low < self.high and (self.low > 0 or not self.log)):
            raise ValueError(f"a range needs low < high, and low > 0 where it is logarithmic; got {self}")


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Fields of a method; subclasses add one field per dial.

    Attributes:
        title: The method's name in a table.
        dial: Name of the field that a sweep varies, or None.
        tunable: Fields that `tune` may choose for a row besides its learning rate, two at most, and no field that changes the number of
            parameters: a row is tuned, not made larger.
        paper: Where the method is defined.
        single_path: Whether a model of all tasks passes an image through the frozen layers once, not once a task.
        also_train: Groups of the backbone's own parameters to train besides the method's, keys of `ALSO_TRAIN`.
    """

    title: ClassVar[str]
    dial: ClassVar[str | None] = None
    dial_title: ClassVar[str] = ""
    tunable: ClassVar[dict[str, Range]] = {}
    paper: ClassVar[str] = ""
    single_path: ClassVar[bool] = True

    also_train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
            require_number(field, getattr(self, field.name))
        require_choices("also_train", self.also_train, ALSO_TRAIN)

    def parameters(self, shape: Shape) -> int:
        """Return the closed form of the parameters that the method itself trains, without the groups of `also_train`."""
        raise NotImplementedError(f"{type(self).__name__} has no closed form of its parameters; add `parameters(shape)`")

    def trainable(self, shape: Shape) -> int:
        """Return the closed form of all parameters of the backbone that train."""
        return self.parameters(shape) + shape.own(self.also_train)

    @property
    def label(self) -> str:
        """Row label: the title, with the dial's value where there is a dial."""
        return self.title if self.dial is None else f"{self.title} ({self.dial_title}={getattr(self, self.dial)})"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method: its name, configuration class and the function that applies it."""

    name: str
    config: type[MethodConfig]
    apply: Callable[[nn.Module, MethodConfig], None]


METHODS: dict[str, Method] = {}


def register(name: str, config: type[MethodConfig]) -> Callable:
    """Register the decorated `apply(backbone, config)` under `name`."""

    def decorate(apply: Callable[[nn.Module, MethodConfig], None]) -> Callable[[nn.Module, MethodConfig], None]:
        if name in METHODS:
            raise ValueError(f"method {name!r} is registered twice; give the second one another name")
        METHODS[name] = Method(name=name, config=config, apply=apply)
        return apply

    return decorate


def require_choices(field: str, values: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise ValueError when a value of a field is not among the allowed ones, which the message lists, or is given twice."""
    values = tuple(values)
    unknown = [value for value in values if value not in allowed]
    if unknown:
        raise ValueError(f"{field}: unknown value(s) {unknown}; allowed: {', '.join(allowed)}")
    if len(set(values)) < len(values):
        raise ValueError(f"{field} names a value twice: {values}; name each once")


def require_layers(layers: Iterable[str]) -> None:
    """Raise ValueError when kinds of layers are unknown, or none is named."""
    layers = tuple(layers)
    require_choices("layers", layers, LAYERS)
    if not layers:
        raise ValueError(f"layers: name at least one of {', '.join(LAYERS)}")


def require_number(field: Field, value: object) -> None:
    """Raise ValueError when the value of a field of type int or float is of another type or not finite."""
    if field.type is int and type(value) is not int:
        raise ValueError(f"{field.name} must be a whole number, got {value!r}")
    if field.type is float and (type(value) not in (int, float) or not math.isfinite(value)):
        raise ValueError(f"{field.name} must be a finite number, got {value!r}")


def require_probability(field: str, value: float) -> None:
    """Raise ValueError when the value of a field lies outside of [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{field} must lie in [0, 1), got {value}")


def require_at_least(field: str, value: float, minimum: float) -> None:
    """Raise ValueError when the value of a field is below its minimum."""
    if value < minimum:
        raise ValueError(f"{field} must be at least {minimum}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A linear layer of the backbone that a method may rewire.

    Attributes:
        name: Dotted name within the backbone.
        module: The layer as it is now.
        kind: Key of `LAYERS`.
        stage: Index of the stage whose features the layer computes; a patch merging belongs to the stage that it ends.
        block: Index within the stage; None for a patch merging.
        last: Whether it stands in the last block of its stage.
    """

    name: str
    module: nn.Module
    kind: str
    stage: int
    block: int | None
    last: bool


def sites(backbone: nn.Module, kinds: Iterable[str]) -> list[Site]:
    """List the linear layers of the given kinds in the order of the forward pass within each block.

    Raises:
        ValueError: When a kind is unknown, when there is none, or when the backbone has no layer of one of the kinds.
    """
    kinds = tuple(kinds)
    require_layers(kinds)
    kind_of = {ending: kind for kind, endings in LAYERS.items() for ending in endings}
    found = [(name, module, match) for name, module in backbone.named_modules() if (match := _SITE.search(name))]
    depth: dict[int, int] = {}
    for _, _, match in found:
        if match[2] is not None:
            depth[int(match[1])] = max(depth.get(int(match[1]), 0), int(match[2]) + 1)
    result = []
    for name, module, match in found:
        kind, stage, block = kind_of[match[3]], int(match[1]), None if match[2] is None else int(match[2])
        if kind in kinds:
            stage = stage - 1 if kind == "reduction" else stage  # timm merges at the start of the next stage
            last = block is not None and block == depth[stage] - 1
            result.append(Site(name=name, module=module, kind=kind, stage=stage, block=block, last=last))
    if absent := [kind for kind in kinds if kind not in {site.kind for site in result}]:
        raise ValueError(
            f"{type(backbone).__name__} has no layer that ends in {[LAYERS[kind][0] for kind in absent]}; "
            "the method needs a Swin-like backbone from timm, or other `layers`"
        )
    return result


def replace(backbone: nn.Module, kinds: Iterable[str], build: Callable[[Site], nn.Module]) -> None:
    """Put `build(site)` in the place of every linear layer of the given kinds.

    Raises:
        ValueError: When a kind is unknown or matches nothing; `patch_embed.proj` is never matched.
    """
    for site in sites(backbone, kinds):
        replace_module(backbone, site.name, build(site))


def replace_module(backbone: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module at a dotted name."""
    parent, _, attribute = name.rpartition(".")
    setattr(backbone.get_submodule(parent), attribute, module)


def freeze(backbone: nn.Module, also_train: Iterable[str] = ()) -> None:
    """Freeze all parameters of the backbone but those of the groups in `also_train`.

    Raises:
        ValueError: When a group is unknown or matches no parameter of this backbone.
    """
    also_train = tuple(also_train)
    require_choices("also_train", also_train, ALSO_TRAIN)
    backbone.requires_grad_(False)
    for group in also_train:
        matched = [parameter for name, parameter in backbone.named_parameters() if re.search(ALSO_TRAIN[group], name)]
        if not matched:
            raise ValueError(f"also_train: the backbone has no parameter of the group {group!r}; leave it out")
        for parameter in matched:
            parameter.requires_grad_(True)


def merge(backbone: nn.Module) -> int:
    """Fold every update that is linear in its layer's input into the frozen weight; return how many layers were folded.

    A module takes part by offering `merged() -> nn.Linear`. What cannot be folded offers none: adapters and prompts are not linear in the
    layer's input; generated adapters neither; and MTLoRA's task-specific layers add a low-rank map of the task's own stream to the frozen
    map of the shared one, so that no single matrix, and no merged backbone a task, computes them. Its other layers fold.
    """
    folded = 0
    for name, module in list(backbone.named_modules()):
        if hasattr(module, "merged"):
            replace_module(backbone, name, module.merged())
            folded += 1
    return folded
