"""Names stay in their directory, damaged files are set aside, a disk that refuses is told from a defect, a launch stands alone."""

import errno
import json
import os
from pathlib import Path

import pytest
from made_records import MadeSuite, made_method, made_record

from bench import storage
from bench.cli import main
from bench.errors import SuiteError
from bench.record import SCHEMA_VERSION, RecordError, StorageError, load_records, read_arrays, read_record, read_trusted, write_record
from bench.report.profiles import with_profiles
from bench.report.stats import row_frame
from bench.status import slot_shares
from bench.storage import append_line, plain_name, printed_to, refuse, set_aside, tail, write_atomically
from bench.sweep import lock
from bench.sweep.attempts import Attempts
from bench.sweep.room import RoomError, gpu_share, longest_first, require_room
from benchmarks.sweep import blocks

REPOSITORY = Path(__file__).parent.parent
VALUES = {"semseg": 67.21}


@pytest.mark.parametrize("command", ["run", "plan", "profile", "status", "report"])
@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", ".."])
def test_a_suite_name_cannot_leave_the_results(command: str, name: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run_suite.py", command, name, "--results", str(tmp_path / "results")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert repr(name) in "".join(capsys.readouterr())
    assert not list(tmp_path.iterdir())


def test_a_log_outside_of_the_results_is_not_shown(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "secret.log").write_text("secret")
    for run_id in ("../../secret", "unknown"):
        monkeypatch.setattr("sys.argv", ["run_suite.py", "status", "smoke", "--results", str(tmp_path), "--tail", run_id])
        with pytest.raises(SystemExit):
            main()
        assert "secret" not in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NO /dev/full: a device that is always full")
def test_a_full_disk_under_what_is_printed_is_named_and_hides_no_reason(tmp_path: Path):
    (tmp_path / "ray.log").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"ray\.log cannot be written: the disk is full"), printed_to(tmp_path / "ray.log"):
        print("Tune says something")
    reason = StorageError("the record could not be written")

    def launch() -> None:
        with printed_to(tmp_path / "ray.log"):
            print("Tune says something")
            raise reason

    with pytest.raises(StorageError) as raised:
        launch()
    assert raised.value is reason


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b"])
def test_a_name_with_a_way_out_is_refused(name: str):
    with pytest.raises(SuiteError, match="no plain name"):
        plain_name(name, "run id")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO])
