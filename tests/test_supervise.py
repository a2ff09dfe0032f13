"""A supervisor brings every job to its record, whatever happens to the job's process. The trials are stubs; the processes are real."""

import contextlib
import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import Forked
from made_records import made_record

from bench.config import TrialConfig
from bench.data.roots import ensure_synthetic
from bench.launch import clear_leftovers
from bench.progress import Board
from bench.record import load_records, read_record, write_record
from bench.status import slot_start
from bench.storage import StorageError
from bench.suites import load
from bench.sweep.attempts import MAX_FRUITLESS_STARTS, MAX_LOSSES, Attempts
from bench.sweep.interrupt import Interrupt
from bench.sweep.jobs import Limits, make_job
from bench.sweep.lock import only_launch
from bench.sweep.losses import LostWorkers
from bench.sweep.nursery import Nursery, begin
from bench.sweep.serial import run_serial
from bench.sweep.supervise import Supervisor, hopeless, superseded
from bench.trial import Launch

pytestmark = pytest.mark.usefixtures("forked_nurseries")

HERE = Path(__file__).parent
BASE = next(row for row in load("smoke").rows if row.label == "Decoders only").trials[0]


@pytest.fixture(autouse=True)
def stubs_are_importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def trial(seed: int) -> TrialConfig:
    return dataclasses.replace(BASE, seed=seed)


def jobs_of(suite_dir: Path, seeds: range, *, launch: str = "first", **changes) -> list[dict]:
    limits, of_launch = (
        Limits(**{"time_limit_seconds": None, "max_attempts": 3} | changes),
        Launch(suite="stub", suite_dir=suite_dir, id=launch),
    )
    return [make_job(trial(seed), of_launch, limits, entry="stub_trials:train") for seed in seeds]


def run(jobs: list[dict], monkeypatch: pytest.MonkeyPatch, script: dict) -> dict[int, dict]:
    """Run jobs to their records; returns them by seed."""
    monkeypatch.setenv("STUB", json.dumps(script))
    with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}, quiet=True) as board, Interrupt(print) as interrupt:
        run_serial(jobs, board, interrupt)
    return {record["seed"]: record for record in load_records(Path(jobs[0]["suite_dir"]) / "records")}


def test_others_go_on_when_one_is_killed_one_hangs_and_one_dies_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    jobs = jobs_of(tmp_path, range(5))
    jobs[1]["time_limit_seconds"] = 2  # too short for it, as it waits for ever
    jobs[4] |= {"hang_seconds": 1, "max_attempts": 2}
    found = run(jobs, monkeypatch, {"0": ["die"], "1": ["hang"], "2": ["die", "end"], "4": ["hang"]})
    assert {seed: record["status"] for seed, record in found.items()} == {0: "killed", 1: "timeout", 2: "ok", 3: "ok", 4: "killed"}
    for seed, said in ((0, "attempt 3 died of signal 9 (SIGKILL"), (1, "died of its time limit of 2 s"), (4, "1 s without a sign of life")):
        died, end = found[seed]["log_tail"].splitlines()[-2:]  # the tail of the log says what the supervisor did
        assert said in died
        assert "after its last epoch" in died or "in epoch 3 of 3" in died
        assert end == f"--- recorded as {found[seed]['status']}: {found[seed]['reason']}"
        assert (tmp_path / "logs" / f"{found[seed]['run_id']}.log").read_text().splitlines()[-1] == end
        (*earlier, last) = found[seed]["timing"]["earlier_attempts"], found[seed]["timing"]["attempt_seconds"]
        assert len(earlier[0]) == found[seed]["attempt"] - 1
        assert found[seed]["timing"]["total_seconds"] == pytest.approx(last + sum(attempt["seconds"] for attempt in earlier[0]))
    assert found[0]["attempt"] == 3
    assert "SIGKILL" in found[0]["reason"]
    assert "attempt 3 die" in found[0]["log_tail"]
    assert "2 s" in found[1]["reason"]
    assert "--time-limit" in found[1]["reason"]
    assert found[1]["attempt"] == 1
    assert found[2]["attempt"] == 2
    assert found[2]["history"][0]["epoch"] == 2  # it went on from its own last epoch
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {f"{trial(1).run_id}.pt"}  # to go on from, with a longer limit


