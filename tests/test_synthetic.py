"""The synthetic PASCAL_MT: bytes, layout, geometry and agreement between its labels."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from bench.data.synthetic import SOURCE_CLASSES, Scene, SyntheticConfig, content_hash, render_scene, render_source_image, write_pascal_mt
from bench.data.synthetic import writer as writer_module
from bench.data.synthetic.labels import CONTEXT_OF_CLASS, void_borders
from bench.data.synthetic.model import Model, turn
from bench.data.synthetic.objects import CLASSES
from bench.data.synthetic.primitives import Camera
from bench.data.synthetic.render import Placed, see
from bench.data.synthetic.scene import Item, label_scene
from bench.data.synthetic.texture import Material
from bench.provenance import REPOSITORY

HUMAN_PARTS = {
    "head", "hair", "lear", "rear", "leye", "reye", "mouth", "nose", "torso", "neck", "luarm", "ruarm", "llarm", "rlarm", "lhand", "rhand",
    "luleg", "ruleg", "llleg", "rlleg", "lfoot", "rfoot",
}  # fmt: skip
PERSON = 15


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "PASCAL_MT"
    write_pascal_mt(root, SyntheticConfig(n_train=70, n_val=20, size=64, seed=3))
    return root


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(np.random.default_rng([8, number]), 72, 96) for number in range(30)]


def ids_of(root: Path, split: str) -> list[str]:
    return (root / f"ImageSets/Context/{split}.txt").read_text().split()


def all_ids(root: Path) -> list[str]:
    return ids_of(root, "train") + ids_of(root, "val")


def semseg_of(root: Path, identifier: str) -> np.ndarray:
    voc, other = (root / f"semseg/{folder}/{identifier}.png" for folder in ("VOC12", "pascal-context"))
    return np.array(Image.open(voc if voc.exists() else other))


def annotated_objects(root: Path, identifier: str) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return (class id, mask, parts) of each object through scipy's nesting, as readers of PASCAL-Part index it."""
    objects = scipy.io.loadmat(root / f"human_parts/{identifier}.mat")["anno"][0][0][1][0]
    return [(int(np.squeeze(o[1])), o[2], o[3]) for o in objects]


def part_list(parts: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(str(parts[0][j][0][0]), parts[0][j][1]) for j in range(parts.shape[1])] if parts.size else []


def test_hash_is_the_same_for_the_same_seed_with_one_and_two_processes(tmp_path):
    config = SyntheticConfig(n_train=9, n_val=3, size=48, seed=1)
    seen = []
    first = write_pascal_mt(tmp_path / "one", config, processes=1, progress=lambda done, total: seen.append((done, total)))
    second = write_pascal_mt(tmp_path / "two", config, processes=2)
    assert first == second == content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    assert seen == [(number, 12) for number in range(1, 13)]


def test_hash_differs_for_another_seed(tmp_path):
    hashes = {write_pascal_mt(tmp_path / str(seed), SyntheticConfig(n_train=2, n_val=1, size=48, seed=seed)) for seed in (0, 1)}
    assert len(hashes) == 2


def test_an_image_does_not_depend_on_the_size_of_its_split(tmp_path):
    write_pascal_mt(tmp_path / "few", SyntheticConfig(n_train=2, n_val=1, size=48))
    write_pascal_mt(tmp_path / "more", SyntheticConfig(n_train=3, n_val=2, size=48))
    for identifier in all_ids(tmp_path / "few"):
        name = f"JPEGImages/{identifier}.jpg"
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "more" / name).read_bytes()


def test_manifest_records_configuration_and_hash(tree):
    manifest = json.loads((tree / "synthetic.json").read_text())
    assert manifest["content_hash"] == content_hash(tree)
    assert manifest["config"] == asdict(SyntheticConfig(n_train=70, n_val=20, size=64, seed=3))
    assert isinstance(manifest["renderer_version"], int)


def test_layout_is_complete_and_all_files_of_an_image_have_its_size(tree):
    assert (len(ids_of(tree, "train")), len(ids_of(tree, "val"))) == (70, 20)
    assert len(set(all_ids(tree))) == 90
    for identifier in all_ids(tree):
        image = Image.open(tree / f"JPEGImages/{identifier}.jpg")
        image.load()
        size = (image.height, image.width)
        assert image.mode == "RGB"
        assert max(size) == 64
        label_map = scipy.io.loadmat(tree / f"pascal-context/trainval/{identifier}.mat")["LabelMap"]
        assert label_map.shape == size
        assert 1 <= label_map.min() <= label_map.max() <= 459
        assert np.array(Image.open(tree / f"normals_distill/{identifier}.png")).shape == (*size, 3)
        assert np.array(Image.open(tree / f"sal_distill/{identifier}.png")).shape == size
        semseg = semseg_of(tree, identifier)
        assert semseg.shape == size
        assert set(np.unique(semseg)) <= {*range(21), 255}
        for class_id, mask, parts in annotated_objects(tree, identifier):
            assert 1 <= class_id <= 20
            assert mask.shape == size
            assert all(part.shape == size for _, part in part_list(parts))


