"""Read PASCAL_MT, the PASCAL-Context multi-task data set, exactly as it lies on disk.

Images and semantic labels are PASCAL VOC's, the 459 context classes PASCAL-Context's (Mottaghi et al., CVPR 2014), the parts
PASCAL-Part's (Chen et al., arXiv 1406.2031); surface normals and saliency are distilled from networks (Maninis et al., arXiv 1904.08918).
Human parts come from the `.mat` files alone: the derived `ImageSets/Parts/*.txt` is neither needed nor rebuilt.
"""

import numpy as np

from bench.data.layout import PASCAL_MT, DataError, find_files, fingerprint, read_split
from bench.data.pascal_files import (
    edges_of,
    normals_count,
    read_context,
    read_human_parts,
    read_image,
    read_normals,
    read_saliency,
    read_semseg,
)
from bench.data.reader import RawSplit

__all__ = ["DataError", "PascalContext", "find_files", "fingerprint", "read_split"]


class PascalContext(RawSplit):
    """Raw samples of one split of PASCAL_MT, see `bench.data.reader.RawSplit`.

    `semseg` uint8 (h, w), 0..20, 255 ignored; `human_parts` uint8 (h, w), 0..6, all 255 in an image without a person that has parts;
    `saliency` uint8 (h, w), 0 or 1; `normals` float32 (h, w, 3), unit vectors (x right, y down, z along the view), zero where ignored;
    `edges` uint8 (h, w), 1 on the thinned borders of context classes, else 0.
    """

    layout = PASCAL_MT

    def decode(self, path: dict[str, str]) -> dict[str, np.ndarray]:
        """Decode to uint8 arrays: normals are their three bytes still, beside a `valid` mask."""
        decoded = {"image": read_image(path["image"])}
        size = decoded["image"].shape[:2]
        if "semseg" in self.tasks:
            decoded["semseg"] = read_semseg(path["semseg"], size)
        if "human_parts" in self.tasks:
            decoded["human_parts"] = read_human_parts(path["human_parts"], size)
        if "saliency" in self.tasks:
            decoded["saliency"] = read_saliency(path["saliency"], size)
        if "normals" in self.tasks:
            decoded["normals"] = read_normals(path["normals"], size)
        if "context" in path:
            context = read_context(path["context"], size)
            if "normals" in self.tasks:
                decoded["valid"] = normals_count(context)
            if "edges" in self.tasks:
                decoded["edges"] = edges_of(context)
        return decoded

    def expand(self, task: str, decoded: dict[str, np.ndarray]) -> np.ndarray:
        """Return a task's label; normals are decoded to unit vectors."""
        return _unit_normals(decoded["normals"], decoded["valid"]) if task == "normals" else super().expand(task, decoded)

    @classmethod
    def read_classes(cls, path: str) -> np.ndarray:
        """Read a semantic label by itself: uint8 (h, w), 0..20, 255 ignored."""
        return read_semseg(path)


def _unit_normals(coded: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Decode normals, uint8 (h, w, 3), to unit vectors, float32 (h, w, 3), exactly zero where `valid`, bool (h, w), is False."""
    normals = 2 * coded.astype(np.float32) / 255 - 1
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))  # never zero: no byte decodes to exactly 0
    return normals * np.where(valid, 1 / length, np.float32(0))[..., None]
