"""The tuning protocol: one sequence for all rows, equal budgets, no validation image, only what is missing, edges flagged."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.config import ConfigError, DataConfig, HeldOutConfig
from bench.data.synthetic import SyntheticConfig
from bench.plan import write_plan
from bench.record import read_record
from bench.suites import Suite, load, multi_task_row, single_task_row
from bench.tuning.launch import Options, tune_suite
from bench.tuning.outcome import OUTCOME, TuningError, edges, read_outcome, setting_status, tuned_suite
from bench.tuning.plan import Protocol, quasi_random_points, rungs, tuned_rows
from bench.tuning.soundness import doubts
from bench.tuning.space import learning_rates, space_of, unit_points, value_at, with_values
from methods import METHODS
from methods.base import Range

pytestmark = pytest.mark.usefixtures("forked_nurseries")

SMOKE = load("smoke")
DATA = DataConfig(source="synthetic", synthetic=SyntheticConfig(n_train=8, n_val=2, size=48, seed=3))
BASE = {row.label: row for row in SMOKE.rows}["Decoders only"].trials[0]
BASE = dataclasses.replace(BASE, data=DATA, tasks=("semseg", "saliency"), decoder_channels=(4, 4, 4, 4))
BASE = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, epochs=1, warmup_epochs=0.5))
TINY = Suite(
    name="tiny",
    title="Tiny",
    description="",
    rows=(
        single_task_row(BASE, "frozen", (0, 1), label="One model a task"),
        multi_task_row(BASE, "frozen", (0, 1)),
        multi_task_row(BASE, "lora", (0, 1), rank=2),
    ),
    reference="One model a task",
)
HELD_OUT = HeldOutConfig(fraction=0.25)
SERIAL = Options(executor="serial", quiet=True, command="test")


def tune(results: Path, budget: int, *, suite: Suite = TINY, options: Options = SERIAL, only: str | None = None, **protocol) -> dict:
    protocol = Protocol(budget=budget, held_out=HELD_OUT, **protocol)
    return tune_suite(suite, protocol, options, results=results, data_root=None, weights_file=None, only=only)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tune of two settings a row."""
    results = tmp_path_factory.mktemp("results")
    tune(results, 2)
    return results


def records(results: Path) -> dict[str, dict]:
    return {path.stem: read_record(path) for path in (results / "tiny" / "tuning" / "records").glob("*.json")}


