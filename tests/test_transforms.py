"""The transforms against closed forms: coded images, spheres, permutations of pixels, float references."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from bench.data.transforms import augment, mirror, resize_normalise, warp

LABELS = ("semseg", "human_parts", "saliency")


def coded_sample(height: int = 60, width: int = 84, block: int = 12, seed: int = 0) -> dict[str, Any]:
    """Blocks of constant labels; each colour channel of the image codes one label map, the normals are random per block."""
    rng = np.random.default_rng(seed)

    def blocks(values: np.ndarray) -> np.ndarray:
        return values.repeat(block, 0).repeat(block, 1)[:height, :width]

    shape = (-(-height // block), -(-width // block))
    sample = {
        "id": "coded",
        "semseg": rng.integers(0, 21, shape),
        "human_parts": rng.integers(0, 7, shape),
        "saliency": rng.integers(0, 2, shape),
    }
    sample = {key: value if key == "id" else blocks(value).astype(np.uint8) for key, value in sample.items()}
    sample["image"] = np.stack([sample["semseg"] * 12, sample["human_parts"] * 40, sample["saliency"] * 255], axis=2).astype(np.uint8)
    normals = rng.normal(loc=(0, 0, 3), size=(*shape, 3))
    normals[rng.random(shape) < 0.2] = 0
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    sample["normals"] = blocks(normals / np.where(length > 0, length, 1)).astype(np.float32)
    return sample


def sphere(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """Normals of a sphere seen along z, float32 (h, w, 3), x right, y down; zero outside of it."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    inside = x**2 + y**2 < 1
    return np.where(inside[..., None], np.stack([x, y, np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))], axis=2), 0).astype(np.float32)


def scene(normals: np.ndarray) -> dict[str, Any]:
    return {"id": "scene", "image": np.zeros((*normals.shape[:2], 3), np.uint8), "normals": normals}


def angles_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((a.astype(float) * b).sum(-1), -1, 1)))


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


def test_no_flip_no_rotation_no_scale_leaves_everything_exactly() -> None:
    sample = coded_sample()
    for seed in range(4):
        assert_same(augment(sample, np.random.default_rng(seed), flip=False, rotation=0, scale=(1, 1)), sample)


def test_a_full_turn_through_the_resampling_is_identity() -> None:
    sample = coded_sample()
    turned = warp(sample, angle_deg=360, zoom=1)
    np.testing.assert_allclose(turned.pop("normals"), sample.pop("normals"), atol=1e-6)
    assert_same(turned, sample)


def test_mirroring_twice_is_identity_and_once_negates_x() -> None:
    sample = coded_sample()
    once = mirror(sample)
    assert_same(mirror(once), sample)
    np.testing.assert_array_equal(once["image"], sample["image"][:, ::-1])
    np.testing.assert_array_equal(once["normals"], sample["normals"][:, ::-1] * np.float32([-1, 1, 1]))


def test_half_of_the_samples_are_mirrored() -> None:
    sample = {"id": "ramp", "image": np.tile(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 1, 3))}
    draws = [augment(sample, np.random.default_rng(seed), rotation=0, scale=(1, 1))["image"] for seed in range(400)]
    assert 160 < sum(image[0, 0, 0] > image[0, -1, 0] for image in draws) < 240
    unflipped = [augment(sample, np.random.default_rng(seed), flip=False, rotation=0, scale=(1, 1))["image"] for seed in range(20)]
    assert all(image[0, 0, 0] < image[0, -1, 0] for image in unflipped)


def test_the_same_generator_gives_the_same_sample_and_draws_three_numbers_whatever_the_settings() -> None:
    sample, before = coded_sample(), coded_sample()
    assert_same(augment(sample, np.random.default_rng(5)), augment(sample, np.random.default_rng(5)))
    assert_same(sample, before)
    after = []
    for settings in ({}, {"flip": False}, {"rotation": 0.0, "scale": (1.0, 1.0)}):
        rng = np.random.default_rng(5)
        augment(sample, rng, **settings)
        after.append(rng.random())
    assert len(set(after)) == 1


@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_stay_together(seed: int) -> None:
    """Wherever a label is constant around a pixel, the image there still holds that label's code."""
    sample = resize_normalise(augment(coded_sample(height=120, width=168, block=24, seed=seed), np.random.default_rng(seed)), 128)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    image = ((sample["image"] * std + mean) * 255).numpy()
    for channel, (task, code) in enumerate(zip(LABELS, (12, 40, 255), strict=True)):
        label = np.pad(sample[task].numpy()[6:-6, 6:-6], 6, constant_values=255)
        calm = (cv2.erode(label, np.ones((11, 11))) == cv2.dilate(label, np.ones((11, 11)))) & (label != 255)
        assert calm.mean() > 0.02
        np.testing.assert_allclose(image[channel][calm], label[calm] * float(code), atol=1.01)


