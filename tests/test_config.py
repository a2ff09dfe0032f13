"""Configurations: to JSON and back, errors that help, names of trials; suites; and the catalogue that is read without importing."""

import dataclasses
import json
import re
from typing import Any

import pytest
import timm
from typer.testing import CliRunner

import bench.model.backbone  # registers the suite's own Swin
from bench import suites
from bench.catalogue import backbones, described, tasks
from bench.cli import app
from bench.config import BackboneConfig, ConfigError, DataConfig, RecipeConfig, TrialConfig, steps_per_epoch
from bench.data.synthetic import SyntheticConfig
from bench.suites import Row, Suite, multi_task_row, single_task_row
from bench.tasks import TASK_NAMES, TASKS
from methods import METHODS

PASCAL = DataConfig(source="pascal_context", fingerprint="f00d")
SYNTHETIC = DataConfig(synthetic=SyntheticConfig(n_train=8, n_val=4, size=32, seed=5))


def trial(method: str = "lora", *, data: DataConfig = PASCAL, dials: dict[str, Any] | None = None, **changes: Any) -> TrialConfig:
    return TrialConfig(method_name=method, method=METHODS[method].config(**(dials or {})), data=data, **changes)


def through_json(config: TrialConfig) -> TrialConfig:
    return TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The plain types of a trial, with one more key or another value at a dotted path."""
    plain = trial("mtlora", data=SYNTHETIC).to_dict()
    *parents, key = path.split(".")
    at = plain
    for parent in parents:
        at = at[parent]
    at[key] = value
    return plain


@pytest.mark.parametrize("data", [PASCAL, SYNTHETIC], ids=["pascal", "synthetic"])
@pytest.mark.parametrize("method", METHODS)
def test_a_trial_survives_json(method: str, data: DataConfig):
    config = trial(
        method,
        data=data,
        tasks=("normals", "semseg"),
        seed=3,
        backbone=BackboneConfig(name="swin_micro_patch4_window4_64", weights="demo", drop_path=0),
        decoder="segformer",
        decoder_channels=(9, 18, 36, 72),
        recipe=RecipeConfig(epochs=2, warmup_epochs=1, clip_norm=None, scale=(1, 1), rotation=0),
    )
    again = through_json(config)
    assert again == config
    assert again.run_id == config.run_id
    assert again.cell_id == config.cell_id


def test_changed_dials_survive_json():
    config = trial("mtlora", dials={"rank": 3, "mode": "addition", "layers": ("fc1", "fc2"), "also_train": ("norm",)})
    assert through_json(config).method == config.method


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("sede", "seed"),
        ("method.rnak", "rank"),
        ("recipe.epoch", "epochs"),
        ("backbone.drop_paht", "drop_path"),
        ("data.fingerprnt", "fingerprint"),
        ("data.synthetic.n_trian", "n_train"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_the_near_one(path: str, near: str):
    with pytest.raises(ConfigError) as error:
        TrialConfig.from_dict(changed(path, 1))
    assert path.rpartition(".")[2] in str(error.value)
    assert f"did you mean '{near}'?" in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", "one"),
        ("seed", 1.5),
        ("method.rank", "16"),
        ("method.rank", 16.5),
        ("method.layers", "qkv"),
        ("recipe.peak_lr", "fast"),
        ("recipe.peak_lr", "0.001"),
        ("recipe.peak_lr", True),
        ("recipe.clip_norm", "none"),
        ("recipe.scale", [1.0]),
        ("recipe.scale", [0.5, 1.0, 2.0]),
        ("recipe.flip", "yes"),
        ("recipe", 3),
        ("data.synthetic.n_train", "8"),
        ("decoder", ["hrnet"]),
        ("decoder_channels", [9, 18, 36, "72"]),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_its_key(path: str, value: Any):
    with pytest.raises(ConfigError, match=path.rpartition(".")[2]):
        TrialConfig.from_dict(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("method.name", "mtlroa", "did you mean 'mtlora'?; allowed: "),
        ("method.mode", "matrixv3", "allowed: matrix, matrixv2, addition, lora_only"),
        ("method.layers", ["qkv", "head"], "allowed: qkv, proj, fc1, fc2, reduction"),
        ("method.also_train", ["norms"], "allowed: norm, relative_position"),
        ("method.rank", 0, "rank must be at least 1"),
        ("tasks", ["semseg", "depht"], "'depht' is not allowed"),
        ("tasks", [], "one or more different tasks"),
        ("tasks", ["semseg", "semseg"], "one or more different tasks"),
        ("decoder", "segfromer", "did you mean 'segformer'?; allowed: hrnet, segformer, aspp"),
        ("recipe.precision", "fp8", "allowed: fp32, bf16, fp16"),
        ("recipe.epochs", 0, "recipe.epochs must be at least 1"),
        ("recipe.peak_lr", float("nan"), "recipe.peak_lr must be a finite number"),
        ("backbone.drop_path", -1.0, "backbone.drop_path must lie in [0, 1)"),
        ("decoder_channels", [1, 2], "decoder_channels needs 4 values of at least 1"),
        ("method.dropout", 2.0, "dropout must lie in [0, 1)"),
        ("method.scale", float("nan"), "scale must be a finite number"),
        ("recipe.warmup_epochs", 500, "recipe.warmup_epochs must lie in"),
        ("data.source", "pascal", "did you mean 'pascal_context'?"),
        ("data.source", "pascal_context", "data.synthetic must be given for source 'synthetic' and for no other"),
        ("data.synthetic", None, "data.synthetic must be given"),
        ("method", "lora", "method must be an object"),
    ],
)
def test_a_value_that_is_not_allowed_is_an_error_that_says_what_is(path: str, value: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrialConfig.from_dict(changed(path, value))


def test_a_missing_key_is_an_error_that_names_it():
    plain = trial().to_dict()
    for key in ("data", "method"):
        with pytest.raises(ConfigError, match=key):
            TrialConfig.from_dict({k: v for k, v in plain.items() if k != key})


def test_reading_a_configuration_leaves_its_source_alone():
    plain = trial().to_dict()
    before = json.dumps(plain)
    TrialConfig.from_dict(plain)
    assert json.dumps(plain) == before


def test_a_method_takes_its_own_configuration_only():
    with pytest.raises(ConfigError, match="takes a LoRAConfig"):
        TrialConfig(method_name="lora", method=METHODS["full"].config(), data=PASCAL)


def test_run_id_is_pinned():
    """Records are found by this name: a change of it makes every record of every user missing."""
    assert trial("lora").run_id == RUN_ID
    assert trial("full", tasks=("semseg",), seed=2).run_id.startswith("full-semseg-s2-")
    assert trial("mtlora", tasks=("semseg", "normals")).run_id.startswith("mtlora-rank16-semseg+normals-s0-")


RUN_ID = "lora-rank16-all-s0-c3ec7fad"


def test_run_id_differs_with_all_that_can_change_a_result():
    base = trial("lora")
    others = [
        dataclasses.replace(base, seed=1),
        dataclasses.replace(base, tasks=("semseg",)),
        dataclasses.replace(base, decoder="segformer"),
        dataclasses.replace(base, decoder="aspp"),
        dataclasses.replace(base, decoder_channels=(9, 18, 36, 72)),
        dataclasses.replace(base, data=DataConfig(source="pascal_context", fingerprint="beef")),
        dataclasses.replace(base, data=SYNTHETIC),
        dataclasses.replace(base, backbone=BackboneConfig(weights="scratch")),
        dataclasses.replace(base, recipe=RecipeConfig(peak_lr=1e-4)),
        dataclasses.replace(base, recipe=RecipeConfig(threads=2)),
        trial("lora", dials={"rank": 8}),
        trial("lora", dials={"also_train": ("norm",)}),
        trial("mtlora"),
    ]
    ids = [base.run_id, *(other.run_id for other in others)]
    assert len(set(ids)) == len(ids)


def test_a_decoder_that_normalises_over_the_batch_refuses_a_batch_of_one():
    one, two = RecipeConfig(batch_size=1), RecipeConfig(batch_size=2)
    with pytest.raises(ConfigError, match="batch_size must be at least 2"):
        trial("lora", decoder="aspp", recipe=one)
    assert trial("lora", decoder="aspp", recipe=two).decoder == "aspp"
    assert trial("lora", decoder="segformer", recipe=one).decoder == "segformer"


def test_cell_id_is_shared_by_seeds_and_tasks_and_by_nothing_else():
    base = trial("lora")
    assert len(base.cell_id) == 12
    assert {dataclasses.replace(base, seed=s, tasks=(t,)).cell_id for s in range(2) for t in TASK_NAMES} == {base.cell_id}
    assert trial("lora", dials={"rank": 8}).cell_id != base.cell_id
    assert dataclasses.replace(base, recipe=RecipeConfig(epochs=100)).cell_id != base.cell_id


@pytest.mark.parametrize(("path", "whole"), [("recipe.warmup_epochs", 20), ("recipe.scale", [1, 2]), ("method.scale", 4)])
def test_a_whole_number_for_a_float_names_the_same_trial(path: str, whole: Any):
    floats = [float(x) for x in whole] if isinstance(whole, list) else float(whole)
    one, other = TrialConfig.from_dict(changed(path, whole)), TrialConfig.from_dict(changed(path, floats))
    assert one == other
    assert one.run_id == other.run_id


def test_a_whole_number_for_a_float_in_python_names_the_same_trial():
    config = trial("lora", dials={"scale": 4}, recipe=RecipeConfig(warmup_epochs=20, rotation=20))
    assert config.run_id == trial("lora", dials={"scale": 4.0}, recipe=RecipeConfig(warmup_epochs=20.0, rotation=20.0)).run_id
    assert config.run_id == through_json(config).run_id


def test_the_incomplete_batch_is_no_step():
    assert [steps_per_epoch(n, 16) for n in (15, 16, 47, 48)] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", suites.names())
def test_every_suite_builds_with_its_reference_and_unique_run_ids(name: str):
    suite = suites.load(name)
    assert suite.name == name
    run_ids = [trial.run_id for trial in suite.trials]
    assert len(set(run_ids)) == len(run_ids) == sum(len(row.trials) for row in suite.rows)
    assert suite.reference in {row.label for row in suite.rows}
    for row in suite.rows:
        assert {trial.cell_id for trial in row.trials} == {row.cell_id}
    assert len({row.cell_id for row in suite.rows} | {row.kind for row in suite.rows}) > len(suite.rows)
    assert all(through_json(trial).run_id == trial.run_id for trial in suite.trials)


def test_the_demo_has_the_clients_methods():
    demo = suites.load("demo")
    rows = [(row.trials[0].method_name, row.kind) for row in demo.rows]
    assert {name for name, _ in rows} == {"full", "frozen", "lora", "adapter", "vpt", "mtlora", "mtlora_plus"}
    assert [row.label for row in demo.rows if row.kind == "single_task"] == [demo.reference]
    assert [name for name, _ in rows].count("lora") == [name for name, _ in rows].count("mtlora") == 3
    assert [name for name, _ in rows].count("adapter") == 2
    assert [trial.seed for trial in demo.trials] == sorted(trial.seed for trial in demo.trials)


def test_table1_has_every_method_and_a_model_a_task_where_the_papers_have_one():
    table = suites.load("table1", data=PASCAL)
    assert {row.trials[0].method_name for row in table.rows} == set(METHODS)
    single = [row.label for row in table.rows if row.kind == "single_task"]
    assert single[:8] == [
        "Single-task full fine-tuning", "Adapter", "BitFit", "VPT-shallow", "VPT-deep", "Compacter", "Compacter++", "LoRA (r=4, one a task)"
    ]  # fmt: skip
    assert all("one a task, at MTLoRA" in label for label in single[8:])
    assert f"{len(table.rows)} rows, {len(table.trials)} trials" in table.description


def test_a_suite_takes_other_data_seeds_and_weights():
    suite = suites.load("demo", data=PASCAL, seeds=(7,), weights="sha256:abc")
    assert {trial.data for trial in suite.trials} == {PASCAL}
    assert {trial.seed for trial in suite.trials} == {7}
    assert {trial.backbone.weights for trial in suite.trials} == {"sha256:abc"}
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        suites.load("dmo")


def suite_of(*rows: Row, reference: str = "a") -> Suite:
    return Suite(name="x", title="x", description="x", rows=rows, reference=reference)


def test_a_suite_refuses_equal_labels_equal_trials_and_an_absent_reference():
    a, b = (multi_task_row(trial("full"), "full", (0,), label=label) for label in "ab")
    with pytest.raises(ConfigError, match="different labels"):
        suite_of(a, a)
    with pytest.raises(ConfigError, match="one of them the reference 'c'"):
        suite_of(a, reference="c")
    with pytest.raises(ConfigError, match="two trials have the same configuration"):
        suite_of(a, b)


def test_a_single_task_row_has_one_trial_a_task_and_seed():
    row = single_task_row(trial("full"), "full", (0, 1), label="STL")
    assert [(t.tasks, t.seed) for t in row.trials] == [((task,), seed) for seed in (0, 1) for task in TASK_NAMES]
    assert row.kind == "single_task"
    assert multi_task_row(trial("full"), "full", (0, 1)).kind == "multi_task"


def test_catalogue_lists_the_registered_methods():
    rows = described("methods", decorated="register")
    assert sorted(row["name"] for row in rows) == sorted(METHODS)
    assert all(row["description"] for row in rows)


def test_catalogue_lists_the_suites_and_tasks():
    assert [row["name"] for row in described("bench/suites", defining="suite")] == suites.names()
    assert [row["name"] for row in tasks()] == list(TASKS)


def test_catalogue_lists_the_backbones_that_timm_knows():
    listed = {row["name"]: row["origin"] for row in backbones()}
    known = {name for family in bench.model.backbone.FAMILIES for module in family.timm_modules for name in timm.list_models(module=module)}
    assert set(listed) == known
    assert listed[bench.model.backbone.DEMO_BACKBONE] == "this suite"


@pytest.mark.parametrize("what", ["methods", "suites", "backbones", "tasks"])
def test_the_command_line_lists_as_table_and_as_json(what: str):
    table, plain = (CliRunner().invoke(app, ["list", what, *more]) for more in ([], ["--json"]))
    assert table.exit_code == plain.exit_code == 0
    for row in json.loads(plain.stdout):
        assert row["name"] in table.stdout