def copied(tuned: Path, tmp_path: Path) -> Path:
    shutil.copytree(tuned, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_method_tunes_at_most_two_real_dials_and_none_that_changes_its_size():
    for method in METHODS.values():
        config = method.config()
        assert len(config.tunable) <= 2
        for name, interval in config.tunable.items():
            assert isinstance(getattr(config, name), float), f"{method.name}.{name}"
            assert interval.low <= getattr(config, name) <= interval.high
            assert name != config.dial


def test_values_lie_where_the_unit_interval_says():
    assert value_at(Range(low=0, high=0.2), 0.25) == pytest.approx(0.05)
    assert value_at(Range(low=1e-4, high=1e-2, log=True), 0.5) == pytest.approx(1e-3)
    assert value_at(Range(low=1e-4, high=1e-2, log=True), 0.0) == 1e-4


@pytest.mark.parametrize("wrong", [{"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_a_range_must_be_one(wrong: dict):
    with pytest.raises(ValueError, match="low"):
        Range(**wrong)


def test_a_longer_sequence_begins_with_the_shorter_one_and_covers_each_axis():
    long = unit_points(64, seed=0)
    assert np.array_equal(unit_points(5, seed=0), long[:5])
    assert not np.array_equal(unit_points(5, seed=1), long[:5])
    for axis, base in enumerate((2, 3, 5)):  # the first base^2 points of a Halton sequence lie in different strata
        assert len(set(np.floor(long[: base**2, axis] * base**2))) == base**2


def test_all_rows_get_the_same_points_of_the_unit_cube():
    rows = tuned_rows(TINY, Protocol(budget=8))
    points = quasi_random_points(rows, Protocol(budget=8))
    rates = {tuned.row.label: [p.values["peak_lr"] for p in points if p.row == tuned.row.label] for tuned in rows}
    assert len({tuple(values) for values in rates.values()}) == 1
    (lora,) = [tuned for tuned in rows if "LoRA" in tuned.row.label]
    for point, unit in zip([p for p in points if p.row == lora.row.label], unit_points(8, 0), strict=True):
        for (name, interval), x in zip(lora.space.items(), unit, strict=True):
            assert point.values[name] == value_at(interval, x)
            assert interval.low <= point.values[name] <= interval.high
    assert list(lora.space) == ["peak_lr", "scale", "dropout"]
    assert list(rows[0].space) == ["peak_lr"]


def test_the_learning_rates_are_one_declaration_for_all_rows():
    assert learning_rates(TINY) == Range(low=1e-4, high=1e-2, log=True)
    declared = dataclasses.replace(TINY, learning_rates=Range(low=1e-5, high=1e-1, log=True))
    assert {tuned.space["peak_lr"] for tuned in tuned_rows(declared, Protocol(budget=1))} == {declared.learning_rates}
    other = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, peak_lr=5e-4))
    mixed = dataclasses.replace(TINY, rows=(*TINY.rows, multi_task_row(other, "lora", (0,), label="other", rank=4)))
    with pytest.raises(ConfigError, match="learning_rates"):
        learning_rates(mixed)


def test_a_third_tunable_dial_is_refused():
    class Greedy(METHODS["lora"].config):
        tunable = dict.fromkeys("abc", Range(low=0, high=1))

    with pytest.raises(ConfigError, match="2 are allowed"):
        space_of(Greedy(), Range(low=1, high=2))


def test_rows_that_tuning_would_make_the_same_are_refused():
    twin = multi_task_row(BASE, "lora", (0,), label="other scale", rank=2, scale=8.0)
    with pytest.raises(ConfigError, match=r"'LoRA \(r=2\)' and 'other scale'"):
        tuned_rows(dataclasses.replace(TINY, rows=(*TINY.rows, twin)), Protocol(budget=1))


def test_a_setting_scales_the_whole_schedule():
    trial = with_values(BASE, {"peak_lr": BASE.recipe.peak_lr * 4})
    assert trial.recipe.min_lr == pytest.approx(4 * BASE.recipe.min_lr)
    assert trial.recipe.warmup_lr == pytest.approx(4 * BASE.recipe.warmup_lr)


@pytest.mark.parametrize(("epochs", "expected"), [(300, [33, 99, 300]), (9, [1, 3, 9]), (3, [1, 3]), (1, [1])])
def test_rungs_lie_at_a_ninth_and_a_third_of_the_epochs(epochs: int, expected: list[int]):
    assert rungs(epochs) == expected


def test_every_row_spends_the_same_budget_on_held_out_images(tuned: Path):
    outcome = read_outcome(tuned / "tiny")
    assert outcome["complete"]
    assert [len(row["settings"]) for row in outcome["rows"]] == [2, 2, 2]
    assert [len(row["settings"][0]["run_ids"]) for row in outcome["rows"]] == [2, 1, 1]
    assert all(record["seed"] == 0 and record["data"]["n_val"] is None for record in records(tuned).values())
    for row in outcome["rows"]:
        assert row["epochs"] == sum(len(setting["run_ids"]) for setting in row["settings"])
        assert row["cpu_hours"] > 0
        assert row["chosen"]["score"] == max(setting["score"] for setting in row["settings"])


def test_a_setting_of_single_task_models_is_scored_by_the_mean_of_its_tasks(tuned: Path):
    found, row = records(tuned), read_outcome(tuned / "tiny")["rows"][0]
    for setting in row["settings"]:
        scores = [found[run_id]["history"][-1]["held_out"]["score"] for run_id in setting["run_ids"]]
        assert setting["score"] == pytest.approx(sum(scores) / 2)


def test_status_counts_the_trials_of_a_tune_and_finds_their_logs(tuned: Path):
    found = CliRunner().invoke(app, ["status", "tiny", "--results", str(tuned), "--json"])
    rows = {row["row"]: (row["trials"], row["ok"], row["missing"]) for row in json.loads(found.output)["tuning"]["rows"]}
    assert found.exit_code == 0
    assert rows == {"One model a task": (4, 4, 0), "Decoders only": (2, 2, 0), "LoRA (r=2)": (2, 2, 0)}
    shown = CliRunner().invoke(app, ["status", "tiny", "--results", str(tuned)]).output
    assert shown.startswith("Tuning (the suite itself has not been run here):")
    assert "slot hours" in shown
    for run_id in records(tuned):
        assert "epoch 1 of 1: loss" in CliRunner().invoke(app, ["status", "tiny", "--results", str(tuned), "--tail", run_id]).output


def test_a_second_tune_runs_nothing_and_a_larger_budget_only_what_is_new(tuned: Path, tmp_path: Path):
    results = copied(tuned, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (results / "tiny/tuning/records").iterdir()}
    tune(results, 2)
    assert before == {path: path.stat().st_mtime_ns for path in (results / "tiny/tuning/records").iterdir()}
    damaged = results / "tiny/tuning/records" / f"{read_outcome(results / 'tiny')['rows'][1]['settings'][0]['run_ids'][0]}.json"
    damaged.write_text("{")
    outcome = tune(results, 3, only="Decoders only")  # a trial whose record is set aside, and a third setting
    assert (damaged.parent / "set_aside" / damaged.name).read_text() == "{"
    after = {path: path.stat().st_mtime_ns for path in (results / "tiny/tuning/records").glob("*.json")}
    assert sum(before.get(path) != stamp for path, stamp in after.items()) == 2
    assert [setting["status"] for setting in outcome["rows"][0]["settings"]] == ["ok"] * 3
    assert not outcome["complete"]


def test_a_killed_tune_goes_on_to_the_same_outcome(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(tuned / "data", tmp_path / "data")
    from bench.tuning import launch

    def killed(plan, *rest, **options):
        place(dataclasses.replace(plan, trials=plan.trials[:3]), *rest, **options)
        raise KeyboardInterrupt

    place = launch.place
    monkeypatch.setattr(launch, "place", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, 2)
    assert not (tmp_path / "tiny" / OUTCOME).exists()
    monkeypatch.undo()
    resumed, unbroken = tune(tmp_path, 2), read_outcome(tuned / "tiny")
    measured = {"created_at", "command", "gpu_hours", "cpu_hours"}

    def timeless(value):
        if isinstance(value, dict):
            return {key: timeless(inner) for key, inner in value.items() if key not in measured}
        return [timeless(inner) for inner in value] if isinstance(value, list) else value

    assert json.loads(json.dumps(timeless(resumed))) == timeless(unbroken)


def test_a_tuned_suite_uses_the_choice_and_says_what_it_cost(tuned: Path, tmp_path: Path):
    outcome = read_outcome(tuned / "tiny")
    suite = tuned_suite(TINY, outcome)
    for row, entry in zip(suite.rows, outcome["rows"], strict=True):
        for trial in row.trials:
            assert trial.recipe.peak_lr == entry["chosen"]["values"]["peak_lr"]
            assert trial.data.held_out is None
            assert trial.recipe.evaluate_on == "val"
    lora = suite.rows[2].trials[0].method
    chosen = outcome["rows"][2]["chosen"]["values"]
    assert (lora.scale, lora.dropout) == (chosen["scale"], chosen["dropout"])
    assert {trial.run_id for trial in suite.trials}.isdisjoint(trial.run_id for trial in TINY.trials)
    notes = "\n".join(suite.notes)
    assert "the same 2 points of a scrambled Halton sequence" in notes
    assert "25% of the training split" in notes
    assert "learning rate 0.0001 to 0.01, log; scale 0.5 to 16, log (LoRA); dropout 0 to 0.2 (LoRA)" in notes
    assert "2 to 4 epochs" in notes
    assert "CPU-core-hours" in notes
    assert "At the edge" in notes  # of two settings, the better one is the lowest or the highest
    plan = json.loads(write_plan(suite, tmp_path, "test").read_text())
    assert set(suite.notes) <= set(plan["notes"])


def test_unequal_or_foreign_budgets_are_refused(tuned: Path):
    outcome = read_outcome(tuned / "tiny")
    short = json.loads(json.dumps(outcome))
    short["rows"][1]["settings"][1]["status"] = "missing"
    with pytest.raises(TuningError, match=r"'Decoders only' has 1 of 2 settings \(missing\).*--budget 2"):
        tuned_suite(TINY, short)
    with pytest.raises(TuningError, match="'Decoders only' was not tuned"):
        tuned_suite(TINY, outcome | {"rows": outcome["rows"][:1] + outcome["rows"][2:]})
    other = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, batch_size=4))
    foreign = dataclasses.replace(TINY, rows=(TINY.rows[0], multi_task_row(other, "frozen", (0,)), TINY.rows[2]))
    with pytest.raises(TuningError, match="another configuration"):
        tuned_suite(foreign, outcome)
    with pytest.raises(TuningError, match="tune the suite first"):
        read_outcome(tuned / "elsewhere")


def write_changed(tuned: Path, directory: Path, change) -> Path:
    """Write the outcome of the tune, changed, as that of a suite in a directory."""
    outcome = read_outcome(tuned / "tiny")
    changed = change(outcome)
    directory.mkdir(exist_ok=True)
    (directory / OUTCOME).write_text(json.dumps(outcome if changed is None else changed))
    return directory


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda outcome: {}, "schema_version is None, this code reads 2"),
        (lambda outcome: [], "holds a list"),
        (lambda outcome: outcome | {"schema_version": 3}, "schema_version is 3"),
        (lambda outcome: outcome | {"rows": [{}]}, "'label' of row None is missing"),
        (lambda outcome: outcome | {"rows": ["x"]}, "row 'x' is no object"),
        (lambda outcome: outcome["rows"][0].pop("chosen") and None, "'One model a task' is complete, but has chosen nothing"),
        (lambda outcome: outcome["rows"][1]["chosen"].update(values={}), "which is none of the settings that it tried"),
        (lambda outcome: outcome["rows"][1]["chosen"]["values"].update(peak_lr=7.0), "which is none of the settings that it tried"),
        (lambda outcome: outcome["rows"][1]["chosen"].update(score=9e9), "which is none of the settings that it tried"),
        (lambda outcome: outcome["rows"][2]["settings"][0].update(values={}), r"'LoRA \(r=2\)' has values of \[\]"),
        (lambda outcome: outcome.pop("sequence") and None, "'sequence' or 'asha' is missing"),
    ],
)
def test_an_outcome_that_cannot_be_relied_on_is_refused_by_name(change, why: str, tuned: Path, tmp_path: Path):
    with pytest.raises(TuningError, match=rf"tuning\.json cannot be relied on: .*{why}.*run the same `tune` command again"):
        read_outcome(write_changed(tuned, tmp_path / "tiny", change))


