"""The one resampling of a batch against references: integers to the bit, float64 cubic interpolation, closed forms."""

import logging
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data import native
from bench.data.native import kernels
from bench.data.resample import CHANNELS, View, cubic_weights, place, quantised_normals, resample_compiled, resample_torch
from bench.data.store import encode, flatten, kind_of
from benchmarks import per_sample

LABELS = ("semseg", "human_parts", "saliency")
KERNELS = {"torch": resample_torch, "compiled": resample_compiled}
PLAIN = View()
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Any:
    if request.param == "compiled" and kernels() is None:
        pytest.skip("no C compiler")
    return KERNELS[request.param]


def views(count: int, seed: int = 0) -> list[View]:
    rng = np.random.default_rng(seed)
    return [View(bool(rng.integers(2)), rng.uniform(-20, 20), rng.uniform(0.75, 1.25)) for _ in range(count)]


def look(
    sample: dict[str, Any], view: View = PLAIN, size: tuple[int, int] | None = None, kernel: Any = resample_torch
) -> dict[str, np.ndarray]:
    """One sample through the feed's resampling, channels last, as numpy; of its own size unless told otherwise."""
    names = [name for name in sample if name != "id"]
    batch = resampled([sample], [view], size or sample["image"].shape[:2], names, kernel)
    return {name: value[0].permute(1, 2, 0).numpy() if value.dim() == 4 else value[0].numpy() for name, value in batch.items()}


def resampled(samples: list, chosen: list[View], size: tuple[int, int], names: list[str], kernel: Any) -> dict[str, Tensor]:
    raw = flatten([encode(sample, names) for sample in samples])
    placement = place(raw.first, raw.stored, raw.native, chosen, size)
    kinds = {name: kind_of(name) for name in names if name != "image"}
    return kernel(raw.flat, kinds, placement, size)


def grey(image: np.ndarray) -> np.ndarray:
    """Back to 0..255 from ImageNet's statistics."""
    return (image * STD + MEAN) * 255


def source_of(shape: tuple[int, int], view: View, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Source coordinates of every output pixel in float64, by inverting the steps one after the other: resize, warp, flip."""
    height, width = shape
    i, j = np.mgrid[: size[0], : size[1]].astype(float)
    x, y = (j + 0.5) * width / size[1] - 0.5, (i + 0.5) * height / size[0] - 0.5
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    if (view.angle_deg, view.zoom) != (0, 1):
        forward = np.vstack([cv2.getRotationMatrix2D(tuple(centre), view.angle_deg, view.zoom), [0, 0, 1]])
        x, y, _ = np.einsum("ab,bhw->ahw", np.linalg.inv(forward), np.stack([x, y, np.ones_like(x)]))
    return (width - 1 - x if view.mirrored else x), y


def keys(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.75."""
    d, a = np.abs(distance), -0.75
    return np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, np.where(d < 2, a * (d**3 - 5 * d**2 + 8 * d - 4), 0))


