"""Evaluation on held-out images: it leaves training alone, survives a kill, and a tuning trial never reads the validation split."""

import dataclasses
import math
import shutil
import time
from pathlib import Path

import pytest
import typer

from bench.cli.options import parse_held_out
from bench.config import ConfigError, HeldOutConfig, TrialConfig
from bench.data.roots import ensure_synthetic, synthetic_root
from bench.measure.score import ScoreError, reference_free_score
from bench.plan import write_plan
from bench.record import load_records, read_plan
from bench.report.stats import row_frame
from bench.suites import Row, Suite, load, with_held_out
from bench.training import held_out as held_out_module
from bench.trial import Launch, run_trial

PLAIN = {row.label: row for row in load("smoke").rows}["Decoders only"].trials[0]
HELD_OUT = dataclasses.replace(PLAIN.data, held_out=HeldOutConfig(fraction=0.25))


def with_recipe(**changes) -> TrialConfig:
    return dataclasses.replace(PLAIN, data=HELD_OUT, recipe=dataclasses.replace(PLAIN.recipe, **changes))


EVERY, SELDOM = with_recipe(evaluate_every=1), with_recipe()
TUNING = with_recipe(evaluate_every=1, evaluate_on="held_out")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    ensure_synthetic(results, PLAIN.data.synthetic)
    return results


def run(config: TrialConfig, results: Path, name: str, **changes) -> dict:
    launch = Launch(suite="smoke", suite_dir=results / name, command="test")
    return run_trial(config, launch, started=time.time(), **({"on_epoch": lambda line: None} | changes))


def without_seconds(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in history]


def test_the_score_is_the_mean_of_signed_logarithms():
    metrics = {"semseg": {"miou": 50.0}, "normals": {"mean_deg": 20.0}, "saliency": {"miou": 0.0}}
    assert reference_free_score(metrics) == pytest.approx((100 * math.log(50) - 100 * math.log(20) + 100 * math.log(1e-3)) / 3)


def test_a_difference_of_scores_is_delta_m_to_first_order():
    base = {"semseg": {"miou": 50.0}, "normals": {"mean_deg": 20.0}}
    better = {"semseg": {"miou": 50.5}, "normals": {"mean_deg": 19.9}}
    delta_m = (100 * 0.5 / 50 + 100 * 0.1 / 20) / 2
    assert reference_free_score(better) - reference_free_score(base) == pytest.approx(delta_m, rel=0.01)


def test_a_task_without_labels_has_no_score():
    with pytest.raises(ScoreError, match="normals"):
        reference_free_score({"normals": {"mean_deg": None}})


@pytest.mark.parametrize("changes", [{"evaluate_every": 1}, {"evaluate_on": "held_out"}])
def test_held_out_evaluation_needs_held_out_images(changes: dict):
    with pytest.raises(ConfigError, match=r"data\.held_out"):
        dataclasses.replace(PLAIN, recipe=dataclasses.replace(PLAIN.recipe, **changes))


def test_evaluation_on_held_out_images_leaves_training_and_result_alone(results: Path):
    often, once = run(EVERY, results, "often"), run(SELDOM, results, "once")
    assert often["status"] == "ok", often["reason"]
    assert ["held_out" in line for line in often["history"]] == [True, True, True]
    assert ["held_out" in line for line in once["history"]] == [False, False, True]
    for record in (often, once):
        for line in record["history"]:
            if "held_out" in line:
                scored = {task: metrics for task, metrics in line["held_out"].items() if task != "score"}
                assert line["held_out"]["score"] == reference_free_score(scored)
    assert often["history"][-1]["held_out"] == once["history"][-1]["held_out"]
    assert [line["losses"] for line in often["history"]] == [line["losses"] for line in once["history"]]
    assert often["metrics"] == once["metrics"]
    assert once["best_on_held_out"] == {"epoch": 3, "score": once["history"][-1]["held_out"]["score"], "metrics": once["metrics"]}
    assert (once["data"]["n_train"], once["data"]["n_held_out"], once["data"]["n_val"]) == (6, 2, 5)