def test_semseg_is_a_voc_palette_png_in_exactly_one_of_two_folders(tree):
    folders = []
    for identifier in all_ids(tree):
        found = [folder for folder in ("VOC12", "pascal-context") if (tree / f"semseg/{folder}/{identifier}.png").exists()]
        assert len(found) == 1
        folders.append(found[0])
    assert set(folders) == {"VOC12", "pascal-context"}
    image = Image.open(tree / f"semseg/{folders[0]}/{all_ids(tree)[0]}.png")
    assert image.mode == "P"
    assert image.getpalette()[:18] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128]
    assert image.getpalette()[-3:] == [224, 224, 192]


def test_parts_json_agrees_with_the_annotations(tree):
    for split in ("train", "val"):
        listed = json.loads((tree / f"ImageSets/Parts/{split}.txt").read_text())
        assert list(listed) == ids_of(tree, split)
        for identifier, classes in listed.items():
            objects = annotated_objects(tree, identifier)
            assert classes == [class_id for class_id, _, _ in objects]
            assert all(mask.sum() > 0 for _, mask, _ in objects)


def test_parts_lie_inside_their_object_and_persons_have_pascal_part_names(tree):
    names = set()
    for identifier in all_ids(tree):
        for class_id, mask, parts in annotated_objects(tree, identifier):
            for name, part in part_list(parts):
                assert part.any()
                assert not (part.astype(bool) & ~mask.astype(bool)).any()
                if class_id == PERSON:
                    names.add(name)
    assert {"head", "torso", "luarm", "rlarm", "luleg", "rlleg"} <= names <= HUMAN_PARTS


def test_some_images_hold_no_person_some_a_person_without_parts_and_sizes_vary(tree):
    without, bare, dressed, sizes = 0, 0, 0, set()
    for identifier in all_ids(tree):
        persons = [parts for class_id, _, parts in annotated_objects(tree, identifier) if class_id == PERSON]
        without += not persons
        bare += any(parts.size == 0 for parts in persons)
        dressed += any(parts.size > 0 for parts in persons)
        with Image.open(tree / f"JPEGImages/{identifier}.jpg") as image:
            sizes.add(image.size)
    assert without > 10
    assert bare > 0
    assert dressed > 10
    assert len(sizes) > 10
    assert {width > height for width, height in sizes} == {True, False}


def test_every_class_appears_in_a_big_enough_tree(tree):
    found = set()
    for split in ("train", "val"):
        for classes in json.loads((tree / f"ImageSets/Parts/{split}.txt").read_text()).values():
            found.update(classes)
    assert found == set(CLASSES)


def test_stored_normals_have_unit_length_within_rounding(tree):
    for identifier in all_ids(tree)[:20]:
        stored = np.array(Image.open(tree / f"normals_distill/{identifier}.png"), dtype=np.float64)
        length = np.sqrt(((2 * stored / 255 - 1) ** 2).sum(-1))
        assert np.abs(length - 1).max() <= math.sqrt(3) / 255 + 1e-6  # half a step of 2 / 255 in each channel


def test_context_ids_agree_with_the_class_map(scenes):
    for scene in scenes:
        scenery = ~np.isin(scene.label_map, CONTEXT_OF_CLASS)
        for class_id, context_id in enumerate(CONTEXT_OF_CLASS):
            assert (scene.label_map[scene.semseg == class_id] == context_id).all() or class_id == 0
        assert scenery[scene.semseg == 0].all()


