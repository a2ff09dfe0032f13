"""A small NYUD_MT tree, written with PIL and numpy alone: independent of the suite's own renderer."""

from pathlib import Path

import numpy as np
from PIL import Image

NYUD_SIZES = {"0001": (24, 32), "0002": (20, 28), "0003": (26, 30)}
NYUD_SPLITS = {"train": ["0002", "0001"], "val": ["0003"]}


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """What the files of an image hold: `segmentation` 0..40, `depth` with holes, `normals` with a hole, `edge` 0 or 1."""
    size, rng = NYUD_SIZES[name], np.random.default_rng(int(name))
    depth = rng.uniform(0.5, 9, size).astype(np.float32)
    depth[:2] = 0
    normals = rng.normal(size=(*size, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[:, :3] = 0
    segmentation = rng.integers(0, 41, size).astype(np.uint8)
    return {"segmentation": segmentation, "depth": depth, "normals": normals, "edge": (rng.random(size) < 0.1).astype(np.float32)}


def write_nyud_tree(root: Path) -> Path:
    """Write three images with every modality."""
    for folder in ("gt_sets", "images", "segmentation", "depth", "normals", "edge"):
        (root / folder).mkdir(parents=True)
    for split, ids in NYUD_SPLITS.items():
        (root / f"gt_sets/{split}.txt").write_text("\n".join(ids) + "\n")
    for name, size in NYUD_SIZES.items():
        arrays = arrays_of(name)
        smooth = np.linspace(20, 220, size[1])[None, :, None] + np.zeros((size[0], 1, 3))
        Image.fromarray(smooth.astype(np.uint8)).save(root / f"images/{name}.jpg", quality=95)
        Image.fromarray(arrays["segmentation"]).save(root / f"segmentation/{name}.png")
        for folder in ("depth", "normals", "edge"):
            np.save(root / f"{folder}/{name}.npy", arrays[folder])
    return root
