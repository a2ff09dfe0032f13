"""Train the classifier of the pretraining task, and measure and pack its backbone.

The recipe is Swin's (arXiv 2103.14030) in small: AdamW, linear warm-up and cosine, stochastic depth. Besides the image's class, every patch
learns the class of what it shows, as in token labelling (Jiang et al., arXiv 2104.10858): a short training learns more from dense labels.
"""

from collections.abc import Callable

import safetensors.torch
import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional

from bench.data.synthetic.source import SOURCE_CLASSES
from bench.model.backbone import DEMO_BACKBONE, SwinPyramid
from bench.pretrain.config import PretrainConfig, PretrainError
from bench.pretrain.source_set import SourceSet
from bench.training.optim import build_optimizer, learning_rate

MAX_BYTES = 4_000_000
MAX_ACCURACY_CHANGE = 0.01
_EVALUATION_BATCH = 250

Progress = Callable[[str, int, int, str], None]
"""Called as (stage "render" or "train", done, total, text about the loss)."""


class SourceClassifier(nn.Module):
    """The demo's backbone under two linear heads: one on the last map's mean, one on every patch of all four maps.

    `forward` maps (B, 3, 64, 64) float32 to logits of the image (B, 40) and of its patches (B, 41, 8, 8), where class 40 is what is not the
    object.
    """

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.pyramid = SwinPyramid(timm.create_model(DEMO_BACKBONE, num_classes=0, drop_path_rate=drop_path), ("source",))
        channels = self.pyramid.channels
        self.norm = nn.LayerNorm(channels[-1])
        self.head = nn.Linear(channels[-1], SOURCE_CLASSES)
        self.patch_norm = nn.BatchNorm2d(sum(channels))
        self.patch_head = nn.Conv2d(sum(channels), SOURCE_CLASSES + 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.pyramid(x)["source"]
        size = maps[0].shape[2:]
        upsampled = torch.cat([functional.interpolate(each, size=size, mode="bilinear") for each in maps], 1)
        return self.head(self.norm(maps[-1].mean((2, 3)))), self.patch_head(self.patch_norm(upsampled))


def train(source: SourceSet, config: PretrainConfig, *, progress: Progress | None = None) -> tuple[SourceClassifier, list[float]]:
    """Train a classifier from scratch; seeds torch's global generator.

    Returns:
        The classifier in training mode, and the mean loss of each epoch.

    Raises:
        PretrainError: The loss is no longer finite.
    """
    torch.manual_seed(config.seed)
    classifier = SourceClassifier(config.drop_path)
    optimizer = build_optimizer(classifier, peak_lr=config.peak_lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    images, classes, shares = map(torch.from_numpy, source)
    steps_per_epoch = len(images) // config.batch_size
    total_steps, losses = config.epochs * steps_per_epoch, []
    classifier.train()
    for epoch in range(config.epochs):
        order, loss_sum = torch.randperm(len(images), generator=generator), 0.0
        for i in range(steps_per_epoch):
            step, chosen = epoch * steps_per_epoch + i, order[i * config.batch_size : (i + 1) * config.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps_per_epoch, config)
            pixels, share = flip(normalised(images[chosen]), shares[chosen], generator)
            loss_sum += _step(classifier, optimizer, pixels, classes[chosen], share, config)
            if progress:
                progress("train", step + 1, total_steps, f"epoch {epoch + 1} of {config.epochs}, mean loss {loss_sum / (i + 1):.3f}")
        losses.append(round(loss_sum / steps_per_epoch, 4))
    return classifier, losses


def _learning_rate(step: int, steps_per_epoch: int, config: PretrainConfig) -> float:
    return learning_rate(
        step,
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        peak_lr=config.peak_lr,
        warmup_lr=config.peak_lr / 100,
        min_lr=config.peak_lr / 100,
    )


def _step(
    classifier: SourceClassifier, optimizer: torch.optim.Optimizer, pixels: Tensor, classes: Tensor, shares: Tensor, config: PretrainConfig
) -> float:
    image_logits, patch_logits = classifier(pixels)
    loss = functional.cross_entropy(image_logits, classes) + functional.cross_entropy(patch_logits, patch_labels(classes, shares))
    if not torch.isfinite(loss):
        raise PretrainError(f"the loss became {loss.item()}; lower peak_lr (now {config.peak_lr})")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(classifier.parameters(), config.clip_norm)
    optimizer.step()
    return loss.item()


def patch_labels(classes: Tensor, shares: Tensor) -> Tensor:
    """Return the label of each patch as a distribution (B, 41, h, w): its share of the object's class, the rest to class 40.

    Args:
        classes: (B,) int64.
        shares: (B, h, w) float32, 0 to 1.
    """
    one_hot = functional.one_hot(classes, SOURCE_CLASSES).to(shares.dtype)
    return torch.cat((one_hot[:, :, None, None] * shares[:, None], 1 - shares[:, None]), 1)


def flip(pixels: Tensor, shares: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror each image and its map of shares, with probability 1/2: (B, 3, H, W) and (B, h, w), as they came."""
    mirrored = torch.rand(len(pixels), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels), torch.where(mirrored[:, None, None], shares.flip(2), shares)


def normalised(images: Tensor) -> Tensor:
    """Bring RGB (B, H, W, 3) uint8 to (B, 3, H, W) float32 with ImageNet's mean and standard deviation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


@torch.inference_mode()
def source_accuracy(classifier: nn.Module, source: SourceSet) -> tuple[float, float]:
    """Measure the classifier, and leave it in evaluation mode.

    Returns:
        The share, 0 to 1, of the images whose class is predicted; and of the patches that show the object by more than half, those whose
        class is predicted.
    """
    classifier.eval()
    right = right_patches = patches = 0
    for first in range(0, len(source.images), _EVALUATION_BATCH):
        images, classes, shares = (torch.from_numpy(part[first : first + _EVALUATION_BATCH]) for part in source)
        image_logits, patch_logits = classifier(normalised(images))
        right += int((image_logits.argmax(1) == classes).sum())
        shown = shares > 0.5
        patches += int(shown.sum())
        right_patches += int((patch_logits.argmax(1) == classes[:, None, None])[shown].sum())
    return right / len(source.images), right_patches / patches


def pack_backbone(classifier: SourceClassifier) -> bytes:
    """Return the backbone as the bytes of a float16 safetensors file.

    Raises:
        PretrainError: More than 4 MB, the most that the repository keeps.
    """
    packed = safetensors.torch.save({key: value.half().contiguous() for key, value in classifier.pyramid.swin.state_dict().items()})
    if len(packed) > MAX_BYTES:
        raise PretrainError(f"the weights take {len(packed)} bytes, more than {MAX_BYTES}; use a smaller backbone")
    return packed


def accuracy_as_stored(classifier: SourceClassifier, packed: bytes, source: SourceSet, *, trained_accuracy: float) -> tuple[float, float]:
    """Put the stored float16 backbone under the trained heads and return the accuracies that it has.

    Raises:
        PretrainError: The rounding moved the accuracy on images by more than one point.
    """
    classifier.pyramid.swin.load_state_dict({key: value.float() for key, value in safetensors.torch.load(packed).items()})
    accuracy, patch_accuracy = source_accuracy(classifier, source)
    if abs(accuracy - trained_accuracy) > MAX_ACCURACY_CHANGE:
        raise PretrainError(
            f"float16 moved the source accuracy from {trained_accuracy:.4f} to {accuracy:.4f}; train with a smaller peak_lr"
        )
    return accuracy, patch_accuracy