def test_a_disk_that_refuses_is_named_and_leaves_the_old_file(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(StorageError, match=r"x\.json cannot be written.*run the same command again"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("torn", ["epoch 1\t2026-11-2", "epoch ", "start", "start 2026-11-25", "epoch 2\t", "die"])
def test_a_torn_line_of_the_attempts_is_named_once_and_skipped_and_the_next_begins_anew(torn: str, tmp_path: Path, caplog):
    path = tmp_path / "a.attempts"
    path.write_text(f"start 2026-11-25T00:00:00+00:00 host a launch x slot a:1 pid 2\nepoch 1\t2026-11-25T00:01:00+00:00\n{torn}")
    Attempts.read(path).add("epoch 2", at="2026-11-25T00:02:00+00:00")
    attempts = Attempts.read(path)
    assert path.read_text().splitlines()[2] == torn
    assert (attempts.starts, attempts.epoch, attempts.fruitless, attempts.spans()[0]["seconds"]) == (1, 2, 0, 120.0)
    assert [record.getMessage().endswith(repr(torn)) for record in caplog.records] == [True]


def test_a_line_is_whole_however_little_a_write_takes_and_none_where_the_disk_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, write, room = tmp_path / "a.attempts", os.write, [100]

    def short(descriptor: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(descriptor, data[: min(3, room[0])])
        room[0] -= taken
        return taken

    monkeypatch.setattr(storage.os, "write", short)
    append_line(path, "epoch 1\t2026-11-25T00:01:00+00:00")
    room[0] = 10
    with pytest.raises(StorageError, match="the disk is full"):
        append_line(path, "epoch 2\t2026-11-25T00:02:00+00:00")
    assert path.read_text() == "epoch 1\t2026-11-25T00:01:00+00:00\n"


def test_another_error_is_no_fault_of_the_disk():
    refuse(OSError(errno.ENOENT, "gone"), Path("x"))  # returns


def test_what_is_set_aside_keeps_its_name_and_covers_nothing(tmp_path: Path):
    places = []
    for content in ("first", "second"):
        (tmp_path / "a.json").write_text(content)
        places.append(set_aside(tmp_path / "a.json"))
    assert [place.name for place in places] == ["a.json", "a.2.json"]
    assert [place.read_text() for place in places] == ["first", "second"]


def test_a_damaged_record_or_damaged_arrays_are_set_aside_and_a_newer_one_is_left_alone(tmp_path: Path):
    whole = write_record(tmp_path, made_record(run_id="a", values=VALUES), {"x": [1, 2]})
    assert read_trusted(whole)[0]["run_id"] == "a"
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-9])
    record, problem = read_trusted(whole)
    assert record is None
    assert "a.npz" in problem
    assert {file.name for file in (tmp_path / "set_aside").iterdir()} == {"a.json", "a.npz"}
    (tmp_path / "p.panels.npz").write_bytes(b"cut short")
    shown = write_record(tmp_path, made_record(run_id="p", values=VALUES) | {"panels": "p.panels.npz"})
    assert "p.panels.npz" in read_trusted(shown)[1]
    assert not (tmp_path / "p.panels.npz").exists()
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(RecordError, match=r"x\.npz: cannot be read"):
        read_arrays(tmp_path / "x.npz")
    whole = write_record(tmp_path, made_record(run_id="b", values=VALUES))
    whole.write_text(whole.read_text()[:-40])
    assert "cut short" in read_trusted(whole)[1]
    newer = write_record(tmp_path, made_record(run_id="c", values=VALUES))
    newer.write_text(newer.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    with pytest.raises(RecordError, match="this code reads 2"):
        read_trusted(newer)
    assert newer.exists()


def test_records_of_the_first_schema_are_read_as_the_present_one():
    kept = REPOSITORY / "tests" / "records"
    assert {json.loads(file.read_text())["schema_version"] for file in kept.glob("*.json")} == {1}
    (record,) = load_records(kept)
    assert (record["kind"], record["schema_version"]) == ("accuracy", SCHEMA_VERSION)


def test_a_record_names_no_file_but_its_own(tmp_path: Path):
    path = write_record(tmp_path, made_record(run_id="a", values=VALUES))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"per_image": "../../b.npz"}))
    with pytest.raises(RecordError, match="per_image"):
        read_record(path)


def test_the_tail_of_a_log_starts_with_a_line(tmp_path: Path):
    (tmp_path / "log").write_text("first line\nsecond\nthird\n")
    assert tail(tmp_path / "log", 13) == "third\n"
    assert tail(tmp_path / "log", 1000) == "first line\nsecond\nthird\n"
    assert tail(tmp_path / "none") is None


def own(directory: Path, host: str, age: float) -> None:
    (directory / ".owner").write_text(json.dumps({"launch": "x", "host": host, "pid": 1}))
    now = (directory / ".owner").stat().st_mtime
    os.utime(directory / ".owner", (now - age, now - age))


