"""A rendered indoor scene as NYUD_MT holds it: forty classes, true depth and normals, edges as numpy arrays."""

import io

import numpy as np

from bench.data.synthetic.labels import CONTEXT_OF_CLASS, VOID
from bench.data.synthetic.scene import Scene
from bench.data.synthetic.scenery import CONTEXT_IDS

FOLDERS = ("gt_sets", "images", "segmentation", "depth", "normals", "edge")
FARTHEST_METRES = 10.0
"""Beyond it depth is missing, as with the sensor that NYUD was taken with."""

OTHER_PROP = 40
_SCENERY = {"wall": 1, "floor": 2, "cabinet": 3, "door": 8, "window": 9, "curtain": 16, "ceiling": 22}
_OBJECTS = {9: 5, 18: 6, 11: 7, 20: 25, 15: 31, 5: OTHER_PROP, 8: OTHER_PROP, 12: OTHER_PROP, 16: OTHER_PROP}
"""VOC class of what stands in a room -> NYUD's class 1..40: chair, sofa, table, television, person, and the rest."""

NYUD_CLASS = np.zeros(2**16, np.uint8)
NYUD_CLASS[[CONTEXT_IDS[name] for name in _SCENERY]] = list(_SCENERY.values())
NYUD_CLASS[[CONTEXT_OF_CLASS[voc] for voc in _OBJECTS]] = list(_OBJECTS.values())


def labels_of(scene: Scene) -> dict[str, np.ndarray]:
    """Return the labels by folder.

    Returns:
        `segmentation` uint8 (h, w), 0 unlabelled, 1..40; `depth` float32 (h, w) metres, 0 missing; `normals` float32 (h, w, 3) unit
        vectors, zero where depth is missing; `edge` uint8 (h, w), 1 on the thinned borders of classes.
    """
    from bench.data.pascal_files import edges_of  # heavy, and configurations import this package

    classes = NYUD_CLASS[scene.label_map]
    seen = np.isfinite(scene.depth) & (scene.depth <= FARTHEST_METRES)
    return {
        "segmentation": np.where(scene.semseg == VOID, np.uint8(0), classes),
        "depth": np.where(seen, scene.depth, np.float32(0)).astype(np.float32),
        "normals": np.where(seen[..., None], scene.normals, np.float32(0)).astype(np.float32),
        "edge": edges_of(classes.astype(np.uint16)),
    }


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array as a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
