"""The settings of the pretraining."""

from dataclasses import dataclass

from bench.errors import SuiteError


class PretrainError(SuiteError):
    """The pretraining cannot run as asked, or gave a file that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that can change the weights, on one machine.

    Attributes:
        seed: Of the images, the initial weights, the order and the flips.
        images, held_out: Images to train on, and to measure the accuracy on.
        epochs, warmup_epochs: Length of training, and of the linear warm-up in it.
        batch_size: Images a step; the last incomplete batch of an epoch is dropped.
        peak_lr: Learning rate at the top of the schedule.
        weight_decay: AdamW's, on all but biases and 1-D parameters.
        drop_path: Stochastic depth of the last block.
        clip_norm: Largest norm of the gradient.
        threads: CPU threads of torch; their number changes the order of sums.
    """

    seed: int = 0
    images: int = 50_000
    held_out: int = 2_000
    epochs: int = 12
    warmup_epochs: float = 0.5
    batch_size: int = 32
    peak_lr: float = 1e-3
    weight_decay: float = 0.05
    drop_path: float = 0.05
    clip_norm: float = 5.0
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("held_out", "epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise PretrainError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.images < self.batch_size:
            raise PretrainError(f"images is {self.images}, less than one batch of {self.batch_size}; render more or shrink the batch")
        if self.peak_lr <= 0:
            raise PretrainError(f"peak_lr is {self.peak_lr}; it must be above 0")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise PretrainError(f"warmup_epochs is {self.warmup_epochs}; it must be at least 0 and less than epochs = {self.epochs}")
