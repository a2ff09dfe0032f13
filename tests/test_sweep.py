"""Sweeps through the command line: only what is missing runs, a failure costs one trial, the executor does not matter."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forked import Forked
from typer.testing import CliRunner

from bench.cli import app
from bench.data.pascal_context import fingerprint
from bench.data.roots import synthetic_root
from bench.progress import Board
from bench.provenance import code_id
from bench.suites import load
from bench.sweep.interrupt import Interrupt
from bench.sweep.jobs import Limits, make_job
from bench.sweep.serial import run_serial
from bench.training.checkpoint import FitState
from bench.trial import Launch

pytestmark = pytest.mark.usefixtures("forked_nurseries", "quick_figures")

REPOSITORY = Path(__file__).parent.parent
RUN_IDS = [trial.run_id for trial in load("smoke").trials]
PATIENCE_SECONDS = 240
BARE = ("--no-profiles", "--no-report")
"""For what is about trials alone."""

SECRETS = {
    name: f"secret-{name.lower()}-5f0c" for name in ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD")
}


def assert_no_secrets(results: Path) -> None:
    files = [path for path in results.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert not [name for name, value in SECRETS.items() if value.encode() in content], path


def start(*arguments: str) -> subprocess.Popen:
    """Start the command line in a process group of its own, with Ctrl-C as on a terminal: a shell's background jobs ignore it."""
    command = [sys.executable, "run_suite.py", *arguments]
    environment = os.environ | SECRETS | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the child keeps an ignored signal
    try:
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process: subprocess.Popen, code: int = 0) -> str:
    """Wait for the end of a command line and return its output."""
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, output
    return output


def cli(*arguments: str, code: int = 0) -> str:
    """Run the command line to its end, in this process, and return its output."""
    outcome = CliRunner().invoke(app, arguments, env=SECRETS | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"})
    assert outcome.exit_code == code, outcome.output
    return outcome.output


def wait_for(condition: Callable[[], object], process: subprocess.Popen | Forked) -> None:
    """Wait until something is there, as long as the process lives."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, process.errors() if isinstance(process, Forked) else process.communicate()[0]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def records(results: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (results / "smoke" / "records").glob("*.json")}


def metrics(results: Path) -> dict[str, dict]:
    return {run_id: record["metrics"] for run_id, record in records(results).items()}


def with_data(results: Path, undisturbed: Path) -> Path:
    """Copy the rendered data, so that it is rendered once for all tests."""
    shutil.copytree(undisturbed / "data", results / "data")
    return results


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serial run that nothing disturbs."""
    results = tmp_path_factory.mktemp("undisturbed")
    cli("run", "smoke", "--results", str(results), "--executor", "serial")
    return results


@pytest.mark.slow
def test_serial_run_leaves_records_table_figures_and_summary(undisturbed: Path):
    suite = undisturbed / "smoke"
    assert sorted(records(undisturbed)) == sorted(RUN_IDS)
    assert all(record["status"] == "ok" for record in records(undisturbed).values())
    names = {path.name for path in suite.iterdir()}
    figures = {f"{name}.{kind}" for name in ("task_bars", "memory_parts") for kind in ("png", "pdf")}
    assert {"plan.json", "table.csv", "table.md", "table.tex", "summary.md"} | figures <= names
    # So little training may leave a reference of exactly 0, hence no Δm: then that is said, and its figures are left out.
    defined = pd.read_csv(suite / "table.csv")["delta_m_mean"].notna().any()
    assert {f"pareto_{axis}.png" in names for axis in ("params", "memory")} == {defined}
    assert ("Δm is not given: undefined" in (suite / "summary.md").read_text(encoding="utf-8")) != defined
    assert not list((suite / "checkpoints").iterdir())
    assert_no_secrets(undisturbed)


@pytest.mark.slow
def test_the_log_of_a_good_trial_tells_its_course(undisturbed: Path):
    for file in (undisturbed / "smoke" / "records").glob("*.json"):
        record = json.loads(file.read_text())
        told = [
            line for line in (undisturbed / "smoke" / "logs" / f"{file.stem}.log").read_text().splitlines() if line.startswith("epoch ")
        ]
        epochs = record["config"]["recipe"]["epochs"]
        assert [line.partition(", lr ")[0] for line in told] == [
            f"epoch {line['epoch']} of {epochs}: loss {line['loss']:.4f}" for line in record["history"]
        ]


@pytest.mark.slow
def test_second_run_finds_nothing_to_do(undisturbed: Path):
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "smoke" / "records").iterdir()}
    output = cli("run", "smoke", "--results", str(undisturbed))
    assert "0 to run" in output
    assert before == {path: path.stat().st_mtime_ns for path in (undisturbed / "smoke" / "records").iterdir()}


