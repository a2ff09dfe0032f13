"""Streaming metrics against the golden scores of the release, scalar references and hand-made cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.measure.metrics import METRICS, SALIENCY_THRESHOLDS, angle_deg
from bench.tasks import IGNORE, TASK_NAMES, TASKS

GOLDEN_NAMES = {"semseg": "semseg", "human_parts": "human_parts", "saliency": "sal", "normals": "normals"}


def golden_metric(golden, task, batch_size=3):
    """Feed both golden batches to a task's metric."""
    name, metric = GOLDEN_NAMES[task], METRICS[task]()
    for k in (0, 1):
        logits, label = torch.from_numpy(golden[f"logits{k}/{name}"]), torch.from_numpy(golden[f"gt{k}/{name}"])
        label = label.float() if task == "normals" else label[:, 0].to(torch.uint8)
        for part in zip(logits.split(batch_size), label.split(batch_size), strict=True):
            metric.update(*part)
    return metric


def random_images(task, *, seed, images=5, size=7, ignored=0.2):
    """Return logits (images, C, size, size) and labels with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    channels = TASKS[task].channels
    logits = 2 * torch.randn(images, channels, size, size, generator=generator)
    label = torch.randint(0, max(channels, 2), (images, size, size), generator=generator, dtype=torch.uint8)
    mask = torch.rand(images, size, size, generator=generator) < ignored
    if task == "normals":
        label = torch.nn.functional.normalize(torch.randn(logits.shape, generator=generator), dim=1)
        mask = mask[:, None].expand_as(label)
    return logits, label.masked_fill(mask, IGNORE)


def scored(task, logits, label):
    metric = METRICS[task]()
    metric.update(logits, label)
    return metric.compute()


def saliency_case(foreground, label):
    """Return one image of one row, its logits far on the given side."""
    return torch.where(torch.tensor(foreground).bool(), 9.0, -9.0).reshape(1, 1, 1, -1), torch.tensor(label, dtype=torch.uint8)[None, None]


@pytest.mark.golden("metrics*.npz")
@pytest.mark.parametrize("task", ["semseg", "human_parts"])
def test_segmentation_equals_the_release(golden_file, task):
    golden = np.load(golden_file)
    scores = golden_metric(golden, task).compute()
    assert scores["miou"] == pytest.approx(100 * float(golden[f"res/{task}/mIoU"]), rel=1e-5)
    per_class = [scores[f"iou/{k}"] or 0.0 for k in range(TASKS[task].channels)]  # an absent class: None here, 0 there
    np.testing.assert_allclose(per_class, 100 * golden[f"res/{task}/jaccards_all_categs"], rtol=1e-5)


@pytest.mark.golden("metrics*.npz")
def test_saliency_equals_the_release_at_every_threshold(golden_file):
    # "Beta maxF" is not compared: the release applies the sigmoid twice on the way to it.
    golden = np.load(golden_file)
    metric = golden_metric(golden, "saliency")
    scores, rows = metric.compute(), metric.per_image()
    assert scores["miou"] == pytest.approx(100 * float(golden["res/sal/mIoU"]), rel=1e-5)
    assert scores["max_f"] == pytest.approx(100 * float(golden["res/sal/maxF"]), rel=1e-5)
    mious = golden["res/sal_nobeta/mIoUs"]
    assert scores["threshold"] == SALIENCY_THRESHOLDS[mious.argmax()]
    assert scores["miou_at_0.5"] == pytest.approx(100 * float(mious[SALIENCY_THRESHOLDS.index(0.5)]), rel=1e-5)
    union = rows["predicted"] + rows["labelled"][:, None] - rows["intersection"]
    jaccards = np.where(union == 0, 1, rows["intersection"] / np.maximum(union, 1))
    np.testing.assert_allclose(jaccards, golden["res/sal_nobeta/all_jaccards"], rtol=1e-5)
    precision = (rows["intersection"] / np.maximum(rows["predicted"], 1)).mean(0)
    recall = (rows["intersection"] / np.maximum(rows["labelled"][:, None], 1)).mean(0)
    np.testing.assert_allclose(2 * precision * recall / (precision + recall), golden["res/sal_nobeta/F"], rtol=1e-5)


@pytest.mark.golden("metrics*.npz")
def test_saliency_scores_a_batch_of_one_as_an_image(golden_file):
    # The release scores it as H images of one row (golden sal_batch1_quirk): its score then depends on the batch size.
    golden = np.load(golden_file)
    single = golden_metric(golden, "saliency", batch_size=1)
    assert single.compute()["miou"] == pytest.approx(100 * float(golden["res/sal/mIoU"]), rel=1e-5)
    assert len(single.per_image()["valid"]) == 6


@pytest.mark.golden("metrics*.npz")
def test_normals_equal_the_release(golden_file):
    golden = np.load(golden_file)
    scores = golden_metric(golden, "normals").compute()
    for key in ("res/normals/mean", "res/normals/mean_v2", "res/normals_v1/mean"):
        assert scores["mean_deg"] == pytest.approx(float(golden[key]), rel=1e-5)
    for limit in ("11.25", "22.5", "30"):
        assert scores[f"within_{limit}"] == pytest.approx(float(golden[f"res/normals_v1/{limit}"]), rel=1e-5)


@pytest.mark.golden("metrics*.npz")
def test_rmse_of_normals_is_a_root_mean_square_and_the_median_a_median(golden_file):
    # The release prints the mean error under the name rmse.
    golden = np.load(golden_file)
    scores, angles = golden_metric(golden, "normals").compute(), []
    for k in (0, 1):
        logits, label = golden[f"logits{k}/normals"].astype(np.float64), golden[f"gt{k}/normals"]
        cosine = (logits / np.linalg.norm(logits, axis=1, keepdims=True) * label).sum(1)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1)))[(label != IGNORE).all(1)])
    angles = np.concatenate(angles)
    assert float(golden["res/normals/rmse"]) == float(golden["res/normals/mean"])
    assert scores["rmse_deg"] == pytest.approx(np.sqrt((angles**2).mean()), rel=1e-5)
    assert scores["median_deg"] == pytest.approx(np.median(angles), abs=0.006)


@settings(deadline=None, max_examples=25)
@given(task=st.sampled_from(TASK_NAMES), seed=st.integers(0, 10_000), data=st.data())
def test_streaming_over_batches_of_any_size_equals_one_batch(task, seed, data):
    logits, label = random_images(task, seed=seed)
    whole, parts, start = METRICS[task](), METRICS[task](), 0
    whole.update(logits, label)
    while start < len(logits):
        size = data.draw(st.integers(1, len(logits) - start))
        parts.update(logits[start : start + size], label[start : start + size])
        start += size
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-12)
    for key, value in whole.per_image().items():
        np.testing.assert_allclose(parts.per_image()[key], value, rtol=1e-12)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_per_image_sums_recompute_the_scores_exactly(task):
    logits, label = random_images(task, seed=1)
    metric = METRICS[task]()
    metric.update(logits[:2], label[:2])
    metric.update(logits[2:], label[2:])
    rows, scores = metric.per_image(), metric.compute()
    scores.pop("median_deg", None)  # the one score that needs the histogram over all images
    assert {len(value) for value in rows.values()} == {5}
    assert METRICS[task]().scores(rows) == scores


@pytest.mark.parametrize("task", TASK_NAMES)
def test_per_image_sums_of_some_images_score_those_images(task):
    logits, label = random_images(task, seed=2)
    metric = METRICS[task]()
    metric.update(logits, label)
    chosen = {key: value[[3, 1]] for key, value in metric.per_image().items()}
    expected = scored(task, logits[[3, 1]], label[[3, 1]])
    expected.pop("median_deg", None)
    assert metric.scores(chosen) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_per_image_counts_are_int32(task):
    metric = METRICS[task]()
    metric.update(*random_images(task, seed=0))
    dtypes = {key: value.dtype for key, value in metric.per_image().items() if not key.startswith("angle")}
    assert set(dtypes.values()) == {np.dtype(np.int32)}


@settings(deadline=None, max_examples=25)
@given(task=st.sampled_from(TASK_NAMES), seed=st.integers(0, 10_000))
def test_ignored_pixels_do_not_count(task, seed):
    logits, label = random_images(task, seed=seed, ignored=0.5)
    ignored = (label == IGNORE).all(1, keepdim=True) if task == "normals" else (label == IGNORE)[:, None]
    assert scored(task, torch.where(ignored, 50.0, logits), label) == scored(task, logits, label)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_scores_are_none_and_not_nan_when_nothing_is_labelled(task):
    logits, label = random_images(task, seed=0)
    full = scored(task, logits, label)
    empty = scored(task, logits, torch.full_like(label, IGNORE))
    assert empty == dict.fromkeys(full)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_headline_metric_is_among_the_scores(task):
    assert TASKS[task].metric in scored(task, *random_images(task, seed=0))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_bfloat16_logits_score_as_their_float32_values(task):
    logits, label = random_images(task, seed=0)
    assert scored(task, logits.bfloat16(), label) == scored(task, logits.bfloat16().float(), label)


def test_segmentation_is_by_hand():
    # label 0 0 1 1 255, prediction 0 1 1 2 0: IoU of 0 is 1/2, of 1 is 1/3, of 2 is 0/1; classes 3..6 appear nowhere.
    label = torch.tensor([[[0, 0, 1, 1, IGNORE]]], dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 2, 0]]]), 7).permute(0, 3, 1, 2).float()
    metric = METRICS["human_parts"]()
    metric.update(logits, label)
    rows, scores = metric.per_image(), metric.compute()
    counted = {"intersection": [1, 1, 0], "predicted": [1, 2, 1], "labelled": [2, 2, 0]}
    assert {key: value.tolist() for key, value in rows.items()} == {key: [[*value, 0, 0, 0, 0]] for key, value in counted.items()}
    assert scores["miou"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 7)
    assert scores["miou_present"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(50)
    assert [scores[f"iou/{k}"] for k in range(7)] == [pytest.approx(50), pytest.approx(100 / 3), 0.0, None, None, None, None]


def test_segmentation_pools_pixels_and_does_not_average_images():
    # Image 1: one pixel of class 0, right; image 2: three pixels of class 0, all wrong. Pooled IoU of class 0: 1/4.
    label = torch.tensor([[[0, IGNORE, IGNORE]], [[0, 0, 0]]], dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 0, 0]], [[1, 1, 1]]]), 7).permute(0, 3, 1, 2).float()
    assert scored("human_parts", logits, label)["iou/0"] == pytest.approx(25)


@pytest.mark.parametrize(
    ("foreground", "label", "miou", "max_f"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 50, 100 * 2 / 3),  # precision 1/2, recall 1
        ([0, 0], [0, 0], 100, 0),  # nothing there, nothing found: IoU 1
        ([1, 0], [0, 0], 0, 0),
        ([0, 0], [1, 0], 0, 0),
        ([1, 1, 1], [1, 1, IGNORE], 100, 100),
        ([1, 0], [IGNORE, 0], 100, 0),  # the only foreground pixel does not count
    ],
)
def test_saliency_of_one_image_is_by_hand(foreground, label, miou, max_f):
    scores = scored("saliency", *saliency_case(foreground, label))
    assert scores["miou"] == scores["miou_at_0.5"] == pytest.approx(miou)
    assert scores["max_f"] == pytest.approx(max_f)


def test_saliency_threshold_met_exactly_is_not_exceeded():
    logits, label = torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 1]]], dtype=torch.uint8)  # sigmoid exactly 0.5
    scores = scored("saliency", logits, label)
    assert scores["miou_at_0.5"] == 0
    assert (scores["miou"], scores["threshold"]) == (100, 0.2)


def test_saliency_averages_images_then_takes_the_best_threshold():
    # Probability 0.3 is right in image 1 and wrong in image 2; 0.7 in image 3 is right.
    logits = torch.logit(torch.tensor([0.32, 0.32, 0.72])).reshape(3, 1, 1, 1)
    scores = scored("saliency", logits, torch.tensor([1, 0, 1], dtype=torch.uint8).reshape(3, 1, 1))
    assert scores["miou"] == pytest.approx(100 * 2 / 3)
    assert scores["miou_at_0.5"] == pytest.approx(100 * 2 / 3)


def test_saliencys_largest_f_has_a_threshold_of_its_own():
    # At the low thresholds image 1 is half right (IoU 1/3) and the empty image 2 stays empty (IoU 1); at the high ones image 1 is right
    # and image 2 is not: the IoU is best at the low ones (2/3), the F of mean precision and recall at the high ones (1/2, there 1/4).
    low = np.arange(15) < 7
    rows = {"intersection": np.stack([np.where(low, 5, 10), np.zeros(15, int)]), "predicted": np.stack([np.full(15, 10), 1 - low])}
    scores = METRICS["saliency"]().scores(rows | {"labelled": np.array([10, 0]), "valid": np.array([20, 20])})
    assert (scores["miou"], scores["threshold"], scores["miou_at_0.5"]) == (pytest.approx(100 * 2 / 3), 0.2, pytest.approx(100 * 2 / 3))
    assert scores["max_f"] == pytest.approx(50)


def test_saliency_image_without_label_takes_no_part_in_the_mean():
    metric = METRICS["saliency"]()
    metric.update(*saliency_case([1, 1], [1, 0]))
    metric.update(*saliency_case([1, 1], [IGNORE, IGNORE]))
    assert metric.compute()["miou"] == pytest.approx(50)


def test_normals_are_by_hand():
    # Errors of 0, 20, 60 and 180 degrees against the viewing axis; lengths other than 1 must not matter.
    angles = torch.tensor([0.0, 20.0, 60.0, 180.0])
    logits = torch.stack([angles.deg2rad().sin(), torch.zeros(4), angles.deg2rad().cos()])[None, :, None] * torch.tensor([1, 5, 0.1, 3])
    label = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 4)
    scores = scored("normals", logits, label)
    assert scores["mean_deg"] == pytest.approx(65, rel=1e-6)
    assert scores["median_deg"] == pytest.approx(40, abs=0.006)
    assert scores["rmse_deg"] == pytest.approx(math.sqrt((400 + 3600 + 32400) / 4), rel=1e-6)
    assert [scores[f"within_{limit}"] for limit in ("11.25", "22.5", "30")] == [25, 50, 50]


def test_an_angle_that_meets_a_limit_exactly_is_not_within_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.measure.metrics.angle_deg", lambda logits, label: torch.tensor([[[11.25, 22.5, 30.0, 29.0]]]).double())
    scores = scored("normals", torch.ones(1, 3, 1, 4), torch.full((1, 3, 1, 4), 3**-0.5))
    assert [scores[f"within_{limit}"] for limit in ("11.25", "22.5", "30")] == [0, 25, 75]


@pytest.mark.parametrize("middle", [20.001, 20.009, 179.999, 180.0])
def test_the_median_of_angles_is_right_to_0_005_degrees(middle: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.measure.metrics.angle_deg", lambda logits, label: torch.tensor([[[180.0, 3.0, middle]]]).double())
    scores = scored("normals", torch.ones(1, 3, 1, 3), torch.full((1, 3, 1, 3), 3**-0.5))
    assert scores["median_deg"] == pytest.approx(middle, abs=0.005 + 1e-5)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 0.1, 45.0, 90.0, 179.9, 179.999, 180.0])
def test_angles_keep_their_digits_near_0_and_180(degrees):
    radians = math.radians(degrees)
    first = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    second = torch.tensor([math.cos(radians), math.sin(radians), 0.0], dtype=torch.float32).reshape(1, 3, 1, 1)
    exact, length = torch.tensor([math.cos(radians), math.sin(radians), 0.0], dtype=torch.float64).reshape(1, 3, 1, 1), 3.0
    assert angle_deg(first, second).item() == pytest.approx(degrees, rel=1e-5, abs=1e-5)
    assert angle_deg(first, second).dtype == torch.float64
    assert angle_deg(first.double(), length * exact).item() == pytest.approx(degrees, rel=1e-12, abs=1e-12)


def test_a_zero_prediction_is_a_right_angle_and_not_nan():
    scores = scored("normals", torch.zeros(1, 3, 2, 2), torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2))
    assert scores["mean_deg"] == pytest.approx(90)


def test_logits_and_labels_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        scored("semseg", torch.zeros(1, 21, 4, 4), torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        scored("normals", torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="do not fit"):
        scored("human_parts", torch.zeros(1, 21, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8))


def test_a_class_beyond_the_decoder_is_an_error():
    with pytest.raises(ValueError, match="class 7"):
        scored("human_parts", torch.zeros(1, 7, 1, 2), torch.tensor([[[7, IGNORE]]], dtype=torch.uint8))


def test_logits_that_are_not_finite_are_an_error():
    with pytest.raises(FloatingPointError, match="diverged"):
        scored("saliency", torch.full((1, 1, 2, 2), math.nan), torch.zeros(1, 2, 2, dtype=torch.uint8))


def test_scores_without_any_batch_are_an_error():
    with pytest.raises(RuntimeError, match="no image"):
        METRICS["semseg"]().compute()