def test_deaths_are_counted_over_launches_and_deaths_of_the_launch_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (job,) = jobs_of(tmp_path, range(1), launch="second")
    attempts = Attempts(tmp_path / "checkpoints" / f"{job['run_id']}.attempts")
    for line in (
        "start 2026-01-01T00:00:00+00:00 launch first pid 1",
        "died of signal 9 (SIGKILL)",
        "start 2026-01-01T00:00:00+00:00 launch first pid 2",
    ):
        attempts.add(line)
    found = run([job], monkeypatch, {"0": ["die"]})
    assert (found[0]["status"], found[0]["attempt"]) == ("killed", 4)  # two deaths more; the second start's launch was killed


def test_attempts_say_when_they_were_over_all_launches(tmp_path: Path):
    attempts = Attempts(tmp_path / "x.attempts")
    attempts.add("start 2026-01-01T00:00:00+00:00 host a launch l slot a:1 pid 1")
    attempts.add("epoch 1", at="2026-01-01T00:00:10+00:00")
    attempts.close_open("another launch")  # its driver was killed, nobody knows when
    attempts.add("start 2026-01-01T00:01:00+00:00 host a launch m slot a:2 pid 2")
    attempts.add("died of signal 9 (SIGKILL)", at="2026-01-01T00:01:07+00:00")
    first, second = Attempts.read(attempts.path).spans()
    assert (first["seconds"], first["slot"], first["ended"]) == (10.0, "a:1", "interrupted with its launch")
    assert (second["seconds"], second["launch"], second["ended"]) == (7.0, "m", "died of signal 9 (SIGKILL)")
    assert Attempts.read(attempts.path).deaths == ["of signal 9 (SIGKILL)"]


def test_a_trial_that_lost_its_nodes_is_no_failure_of_its_own_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (job,) = jobs_of(tmp_path, range(1), launch="now")
    attempts = Attempts(tmp_path / "checkpoints" / f"{job['run_id']}.attempts")
    for ended in ("now", "now", "now", "now", "later"):
        attempts.add("start 2026-01-01T00:00:00+00:00 launch now pid 1")
        attempts.close_open(ended)
    assert (attempts.losses, attempts.deaths) == (4, [])  # the fifth was interrupted with its launch
    found = run([job], monkeypatch, {})
    assert (found[0]["status"], found[0]["attempt"]) == ("ok", 6)


def test_losses_and_fruitless_starts_have_an_end(tmp_path: Path):
    attempts, job = Attempts(tmp_path / "x.attempts"), {"epochs": 3, "max_attempts": 3}
    for _ in range(MAX_FRUITLESS_STARTS):
        assert hopeless(attempts, job) is None
        attempts.add("start 2026-01-01T00:00:00+00:00 launch now pid 1")
        attempts.close_open("now")
    assert "25 times without finishing an epoch" in hopeless(attempts, job)[1]
    attempts.add("epoch 1")
    assert (Attempts.read(attempts.path).fruitless, hopeless(attempts, job)) == (0, None)
    for _ in range(MAX_LOSSES - MAX_FRUITLESS_STARTS):
        attempts.add("start 2026-01-01T00:00:00+00:00 launch now pid 1")
        attempts.add("epoch 2")
        attempts.close_open("now")
    assert "lost 100 times with its node" in hopeless(attempts, job)[1]