def test_a_launch_of_another_host_that_lives_keeps_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own(tmp_path, "elsewhere", lock.STALE_SECONDS / 2)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.01)
    said = []

    def touched(text: str) -> None:
        said.append(text)
        os.utime(tmp_path / ".owner")

    with pytest.raises(lock.BusyError, match="host elsewhere, process 1"), lock.only_launch(tmp_path, touched):
        pass
    assert len(said) == 1
    assert json.loads((tmp_path / ".owner").read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("age", [lock.STALE_SECONDS - 0.3, 2 * lock.STALE_SECONDS])
def test_a_launch_of_another_host_that_is_dead_keeps_it_until_it_is_stale(age: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own(tmp_path, "elsewhere", age)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.01)
    with lock.only_launch(tmp_path) as launch:
        assert json.loads((tmp_path / ".owner").read_text())["launch"] == launch
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_dead_launch_of_this_host_keeps_nothing(tmp_path: Path):
    own(tmp_path, lock.platform.node(), 0)
    with lock.only_launch(tmp_path), pytest.raises(lock.BusyError, match="another launch is running"), lock.only_launch(tmp_path):
        pass


def test_a_job_that_fits_nowhere_is_refused_with_the_numbers():
    nodes = [{"CPU": 8.0, "memory": 2.0**34}, {"CPU": 2.0, "GPU": 4.0, "memory": 2.0**33}]
    job = {"run_id": "x", "cpus": 2, "gpus": 4, "memory_bytes": 2**33}
    require_room([job], nodes)
    for change in ({"gpus": 5}, {"cpus": 4}, {"memory_bytes": 2**34}):  # each node lacks one of them
        with pytest.raises(RoomError, match=r"2 CPUs, 4 GPUs and 8\.0 GiB"):
            require_room([job | change], nodes)


def test_the_share_of_a_gpu_holds_the_peak_with_a_margin():
    gib = 2**30
    assert gpu_share(3 * gib, 80 * gib) == 0.1  # 3.75 GiB and 0.6 of context: 5.4 %
    assert gpu_share(20 * gib, 80 * gib) == 0.35
    assert gpu_share(35 * gib, 80 * gib) == 1.0  # two would not fit


def test_the_longest_trial_starts_first_and_equal_ones_by_name():
    jobs = [{"run_id": name, "config": {"recipe": {"epochs": 3}, "tasks": ["x"]}} for name in "dacb"]
    assert [job["run_id"] for job in longest_first(jobs, {"a": 1.0, "b": 5.0, "c": 5.0})] == ["b", "c", "a", "d"]


@pytest.mark.parametrize(
    ("trials", "ends"), [(2000, [200 * i for i in range(1, 11)]), (100, [10 * i for i in range(1, 11)]), (7, range(1, 8))]
)
def test_the_benchmark_of_the_sweep_has_blocks_for_any_number_of_trials(trials: int, ends: list[int]):
    found = blocks(0.0, [0.5 * (i + 1) for i in range(trials)], [(0.0, 1.0, 2.0)])
    assert [block["trials"] for block in found] == list(ends)
    assert {round(block["trials_per_second"], 9) for block in found} == {2.0}


def test_time_between_two_trials_of_a_slot_is_overhead():
    records = []
    for start, slot in (("10:00:00", "a"), ("10:02:00", "a"), ("10:00:00", "b")):
        timing = {"trial_start": f"2026-01-01T{start}+00:00", "total_seconds": 60.0, "train_seconds": 45.0, "evaluate_seconds": 5.0}
        records.append({"run_id": start + slot, "timing": timing, "launch": {"id": "l", "slot": slot}})
    shares = slot_shares(records)
    assert (shares["slots"], shares["slot_seconds"]) == (2, 240.0)  # a: 180 s with a gap of 60 s; b: 60 s
    assert shares["training_share"] == pytest.approx(135 / 240)
    assert shares["overhead_share"] == pytest.approx(90 / 240)
    timing |= {"attempt_seconds": 20.0, "total_seconds": 60.0}  # of another trial in b: 40 s before it died and went on
    timing["earlier_attempts"] = [{"start": "2026-01-01T10:01:00+00:00", "seconds": 40.0, "launch": "l", "slot": "b"}]
    resumed = {"run_id": "r", "timing": timing | {"trial_start": "2026-01-01T10:01:40+00:00"}, "launch": {"id": "l", "slot": "b"}}
    shares = slot_shares([*records, resumed])
    assert (shares["slots"], shares["slot_seconds"]) == (2, 300.0)
    assert shares["training_share"] == pytest.approx(180 / 300)
    assert slot_shares([])["not_training_share"] is None
    for record in records:  # a slot that says when it began: half a minute before its first trial
        record["launch"]["slot"] += "@2026-01-01T09:59:30+00:00"
    assert slot_shares(records)["slot_seconds"] == pytest.approx(240.0 + 2 * 30.0)


def test_costs_of_a_profile_stand_in_for_a_trial_s_own_and_count_once():
    suite = MadeSuite(tasks=("semseg",), seeds=(0, 1))
    suite.add(made_method(), {0: {"semseg": 10.0}, 1: {"semseg": 12.0}}, step_seconds=0.9)
    profile = made_record(run_id="profile-x", values=VALUES, cell_id=suite.rows[0]["cell_id"], step_seconds=0.2) | {"kind": "profile"}
    before, after = (row_frame(suite.plan(), with_profiles(suite.records, found)).iloc[0] for found in ([], [profile]))
    assert (before["step_seconds_mean"], before["step_seconds_n"]) == (0.9, 2)
    assert (after["step_seconds_mean"], after["step_seconds_n"], after["semseg_miou_mean"]) == (0.2, 1, 11.0)
    other_code = profile | {"code_id": "other"}
    assert row_frame(suite.plan(), with_profiles([*suite.records, profile], [other_code])).iloc[0]["step_seconds_mean"] == 0.9
