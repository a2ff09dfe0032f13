"""Edge labels and the edge measure: against scikit-image, networkx, and cases worked by hand."""

from pathlib import Path

import cv2
import networkx
import numpy as np
import pytest
import scipy.io
import torch
from pascal_tree import SPLITS, write_tree
from skimage.morphology import thin as thin_of_skimage

from bench.data.pascal_context import PascalContext
from bench.measure.edge_maps import across, suppress, thin
from bench.measure.edge_matching import counts, partners, within_reach
from bench.measure.edge_scores import THRESHOLDS, average_precision, best_f, edge_scores, resampled_odsf
from bench.measure.edges import EdgesMetric
from bench.measure.metrics import METRICS, metric_of
from bench.tasks import DATA_SETS, IGNORE


def blobs(seed: int, size: int = 40) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((size, size)).astype(np.float32), (0, 0), 2)
    return noise > np.quantile(noise, 0.6)


def logit(probability: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(probability).float().logit(eps=1e-6)[None, None]


def line(size: int = 64, column: int = 30, width: float = 1.5) -> np.ndarray:
    """A vertical ridge of height 1."""
    return np.tile(np.exp(-(((np.arange(size) - column) / width) ** 2)), (size, 1)).astype(np.float32)


def test_edge_labels_are_the_thinned_laplacian_of_the_label_map(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT")
    blocks = np.kron(np.random.default_rng(0).integers(1, 460, (6, 6)), np.ones((5, 7), int))[:30, :41].astype(np.uint16)
    scipy.io.savemat(root / f"pascal-context/trainval/{SPLITS['train'][0]}.mat", {"LabelMap": blocks})
    edges = PascalContext(root, "train", ["edges"])[0]["edges"]
    padded = np.pad(blocks.astype(int), 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * blocks.astype(int)
    assert (edges == thin_of_skimage(laplacian != 0)).all()
    assert edges.dtype == np.uint8
    assert 0.05 < edges.mean() < 0.35


@pytest.mark.parametrize("seed", range(4))
def test_thinning_equals_scikit_image(seed: int):
    masks = [blobs(seed), np.random.default_rng(seed).random((30, 33)) < 0.2 + 0.2 * seed, np.ones((9, 12), bool), np.zeros((5, 5), bool)]
    for mask in masks:
        assert (thin(mask) == thin_of_skimage(mask)).all()


def test_suppression_keeps_the_crest_of_a_ridge_in_any_direction():
    rows, columns = np.indices((96, 96))
    for angle in np.linspace(0, np.pi, 7, endpoint=False):
        distance = (columns - 48) * np.cos(angle) + (rows - 48) * np.sin(angle)
        kept = suppress(np.exp(-((distance / 2.5) ** 2)).astype(np.float32))[10:-10, 10:-10] > 0.3
        assert np.abs(distance[10:-10, 10:-10][kept]).max() < 1.3
        assert kept.sum() >= 70


def smoothed(image: np.ndarray, radius: int) -> np.ndarray:
    """Convolve rows, then columns, with a triangle; borders are mirrored."""
    kernel = np.minimum(np.arange(1, 2 * radius + 2), np.arange(1, 2 * radius + 2)[::-1]) / (radius + 1) ** 2
    for axis in (0, 1):
        padded = np.pad(image, [(radius, radius) if axis == k else (0, 0) for k in (0, 1)], mode="symmetric")
        image = np.apply_along_axis(np.convolve, axis, padded, kernel, mode="valid")
    return image


def test_the_angle_across_an_edge_comes_from_second_derivatives_of_a_copy_smoothed_over_four_pixels():
    image = cv2.GaussianBlur(np.random.default_rng(0).random((40, 40)).astype(np.float32), (0, 0), 3)
    dy, dx = np.gradient(smoothed(image.astype(float), 4))
    (dxy, dxx), dyy = np.gradient(dx), np.gradient(dy)[0]
    expected = np.arctan(dyy * np.sign(-dxy) / (dxx + 1e-5)) % np.pi
    difference = np.abs(across(image) - expected)
    clear = np.minimum(np.abs(dxx + 1e-5), np.abs(dxy)) > 1e-4  # else rounding turns the angle
    assert clear.mean() > 0.5
    assert np.minimum(difference, np.pi - difference)[clear].max() < 0.02


def test_suppression_smoothes_by_one_pixel_tolerates_one_percent_and_fades_in_at_the_border():
    spike = np.zeros((20, 20), np.float32)
    spike[10, 10] = 1
    assert suppress(spike).max() == 0.25  # (1, 2, 1) / 4 along rows and columns
    flat, fade = suppress(np.full((13, 14), 0.5, np.float32)), np.array([0, 0.2, 0.4, 0.6, 0.8, 1, 1])
    np.testing.assert_allclose(flat, 0.5 * np.outer([*fade, *fade[-2::-1]], [*fade, *fade[::-1]]), rtol=1e-6)
    for growth, kept in ((1.008, True), (1.012, False)):  # pixels beside a neighbour that is larger by so much
        slope = suppress(np.tile(0.4 * growth ** np.arange(20.0, dtype=np.float32), (20, 1)))
        assert (slope[6:-6, 6:-6] > 0).all() == kept
        assert (slope[6:-6, 6:-6] > 0).any() == kept


@pytest.mark.parametrize("values", [(0.7, 0.35, 0.59, 0.995), (0.2, 0.01, 0.99, 0.5), (0.205, 0.405)])
def test_counts_at_every_threshold_are_those_of_that_threshold_alone(values: tuple[float, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.measure.edge_matching.suppress", lambda probability: probability)
    rng, label = np.random.default_rng(1), thin(blobs(3)).astype(np.uint8)
    crests = np.where(rng.random(label.shape) < 0.3, rng.choice(np.float32([*values]), label.shape), np.float32(0))
    matched, predicted, _ = counts(crests, label, 0.03)
    for i, threshold in enumerate(THRESHOLDS):
        lines = thin(crests >= np.float32(threshold))
        graph = within_reach(lines, label == 1, 0.03 * 40 * 2**0.5)
        assert (matched[i], predicted[i]) == (partners(graph, np.arange(lines.sum())), lines.sum()), threshold


@pytest.mark.parametrize("seed", range(5))
def test_the_number_of_partners_equals_networkx(seed: int):
    rng = np.random.default_rng(seed)
    candidates, truth = rng.random((24, 30)) < 0.2, rng.random((24, 30)) < 0.15
    reach = (1.0, 1.5, 2.0, 2.3, 3.7)[seed]
    graph, left, right = networkx.Graph(), np.argwhere(candidates), np.argwhere(truth)
    graph.add_nodes_from(("p", i) for i in range(len(left)))
    graph.add_edges_from((("p", i), ("t", j)) for i, p in enumerate(left) for j, t in enumerate(right) if np.hypot(*(p - t)) <= reach)
    best = networkx.bipartite.hopcroft_karp_matching(graph, [("p", i) for i in range(len(left))])
    ours = within_reach(candidates, truth, reach)
    assert ours.nnz == graph.number_of_edges()
    assert partners(ours, np.arange(len(left))) == len(best) // 2


def test_partners_are_one_to_one():
    truth, candidates = np.zeros((5, 9), bool), np.zeros((5, 9), bool)
    truth[2, 4] = True
    candidates[2, 2:7] = True  # five within reach of one
    graph = within_reach(candidates, truth, 2.0)
    assert graph.nnz == 5
    assert partners(graph, np.arange(5)) == 1
    assert partners(graph, np.array([], int)) == 0


def test_a_distance_of_exactly_the_reach_counts_and_no_more():
    truth, candidates = np.zeros((3, 20), bool), np.zeros((3, 20), bool)
    truth[1, 10], candidates[1, 7] = True, True
    assert [partners(within_reach(candidates, truth, reach), np.array([0])) for reach in (2.99, 3.0)] == [0, 1]


def test_a_prediction_on_the_label_is_perfect_and_one_beyond_reach_is_nothing():
    label = np.zeros((64, 64), np.uint8)
    label[:, 30] = 1
    reach = 0.0075 * 64 * 2**0.5  # 0.68 pixels
    matched, predicted, labelled = counts(line(), label, 0.0075)
    middle = THRESHOLDS.index(0.5)
    assert labelled == 64
    assert matched[middle] == predicted[middle] >= 55  # the border fades
    off = counts(line(column=32), label, 0.0075)
    assert off[0].max() == 0 < off[1][middle]
    assert counts(line(column=32), label, 2 * 0.0075 / reach * 1.01)[0][middle] == off[1][middle]


def test_thick_labels_count_as_their_thinned_lines():
    label = np.zeros((64, 64), np.uint8)
    label[:, 29:32] = 1
    matched, predicted, labelled = counts(line(), label, 0.0075)
    assert labelled == thin(label == 1).sum() < 70
    assert matched[50] == predicted[50] > 50


def test_scores_are_by_hand():
    # One image, three thresholds' worth of counts: precision 1/2, 1, 1; recall 1, 1/2, 0.
    rows = {key: np.zeros((1, 99), np.int32) for key in ("matched", "predicted")}
    rows["matched"][0, :50], rows["predicted"][0, :50] = 10, 20
    rows["matched"][0, 50:], rows["predicted"][0, 50:] = 5, 5
    rows |= {"labelled": np.array([10], np.int32), "valid": np.array([100], np.int32)}
    scores = METRICS["edges"]().scores(rows)
    ends, middle = 2 * 0.5 / 1.5, 2 * 0.75 * 0.75 / 1.5  # between the two thresholds both are 3/4
    assert ends < middle
    assert scores["odsf"] == pytest.approx(100 * middle, abs=0.01)
    assert scores["threshold"] == pytest.approx(0.505, abs=1e-3)
    assert scores["oisf"] == pytest.approx(100 * ends)
    assert scores["ap"] == pytest.approx(np.linspace(1, 0.5, 51).sum(), rel=1e-9)  # recalls 0.5 .. 1, percent


def test_each_image_has_its_own_best_threshold_in_ois_and_the_data_set_one_in_ods():
    rows = {key: np.zeros((2, 99), np.int32) for key in ("matched", "predicted")}
    rows["matched"][0, :30] = rows["predicted"][0, :30] = 10  # perfect below 0.3, then nothing
    rows["matched"][1, :], rows["predicted"][1, :] = 10, 40
    rows["predicted"][1, 60:] = 10  # perfect above 0.6
    rows |= {"labelled": np.array([10, 10], np.int32), "valid": np.array([9, 9], np.int32)}
    scores = METRICS["edges"]().scores(rows)
    assert scores["oisf"] == pytest.approx(100)
    assert scores["odsf"] == pytest.approx(100 * max(2 * 0.4 * 1 / 1.4, 2 * 1 * 0.5 / 1.5))
    drawn = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    assert resampled_odsf(rows, drawn) == pytest.approx([scores["odsf"], 100, 100])


def test_a_curve_without_recall_has_no_average_precision():
    assert average_precision(np.zeros(99), np.zeros(99)) == 0
    assert best_f(np.zeros(99), np.zeros(99))[0] == 0


def test_a_single_recall_encloses_no_area_as_in_the_berkeley_benchmark():
    def scores() -> dict:
        return edge_scores(rows | {"labelled": np.array([10], np.int32), "valid": np.array([100], np.int32)})

    rows = {key: np.full((1, 99), 8, np.int32) for key in ("matched", "predicted")}  # a binary map: precision 1, recall 0.8 everywhere
    assert (scores()["ap"], scores()["odsf"]) == (0, pytest.approx(100 * 2 * 0.8 / 1.8))
    rows["matched"][0, 98] = rows["predicted"][0, 98] = 4  # two: precision 1 at the recalls 0.4, 0.41, .., 0.8
    assert scores()["ap"] == pytest.approx(41)
    rows["predicted"][0, :50] = 16  # of thresholds with the same recall the more precise one counts
    assert scores()["ap"] == pytest.approx(41)


def test_ignored_pixels_count_neither_as_label_nor_as_prediction():
    label = np.zeros((64, 64), np.uint8)
    label[:, 30], label[:, 40:] = 1, IGNORE
    plain = line()
    noisy = plain.copy()
    noisy[:, 40:] = np.random.default_rng(0).random((64, 24))
    assert all(np.array_equal(a, b) for a, b in zip(counts(plain, label, 0.0075), counts(noisy, label, 0.0075), strict=True))
    beside, label[:, 30], label[:, 39] = line(column=39), 0, 1  # so near that smoothing reaches over
    noisy = np.where(label == IGNORE, noisy, beside)
    assert all(np.array_equal(a, b) for a, b in zip(counts(beside, label, 0.0075), counts(noisy, label, 0.0075), strict=True))
    everything = METRICS["edges"]()
    everything.update(logit(plain), torch.full((1, 64, 64), IGNORE, dtype=torch.uint8))
    assert everything.compute() == dict.fromkeys(("odsf", "oisf", "ap", "threshold"))


def test_rows_of_an_image_do_not_depend_on_its_batch_and_give_the_scores_back():
    labels = torch.stack([torch.from_numpy(thin(blobs(seed, 48)).astype(np.uint8)) for seed in range(3)])
    logits = torch.cat([logit(cv2.GaussianBlur(label.numpy().astype(np.float32), (0, 0), 1.5)) for label in labels])
    whole, single = METRICS["edges"](), METRICS["edges"]()
    whole.update(logits, labels)
    for i in range(3):
        single.update(logits[i : i + 1], labels[i : i + 1])
    for key, value in whole.per_image().items():
        assert value.dtype == np.int32
        np.testing.assert_array_equal(single.per_image()[key], value)
    assert METRICS["edges"]().scores(whole.per_image()) == whole.compute()
    assert whole.compute()["odsf"] > 50


def test_processes_change_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.measure.edges.POOL_PIXELS", 1)
    monkeypatch.setattr("bench.measure.edges.usable_cores", lambda: 2)
    label = torch.from_numpy(thin(blobs(3, 48)).astype(np.uint8))[None].repeat(2, 1, 1)
    logits = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    many, one = METRICS["edges"](), METRICS["edges"]()
    many.update(logits, label)
    monkeypatch.setattr("bench.measure.edges.POOL_PIXELS", 10**9)
    one.update(logits, label)
    assert many.compute() == one.compute()


def test_the_tolerance_follows_the_data_set():
    found = [metric_of(tasks["edges"]) for tasks in DATA_SETS.values()]
    assert all(isinstance(metric, EdgesMetric) for metric in found)
    assert [metric.tolerance for metric in found] == [0.0075, 0.011]