GUESS = "Some common causes include: (1) killed by the OOM killer. OutOfMemory. Enable isolation to prevent node died."
DIED = "The actor died unexpectedly before finishing this task.\n\tactor_id: 1f\n"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (
            f"{DIED}The actor died because its node has died. Node Id: 5a\n\tthe actor's node was terminated expectedly",
            "lost with its node",
        ),
        (f"{DIED}The actor is dead because its node was preempted.", "lost with its node"),
        ("The actor 1f is unavailable: the connection broke. The task may or may not have been executed.", "lost with its node"),
        (f"{DIED}Task was killed due to the node running low on memory.", "died with its worker, which Ray ended for want of memory"),
        (f"{DIED}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR {GUESS}", "died by itself"),
        ("ray::f() (pid=1)\n  File ...\nNurseryError: planted", "died with an error of its worker: NurseryError: planted"),
    ],
)
def test_what_ray_says_of_a_worker_tells_whose_fault_its_end_was(tmp_path: Path, error: str, end: str):
    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at then)\nolder\nFailure # 2 (occurred at now)\n{error}\n")
    attempts, lost = Attempts(tmp_path / "x.attempts"), LostWorkers("died by itself", 3)
    trial = SimpleNamespace(error_file=tmp_path / "error.txt", trial_id="t", max_failures=103, run_metadata=SimpleNamespace(num_failures=2))
    for _ in range(2):
        attempts.add("start 2026-01-01T00:00:00+00:00 launch now pid 1")
        lost.note(trial, [attempts.path, tmp_path / "of a trial that never began"])
    assert Attempts.read(attempts.path).lines[1::2] == [end, end]
    assert trial.max_failures == (2 if "NurseryError" in end else 103)  # a worker that raises is not started for ever
    assert not (tmp_path / "of a trial that never began").exists()


def test_an_exception_outside_of_the_record_is_no_loss_of_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = run(jobs_of(tmp_path, range(2), max_attempts=2), monkeypatch, {"0": ["raise"]})
    assert (found[0]["status"], found[0]["attempt"], found[1]["status"]) == ("killed", 2, "ok")
    assert "RuntimeError: planted" in found[0]["log_tail"]


def test_a_record_of_another_launch_is_made_again_only_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(jobs_of(tmp_path, range(1), launch="first"), monkeypatch, {})
    (job,) = jobs_of(tmp_path, range(1), launch="second")
    assert run([job], monkeypatch, {})[0]["launch"]["id"] == "first"
    assert run([job | {"redo": True}], monkeypatch, {})[0]["launch"]["id"] == "second"
    told = [line for line in (tmp_path / "logs" / f"{job['run_id']}.log").read_text().splitlines() if line.startswith("---")]
    assert [line.split(",")[0] for line in told] == ["--- attempt 1", "--- a new launch", "--- attempt 1"]
    assert told[1].startswith("--- a new launch, second, begins here, 20")


def test_what_ends_an_attempt_early_ends_its_process_and_the_supervisor_goes_on_with_the_next(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "0.2")
    stopped, following = jobs_of(tmp_path, range(2))

    def stop(line: dict) -> None:
        raise SystemExit

    with Supervisor() as supervisor:
        with pytest.raises(SystemExit):
            supervisor.run(stopped, stop)
        (pid,) = running_pids(tmp_path)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), 10)
        assert not Path(stopped["record"]).exists()
        assert supervisor.run(following, lambda _: None) == "ok"
        assert supervisor.run(stopped, lambda _: None) == "ok"


def test_what_the_process_that_forks_the_trials_takes_to_start_counts_for_the_slot_and_for_no_trial(tmp_path: Path):
    (job,), ready, spans = jobs_of(tmp_path, range(1)), [], []
    with Supervisor() as supervisor:
        forks = supervisor.nursery

        def slow(module: str) -> Nursery:
            time.sleep(1)
            nursery = forks(module)
            ready.append(time.time())
            return nursery

        supervisor.nursery = slow
        attempts = tmp_path / "checkpoints" / f"{job['run_id']}.attempts"
        supervisor.run(job, lambda _: spans.append(Attempts.read(attempts).spans()[0]))
    assert datetime.datetime.fromisoformat(spans[0]["start"]).timestamp() >= ready[0]
    assert slot_start(spans[0]["slot"]) <= ready[0] - 1


def test_a_trial_that_outlived_its_time_limit_is_said_to_keep_a_checkpoint_only_where_there_is_one(tmp_path: Path):
    attempts = Attempts(tmp_path / "a.b.attempts")
    attempts.add("start 2026-01-01T00:00:00+00:00 launch now pid 1")
    attempts.add("died of its time limit of 2 s")
    for said in ("starts it again", "goes on from its checkpoint, which is kept"):
        status, reason = hopeless(attempts, {"epochs": 3, "max_attempts": 3})
        assert (status, reason.endswith(f"with a longer --time-limit {said}")) == ("timeout", True)
        (tmp_path / "a.b.pt").touch()


