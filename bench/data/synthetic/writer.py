"""Writes rendered scenes to disk as PASCAL_MT or NYUD_MT, the layouts that the readers of the real data sets expect.

Image i of a split depends only on (seed, split, i), not on the number of processes or the size of the split. Time stamps and orders are
fixed: the same seed gives the same bytes with the same versions of numpy, Pillow and zlib.
"""

import contextlib
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import filelock
import numpy as np
import scipy.io
from PIL import Image

from bench.data.identity import LATER
from bench.data.synthetic import nyud
from bench.data.synthetic.labels import Instance
from bench.data.synthetic.scene import Scene, render_scene
from bench.errors import SuiteError
from bench.workers import pool as pool_of

RENDERER_VERSION = 2
SPLITS = ("train", "val")
LAYOUTS = ("pascal_context", "nyud")
_MANIFEST = "synthetic.json"
_UNFINISHED = ".unfinished"
_MAT_HEADER = b"MATLAB 5.0 MAT-file, synthetic PASCAL_MT".ljust(116)
_FOLDERS = (
    "ImageSets/Context",
    "ImageSets/Parts",
    "JPEGImages",
    "semseg/VOC12",
    "semseg/pascal-context",
    "pascal-context/trainval",
    "human_parts",
    "normals_distill",
    "sal_distill",
)


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the synthetic data set holds.

    Attributes:
        n_train: Number of training images.
        n_val: Number of validation images.
        size: Long side of an image, pixels; the short side varies.
        seed: Seed of everything.
        layout: "pascal_context" writes PASCAL_MT, "nyud" NYUD_MT (indoor scenes only, with depth).
    """

    n_train: int = 400
    n_val: int = 150
    size: int = 128
    seed: int = 0
    layout: str = field(default="pascal_context", metadata=LATER)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise SuiteError(f"SyntheticConfig.layout is {self.layout!r}; allowed are {', '.join(LAYOUTS)}")
        for name, least, most in (("n_train", 1, 499_999), ("n_val", 1, 499_999), ("size", 32, 4096), ("seed", 0, 2**63 - 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"SyntheticConfig.{name} is {value!r}; give a whole number")
            if not least <= value <= most:
                raise SuiteError(f"SyntheticConfig.{name} is {value}; allowed are {least} to {most}")


@cache
def voc_palette() -> tuple[int, ...]:
    """Return the colour map of PASCAL VOC, 256 RGB triples in a flat tuple: the bits of the index, spread over the channels."""
    palette = []
    for index in range(256):
        for channel in range(3):
            palette.append(sum(((index >> (3 * level + channel)) & 1) << (7 - level) for level in range(3)))
    return tuple(palette)


def image_id(split: str, number: int) -> str:
    """Return a PASCAL-like id, unique over the splits."""
    return f"{2008 + number % 3}_{2 * number + SPLITS.index(split) + 1:06d}"


def _mat_bytes(content: dict) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content, do_compression=True)
    return _MAT_HEADER + buffer.getvalue()[len(_MAT_HEADER) :]  # scipy writes the date there


def _struct_row(names: tuple[str, ...], rows: list[tuple]) -> np.ndarray:
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for number, row in enumerate(rows):
        array[0, number] = row
    return array


def parts_annotation(identifier: str, instances: list[Instance]) -> np.ndarray:
    """Return PASCAL-Part's struct `anno`: (imname, objects), objects: (class, class_ind, mask, parts), parts: (part_name, mask) or 0 x 0"""
    objects = []
    for instance in instances:
        parts = [(part.name, part.mask.astype(np.uint8)) for part in instance.parts]
        nested = _struct_row(("part_name", "mask"), parts) if parts else np.zeros((0, 0))
        objects.append((instance.class_name, instance.class_id, instance.mask.astype(np.uint8), nested))
    return _struct_row(("imname", "objects"), [(identifier, _struct_row(("class", "class_ind", "mask", "parts"), objects))])


def _image_bytes(array: np.ndarray, *, form: str = "PNG", palette: tuple[int, ...] | None = None, **options: int) -> bytes:
    image, buffer = Image.fromarray(array), io.BytesIO()
    if palette is not None:
        image.putpalette(palette)
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """Round unit vectors (h, w, 3) to uint8 v with n = 2 v / 255 - 1."""
    return ((normals + 1) * np.float32(127.5) + np.float32(0.5)).astype(np.uint8)


def _files_of_scene(identifier: str, scene: Scene, *, voc: bool, quality: int) -> dict[str, bytes]:
    semseg = f"semseg/{'VOC12' if voc else 'pascal-context'}/{identifier}.png"
    return {
        f"JPEGImages/{identifier}.jpg": _image_bytes(scene.image, form="JPEG", quality=quality),
        semseg: _image_bytes(scene.semseg, palette=voc_palette()),
        f"pascal-context/trainval/{identifier}.mat": _mat_bytes({"LabelMap": scene.label_map}),
        f"human_parts/{identifier}.mat": _mat_bytes({"anno": parts_annotation(identifier, scene.instances)}),
        f"normals_distill/{identifier}.png": _image_bytes(encode_normals(scene.normals), compress_level=3),
        f"sal_distill/{identifier}.png": _image_bytes(scene.saliency),
    }