@pytest.mark.slow
def test_ray_gives_the_numbers_of_a_serial_run_though_the_driver_is_killed(undisturbed: Path, tmp_path: Path):
    results = with_data(tmp_path, undisturbed)
    process = start("run", "smoke", "--results", str(results), *BARE)
    wait_for(lambda: records(results), process)
    process.kill()
    process.communicate()
    wait_for_quiet(results)
    finished = {path: path.stat().st_mtime_ns for path in (results / "smoke" / "records").iterdir()}
    assert 0 < len(records(results)) < len(RUN_IDS)
    assert_no_secrets(results)  # what Tune keeps is there still
    output = cli("run", "smoke", "--results", str(results), *BARE)
    assert f"{len(RUN_IDS) - len([path for path in finished if path.suffix == '.json'])} to run" in output
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    assert metrics(results) == metrics(undisturbed)
    assert not (results / "smoke" / "ray").exists()
    assert not (results / "smoke" / "table.csv").exists()  # --no-report


def starts(results: Path) -> dict[str, list[str]]:
    """Return the starts of every trial that has no record yet, as its attempts' file tells them; the process id is the last word."""
    files = (results / "smoke" / "checkpoints").glob("*.attempts")
    found = {file.stem: [line for line in file.read_text().splitlines() if line.startswith("start")] for file in files}
    return {run_id: lines for run_id, lines in found.items() if lines}


