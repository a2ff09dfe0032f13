"""Pictures of what a trained model predicts: a few fixed validation images, kept as uint8 beside the record.

`bench.data.shown` chooses the images by their labels; neither seed nor method matters, so that every trial of a suite shows the same ones.
What is common to the trials, image and labels, is written once: to `scenes-<key>-<what>.npz`, the key being a hash of the data set, the
images and their size. A trial adds `<run_id>.panels.npz` with its predictions. Maps are thinned to at most 224 pixels a side; metrics never
come from them.

Encodings, all uint8 with 0 or 255 where a label is ignored:

- classes: the class with the highest logit; labels 255 where ignored.
- binary: 255 times the sigmoid of the logit; labels 0, 1, and 255 where ignored.
- normals: 127.5 (n + 1), n the unit vector; labels 0 in all channels where ignored.
- depth: metres times 25, clipped to 1..255 (10.2 m); labels 0 where ignored.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from bench.record import write_atomically
from bench.tasks import IGNORE

MAX_SIDE = 224
DEPTH_STEPS_PER_METRE = 25


class Panels:
    """Collects predictions of fixed images during an evaluation.

    Args:
        ids: Ids of the images to keep, in the order in which they are shown.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = tuple(ids)
        self._images: dict[str, np.ndarray] = {}
        self._labels: dict[str, dict[str, np.ndarray]] = {}
        self._predictions: dict[str, dict[str, np.ndarray]] = {}
        self._kinds: dict[str, str] = {}

    @torch.no_grad()
    def update(self, batch: Mapping[str, Tensor | Sequence[str]], outputs: Mapping[str, Tensor]) -> None:
        """Keep what a batch holds of the chosen images.

        Args:
            batch: As the loader gives it: `id`, `image` (B, 3, H, W) normalised, labels.
            outputs: Logits (B, C, H, W) per task.
        """
        places = [place for place, name in enumerate(batch["id"]) if name in self.ids]
        for place in places:
            name = batch["id"][place]
            self._images[name] = _image(batch["image"][place])
            self._labels[name], self._predictions[name] = {}, {}
            for task, logits in outputs.items():
                kind, label = kind_of(logits, batch[task]), batch[task][place]
                self._kinds[task] = kind
                self._predictions[name][task] = _prediction(kind, logits[place])
                self._labels[name][task] = _label(kind, label)

    def write(self, directory: Path, run_id: str, fingerprint: str) -> str:
        """Write the predictions, and image and labels where no other trial did yet; whole or not at all.

        Args:
            directory: Where the suite's records lie.
            run_id: The trial.
            fingerprint: Identity of the data set.

        Returns:
            Name of the predictions' file.
        """
        ids = [name for name in self.ids if name in self._images]
        images = np.stack([self._images[name] for name in ids])
        identity = json.dumps([fingerprint, ids, images.shape[1:]])
        scenes = f"scenes-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        common = {"image": images} | {task: np.stack([self._labels[name][task] for name in ids]) for task in self._kinds}
        for what, array in common.items():
            path = directory / f"{scenes}-{what}.npz"
            if not path.exists():
                _write(path, {"id": np.array(ids), "map": array})
        own = {f"{task}/prediction": np.stack([self._predictions[name][task] for name in ids]) for task in self._kinds}
        own |= {f"{task}/kind": np.array(kind) for task, kind in self._kinds.items()}
        _write(directory / f"{run_id}.panels.npz", {"id": np.array(ids), "scenes": np.array(scenes)} | own)
        return f"{run_id}.panels.npz"


def kind_of(logits: Tensor, label: Tensor) -> str:
    """Tell what a label is from the shapes: "classes" and "binary" are (B, H, W), "normals" (B, 3, H, W), "depth" (B, 1, H, W)."""
    if label.dim() == 4:
        return "normals" if label.shape[1] == 3 else "depth"
    return "binary" if logits.shape[1] == 1 else "classes"


def _thin(maps: Tensor) -> Tensor:
    """Take every n-th pixel of (..., H, W), so that no side is longer than the limit."""
    stride = -(-max(maps.shape[-2:]) // MAX_SIDE)
    return maps[..., stride // 2 :: stride, stride // 2 :: stride]


def _image(image: Tensor) -> np.ndarray:
    """Turn a normalised (3, H, W) image into uint8 (h, w, 3), averaged down to the size of the thinned maps."""
    mean, std = (torch.tensor(values, device=image.device)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    colours = F.interpolate((image.float() * std + mean)[None], size=tuple(_thin(image).shape[-2:]), mode="area")[0]
    return _bytes(255 * colours).transpose(1, 2, 0)


def _prediction(kind: str, logits: Tensor) -> np.ndarray:
    """Encode (C, H, W) logits as the module's docstring says: (h, w), for normals (h, w, 3)."""
    logits = _thin(logits.float())
    if kind == "normals":
        return _bytes(127.5 * (F.normalize(logits, dim=0) + 1)).transpose(1, 2, 0)
    if kind == "depth":
        return _bytes((logits[0] * DEPTH_STEPS_PER_METRE).clamp(1, 255))
    return _bytes(255 * logits[0].sigmoid()) if kind == "binary" else logits.argmax(dim=0).to(torch.uint8).cpu().numpy()


def _label(kind: str, label: Tensor) -> np.ndarray:
    """Encode a label as the module's docstring says."""
    label = _thin(label)
    if kind == "normals":
        return _bytes(torch.where((label == IGNORE).all(dim=0), 0.0, 127.5 * (label + 1)).clamp(0, 255)).transpose(1, 2, 0)
    if kind == "depth":
        return _bytes(torch.where(label[0] > 0, (label[0] * DEPTH_STEPS_PER_METRE).clamp(1, 255), 0.0))
    return label.to(torch.uint8).cpu().numpy()


def _bytes(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