@pytest.mark.parametrize("seed", range(6))
def test_labels_never_take_new_values(seed: int) -> None:
    sample = coded_sample(seed=seed)
    changed = augment(sample, np.random.default_rng(seed))
    tensors = resize_normalise(changed, 50)
    for task in LABELS:
        assert set(np.unique(changed[task])) <= set(np.unique(sample[task])) | {255}
        assert set(np.unique(tensors[task])) <= set(np.unique(changed[task]))


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_quarter_turns_permute_pixels_and_turn_vectors(angle: float, turns: int) -> None:
    sample = coded_sample(height=48, width=48)
    turned = warp(sample, angle_deg=angle, zoom=1)
    for key in ("image", *LABELS):
        np.testing.assert_array_equal(turned[key], np.rot90(sample[key], turns))
    x, y, z = np.moveaxis(np.rot90(sample["normals"], turns), 2, 0)
    expected = {90: (y, -x, z), 180: (-x, -y, z), -90: (-y, x, z)}[angle]
    np.testing.assert_allclose(turned["normals"], np.stack(expected, axis=2), atol=1e-6)


@pytest.mark.parametrize("angle", [-90, -15, 7.5, 15, 20, 90])
def test_a_centred_sphere_keeps_its_normals_under_rotation(angle: float) -> None:
    normals = sphere((101, 101), (50, 50), 45)
    turned = warp(scene(normals), angle_deg=angle, zoom=1)["normals"]
    inner = sphere((101, 101), (50, 50), 40).any(-1)
    assert angles_deg(turned, normals)[inner].max() < 1.0
    assert angles_deg(turned, normals)[inner].mean() < 0.1


@pytest.mark.parametrize(("angle", "zoom"), [(15, 1.0), (-20, 1.25), (12, 0.75), (0, 1.1)])
def test_an_off_centre_sphere_moves_with_its_normals(angle: float, zoom: float) -> None:
    """Counter-clockwise as seen: the point right of the centre goes up, where y is smaller."""
    height, width, centre, radius = 120, 161, (110.0, 52.0), 24.0
    turned = warp(scene(sphere((height, width), centre, radius)), angle_deg=angle, zoom=zoom)["normals"]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    dx, dy = centre[0] - (width - 1) / 2, centre[1] - (height - 1) / 2
    moved = ((width - 1) / 2 + zoom * (cos * dx + sin * dy), (height - 1) / 2 + zoom * (-sin * dx + cos * dy))
    expected = sphere((height, width), moved, radius * zoom)
    inner = sphere((height, width), moved, radius * zoom * 0.85).any(-1)
    assert angles_deg(turned, expected)[inner].max() < 1.5
    counts = turned.any(-1)
    assert (counts != expected.any(-1)).sum() < 0.1 * expected.any(-1).sum()


def test_a_mirrored_sphere_keeps_its_normals() -> None:
    normals = sphere((61, 61), (30, 30), 25)
    np.testing.assert_allclose(mirror(scene(normals))["normals"], normals, atol=1e-6)


def test_pixels_from_outside_of_the_image_are_ignored_in_every_task() -> None:
    sample = coded_sample()
    sample["normals"][:] = (0, 0.6, 0.8)
    sample["image"][:] = 200
    shrunk = warp(sample, angle_deg=0, zoom=0.75)
    y, x = np.mgrid[:60, :84]
    source_x, source_y = 41.5 + (x - 41.5) / 0.75, 29.5 + (y - 29.5) / 0.75
    outside = (source_x < -0.6) | (source_x > 83.6) | (source_y < -0.6) | (source_y > 59.6)
    inside = (source_x > -0.4) & (source_x < 83.4) & (source_y > -0.4) & (source_y < 59.4)
    for task in LABELS:
        assert (shrunk[task][outside] == 255).all()
        assert (shrunk[task][inside] != 255).all()
    assert (shrunk["normals"][outside] == 0).all()
    np.testing.assert_allclose(shrunk["normals"][inside], np.broadcast_to([0, 0.6, 0.8], (inside.sum(), 3)), atol=1e-5)
    assert (shrunk["image"][(source_x < -2) | (source_y < -2)] == 0).all()
    tensors = resize_normalise(shrunk, 84)
    assert (tensors["normals"][:, 0, 0] == 255).all()
    assert (tensors["semseg"][0, 0] == 255).all()