def wait_for_quiet(results: Path) -> None:
    """Wait until the workers of a killed driver are gone: their process ids are in the attempt files."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pids = [lines[-1].split()[-1] for lines in starts(results).values()]
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.2)
    raise AssertionError("workers outlive their driver")


@pytest.mark.slow
def test_killed_worker_is_retried_and_interrupt_exits_130(undisturbed: Path, tmp_path: Path):
    results = with_data(tmp_path, undisturbed)
    process = start("run", "smoke", "--results", str(results), *BARE)
    wait_for(lambda: starts(results), process)
    killed, started = next(iter(starts(results).items()))
    os.kill(int(started[-1].split()[-1]), signal.SIGKILL)
    wait_for(lambda: len(starts(results).get(killed, ())) > len(started), process)
    os.kill(process.pid, signal.SIGINT)
    assert "interrupted" in ended(process, 130)
    record = records(results)[killed]
    assert record["attempt"] == 2
    assert record["metrics"] == records(undisturbed)[killed]["metrics"]
    assert {record["status"] for record in records(results).values()} == {"ok"}  # what ran is finished


def hold(suite_dir: Path) -> None:
    """Launch the last trial, as a driver does, and let it wait before it writes its record."""
    launch = Launch(suite="smoke", suite_dir=suite_dir, cache_dir=suite_dir.parent / "cache")
    jobs = [make_job(load("smoke").trials[-1], launch, Limits(), entry="held_trials:train")]
    with Board({jobs[0]["run_id"]: ("held", jobs[0]["epochs"])}) as board, Interrupt(board.say) as interrupt:
        run_serial(jobs, board, interrupt)


@pytest.mark.slow
def test_a_driver_killed_between_the_last_epoch_and_the_record_changes_no_bit(undisturbed: Path, tmp_path: Path):
    results = with_data(tmp_path, undisturbed)
    process = Forked(lambda: hold(results / "smoke"), dict(os.environ))
    wait_for((results / "smoke" / "held").exists, process)
    process.kill()
    process.wait()
    wait_for_quiet(results)
    assert not records(results)
    cli("run", "smoke", "--results", str(results), "--only", "MTLoRA*", "--executor", "serial", *BARE)
    resumed, whole = (records(place)[RUN_IDS[-1]] for place in (results, undisturbed))
    assert resumed["attempt"] == 2
    assert resumed["timing"]["total_seconds"] > resumed["timing"]["attempt_seconds"]
    assert [line["losses"] for line in resumed["history"]] == [line["losses"] for line in whole["history"]]
    assert resumed["metrics"] == whole["metrics"]
    resumed, whole = (np.load(place / "smoke" / "records" / f"{RUN_IDS[-1]}.npz") for place in (results, undisturbed))
    assert set(resumed) == set(whole)
    assert all((resumed[name] == whole[name]).all() for name in whole)


def plant_foreign_checkpoint(results: Path) -> None:
    """Give the last trial a checkpoint that claims to be its own and holds another model: resuming raises."""
    root = synthetic_root(results, load("smoke").trials[0].data.synthetic)
    path = results / "smoke" / "checkpoints" / f"{RUN_IDS[-1]}.pt"
    path.parent.mkdir(parents=True)
    content = {"identity": f"{code_id()} {fingerprint(root)}", "fit": vars(FitState()), "model": {"foreign": torch.zeros(1)}}
    torch.save(content | {"optimizer": {}, "scaler": {}, "rng": torch.get_rng_state(), "cuda_rng": []}, path)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_failing_trial_is_recorded_the_others_go_on_and_the_exit_code_is_1(undisturbed: Path, tmp_path: Path, executor: str):
    results = with_data(tmp_path, undisturbed)
    plant_foreign_checkpoint(results)
    rows = ("--only", "M*", *BARE)  # the multi-task rows: full fine-tuning and MTLoRA
    output = cli("run", "smoke", "--results", str(results), *rows, "--executor", executor, code=1)
    found = records(results)
    assert found[RUN_IDS[-1]]["status"] == "failed"
    assert [record["status"] for run_id, record in found.items() if run_id != RUN_IDS[-1]] == ["ok"]
    assert f"{RUN_IDS[-1]}: failed" in output
    assert "0 to run" in cli("run", "smoke", "--results", str(results), *rows, code=1)
    if executor == "serial":
        output = cli("run", "smoke", "--results", str(results), *rows, "--executor", "serial", "--rerun", "failed")
        assert "1 to run" in output
        assert records(results)[RUN_IDS[-1]]["status"] == "ok"


@pytest.mark.slow
def test_a_trial_that_no_node_has_room_for_is_refused(undisturbed: Path, tmp_path: Path):
    results = with_data(tmp_path, undisturbed)
    output = ended(start("run", "smoke", "--results", str(results), "--cpus-per-trial", "999"), 2)
    assert "999 CPUs" in output
    assert "--cpus-per-trial" in output


@pytest.mark.slow
def test_status_and_report_need_the_records_only(undisturbed: Path):
    found = json.loads(cli("status", "smoke", "--results", str(undisturbed), "--json"))
    rows, slots = found["rows"], found["slots"]
    assert 0 < slots["training_share"] < 1
    assert slots["slots"] >= 1
    assert "attempt 1" in cli("status", "smoke", "--results", str(undisturbed), "--tail", RUN_IDS[-1])
    assert [(row["trials"], row["ok"], row["missing"]) for row in rows] == [(4, 4, 0), (1, 1, 0), (1, 1, 0), (1, 1, 0)]
    table = undisturbed / "smoke" / "table.csv"
    before = table.read_bytes()
    table.unlink()
    cli("report", "smoke", "--results", str(undisturbed))
    assert table.read_bytes() == before
