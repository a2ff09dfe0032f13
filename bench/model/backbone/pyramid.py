"""What every backbone is to the rest: a module that maps images to one feature pyramid a task."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from methods.base import ALSO_TRAIN, BIAS_VECTOR, LAYERS, sites
from methods.shape import Layer, Shape


class Pyramid(nn.Module):
    """A timm backbone as a pyramid; the subclasses are one a family of architectures.

    Attributes:
        tasks: Names of the tasks, in the order of the task streams.
        channels: Channels of the four maps.
        timm_modules: Modules of timm's registry that define the family.
        architecture: timm's class.
        translate: timm's filter of checkpoints.
    """

    timm_modules: ClassVar[tuple[str, ...]]
    architecture: ClassVar[type[nn.Module]]
    translate: ClassVar[Callable[[dict, nn.Module], dict]]

    def __init__(self, tasks: tuple[str, ...], channels: list[int]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.channels = channels

    @staticmethod
    def options(image_size: int) -> dict[str, Any]:
        """Return what timm must be told of the image size."""
        return {"img_size": image_size}

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        """Compute the pyramids.

        Args:
            image: (B, 3, H, W) float.

        Returns:
            For each task four maps (B, channels[i], h_i, w_i), the finest first.
        """
        pyramids: dict[str, list[Tensor]] = {task: [] for task in self.tasks}
        self.stages(image, list(pyramids.values()))
        return pyramids

    def stages(self, image: Tensor, pyramids: list[list[Tensor]]) -> None:
        """Run the stages; each ends with `hand_out` to the tasks' pyramids."""
        raise NotImplementedError

    def shape(self, tasks: int) -> Shape:
        """Return the sizes for methods' closed forms, counted on this backbone, before a method changes it.

        Args:
            tasks: Number of tasks T.
        """
        there = {kind for name, _ in self.named_modules() for kind, ends in LAYERS.items() if name.endswith(ends)}
        found = sites(self, [kind for kind in LAYERS if kind in there])
        layers = tuple(
            Layer(kind=site.kind, stage=site.stage, last=site.last, into=site.module.in_features, out=site.module.out_features)
            for site in found
        )
        blocks = [(site.stage, site.module.out_features) for site in found if site.kind == "proj"]
        members: Counter[tuple[str, ...]] = Counter()
        for name, parameter in self.named_parameters():
            groups = [group for group, pattern in ALSO_TRAIN.items() if re.search(pattern, name)]
            members[*groups, *(["vector"] if BIAS_VECTOR.search(name) else [])] += parameter.numel()
        return Shape(
            widths=tuple(dict(blocks).values()),
            depths=tuple(Counter(stage for stage, _ in blocks).values()),
            tasks=tasks,
            layers=layers,
            members=members,
        )