@pytest.mark.parametrize("seed", range(3))
def test_cubic_overshoot_clips_instead_of_wrapping(seed: int) -> None:
    board = (np.random.default_rng(seed).integers(0, 2, (12, 12)) * 255).astype(np.uint8).repeat(5, 0).repeat(5, 1)
    sample = {"id": "board", "image": np.repeat(board[..., None], 3, axis=2)}
    turned = warp(sample, angle_deg=13, zoom=1.2)["image"]
    matrix = cv2.getRotationMatrix2D((29.5, 29.5), 13, 1.2)
    exact = cv2.warpAffine(sample["image"].astype(np.float32), matrix, (60, 60), flags=cv2.INTER_CUBIC)
    assert exact.min() < -8
    assert exact.max() > 263
    np.testing.assert_allclose(turned, np.clip(exact, 0, 255), atol=3)
    resized = (resize_normalise(sample, 97)["image"].numpy().transpose(1, 2, 0) * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)) * 255
    expected = np.clip(cv2.resize(sample["image"].astype(np.float32), (97, 97), interpolation=cv2.INTER_CUBIC), 0, 255)
    np.testing.assert_allclose(resized, expected, atol=3)


def test_normals_have_unit_length_or_are_ignored_in_all_channels() -> None:
    for seed in range(5):
        changed = augment(coded_sample(seed=seed), np.random.default_rng(seed))
        length = np.linalg.norm(changed["normals"], axis=2)
        assert ((np.abs(length - 1) < 1e-5) | (length == 0)).all()
        normals = resize_normalise(changed, 50)["normals"]
        ignored = (normals == 255).any(0)
        assert (normals == 255).all(0).equal(ignored)
        assert 0.02 < ignored.float().mean() < 0.9
        assert ((normals.norm(dim=0) - 1).abs()[~ignored] < 1e-5).all()


@pytest.mark.parametrize("seed", range(4))
def test_no_normal_turns_over_beside_an_ignored_region(seed: int) -> None:
    """A flat wall with holes stays that wall: cubic weights beside a hole neither flip its normals nor bring in new ones."""
    rng = np.random.default_rng(seed)
    wall, holes = np.float32([0.36, -0.48, 0.8]), rng.random((50, 50)) < 0.5
    sample = scene(np.where(holes[..., None], 0, wall).astype(np.float32))
    sample["semseg"] = holes.astype(np.uint8)
    resized = resize_normalise(sample, 73)
    counts = resized["normals"][0] != 255
    np.testing.assert_allclose(resized["normals"][:, counts].T, np.broadcast_to(wall, (int(counts.sum()), 3)), atol=1e-5)
    assert not (counts & (resized["semseg"] == 1)).any()
    assert counts.sum() > 0.9 * (resized["semseg"] == 0).sum()
    warped = warp(sample, angle_deg=11, zoom=1.1)
    assert not warped["normals"][warped["semseg"] != 0].any()


@pytest.mark.parametrize(("width", "size"), [(500, 448), (375, 448), (128, 64), (90, 30)])
def test_resized_labels_take_the_pixel_under_the_new_centre(width: int, size: int) -> None:
    label = np.tile(np.arange(width) % 251, (width, 1)).astype(np.uint8)
    tensors = resize_normalise({"id": "ramp", "image": np.zeros((width, width, 3), np.uint8), "semseg": label}, size)
    source = (np.arange(size) + 0.5) * width / size
    near = np.abs(tensors["semseg"].numpy()[0] - np.floor(source) % 251)
    on_an_edge = np.abs(source - np.rint(source)) < 1e-2
    assert (near[~on_an_edge] == 0).all()


def test_human_parts_without_any_label_stay_ignored() -> None:
    sample = coded_sample() | {"human_parts": np.full((60, 84), 255, np.uint8)}
    assert (resize_normalise(augment(sample, np.random.default_rng(0)), 48)["human_parts"] == 255).all()


def test_images_are_normalised_with_imagenet_statistics() -> None:
    sample = {"id": "flat", "image": np.full((10, 14, 3), (255, 0, 51), np.uint8)}
    image = resize_normalise(sample, 8)["image"]
    expected = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(image, expected[:, None, None].expand(3, 8, 8), rtol=1e-5, atol=1e-6)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
