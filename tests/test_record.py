"""The record on disk: what is written is what is read, whole or not at all, and what is wrong is named."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_records import demo_like_suite, made_record

from bench import storage
from bench.provenance import described_cpu, environment
from bench.record import RecordError, load_records, read_plan, read_record, read_trusted, to_frame, write_atomically, write_record
from bench.status import look_at, overhead, remarks, suite_status

VALUES = {"semseg": 67.21, "normals": 17.97}


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = made_record(run_id="a-s0", values=VALUES)
    path = write_record(tmp_path, written)
    assert read_record(path) == written | {"per_image": None}


@given(value=st.floats(0, 100))
def test_floats_round_trip_exactly(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = write_record(tmp_path_factory.mktemp("floats"), made_record(run_id="a", values={"semseg": value}))
    assert read_record(path)["metrics"]["semseg"]["miou"].hex() == value.hex()


def test_per_image_arrays_lie_beside_the_record(tmp_path: Path) -> None:
    arrays = {"semseg_confusion": np.arange(12, dtype=np.int64).reshape(3, 2, 2), "ids": np.array(["x", "y", "z"])}
    path = write_record(tmp_path, made_record(run_id="a-s0", values=VALUES), arrays)
    with np.load(tmp_path / read_record(path)["per_image"]) as stored:
        assert set(stored) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)


def test_arrays_are_written_before_the_json_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    real = os.replace
    monkeypatch.setattr(storage.os, "replace", lambda source, target: (order.append(Path(target).suffix), real(source, target)))
    write_record(tmp_path, made_record(run_id="a", values=VALUES), {"x": np.zeros(2)})
    assert order == [".npz", ".json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(storage.os, "replace", fail)
    with pytest.raises(OSError, match="disk is gone"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, size = tmp_path / "big.bin", 3_000_000
    script = f"from bench.record import write_atomically\nfor i in range(30): write_atomically({str(path)!r}, bytes([i]) * {size})"
    with subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent.parent) as writer:
        seen = set()
        while writer.poll() is None:
            if path.exists():
                content = path.read_bytes()
                assert len(content) == size
                assert len(set(content)) == 1
                seen.add(content[0])
    assert writer.returncode == 0
    assert seen


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 1,', "\x00\x00", "[]", '{"schema_version": NaN}', "null"])
def test_a_garbled_file_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=r"bad\.json"):
        read_record(path)


def test_every_truncation_of_a_record_is_refused(tmp_path: Path) -> None:
    whole = write_record(tmp_path, made_record(run_id="a", values=VALUES)).read_text().rstrip()
    path = tmp_path / "a.json"
    for length in range(0, len(whole), 97):
        path.write_text(whole[:length])
        with pytest.raises(RecordError, match=r"Run the suite again: it sets the file aside"):
            read_record(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "allowed: ok, failed, oom, diverged, invalid, timeout, killed"),
        ({"schema_version": 3}, "this code reads 2"),
        ({"tasks": ["semseg", "edgez"]}, "allowed: one or more of"),
        ({"tasks": []}, "allowed: one or more of"),
        ({"seed": "0"}, "'seed'"),
        ({"seed": True}, "'seed'"),
        ({"metrics": None}, "'metrics'"),
        ({"metrics": {"semseg": {"miou": 1.0}, "normals": {}}}, "lacks 'mean_deg'"),
        ({"params": None}, "'params'"),
        ({"status": "oom"}, "needs a reason"),
        ({"run_id": "../a"}, "plain file name"),
        ({"metrics": {"semseg": {"miou": float("nan")}, "normals": {"mean_deg": 1.0}}}, "metrics.semseg.miou is nan"),
        ({"env": {"threads": np.int64(1)}}, "env.threads is a int64"),
        ({"env": {"x": np.float32(1)}}, "env.x is a float32"),
        ({"history": [{"loss": float("inf")}]}, r"history\[0\].loss is inf"),
        ({"history": [3]}, r"history\[0\]: a line of the history is an object"),
        ({"history": [{"epoch": 1, "losses": {"semseg": "low"}}]}, r"history\[0\].losses: field 'semseg' is 'low'"),
        ({"metrics": {"semseg": 3, "normals": {"mean_deg": 1.0}}}, "metrics.semseg lacks 'miou'"),
        ({"metrics": {"semseg": {"miou": "60"}, "normals": {"mean_deg": 1.0}}}, "metrics.semseg: field 'miou' is '60'"),
        ({"metrics": {"semseg": {"miou": -1}, "normals": {"mean_deg": 1.0}}}, "allowed: 0 to 100, or null"),
        ({"metrics": {"semseg": {"miou": 60}, "normals": {"mean_deg": 181}}}, "allowed: 0 to 180, or null"),
        ({"config": {"recipe": "fast"}}, "field 'config.recipe' is 'fast'"),
        ({"tasks": [["semseg"]]}, "allowed: one or more of"),
        ({"launch": None}, "field 'launch' is None"),
        ({"best_on_held_out": {"a": 3}}, "best_on_held_out: field 'metrics' is missing"),
        ({"timing": {"trial_start": "noon", "train_seconds": 1, "total_seconds": 1}}, "timing.trial_start is 'noon'"),
    ],
)
def test_a_wrong_field_is_refused_before_anything_is_written(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        write_record(tmp_path, made_record(run_id="a", values=VALUES) | change, {"x": np.zeros(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", sorted(set(made_record(run_id="a", values=VALUES)) - {"schema_version"}))
def test_every_missing_field_is_named(tmp_path: Path, field: str) -> None:
    record = made_record(run_id="a", values=VALUES)
    del record[field]
    with pytest.raises(RecordError, match=field):
        write_record(tmp_path, record)


def test_sums_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    record = made_record(run_id="a", values=VALUES)
    record["params"]["trainable"] += 1
    with pytest.raises(RecordError, match=r"params.trainable is 3000001, but its parts sum to 3000000"):
        write_record(tmp_path, record)
    record = made_record(run_id="a", values=VALUES)
    record["cost"]["step_memory_bytes"]["gradients"] += 1
    with pytest.raises(RecordError, match=r"cost.step_memory_bytes.total"):
        write_record(tmp_path, record)


@pytest.mark.parametrize("status", ["failed", "oom", "diverged", "invalid"])
def test_a_failed_trial_is_a_record_without_measurements(tmp_path: Path, status: str) -> None:
    read = read_record(write_record(tmp_path, made_record(run_id="a", values=VALUES, status=status)))
    assert (read["status"], read["metrics"], read["params"]) == (status, None, None)
    assert read["reason"]


def test_a_record_tells_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "k3y-0f-m1ne")
    monkeypatch.setenv("SHORT_TOKEN", "on")
    told = "went on to http://bob:s3cr3tpw@host:5000/api with k3y-0f-m1ne at one@example.org"
    path = write_record(tmp_path, made_record(run_id="a", values=VALUES, status="failed") | {"reason": told, "log_tail": f"a\n{told}\n"})
    hidden = "went on to http://***@host:5000/api with *** at one@example.org"
    record = read_record(path)
    assert (record["reason"], record["log_tail"]) == (hidden, f"a\n{hidden}\n")


def test_a_metric_that_does_not_exist_is_null(tmp_path: Path) -> None:
    values = {"semseg": 10.0, "human_parts": None}
    assert read_record(write_record(tmp_path, made_record(run_id="a", values=values)))["metrics"]["human_parts"]["miou"] is None


def test_a_renamed_record_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, made_record(run_id="a", values=VALUES)).rename(tmp_path / "b.json")
    with pytest.raises(RecordError, match="holds the record of run 'a'"):
        load_records(tmp_path)


def test_records_are_loaded_in_order_and_litter_is_left_alone(tmp_path: Path) -> None:
    assert load_records(tmp_path / "none") == []
    for run_id in ("b", "a"):
        write_record(tmp_path, made_record(run_id=run_id, values=VALUES))
    (tmp_path / ".c.json.abc.tmp").write_text("{")
    assert [record["run_id"] for record in load_records(tmp_path)] == ["a", "b"]


def test_the_frame_has_one_row_a_record_with_flat_metrics_and_costs() -> None:
    records = [made_record(run_id="a", values=VALUES), made_record(run_id="b", values={"normals": 20.0}, status="oom")]
    frame = to_frame(records)
    assert list(frame["run_id"]) == ["a", "b"]
    assert frame.loc[0, "semseg/miou"] == 67.21
    assert frame.loc[0, "tasks"] == "semseg+normals"
    assert frame.loc[0, "params/trainable"] == 3_000_000
    assert frame.loc[0, "cost/step_memory_bytes/total"] == 100 * 2**20
    assert frame.loc[0, "params/groups/decoders/trainable"] == 1_000_000
    assert frame.loc[1, ["semseg/miou", "params/trainable"]].isna().all()
    assert frame.loc[1, "status"] == "oom"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (None, "no plan"),
        ("{", "cut short"),
        ("[]", "schema_version"),
        ({"schema_version": 9}, "schema version 9"),
        ({"rows": [{}]}, "a row lacks"),
        ({"rows": [3]}, "a row lacks"),
        ({"rows": [dict.fromkeys(("cell_id", "label", "method", "kind", "run_ids", "tasks", "seeds"), "x")]}, "its run_ids 'x'"),
    ],
)
def test_a_wrong_plan_is_named_with_the_remedy(tmp_path: Path, plan: object, message: str) -> None:
    path = tmp_path / "plan.json"
    base = {"schema_version": 1, "suite": "x", "title": "x", "rows": [], "reference_cell_id": "x"}
    if plan is not None:
        path.write_text(plan if isinstance(plan, str) else json.dumps(base | plan))
    with pytest.raises(RecordError, match=message):
        read_plan(path)


def test_status_counts_a_damaged_record_and_goes_on(tmp_path: Path):
    directory = demo_like_suite().write(tmp_path / "made")
    damaged = next((directory / "records").glob("*.json"))
    damaged.write_text(damaged.read_text()[:100])
    rows = suite_status(look_at(directory))
    assert sum("1 damaged" in row["not_ok"] for row in rows) == 1
    assert sum(row["trials"] for row in rows) == sum(row["ok"] for row in rows) + 1
    assert overhead(look_at(directory))["slots"] > 0


def test_processors_of_one_name_are_told_apart_by_family_and_model():
    """Two generations of a processor may bear one name in virtual machines, and round differently."""
    first = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n"
    second = "processor\t: 1\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    assert described_cpu(f"{first}\n{second}") == "AMD EPYC, family 25, model 1"
    assert described_cpu("processor\t: 0\nCPU part\t: 0xd40\n") == (platform.processor() or platform.machine())


def test_the_environment_says_which_instructions_torch_uses():
    assert environment(1)["cpu"].endswith(torch.backends.cpu.get_cpu_capability())


def test_a_directory_in_place_of_a_record_is_named_and_set_aside(tmp_path: Path) -> None:
    directory = demo_like_suite().write(tmp_path / "made")
    record = next((directory / "records").glob("*.json"))
    record.unlink()
    record.mkdir()
    assert sum("1 damaged" in row["not_ok"] for row in suite_status(look_at(directory))) == 1
    assert any("a directory, where a file belongs" in line for line in remarks(look_at(directory)))
    assert read_trusted(record)[0] is None
    assert not record.exists()
    assert (directory / "records" / "set_aside" / record.name).is_dir()