def test_a_pause_is_no_attempt_of_its_own_and_its_time_counts_in_the_limit(tmp_path: Path):
    attempts = Attempts(tmp_path / "x.attempts")
    attempts.add("start 2026-01-01T00:00:00+00:00 launch now pid 1")
    attempts.add("died of signal 9 (SIGKILL)", at="2026-01-01T00:00:05+00:00")
    assert (attempts.number, attempts.next_number, attempts.seconds_before_pause) == (1, 2, 0.0)
    attempts.add("start 2026-01-01T00:01:00+00:00 launch now pid 2")
    attempts.add("epoch 1", at="2026-01-01T00:01:03+00:00")
    attempts.add("paused at a rung", at="2026-01-01T00:01:07+00:00")
    assert (attempts.number, attempts.next_number, attempts.seconds_before_pause) == (2, 2, 7.0)


def test_a_trial_that_goes_on_after_its_time_limit_keeps_the_time_of_its_earlier_attempts(tmp_path: Path):
    jobs, reports = (
        jobs_of(tmp_path, range(1), launch="second"),
        [{"start": "2025-12-31T00:00:00+00:00", "seconds": 5.0, "launch": "first", "slot": None}],
    )
    job = jobs[0] | {"redo": True}
    record = made_record(run_id=job["run_id"], values={"semseg": 1.0}, seed=0, cell_id="0" * 12)
    record |= {"status": "timeout", "reason": "planted", "attempt": 2, "launch": {"id": "first", "slot": "a:1"}}
    record["timing"] |= {"trial_start": "2026-01-01T00:00:00+00:00", "attempt_seconds": 7.0, "earlier_attempts": reports}
    write_record(tmp_path / "records", record)
    number, spans = superseded(job)
    assert (number, [span["seconds"] for span in spans], spans[1]["slot"]) == (2, [5.0, 7.0], "a:1")
    assert superseded(job | {"redo": False}) == superseded(job | {"launch_id": "first"}) == (0, [])
    write_record(tmp_path / "records", record | {"status": "failed"})
    assert superseded(job) == (0, [])  # starts anew
    (left := tmp_path / "checkpoints" / f"{job['run_id']}.pt").parent.mkdir()
    left.touch()
    clear_leftovers([trial(1)], tmp_path)  # has no record
    for status, stays in (("timeout", True), ("failed", False)):
        write_record(tmp_path / "records", record | {"status": status})
        clear_leftovers([trial(0)], tmp_path)
        assert left.exists() == stays


def drive(suite_dir: Path, trials: int) -> None:
    """Launch stubs, as a driver does."""
    with only_launch(suite_dir) as launch:
        jobs = [job for job in jobs_of(suite_dir, range(trials), launch=launch) if not Path(job["record"]).exists()]
        with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}) as board, Interrupt(board.say) as interrupt:
            run_serial(jobs, board, interrupt)
        sys.exit(130 if interrupt.stopping else 0)


def driver(suite_dir: Path, trials: int, **environment: str) -> Forked:
    """Start a launch of stubs in a process of its own."""
    return Forked(lambda: drive(suite_dir, trials), os.environ | environment)


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def running_pids(suite_dir: Path) -> list[int]:
    lines = [line for path in (suite_dir / "checkpoints").glob("*.attempts") for line in path.read_text().splitlines()]
    return [int(line.split()[-1]) for line in lines if line.startswith("start")]