def test_the_best_epoch_survives_a_kill(results: Path, monkeypatch: pytest.MonkeyPatch):
    def scores() -> None:  # the second epoch is the best; a process that starts after it goes on with the third
        given = iter([1.0, 3.0, 2.0])
        monkeypatch.setattr(held_out_module, "reference_free_score", lambda metrics: next(given))

    class KilledError(BaseException):
        pass

    def kill(line: dict) -> None:
        if line["epoch"] == 2:
            raise KilledError

    scores()
    unbroken = run(EVERY, results, "unbroken")
    assert unbroken["best_on_held_out"]["epoch"] == 2
    assert unbroken["best_on_held_out"]["score"] == 3.0
    assert unbroken["best_on_held_out"]["metrics"] != unbroken["metrics"]
    scores()
    with pytest.raises(KilledError):
        run(EVERY, results, "broken", on_epoch=kill)
    monkeypatch.setattr(held_out_module, "reference_free_score", lambda metrics: 2.0)
    resumed = run(EVERY, results, "broken")
    assert resumed["best_on_held_out"] == unbroken["best_on_held_out"]
    assert without_seconds(resumed["history"]) == without_seconds(unbroken["history"])


def test_of_equal_scores_the_earlier_epoch_is_the_best(results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(held_out_module, "reference_free_score", lambda metrics: 2.0)
    assert run(EVERY, results, "equal")["best_on_held_out"]["epoch"] == 1


def test_a_tuning_trial_reads_no_validation_image(results: Path, tmp_path: Path):
    shutil.copytree(results / "data", tmp_path / "data")
    root = synthetic_root(tmp_path, PLAIN.data.synthetic)
    for image in (root / "ImageSets/Context/val.txt").read_text().split():
        for path in root.rglob(f"{image}.*"):
            path.unlink()
    record = run(TUNING, tmp_path, "tuning")
    assert record["status"] == "ok", record["reason"]
    assert record["metrics"] == {task: m for task, m in record["history"][-1]["held_out"].items() if task != "score"}
    assert record["best_on_held_out"]["metrics"] is None
    assert record["data"]["n_val"] is None
    assert record["per_image"] is record["panels"] is None
    assert run(SELDOM, tmp_path, "ordinary")["status"] == "invalid"


def test_a_suite_with_held_out_images_changes_what_is_trained_on_and_nothing_else():
    plain, held_out = load("smoke"), HeldOutConfig(fraction=0.25, seed=3)
    kept = with_held_out(plain, held_out)
    for before, after in zip(plain.trials, kept.trials, strict=True):
        assert (after.data.held_out, after.recipe.evaluate_every, after.recipe.evaluate_on) == (held_out, 1, "val")
        recipe = dataclasses.replace(after.recipe, evaluate_every=None)
        assert dataclasses.replace(after, data=before.data, recipe=recipe) == before
    assert {trial.run_id for trial in kept.trials}.isdisjoint(trial.run_id for trial in plain.trials)
    long = dataclasses.replace(PLAIN, recipe=dataclasses.replace(PLAIN.recipe, epochs=300))
    suite = Suite(name="long", title="", description="", rows=(Row(label="a", trials=(long,)),), reference="a")
    assert with_held_out(suite, held_out).trials[0].recipe.evaluate_every == 15


def test_the_second_column_comes_from_the_records_of_such_a_suite(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scores = iter((1.0, 3.0, 2.0))
    monkeypatch.setattr(held_out_module, "reference_free_score", lambda metrics: next(scores))
    record = run(EVERY, results, "column")
    suite = Suite(name="column", title="", description="", rows=(Row(label="a", trials=(EVERY,)),), reference="a")
    plan = read_plan(write_plan(suite, tmp_path, "test"))
    rows = row_frame(plan, load_records(results / "column" / "records"))
    assert rows["semseg_miou_mean"][0] == record["metrics"]["semseg"]["miou"]
    assert (
        rows["semseg_miou_held_out_mean"][0]
        == record["best_on_held_out"]["metrics"]["semseg"]["miou"]
        != record["metrics"]["semseg"]["miou"]
    )


@pytest.mark.parametrize(("text", "expected"), [("0.1", (0.1, 0)), ("0.25:7", (0.25, 7))])
def test_the_share_to_hold_out_is_read_from_the_command_line(text: str, expected: tuple):
    assert parse_held_out(text) == HeldOutConfig(fraction=expected[0], seed=expected[1])


@pytest.mark.parametrize("text", ["a tenth", "0.1:x", ""])
def test_what_is_no_share_is_refused_with_an_example(text: str):
    with pytest.raises(typer.BadParameter, match=r"--held-out takes a share such as 0\.1"):
        parse_held_out(text)
