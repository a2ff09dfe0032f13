"""The trained model: backbone, one method applied to it, one decoder a task."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bench.config import ConfigError, TrialConfig
from bench.model.backbone import Pyramid, build_backbone
from bench.model.decoders import DECODERS
from bench.tasks import TASKS, Task
from methods import METHODS


class MultiTaskModel(nn.Module):
    """Maps images to logits a task, at the image's resolution.

    Attributes:
        tasks: Names of the tasks.
        method_parameter_names: Dotted names of the parameters that the method added to the backbone.
        table: The tasks as the data set has them, by name; those of `bench.tasks.TASKS` where none are given.
    """

    def __init__(
        self,
        backbone: Pyramid,
        decoders: nn.ModuleDict,
        method_parameter_names: frozenset[str],
        table: Mapping[str, Task] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoders = decoders
        self.tasks = backbone.tasks
        self.method_parameter_names = method_parameter_names
        self.table = {task: TASKS[task] for task in self.tasks} if table is None else dict(table)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute logits.

        Args:
            image: (B, 3, H, W) float.

        Returns:
            For each task (B, channels, H, W): class scores, a foreground logit, an unnormalised normal, or metres.
        """
        pyramids = self.backbone(image)
        size = image.shape[-2:]
        return {task: interpolate(self.decoders[task](pyramids[task]), size, mode="bilinear", align_corners=False) for task in self.tasks}


def build_model(config: TrialConfig, *, weights_file: Path | None = None, backbone: Pyramid | None = None) -> MultiTaskModel:
    """Build a trial's model: decoders first, so that every method of one seed starts from the same ones.

    Seeds torch's global generator from the trial's seed. With `backbone`, that one is taken and changed, and none is built.

    Raises:
        ConfigError: The method does not work on this backbone, or its dials do not; the message says why.
    """
    torch.manual_seed(config.seed)
    backbone = backbone or build_backbone(
        config.backbone.name,
        image_size=config.recipe.image_size,
        tasks=config.tasks,
        drop_path=config.backbone.drop_path,
        weights=config.backbone.weights,
        weights_file=weights_file,
    )
    decoders = nn.ModuleDict()
    for task in TASKS:  # one seed a task: a task's decoder starts the same with or without the other tasks
        torch.manual_seed(decoder_seed(config.seed, task))
        if task in config.tasks:
            decoders[task] = DECODERS[config.decoder](backbone.channels, config.decoder_channels, config.data.tasks[task].channels)
    torch.manual_seed(config.seed)
    own = {id(parameter) for parameter in backbone.parameters()}
    try:
        METHODS[config.method_name].apply(backbone, config.method)
    except ValueError as error:
        raise ConfigError(f"method {config.method_name!r} on backbone {config.backbone.name!r}: {error}") from error
    added = frozenset(f"backbone.{name}" for name, parameter in backbone.named_parameters() if id(parameter) not in own)
    return MultiTaskModel(backbone, decoders, added, {task: config.data.tasks[task] for task in config.tasks})


def decoder_seed(seed: int, task: str) -> int:
    """Return the seed of a task's decoder."""
    return 1_000_003 * (seed + 1) + list(TASKS).index(task)