def test_void_lies_along_object_borders_only_and_on_all_of_them(scenes):
    for scene in scenes:
        instances = np.full(scene.semseg.shape, -1)
        for number, instance in enumerate(scene.instances):
            instances[instance.mask] = number
        padded = np.pad(instances, 1, mode="edge")
        h, w = instances.shape
        neighbours = [padded[1 + y : h + 1 + y, 1 + x : w + 1 + x] for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        at_border = np.logical_or.reduce([n != instances for n in neighbours])
        void = scene.semseg == 255
        assert not (void & ~at_border).any()
        assert ((instances != neighbours[0]) <= void).all()


def test_void_borders_have_the_asked_width():
    instances = np.full((9, 20), -1)
    instances[:, 10:] = 0
    for width in (1, 2, 3, 5):
        assert (void_borders(instances, width).sum(1) == width).all()


def test_visible_objects_do_not_overlap_and_some_scene_is_salient(scenes):
    for scene in scenes:
        assert sum(instance.mask.astype(int) for instance in scene.instances).max() == 1
    assert sum((scene.saliency > 127).any() for scene in scenes) > 20
    assert all(len(np.unique(scene.saliency)) > 10 for scene in scenes)


def test_normals_are_unit_vectors_and_the_sky_faces_the_viewer(scenes):
    for scene in scenes:
        assert np.allclose((scene.normals**2).sum(-1), 1, atol=1e-5)
        assert (scene.normals[np.isinf(scene.depth)] == (0, 0, 1)).all()
    assert any(np.isinf(scene.depth).any() for scene in scenes)


def test_stored_axes_are_right_down_and_towards_the_viewer():
    camera = Camera(height=61, width=61, focal=60.0)
    item = Item(class_id=1, model=ball((0, 0, 5), 2.0).model, yaw=0, position=np.zeros(3), bare=False)
    scene = label_scene([ball((0, 0, 5), 2.0)], [item], [], camera, lambda hits: np.zeros((*hits.depth.shape, 3), np.uint8))
    assert np.allclose(scene.normals[30, 30], (0, 0, 1), atol=0.01)
    assert scene.normals[30, 45, 0] > 0.3
    assert scene.normals[45, 30, 1] > 0.3


def ball(center: tuple[float, float, float], radius: float) -> Placed:
    model = Model()
    model.ellipsoid((0, 0, 0), (radius,) * 3, model.paint(Material(texture="plain", low=(1, 1, 1), high=(1, 1, 1))))
    return Placed(model=model, rotation=np.eye(3), position=np.array(center, dtype=float))


def test_normals_of_a_sphere_equal_the_closed_form():
    camera = Camera(height=60, width=80, focal=70.0)
    center, radius = np.array([0.3, -0.2, 4.0]), 1.3
    hits = see([ball(tuple(center), radius)], camera)
    y, x = np.mgrid[0:60, 0:80]
    rays = np.stack(((x + 0.5 - 40) / 70, (y + 0.5 - 30) / 70, np.ones((60, 80))), -1)
    a, b, c = (rays**2).sum(-1), rays @ center, center @ center - radius**2
    inside = b**2 - a * c > 1e-3
    depth = (b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a
    expected = (depth[..., None] * rays - center) / radius
    assert inside.sum() > 1000
    assert np.allclose(hits.depth[inside], depth[inside], atol=1e-4)
    assert np.allclose(hits.normals[inside], expected[inside], atol=1e-3)
    assert (hits.primitive[b**2 - a * c < -1e-3] == -1).all()


def solid(kind: str) -> tuple[Model, float]:
    model, paint = Model(), 0
    model.paint(Material(texture="plain", low=(1, 1, 1), high=(1, 1, 1)))
    if kind == "box":
        model.box((0, 0, 0), (0.5, 0.7, 0.9), paint, rotation=turn(yaw=0.5, pitch=0.3, roll=0.2))
    elif kind == "frustum":
        model.frustum((-0.5, -0.6, 0.2), (0.4, 0.7, -0.3), (0.8, 0.3), paint)
    elif kind == "capsule":
        model.capsule((-0.5, -0.4, 0.3), (0.6, 0.5, -0.2), 0.4, paint)
    elif kind == "ring":
        model.ring((0, 0, 0), (0.3, 0.5, 1.0), 0.9, 0.6, 0.3, paint)
    else:
        model.ellipsoid((0, 0, 0), (0.4, 0.7, 1.0), paint, rotation=turn(yaw=1.0, roll=0.4))
    return model, 4.0


@pytest.mark.parametrize("kind", ["box", "frustum", "capsule", "ring", "ellipsoid"])
def test_normals_of_every_solid_equal_the_slope_of_its_depth(kind):
    camera = Camera(height=160, width=160, focal=200.0)
    model, distance = solid(kind)
    hits = see([Placed(model=model, rotation=turn(yaw=0.3), position=np.array([0.1, 0.05, distance]))], camera)
    columns, rows = camera.slopes()
    points = np.stack(np.broadcast_arrays(columns[None] * hits.depth, rows[:, None] * hits.depth, hits.depth), -1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        slope = np.cross(down, across)
        slope /= np.sqrt((slope**2).sum(-1, keepdims=True))
        cosine = (slope * hits.normals[1:-1, 1:-1]).sum(-1)
        smooth = np.isfinite(slope).all(-1) & (np.abs(across[..., 2]) < 0.2) & (np.abs(down[..., 2]) < 0.2)
    assert smooth.sum() > 1500
    assert (cosine[smooth] > 0.98).mean() > 0.9  # the rest lies on edges
    assert (cosine[smooth] > 0).mean() > 0.99
    seen = hits.primitive >= 0
    assert ((points[seen] * hits.normals[seen]).sum(-1) < 1e-4).all()  # visible surfaces face the camera


def test_the_nearer_object_hides_the_farther_one():
    camera = Camera(height=60, width=60, focal=60.0)
    near, far = ball((0, 0, 3), 0.5), ball((0, 0, 6), 2.0)
    for order in ([near, far], [far, near]):
        items = [Item(class_id=1 + number, model=p.model, yaw=0, position=p.position, bare=False) for number, p in enumerate(order)]
        scene = label_scene(order, items, [], camera, lambda hits: np.zeros((*hits.depth.shape, 3), np.uint8))
        front = 0 if order[0] is near else 1
        assert scene.semseg[30, 30] == 1 + front
        assert scene.semseg[30, 46] == 2 - front
        assert not scene.instances[1 - front].mask[30, 30]
        assert scene.depth[30, 30] == pytest.approx(2.5, abs=0.01)


@pytest.mark.parametrize("class_id", sorted(CLASSES))
def test_every_class_stands_on_the_ground_with_a_plausible_size(class_id):
    for seed in range(3):
        low, high = CLASSES[class_id][1](np.random.default_rng([class_id, seed])).bounds()
        assert -0.5 < low[1] < 0.6
        assert 0.2 < (high - low).max() < 12


def test_an_existing_directory_with_content_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not an empty directory"):
        write_pascal_mt(tmp_path, SyntheticConfig(n_train=1, n_val=1, size=32))
    assert os.listdir(tmp_path) == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    write_pascal_mt(tmp_path / "empty", SyntheticConfig(n_train=1, n_val=1, size=32))
    assert (tmp_path / "empty/synthetic.json").exists()


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch):
    calls = []

    def fail_at_third(task, **options):
        calls.append(task)
        if len(calls) == 3:
            raise OSError("disk full")
        return real(task, **options)

    real = writer_module.write_image
    monkeypatch.setattr(writer_module, "write_image", fail_at_third)
    with pytest.raises(OSError, match="disk full"):
        write_pascal_mt(tmp_path / "tree", SyntheticConfig(n_train=5, n_val=1, size=32))
    assert len(calls) == 3
    assert os.listdir(tmp_path) == []


def test_what_a_killed_run_left_is_removed_and_running_work_is_not(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
def stop(done, total):
    print("half", flush=True)
    sys.stdin.readline()
write_pascal_mt(Path({str(tmp_path / "tree")!r}), SyntheticConfig(n_train=2, n_val=1, size=32), progress=stop)
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "half\n"
    (left,) = tmp_path.glob(".tree-*.unfinished")
    write_pascal_mt(tmp_path / "tree", SyntheticConfig(n_train=1, n_val=1, size=32))
    assert left.exists()  # its process lives
    run.kill()
    run.communicate()
    shutil.rmtree(tmp_path / "tree")
    write_pascal_mt(tmp_path / "tree", SyntheticConfig(n_train=1, n_val=1, size=32))
    assert os.listdir(tmp_path) == ["tree"]


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pascal_mt(tmp_path / "tree", SyntheticConfig(n_train=2, n_val=1, size=32), progress=interrupt)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "error"), [({"n_train": 0}, ValueError), ({"size": 8}, ValueError), ({"seed": -1}, ValueError), ({"n_val": 2.5}, TypeError)]
)
def test_config_refuses_impossible_values_by_name(values, error):
    with pytest.raises(error, match=f"SyntheticConfig.{next(iter(values))}"):
        SyntheticConfig(**values)


def test_source_images_depend_on_generator_and_class_only():
    (first, mask), (again, same_mask) = (render_source_image(np.random.default_rng(5), 7, 48) for _ in range(2))
    other, _ = render_source_image(np.random.default_rng(5), 8, 48)
    assert first.shape == (48, 48, 3)
    assert (mask == same_mask).all()
    assert mask.shape == (48, 48)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()
    for class_index in range(SOURCE_CLASSES):
        assert render_source_image(np.random.default_rng(class_index), class_index, 32)[0].std() > 3


def test_source_mask_shows_where_the_object_is():
    masks = [render_source_image(np.random.default_rng(i), i, 64)[1] for i in range(SOURCE_CLASSES)]
    assert all(0 < mask.mean() < 0.9 for mask in masks)


def test_source_refuses_a_class_out_of_range():
    with pytest.raises(ValueError, match="class_index"):
        render_source_image(np.random.default_rng(0), SOURCE_CLASSES, 48)