def write_image(task: tuple[str, int], *, root: str, size: int, seed: int) -> tuple[str, list[int]]:
    """Render and write image `task` = (split, number); return its id and the class of each annotated object."""
    split, number = task
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    short = round(size / rng.uniform(1.2, 1.5))
    height, width = (short, size) if rng.random() < 0.75 else (size, short)
    voc, quality = bool(rng.random() < 0.5), int(rng.integers(70, 96))
    identifier, scene = image_id(split, number), render_scene(rng, height, width)
    for path, content in _files_of_scene(identifier, scene, voc=voc, quality=quality).items():
        Path(root, path).write_bytes(content)
    return identifier, [instance.class_id for instance in scene.instances]


def write_nyud_image(task: tuple[str, int], *, root: str, size: int, seed: int) -> tuple[str, list[int]]:
    """Render and write image `task` = (split, number) of NYUD_MT, 4 : 3; return its id and the VOC class of each object."""
    split, number = task
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    identifier = f"{2 * number + SPLITS.index(split) + 1:04d}"
    scene = render_scene(rng, round(0.75 * size), size, setting="indoor")
    labels = nyud.labels_of(scene)
    content = {f"images/{identifier}.jpg": _image_bytes(scene.image, form="JPEG", quality=90)}
    content[f"segmentation/{identifier}.png"] = _image_bytes(labels.pop("segmentation"))
    content |= {f"{folder}/{identifier}.npy": nyud.array_bytes(array) for folder, array in labels.items()}
    for path, file in content.items():
        Path(root, path).write_bytes(file)
    return identifier, [instance.class_id for instance in scene.instances]


def _write_splits(root: Path, layout: str, annotated: dict[str, dict[str, list[int]]]) -> None:
    """Write the split files, and for PASCAL_MT the classes of the annotated objects."""
    for split, classes in annotated.items():
        folder = "gt_sets" if layout == "nyud" else "ImageSets/Context"
        (root / folder / f"{split}.txt").write_text("".join(f"{identifier}\n" for identifier in classes))
        if layout == "pascal_context":
            (root / "ImageSets/Parts" / f"{split}.txt").write_text(json.dumps(classes))


def _write_images(
    root: Path, config: SyntheticConfig, processes: int, progress: Callable[[int, int], None] | None
) -> dict[str, dict[str, list[int]]]:
    """Write all images and return the annotated classes per split and id."""
    tasks = [(split, number) for split, count in zip(SPLITS, (config.n_train, config.n_val), strict=True) for number in range(count)]
    write_one = write_nyud_image if config.layout == "nyud" else write_image
    write = partial(write_one, root=str(root), size=config.size, seed=config.seed)
    annotated: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}

    def collect(results) -> None:
        for done, ((split, _), (identifier, classes)) in enumerate(zip(tasks, results, strict=True), 1):
            annotated[split][identifier] = classes
            if progress is not None:
                progress(done, len(tasks))

    if processes == 1:
        collect(map(write, tasks))
    else:
        with pool_of(processes) as pool:
            try:
                collect(pool.map(write, tasks, chunksize=8))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return annotated


def content_hash(root: Path) -> str:
    """Hash the data set under `root`: sha256 over the sorted relative paths and the bytes of all files but synthetic.json."""
    digest = hashlib.sha256()
    for path in sorted((p for p in Path(root).rglob("*") if p.is_file()), key=lambda p: p.relative_to(root).as_posix()):
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        if name != _MANIFEST:
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def write_pascal_mt(root: Path, config: SyntheticConfig, processes: int = 1, progress: Callable[[int, int], None] | None = None) -> str:
    """Render the whole data set, in the layout of `config`, into a new directory; it appears at once when complete, or not at all.

    Args:
        root: Directory to make; it must not exist or be empty.
        config: What to render.
        processes: Worker processes; the result does not depend on it.
        progress: Called after each image with the number of images done and the total.

    Returns:
        The content hash, which is also in `root`/synthetic.json with the configuration and the renderer's version.

    Raises:
        FileExistsError: If `root` is a file or not empty: choose another directory or remove it. Nothing is ever overwritten.
        DataError: If `root` is a data set, or lies inside of one.
        ValueError: If `processes` is below 1.
    """
    from bench.data.untouched import refuse_inside

    if processes < 1:
        raise SuiteError(f"processes is {processes}; give 1 or more")
    if not (Path(root) / _MANIFEST).exists():  # its own rendering is refused below, by what it is
        refuse_inside(root, option="the new directory")
    root = Path(root).resolve()  # a link to an empty directory stays a link
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists and is not an empty directory; choose another directory or remove it first")
    root.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root.parent, glob.escape(root.name))
    unfinished = root.parent / f".{root.name}-{secrets.token_hex(4)}{_UNFINISHED}"
    with _held(unfinished):
        try:
            for folder in nyud.FOLDERS if config.layout == "nyud" else _FOLDERS:
                (unfinished / folder).mkdir(parents=True)
            annotated = _write_images(unfinished, config, processes, progress)
            _write_splits(unfinished, config.layout, annotated)
            digest = content_hash(unfinished)
            manifest = {"config": asdict(config), "content_hash": digest, "renderer_version": RENDERER_VERSION}
            (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            os.replace(unfinished, root)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return digest


def remove_abandoned(parent: Path, name: str) -> None:
    """Remove unfinished trees whose process was killed; those that a living process holds stay. `name` is a pattern of `glob`."""
    for unfinished in parent.glob(f".{name}-*{_UNFINISHED}"):
        with contextlib.suppress(filelock.Timeout, OSError), _held(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _held(unfinished: Path) -> Iterator[None]:
    """Hold an unfinished tree's lock, which ends with the process; it is taken before the tree is there.

    Raises:
        filelock.Timeout: Another process holds it.
    """
    lock = filelock.FileLock(f"{unfinished}.lock")
    with lock.acquire(timeout=0):
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
