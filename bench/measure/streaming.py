"""What the metrics of all tasks share: one row of sums an image, from which scores are computed."""

import numpy as np
import torch
from torch import Tensor

from bench.measure.scores import Rows, Scores


class StreamingMetric:
    """Collects one row of sums an image; the subclasses say which sums and which scores.

    Args:
        name: The task's name, for messages.
        channels: C, number of the logits' channels.
    """

    label_channels: tuple[int, ...] = ()

    def __init__(self, name: str, channels: int) -> None:
        self.name = name
        self.channels = channels
        self._batches: list[dict[str, Tensor]] = []

    def sums(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the images' sums, each (B, ...), from checked input."""
        raise NotImplementedError

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of the images in `rows`, any selection of what `per_image` returns."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (B, C, H, W) float, on the device where the sums shall live.
            label: (B, H, W) uint8, 255 ignored; normals (B, 3, H, W) float, 255 ignored; depth (B, 1, H, W) float, 0 ignored.

        Raises:
            ValueError: Shapes do not fit each other (resize the logits to the label), or a class index is not below C.
            FloatingPointError: The logits hold NaN or infinity: the training diverged; lower the learning rate.
        """
        batch, _, height, width = logits.shape
        expected = (batch, *self.label_channels, height, width)
        if logits.shape[1] != self.channels or label.shape != expected:
            raise ValueError(
                f"{self.name}: logits {tuple(logits.shape)} and label {tuple(label.shape)} do not fit; need logits "
                f"(B, {self.channels}, H, W) and label {expected}: resize the logits to the label's resolution"
            )
        if not torch.isfinite(torch.stack(torch.aminmax(logits))).all():  # both are NaN where any entry is
            raise FloatingPointError(f"{self.name}: logits hold NaN or infinity: training diverged; lower the learning rate")
        self._batches.append(self.sums(logits.float(), label.to(logits.device)))

    def per_image(self) -> dict[str, np.ndarray]:
        """Return the sums of every image seen, in that order: arrays (N, ...), counts as int32.

        Raises:
            RuntimeError: No batch was seen; call `update` first.
        """
        if not self._batches:
            raise RuntimeError(f"{self.name}: no image was seen; call update(logits, label) before asking for scores")
        return {key: torch.cat([batch[key] for batch in self._batches]).cpu().numpy() for key in self._batches[0]}

    def compute(self) -> Scores:
        """Return the scores of all images seen, by name."""
        return self.scores(self.per_image())
