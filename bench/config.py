"""The configuration of a trial: frozen, typed, keyword-only; and its name, a hash.

A trial's `run_id` holds everything that can change its result and nothing else: paths, devices and numbers of workers are not in it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.data.identity import LATER, plain_fields
from bench.data.synthetic import SyntheticConfig
from bench.errors import SuiteError
from bench.plain import ConfigError, canonical, digest, parse, require
from bench.tasks import DATA_SETS, DEFAULT_TASKS, PASCAL_TASKS, Task
from methods import METHODS
from methods.base import MethodConfig

PRECISIONS = ("fp32", "bf16", "fp16")
EVALUATED = ("val", "held_out")
SOURCES = ("synthetic", *DATA_SETS)
DECODERS = ("hrnet", "segformer", "aspp")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The backbone.

    Attributes:
        name: A model of timm's registry: a Swin, SwinV2, plain ViT or PVT v2, see `bench.model.backbone`.
        weights: "timm", "demo", "scratch", or "sha256:<hex>" of a file that is given on the command line.
        drop_path: Stochastic depth of the last block; rises linearly from 0.
    """

    name: str = "swin_tiny_patch4_window7_224"
    weights: str = "timm"
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"backbone.drop_path must lie in [0, 1), got {self.drop_path}")


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """A part of the training split that is kept for choosing: epochs, learning rates. See `bench.data.heldout`.

    Attributes:
        fraction: Share of the training images, above 0 and at most 0.5.
        seed: Of the draw.
    """

    fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 0.5:
            raise ConfigError(f"data.held_out.fraction must lie in (0, 0.5], got {self.fraction}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set.

    Attributes:
        source: "synthetic" (rendered on demand from `synthetic`), or the layout of a directory given on the command line:
            "pascal_context" (PASCAL_MT) or "nyud" (NYUD_MT).
        fingerprint: Identity of a directory; None for synthetic data, which its configuration identifies.
        synthetic: What to render.
        held_out: What to keep of the training split; None trains on all of it.
        longest_side: Larger images are reduced to so many pixels on their longer side when the cache is prepared, and resampled from there;
            None keeps every image as it is, so that a sample is resampled once. Smaller caches for a little sharpness.
        squared: Bring all to `longest_side` x `longest_side` instead, without keeping the aspect ratio.
    """

    source: str = "synthetic"
    fingerprint: str | None = None
    synthetic: SyntheticConfig | None = None
    held_out: HeldOutConfig | None = field(default=None, metadata=LATER)
    longest_side: int | None = field(default=None, metadata=LATER)
    squared: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        require("data.source", self.source, SOURCES)
        if self.longest_side is not None and self.longest_side < 16:
            raise ConfigError(f"data.longest_side must be at least 16 pixels, got {self.longest_side}")
        if self.squared and self.longest_side is None:
            raise ConfigError("data.squared needs data.longest_side, the side of the square")
        if (self.source == "synthetic") != (self.synthetic is not None):
            raise ConfigError("data.synthetic must be given for source 'synthetic' and for no other")

    @property
    def layout(self) -> str:
        """Name of the layout on disk, a key of `bench.tasks.DATA_SETS`."""
        return self.source if self.synthetic is None else self.synthetic.layout

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that this data set has labels for, as they are there."""
        return DATA_SETS[self.layout]

    @property
    def default_tasks(self) -> tuple[str, ...]:
        """The tasks that the literature trains on this data set."""
        return DEFAULT_TASKS[self.layout]


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """How a trial trains; the defaults are the MTLoRA release's.

    Attributes:
        epochs, warmup_epochs: Length of training, and of the linear warm-up in it.
        batch_size: Images a step; the last incomplete batch of an epoch is dropped.
        image_size: Side of the square input in pixels.
        peak_lr, warmup_lr, min_lr: Learning rate at the top, at step 0 and at the end of the cosine.
        weight_decay: AdamW's, on all but biases and 1-D parameters.
        clip_norm: Largest norm of the gradient; None does not clip.
        precision: "fp32", or autocast to "bf16" or "fp16" (with loss scaling) in training; evaluation is fp32.
        flip, rotation, scale: Augmentation: whether to flip, largest angle in degrees, range of the scale.
        evaluate_every: Epochs between two evaluations on the images that `data.held_out` keeps; None evaluates after the last epoch only.
        evaluate_on: What the result is measured on: "val"; or "held_out", and the validation split is never opened.
        threads: CPU threads of torch. Part of the configuration, because the number of threads changes sums.
    """

    epochs: int = 300
    warmup_epochs: float = 20
    batch_size: int = 32
    image_size: int = 448
    peak_lr: float = 3.125e-5
    warmup_lr: float = 3.125e-8
    min_lr: float = 3.125e-7
    weight_decay: float = 0.05
    clip_norm: float | None = 5.0
    precision: str = "fp32"
    flip: bool = True
    rotation: float = 20.0
    scale: tuple[float, float] = (0.75, 1.25)
    evaluate_every: int | None = field(default=None, metadata=LATER)
    evaluate_on: str = field(default="val", metadata=LATER)
    threads: int = 1

    def __post_init__(self) -> None:
        require("recipe.precision", self.precision, PRECISIONS)
        require("recipe.evaluate_on", self.evaluate_on, EVALUATED)
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise ConfigError(f"recipe.evaluate_every must be at least 1 epoch, or None; got {self.evaluate_every}")
        for name in ("epochs", "batch_size", "image_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recipe.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("peak_lr", "warmup_lr", "min_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"recipe.{name} must be a finite number of at least 0, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ConfigError(f"recipe.warmup_epochs must lie in [0, epochs = {self.epochs}], got {self.warmup_epochs}")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run.

    Attributes:
        method_name, method: A registered method and its dials.
        tasks: Tasks trained together.
        seed: Of initialisation, order of images and augmentation.
        decoder: Kind of every task's decoder, see `bench.model.decoders`; "aspp" needs batches of two images or more.
        decoder_channels: Widths to which a decoder narrows the backbone's maps, the finest first.
    """

    method_name: str
    method: MethodConfig
    tasks: tuple[str, ...] = PASCAL_TASKS
    seed: int = 0
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    decoder: str = "hrnet"
    decoder_channels: tuple[int, ...] = (18, 36, 72, 144)
    data: DataConfig
    recipe: RecipeConfig = field(default_factory=RecipeConfig)

    def __post_init__(self) -> None:
        require("method", self.method_name, METHODS)
        if type(self.method) is not METHODS[self.method_name].config:
            raise ConfigError(f"method {self.method_name!r} takes a {METHODS[self.method_name].config.__name__}, got {self.method!r}")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ConfigError(f"tasks must be one or more different tasks, got {self.tasks}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must lie in [0, 2^32), got {self.seed}")
        for task in self.tasks:
            require(f"tasks of {self.data.layout}", task, self.data.tasks)
        if self.data.held_out is None and (self.recipe.evaluate_every is not None or self.recipe.evaluate_on == "held_out"):
            raise ConfigError("recipe.evaluate_every and evaluate_on 'held_out' need held-out images: give data.held_out")
        require("decoder", self.decoder, DECODERS)
        if len(self.decoder_channels) != 4 or min(self.decoder_channels) < 1:
            raise ConfigError(f"decoder_channels needs 4 values of at least 1, one a feature map; got {self.decoder_channels}")
        if self.decoder == "aspp" and self.recipe.batch_size < 2:
            raise ConfigError("decoder 'aspp' normalises pooled 1x1 maps over the batch: recipe.batch_size must be at least 2")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types without fields `later` than the first records that have their default; `from_dict` turns them back."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not f.name.startswith("method")}
        plain = {name: plain_fields(value) if dataclasses.is_dataclass(value) else value for name, value in plain.items()}
        return json.loads(json.dumps({"method": {"name": self.method_name} | plain_fields(self.method)} | plain))

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "TrialConfig":
        """Build a trial from plain types.

        Raises:
            ConfigError: Unknown key (a near name is suggested), wrong type, or a value that is not allowed.
        """
        method = plain.get("method")
        if not isinstance(method, dict):
            raise ConfigError(f"configuration: method must be an object with a name, for instance {{'name': 'lora'}}; got {method!r}")
        name = method.get("name")
        require("method.name", name, METHODS)
        dials = method_config(name, {key: value for key, value in method.items() if key != "name"})
        return parse(cls, plain | {"method_name": name, "method": dials})

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the trial reads; one that is scored on held-out images never reads the validation split."""
        held_out = () if self.data.held_out is None else ("held_out",)
        return ("train", *held_out, *(("val",) if self.recipe.evaluate_on == "val" else ()))

    @property
    def cell_id(self) -> str:
        """Hash of the configuration without seed and tasks: the trials of one table row share it."""
        return digest({key: value for key, value in self.to_dict().items() if key not in ("seed", "tasks")}, 12)

    @property
    def run_id(self) -> str:
        """Name of the trial: method, dial, tasks, seed and a hash of the whole configuration."""
        dial = "" if self.method.dial is None else f"-{self.method.dial}{canonical(getattr(self.method, self.method.dial))}"
        tasks = "all" if set(self.tasks) == set(PASCAL_TASKS) else "+".join(self.tasks)
        return f"{self.method_name}{dial}-{tasks}-s{self.seed}-{digest(self.to_dict(), 8)}"


def method_config(name: str, dials: dict[str, Any]) -> MethodConfig:
    """Build the configuration of a registered method from plain types; a dict of a task's values will do for pairs.

    Raises:
        ConfigError: Unknown dial (a near name is suggested), wrong type, or a value that the method refuses.
    """
    pairs = {key: tuple(value.items()) if isinstance(value, dict) else value for key, value in dials.items()}
    try:
        return parse(METHODS[name].config, pairs, "method.")
    except SuiteError:
        raise
    except ValueError as error:  # methods know nothing of bench, hence of its errors
        raise ConfigError(f"method {name}: {error}") from error


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of optimiser steps an epoch; the incomplete batch is dropped."""
    return math.floor(images / batch_size)
