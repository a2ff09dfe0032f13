"""The task table, the tasks of a data set, and that what was added to configurations leaves the names of recorded runs alone."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from nyud_tree import write_nyud_tree

from bench import suites
from bench.config import ConfigError, DataConfig, HeldOutConfig, TrialConfig
from bench.data.identity import LATER, plain_fields
from bench.data.synthetic import SyntheticConfig
from bench.launch import data_config
from bench.ledger import ledger
from bench.tasks import DATA_SETS, DEFAULT_TASKS, LABEL_KINDS, NYUD_TASKS, PASCAL_TASKS, TASKS
from methods.frozen import FrozenConfig

NAMES_OF_RECORDED_RUNS = {"pascal": (48, "dd72dcef15519b39"), "table1": (213, "9fd22eb26b72df15")}
"""Number of trials, and hash over their run ids, of the suites as they were before edges, depth and the held-out split.

Adapters that are solved to a budget had the reduction in their name, which a width overrides; nothing else of their name has changed.
"""


def trial(**changes) -> TrialConfig:
    data = changes.pop("data", DataConfig(synthetic=SyntheticConfig()))
    return TrialConfig(method_name="frozen", method=FrozenConfig(), data=data, **changes)


@pytest.mark.parametrize("name", NAMES_OF_RECORDED_RUNS)
def test_the_run_ids_of_existing_suites_are_what_they_were(name: str):
    ids = [re.sub(r"^adapter-width\d+-", "adapter-reduction4-", trial.run_id) for trial in suites.load(name).trials]
    assert (len(ids), hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]) == NAMES_OF_RECORDED_RUNS[name]


def test_a_committed_record_has_the_name_that_its_configuration_has_today():
    files = [file for file in (Path(__file__).parent.parent / "results/reference").glob("*/records/*.json")]
    named = [(record["run_id"], TrialConfig.from_dict(record["config"]).run_id) for record in (json.loads(f.read_text()) for f in files)]
    assert len(named) > 30
    assert all(stored == today for stored, today in named)


def test_a_later_field_is_left_out_at_its_default_and_only_there():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        old: int | None = None
        new: int | None = dataclasses.field(default=None, metadata=LATER)

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner
        several: tuple[Inner, ...] = ()

    assert plain_fields(Outer(Inner())) == {"inner": {"old": None}, "several": []}
    assert plain_fields(Outer(Inner(new=0), (Inner(),))) == {"inner": {"old": None, "new": 0}, "several": [{"old": None}]}


def test_a_held_out_split_changes_the_run_id_and_survives_the_round_trip():
    plain = trial()
    held = trial(data=dataclasses.replace(plain.data, held_out=HeldOutConfig(fraction=0.2, seed=3)))
    assert "held_out" not in plain.to_dict()["data"]
    assert held.run_id != plain.run_id
    assert held.cell_id != plain.cell_id
    assert TrialConfig.from_dict(held.to_dict()) == held
    assert TrialConfig.from_dict(plain.to_dict()) == plain


@pytest.mark.parametrize("fraction", [0.0, 0.6, -1.0])
def test_a_held_out_fraction_that_leaves_no_training_is_refused(fraction: float):
    with pytest.raises(ConfigError, match=r"held_out\.fraction"):
        HeldOutConfig(fraction=fraction)


def test_four_tasks_are_all_and_edges_are_named():
    assert "-all-s0-" in trial().run_id
    assert trial(tasks=(*PASCAL_TASKS, "edges")).run_id.startswith("frozen-semseg+human_parts+saliency+normals+edges-s0-")
    assert trial(tasks=("edges",)).run_id.startswith("frozen-edges-s0-")


def test_every_task_has_a_kind_of_label_and_every_data_set_its_defaults():
    assert {task.label for task in TASKS.values()} == set(LABEL_KINDS)
    assert all(set(DEFAULT_TASKS[name]) <= set(tasks) for name, tasks in DATA_SETS.items())
    assert list(TASKS)[:4] == list(PASCAL_TASKS)  # a decoder's seed counts the tasks before its own


def test_the_number_of_classes_follows_the_data_set(tmp_path: Path):
    nyud = data_config(write_nyud_tree(tmp_path / "NYUD_MT"))
    assert nyud.source == "nyud"
    assert nyud.default_tasks == NYUD_TASKS
    assert [nyud.tasks[task].channels for task in NYUD_TASKS] == [40, 3, 1, 1]
    pascal, other = (ledger(trial(data=data, tasks=("semseg",)))["trainable"] for data in (trial().data, nyud))
    assert other - pascal == (40 - 21) * (4 * 270 + 1)


def test_a_task_that_the_data_set_has_no_labels_for_is_refused():
    with pytest.raises(ConfigError, match=r"tasks of nyud: 'human_parts' is not allowed.*semseg, normals, depth, edges"):
        trial(data=DataConfig(source="nyud", fingerprint="none"))
    with pytest.raises(ConfigError, match="'depth' is not allowed"):
        trial(tasks=("depth",))


def test_a_suite_on_another_data_set_trains_the_tasks_of_that_one():
    suite = suites.load("smoke", data=DataConfig(source="nyud", fingerprint="none"))
    assert {task for trial in suite.trials for task in trial.tasks} == set(NYUD_TASKS)