def cubic(array: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cubic interpolation in float64; neighbours outside repeat the border."""
    left, top, total = np.floor(x).astype(int), np.floor(y).astype(int), 0.0
    for r in range(-1, 3):
        for c in range(-1, 3):
            pixel = array[np.clip(top + r, 0, array.shape[0] - 1), np.clip(left + c, 0, array.shape[1] - 1)].astype(float)
            total = total + pixel * (keys(top + r - y) * keys(left + c - x))[..., None]
    return total


def stepwise_cubic(array: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The documented integers in float64: positions in 1/1024 pixel, weights of 10 bits, columns rounded to 1/32; times 2^15."""
    weights = cubic_weights().astype(float)
    qx, qy, total = np.floor(x * 1024 + 0.5).astype(int), np.floor(y * 1024 + 0.5).astype(int), 0.0
    for c in range(4):
        column = 0.0
        for r in range(4):
            rows, columns = np.clip((qy >> 10) + r - 1, 0, array.shape[0] - 1), np.clip((qx >> 10) + c - 1, 0, array.shape[1] - 1)
            column = column + array[rows, columns].astype(float) * weights[qy & 1023, r][..., None]
        total = total + np.floor(column / 32 + 0.5) * weights[qx & 1023, c][..., None]
    return total


def inside_of(shape: tuple[int, int], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)
    inside = (row >= 0) & (column >= 0) & (row < shape[0]) & (column < shape[1])
    return inside, np.where(inside, row, 0), np.where(inside, column, 0)


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


SIZES = [(60, 84), (84, 60), (7, 9), (3, 2), (1, 1)]


def coded_samples() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        coded_sample(*size, block=1 + size[0] // 6, seed=seed) | {"depth": rng.uniform(0.5, 9, size).astype(np.float32)}
        for seed, size in enumerate(SIZES)
    ]


@pytest.mark.parametrize("size", [(50, 50), (96, 30), (60, 84)])
def test_both_kernels_equal_an_integer_reference_to_the_bit(kernel: Any, size: tuple[int, int]) -> None:
    samples, chosen = coded_samples(), [*views(len(SIZES) - 1), View()]
    names = ["image", *LABELS, "normals", "depth"]
    batch = {name: value.numpy() for name, value in resampled(samples, chosen, size, names, kernel).items()}
    for n, (sample, view) in enumerate(zip(samples, chosen, strict=True)):
        x, y = source_of(sample["image"].shape[:2], view, size)
        inside, row, column = inside_of(sample["image"].shape[:2], x, y)
        for task in LABELS:
            np.testing.assert_array_equal(batch[task][n], np.where(inside, sample[task][row, column], 255))
        np.testing.assert_array_equal(batch["depth"][n, 0], np.where(inside, sample["depth"][row, column] * np.float32(1 / view.zoom), 0))
        values = np.where(inside[..., None], stepwise_cubic(sample["image"], x, y), 0)
        image = np.float32(np.clip(values / 2**15, 0, 255)) * np.float32(1 / (255 * STD)) + np.float32(-MEAN / STD)
        np.testing.assert_array_equal(batch["image"][n].transpose(1, 2, 0), image)
        np.testing.assert_array_equal(batch["normals"][n].transpose(1, 2, 0), stepwise_normals(sample["normals"], view, x, y))


def stepwise_normals(normals: np.ndarray, view: View, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The documented steps, each rounded to float32."""
    stored = quantised_normals(normals).astype(float)
    inside, row, column = inside_of(normals.shape[:2], x, y)
    own = np.where(inside[..., None], stored[row, column], 0)
    vector = np.floor(stepwise_cubic(stored, x, y) / 2**11 + 0.5)
    counts = (vector * own).sum(-1) > 256
    factor = np.float32(1) / np.sqrt(np.float32(np.maximum((vector**2).sum(-1), 1)))
    vx, vy, vz = np.moveaxis(vector.astype(np.float32), 2, 0)
    cos, sin, sign = np.cos(np.radians(view.angle_deg)), np.sin(np.radians(view.angle_deg)), 1 - 2 * view.mirrored
    turned = (
        (np.float32(cos * sign) * vx + np.float32(sin) * vy) * factor,
        (np.float32(-sin * sign) * vx + np.float32(cos) * vy) * factor,
        vz * factor,
    )
    return np.where(counts[..., None], np.stack(turned, axis=2), np.float32(255))


@pytest.mark.parametrize("seed", range(3))
def test_image_and_normals_are_a_float64_cubic_interpolation_but_for_the_stated_roundings(seed: int) -> None:
    sample, (view,) = coded_sample(seed=seed), views(1, seed)
    found, (x, y) = look(sample, view, (64, 64)), source_of((60, 84), view, (64, 64))
    inside, row, column = inside_of((60, 84), x, y)
    expected = np.where(inside[..., None], np.clip(cubic(sample["image"], x, y), 0, 255), 0)
    difference = np.abs(grey(found["image"]) - expected)
    assert difference.max() < 1.5
    assert difference.mean() < 0.1
    vectors, counts = cubic(sample["normals"], x, y), inside & sample["normals"][row, column].any(-1)
    counts &= (vectors * sample["normals"][row, column]).sum(-1) > 0.05
    vectors[..., 0] *= -1 if view.mirrored else 1
    turn = cv2.getRotationMatrix2D((0, 0), view.angle_deg, 1)[:, :2]
    vectors[..., :2] = vectors[..., :2] @ turn.T
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True).clip(1e-6)
    clear = counts & (np.linalg.norm(cubic(sample["normals"], x, y), axis=2) > 0.5)
    assert (found["normals"][clear] != 255).all()
    assert angles_deg(found["normals"], vectors)[clear].max() < 1.5
    assert angles_deg(found["normals"], vectors)[clear].mean() < 0.3


def test_a_sample_does_not_depend_on_the_batch_that_it_is_in(kernel: Any) -> None:
    samples, chosen, names = coded_samples(), views(len(SIZES)), ["image", *LABELS, "normals", "depth"]
    together = resampled(samples, chosen, (40, 40), names, kernel)
    for n, (sample, view) in enumerate(zip(samples, chosen, strict=True)):
        alone = resampled([sample], [view], (40, 40), names, kernel)
        assert all(torch.equal(alone[name][0], together[name][n]) for name in names)
    backwards = resampled(samples[::-1], chosen[::-1], (40, 40), names, kernel)
    assert all(torch.equal(backwards[name].flip(0), together[name]) for name in names)


@pytest.mark.parametrize("seed", range(3))
def test_one_resampling_agrees_with_the_releases_order_of_warp_and_resize(seed: int) -> None:
    """Smooth content, so that interpolating twice, as the release does, loses little."""
    height, width, rng = 120, 160, np.random.default_rng(seed)
    sample = coded_sample(height, width, block=30, seed=seed)
    sample["image"] = cv2.GaussianBlur(sample["image"], (0, 0), 3)
    sample["normals"] = sphere((height, width), (80, 60), 70)
    found = look(sample, View(bool(seed % 2), 12.0, 0.9 + 0.1 * seed), (144, 144))
    twice = per_sample.mirror(sample) if seed % 2 else sample
    twice = per_sample.resize_normalise(per_sample.warp(twice, angle_deg=12.0, zoom=0.9 + 0.1 * seed), 144)
    for task in LABELS:
        assert (found[task] == twice[task].numpy()).mean() > 0.98
    both = (found["semseg"] != 255) & (twice["semseg"].numpy() != 255)
    both = cv2.erode(both.astype(np.uint8), np.ones((9, 9)), borderValue=0) > 0
    assert np.abs(grey(found["image"]) - grey(twice["image"].numpy().transpose(1, 2, 0)))[both].mean() < 1
    normals = twice["normals"].numpy().transpose(1, 2, 0)
    clear = both & (found["normals"][..., 0] != 255) & (normals[..., 0] != 255)
    assert angles_deg(found["normals"], normals)[clear].mean() < 0.5
    assert rng.random() < 1


def test_cubic_weights_are_keys_kernel_in_1024ths() -> None:
    weights, t = cubic_weights(), np.arange(1024)[:, None] / 1024
    assert (weights.sum(1) == 1024).all()
    np.testing.assert_allclose(weights / 1024, keys(t + np.array([1, 0, -1, -2])), atol=2 / 1024)
    assert weights[0].tolist() == [0, 1024, 0, 0]


def test_quantised_normals_move_by_less_than_a_third_of_a_degree() -> None:
    normals = np.random.default_rng(0).normal(size=(100, 100, 3))
    normals = (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(np.float32)
    stored = quantised_normals(normals).astype(float)
    angles = angles_deg(stored / np.linalg.norm(stored, axis=2, keepdims=True), normals)
    assert angles.max() < 0.4
    assert np.sqrt((angles**2).mean()) < 0.19
    assert not quantised_normals(np.zeros((1, 1, 3), np.float32)).any()


def test_a_working_size_below_the_images_keeps_the_view_in_the_images_own_geometry() -> None:
    """A square working size distorts; a turn about the centre is still one of the undistorted image."""
    large = sphere((120, 160), (80, 60), 50)
    sample = scene(large) | {"semseg": (large.any(-1)).astype(np.uint8)}
    direct = look(sample, View(False, 20.0, 1.0), (64, 64))
    raw = flatten([encode({k: v for k, v in sample.items()}, ["image", "semseg", "normals"])])
    small = resample_torch(raw.flat, {"semseg": "classes"}, place(raw.first, raw.stored, raw.native, [View()], (80, 80)), (80, 80))
    kept = torch.cat([small["semseg"][0].flatten(), torch.zeros(64, dtype=torch.uint8)])
    flat = {"image": torch.zeros(80 * 80 * 3 + 64, dtype=torch.uint8), "semseg": kept}
    placement = place(np.array([0]), np.array([[80, 80]]), np.array([[120, 160]]), [View(False, 20.0, 1.0)], (64, 64))
    found = resample_torch(flat, {"semseg": "classes"}, placement, (64, 64))["semseg"][0].numpy()
    assert (found == direct["semseg"]).mean() > 0.98
    assert (found != 255).mean() == pytest.approx((direct["semseg"] != 255).mean(), abs=0.01)


def test_without_a_compiler_a_warning_says_so_and_torch_computes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    with caplog.at_level(logging.WARNING):
        assert native.kernels.__wrapped__() is None
    assert "resamples in torch" in caplog.text


def test_every_kind_of_map_has_its_channels() -> None:
    assert CHANNELS == {"image": 3, "classes": 1, "binary": 1, "normals": 3, "depth": 1}


def test_no_flip_no_rotation_no_scale_leaves_everything_exactly(kernel: Any) -> None:
    sample = coded_sample()
    found = look(sample, kernel=kernel)
    for task in LABELS:
        np.testing.assert_array_equal(found[task], sample[task])
    np.testing.assert_allclose(grey(found["image"]), sample["image"], atol=1e-4)
    ignored = ~sample["normals"].any(-1)
    np.testing.assert_array_equal((found["normals"] == 255).all(-1), ignored)
    assert angles_deg(found["normals"], sample["normals"])[~ignored].max() < 0.4


def test_mirroring_permutes_pixels_and_negates_x(kernel: Any) -> None:
    sample = coded_sample()
    plain, once = look(sample, kernel=kernel), look(sample, View(mirrored=True), kernel=kernel)
    for task in ("image", *LABELS):
        np.testing.assert_array_equal(once[task], plain[task][:, ::-1])
    negated = np.where(plain["normals"] == 255, 255, plain["normals"] * np.float32([-1, 1, 1]))
    np.testing.assert_array_equal(once["normals"], negated[:, ::-1])


@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_stay_together(seed: int) -> None:
    """Wherever a label is constant around a pixel, the image there still holds that label's code."""
    found = look(coded_sample(height=120, width=168, block=24, seed=seed), views(1, seed)[0], (128, 128))
    image = grey(found["image"])
    for channel, (task, code) in enumerate(zip(LABELS, (12, 40, 255), strict=True)):
        label = np.pad(found[task][6:-6, 6:-6], 6, constant_values=255)
        calm = (cv2.erode(label, np.ones((11, 11))) == cv2.dilate(label, np.ones((11, 11)))) & (label != 255)
        assert calm.mean() > 0.02
        np.testing.assert_allclose(image[..., channel][calm], label[calm] * float(code), atol=0.1)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_quarter_turns_permute_pixels_and_turn_vectors(angle: float, turns: int, kernel: Any) -> None:
    sample = coded_sample(height=48, width=48)
    plain, turned = look(sample, kernel=kernel), look(sample, View(False, angle, 1.0), kernel=kernel)
    for key in ("image", *LABELS):
        np.testing.assert_array_equal(turned[key], np.rot90(plain[key], turns))
    x, y, z = np.moveaxis(np.rot90(plain["normals"], turns), 2, 0)
    expected = np.stack({90: (y, -x, z), 180: (-x, -y, z), -90: (-y, x, z)}[angle], axis=2)
    expected[(np.rot90(plain["normals"], turns) == 255).all(-1)] = 255
    np.testing.assert_allclose(turned["normals"], expected, atol=1e-6)


@pytest.mark.parametrize("angle", [-90, -15, 7.5, 20])
def test_a_centred_sphere_keeps_its_normals_under_rotation(angle: float) -> None:
    normals = sphere((101, 101), (50, 50), 45)
    turned = look(scene(normals), View(False, angle, 1.0))["normals"]
    inner = sphere((101, 101), (50, 50), 40).any(-1)
    assert angles_deg(turned, normals)[inner].max() < 1.0
    assert angles_deg(turned, normals)[inner].mean() < 0.2


@pytest.mark.parametrize(("angle", "zoom"), [(15, 1.0), (-20, 1.25), (12, 0.75), (0, 1.1)])
def test_an_off_centre_sphere_moves_with_its_normals(angle: float, zoom: float) -> None:
    """Counter-clockwise as seen: the point right of the centre goes up, where y is smaller."""
    height, width, centre, radius = 120, 161, (110.0, 52.0), 24.0
    turned = look(scene(sphere((height, width), centre, radius)), View(False, angle, zoom))["normals"]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    dx, dy = centre[0] - (width - 1) / 2, centre[1] - (height - 1) / 2
    moved = ((width - 1) / 2 + zoom * (cos * dx + sin * dy), (height - 1) / 2 + zoom * (-sin * dx + cos * dy))
    expected = sphere((height, width), moved, radius * zoom)
    inner = sphere((height, width), moved, radius * zoom * 0.85).any(-1)
    assert angles_deg(turned, expected)[inner].max() < 1.5
    counts = turned[..., 0] != 255
    assert (counts != expected.any(-1)).sum() < 0.1 * expected.any(-1).sum()


def test_pixels_from_outside_of_the_image_are_ignored_in_every_task(kernel: Any) -> None:
    sample = coded_sample()
    sample["normals"][:] = (0, 0.6, 0.8)
    sample["image"][:] = 200
    shrunk = look(sample, View(False, 0.0, 0.77), kernel=kernel)
    y, x = np.mgrid[:60, :84]
    source_x, source_y = 41.5 + (x - 41.5) / 0.77, 29.5 + (y - 29.5) / 0.77
    inside = (source_x >= -0.5) & (source_x < 83.5) & (source_y >= -0.5) & (source_y < 59.5)
    for task in LABELS:
        np.testing.assert_array_equal(shrunk[task] != 255, inside)
    assert (shrunk["normals"][~inside] == 255).all()
    np.testing.assert_allclose(shrunk["normals"][inside], np.broadcast_to([0, 0.6, 0.8], (inside.sum(), 3)), atol=4e-3)
    np.testing.assert_allclose(grey(shrunk["image"]), np.where(inside, 200, 0)[..., None].repeat(3, 2), atol=1e-4)


def test_cubic_overshoot_clips_instead_of_wrapping(kernel: Any) -> None:
    board = (np.random.default_rng(0).integers(0, 2, (12, 12)) * 255).astype(np.uint8).repeat(5, 0).repeat(5, 1)
    sample, view = {"id": "board", "image": np.repeat(board[..., None], 3, axis=2)}, View(False, 13.0, 1.2)
    turned = grey(look(sample, view, (97, 97), kernel)["image"])
    inside, *_ = inside_of((60, 60), *source_of((60, 60), view, (97, 97)))
    exact = np.where(inside[..., None], cubic(sample["image"], *source_of((60, 60), view, (97, 97))), 0)
    assert exact.min() < -8
    assert exact.max() > 263
    np.testing.assert_allclose(turned, np.clip(exact, 0, 255), atol=1.5)


def test_normals_have_unit_length_or_are_ignored_in_all_channels(kernel: Any) -> None:
    for seed in range(5):
        normals = look(coded_sample(seed=seed), views(1, seed)[0], (50, 50), kernel)["normals"]
        ignored = (normals == 255).any(-1)
        np.testing.assert_array_equal((normals == 255).all(-1), ignored)
        assert 0.02 < ignored.mean() < 0.9
        assert (np.abs(np.linalg.norm(normals, axis=2) - 1)[~ignored] < 1e-5).all()


@pytest.mark.parametrize("seed", range(4))
def test_no_normal_turns_over_beside_an_ignored_region(seed: int, kernel: Any) -> None:
    """A flat wall with holes stays that wall: cubic weights beside a hole neither flip its normals nor bring in new ones."""
    rng = np.random.default_rng(seed)
    wall, holes = np.float32([0.36, -0.48, 0.8]), rng.random((50, 50)) < 0.5
    sample = scene(np.where(holes[..., None], 0, wall).astype(np.float32)) | {"semseg": holes.astype(np.uint8)}
    resized = look(sample, size=(73, 73), kernel=kernel)
    counts = resized["normals"][..., 0] != 255
    np.testing.assert_allclose(resized["normals"][counts], np.broadcast_to(wall, (int(counts.sum()), 3)), atol=0.02)
    assert (resized["semseg"][counts] == 0).all()


def test_a_normal_counts_only_above_the_least_agreement_in_both_kernels(kernel: Any) -> None:
    """At its own place an interpolated vector is 16 times the pixel's: the products are 16 * 16 = 256 and 16 * 17 = 272."""
    vectors = np.tile(np.int8([[4, 0, 0], [0, -4, 0], [4, 1, 0], [0, 0, 0]]), (4, 1))
    flat = {"image": torch.zeros(16 * 3 + 64, dtype=torch.uint8)}
    flat["normals"] = torch.from_numpy(np.concatenate([vectors.ravel(), np.zeros(64, np.int8)]))
    size = np.array([[4, 4]])
    found = kernel(flat, {"normals": "normals"}, place(np.array([0]), size, size, [PLAIN], (4, 4)), (4, 4))["normals"][0]
    assert [bool((found[:, 0, column] != 255).all()) for column in range(4)] == [False, False, True, False]
    assert [bool((found[:, 0, column] == 255).all()) for column in range(4)] == [True, True, False, True]


def test_images_are_normalised_with_imagenet_statistics(kernel: Any) -> None:
    sample = {"id": "flat", "image": np.full((10, 14, 3), (255, 0, 51), np.uint8)}
    image = look(sample, size=(8, 8), kernel=kernel)["image"]
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(image, np.broadcast_to(expected, (8, 8, 3)), rtol=1e-5, atol=1e-6)