def test_a_damaged_record_behind_an_outcome_and_the_code_of_another_one_are_named(tuned: Path, tmp_path: Path):
    results, outcome = copied(tuned, tmp_path), read_outcome(tuned / "tiny")
    (code,) = {record["code_id"] for record in records(tuned).values()}
    assert [row["code_ids"] for row in outcome["rows"]] == [[code]] * 3
    assert doubts(outcome, results / "tiny/tuning", code) == []
    damaged = next((results / "tiny/tuning/records").glob("*.json"))
    damaged.write_text("{")
    said = doubts(outcome, results / "tiny/tuning", "another")
    assert [damaged.name in said[0], f"made by other code ({code}; the present one is another)" in said[1]] == [True, True]
    shown = CliRunner().invoke(app, ["status", "tiny", "--results", str(results)])
    assert (shown.exit_code, "1 damaged" in shown.output) == (1, True)


def test_the_edge_is_the_lowest_or_highest_value_that_was_tried():
    settings = [{"values": {"peak_lr": lr, "scale": scale}} for lr, scale in ((1e-3, 4.0), (1e-4, 2.0), (1e-2, 1.0))]
    assert edges(settings, {"peak_lr": 1e-3, "scale": 2.0}) == []
    assert edges(settings, {"peak_lr": 1e-2, "scale": 1.0}) == [
        {"dial": "peak_lr", "side": "highest", "value": 1e-2},
        {"dial": "scale", "side": "lowest", "value": 1.0},
    ]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["ok", "ok"], "ok"),
        (["ok", "diverged"], "diverged"),
        (["ok", "stopped"], "stopped"),
        (["oom", "diverged"], "oom"),
        (["ok", None], "missing"),
    ],
)
def test_a_setting_is_as_good_as_its_worst_trial(statuses: list, expected: str):
    assert setting_status(statuses) == expected


@pytest.mark.parametrize("protocol", [{"asha": True}, {"searcher": "optuna"}])
def test_ray_tune_searches_and_stops_on_ray_only(tmp_path: Path, protocol: dict):
    with pytest.raises(ConfigError, match="--executor ray"):
        tune(tmp_path, 2, **protocol)