@pytest.mark.slow
def test_a_sweep_killed_at_random_ends_with_the_records_of_an_undisturbed_one(tmp_path: Path):
    trials, kills = 30, 3
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for moment in range(kills):
        process, before = driver(broken, trials, STUB_SECONDS="0.02"), len(list((broken / "records").glob("*.json")))
        wait_for(lambda before=before: len(list((broken / "records").glob("*.json"))) >= before + 5)
        time.sleep(0.037 * moment)
        pids = running_pids(broken)
        process.kill()
        process.wait()
        wait_for(lambda pids=pids: not any(Path(f"/proc/{pid}").exists() for pid in pids))  # no trial outlives its launch
        assert all(read_record(path) for path in (broken / "records").glob("*.json"))
    for suite_dir in (broken, whole):
        process = driver(suite_dir, trials)
        assert process.wait() == 0, process.errors()
    result = [
        {record["run_id"]: (record["status"], record["metrics"], record["seed"]) for record in load_records(suite_dir / "records")}
        for suite_dir in (broken, whole)
    ]
    assert len(result[0]) == trials
    assert result[0] == result[1]
    assert not list((broken / "checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_ctrl_c_once_finishes_what_runs_and_twice_stops_now_and_a_second_driver_is_refused(tmp_path: Path):
    process = driver(tmp_path, 50, STUB_SECONDS="0.5")
    wait_for(lambda: running_pids(tmp_path))
    second = driver(tmp_path, 50)
    assert second.wait() == 1
    assert "another launch is running" in second.errors()
    before = len(list((tmp_path / "records").glob("*.json")))
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130, process.errors()
    assert "Ctrl-C again" in process.errors()
    finished = len(list((tmp_path / "records").glob("*.json")))
    assert before <= finished <= before + 2  # one ran, and one may have begun before the signal came
    assert not list((tmp_path / "checkpoints").glob("*.attempts"))

    process = driver(tmp_path, 50, STUB="{}", STUB_SECONDS="100")
    wait_for(lambda: running_pids(tmp_path))
    pids = running_pids(tmp_path)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.3)
    assert process.wait() != 0
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert len(list((tmp_path / "records").glob("*.json"))) == finished


def test_an_allocation_beyond_the_limit_fails_and_leaves_the_nursery_alone(tmp_path: Path):
    nursery = Nursery("memory_hog")
    try:
        for limit, gets in ((2**28, "MemoryError"), (None, "all of it")):
            nursery.start("take", {"bytes": 2**29}, log=tmp_path / "log", environment={}, memory_bytes=limit)
            assert [event.get("got") for event in nursery.events(60)] == [gets, None]
    finally:
        nursery.close()


EVER = [
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 137438953472 bytes.",
    "std::bad_alloc",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
]
LIMITED = ["could not create a primitive", "can't start new thread"]
NEVER = [
    "could not create a primitive descriptor for a convolution forward propagation primitive",
    "CUDA error: device-side assert triggered",
    "mat1 and mat2 shapes cannot be multiplied",
    "the index of the memory bank is out of memory-mapped range",
]


@pytest.mark.parametrize(("limit", "expected"), [(2**33, [*EVER, *LIMITED]), (None, EVER)])
def test_what_libraries_say_when_memory_ran_out_is_told_from_other_errors(tmp_path: Path, limit: int | None, expected: list[str]):
    nursery = Nursery("memory_hog")
    try:
        nursery.start("judge", {"messages": [*EVER, *LIMITED, *NEVER]}, log=tmp_path / "log", environment={}, memory_bytes=limit)
        assert next(nursery.events(60), None) == {"oom": expected}
    finally:
        nursery.close()


def test_a_process_that_dies_for_want_of_memory_under_its_limit_is_out_of_memory_and_not_started_again(tmp_path: Path, monkeypatch):
    (first, second) = jobs_of(tmp_path, range(2), memory_bytes=2**33, max_attempts=2)
    found = run([first, second | {"memory_bytes": None}], monkeypatch, {"0": ["abort for memory"], "1": ["abort for memory"]})
    assert [(found[seed]["status"], found[seed]["attempt"]) for seed in (0, 1)] == [("oom", 1), ("killed", 2)]
    assert "SIGABRT), out of memory under its limit of 8.00 GiB beyond what it began with: terminate called" in found[0]["reason"]


def test_what_a_child_reports_before_its_process_id_is_known_is_not_lost(tmp_path: Path):
    nursery = Nursery("late_nursery")
    try:
        nursery.start("tell", {}, log=tmp_path / "log", environment={})
        assert list(nursery.events(60)) == [{"epoch": 1}, {"exit": 0}]
    finally:
        nursery.close()


def mounted(place: Path, *options: str) -> None:
    """Mount or remount a small file system in memory; skips the test where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=256k", *options)), "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED HERE: a really full and a really read-only disk need root and mount")


def test_a_sweep_stops_on_a_full_and_on_a_read_only_disk_and_goes_on_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mounted(tmp_path)
    try:
        suite_dir = tmp_path / "stub"
        jobs, filler = jobs_of(suite_dir, range(5)), tmp_path / "filler"
        assert run(jobs[:2], monkeypatch, {})
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        before = {path: path.read_bytes() for path in (suite_dir / "records").iterdir()}
        with pytest.raises(StorageError, match=r"the disk is full|No space left"):
            run(jobs, monkeypatch, {})
        assert before == {path: path.read_bytes() for path in (suite_dir / "records").iterdir()}  # nothing half-written
        filler.unlink()
        assert len(run(jobs[:4], monkeypatch, {})) == 4
        mounted(tmp_path, "remount", "ro")
        with pytest.raises(StorageError, match=r"read-only|Read-only"):
            run(jobs, monkeypatch, {})
        mounted(tmp_path, "remount", "rw")
        assert {record["status"] for record in run(jobs, monkeypatch, {}).values()} == {"ok"}
        assert {record["attempt"] for record in load_records(suite_dir / "records")} == {1}  # the disk is no fault of a trial
    finally:
        subprocess.run(["umount", str(tmp_path)], check=False)


@pytest.mark.slow
def test_a_trial_that_runs_out_of_memory_says_so_and_the_others_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.sweep.nursery.begin", begin)  # a fork of this process has room in what the tests have freed
    ensure_synthetic(tmp_path, BASE.data.synthetic)
    launch = Launch(suite="smoke", suite_dir=tmp_path / "smoke")
    jobs = [make_job(trial(seed), launch, Limits(memory_bytes=bound)) for seed, bound in ((0, 2**24), (1, None))]
    found = run(jobs, monkeypatch, {})
    assert {seed: (record["status"], record["attempt"]) for seed, record in found.items()} == {0: ("oom", 1), 1: ("ok", 1)}
    assert "memory" in found[0]["reason"].lower()
    assert found[0]["reason"].splitlines()[0].partition(" (limit of its memory")[0] in found[0]["log_tail"]


def test_a_trial_that_hangs_for_want_of_memory_is_out_of_memory_and_not_started_again(tmp_path: Path):
    (job,) = jobs_of(tmp_path, range(1))
    with Supervisor() as supervisor:
        limits = {"memory_bytes": 2**33, "hang_seconds": 1.0}
        assert supervisor.run(job | limits | {"entry": "memory_hog:wait_without_memory"}, print) == "oom"
    (record,) = load_records(tmp_path / "records")
    assert record["attempt"] == 1
    assert "hung: killed after 1 s without a sign of life, out of memory under its limit of 8.00 GiB" in record["reason"]


def test_a_disk_that_refuses_stops_the_sweep_and_is_no_failure_of_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (job,) = jobs_of(tmp_path, range(1))
    with Supervisor() as supervisor, pytest.raises(StorageError, match="the disk is full"):
        supervisor.run(job | {"entry": "memory_hog:full_disk"}, print)
    assert not (tmp_path / "records").exists()
    assert Attempts.read(tmp_path / "checkpoints" / f"{job['run_id']}.attempts").deaths == []
    assert run([job], monkeypatch, {})[0]["status"] == "ok"


def test_a_trial_without_a_gpu_sees_none_and_one_with_a_gpu_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    (job,) = jobs_of(tmp_path, range(1))
    seen = []
    for gpus in (0, 1):
        with Supervisor() as supervisor, pytest.raises(StorageError, match="saw"):
            supervisor.run(job | {"entry": "memory_hog:tell_gpus", "gpus": gpus}, print)
        seen.append((tmp_path / "seen").read_text())
    assert seen == ["", "3"]
