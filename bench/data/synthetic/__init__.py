"""A small 3-D renderer that writes a data set with the exact layout of PASCAL_MT, so that the suite has no second data path.

`texture` and `primitives` are the engine's two halves, `render` turns placed models into pixels, `model` puts primitives together.
`person`, `animals`, `vehicles` and `household` build the twenty VOC classes of `objects`, `finishes` their surfaces, `scenery` what
surrounds them. `scene` samples one scene, `labels` reads the labels off it, `writer` writes the files. `source` is the pretraining task:
other shapes and textures through the same engine.

Normals: x right, y down, z towards the viewer. A wall seen frontally is (0, 0, 1), a floor has a negative y component.
"""

from bench.data.synthetic.scene import Scene, render_scene
from bench.data.synthetic.source import SOURCE_CLASSES, render_source_image
from bench.data.synthetic.writer import RENDERER_VERSION, SyntheticConfig, content_hash, remove_abandoned, write_pascal_mt

__all__ = [
    "RENDERER_VERSION",
    "SOURCE_CLASSES",
    "Scene",
    "SyntheticConfig",
    "content_hash",
    "remove_abandoned",
    "render_scene",
    "render_source_image",
    "write_pascal_mt",
]
