"""Trackers: what they keep, that a resumed trial goes on in its run, and that a broken one does not stop a trial."""

import logging
import sqlite3
import struct
import time
from pathlib import Path

import pytest

from bench import tracking
from bench.tracking import Tracking, TrackingError, parse_trackers

CONFIG = {"method": {"name": "m", "rank": 2}, "seed": 0, "tasks": ["semseg", "normals"]}
LINES = [
    {"epoch": 1, "loss": 2.0, "losses": {"semseg": 1.5, "normals": 0.5}, "lr": 1e-3, "seconds": 3.0},
    {
        "epoch": 2,
        "loss": 1.0,
        "losses": {"semseg": 0.75, "normals": 0.25},
        "lr": 1e-4,
        "seconds": 2.0,
        "held_out": {"semseg": {"miou": 12.5, "iou/0": 50.0}, "normals": {"mean_deg": None}, "score": 252.5},
    },
]
RECORD = {"status": "ok", "metrics": {"semseg": {"miou": 10.0}, "normals": {"mean_deg": 20.0}}, "history": LINES}


def track(name: str, suite_dir: Path, lines: list[dict] = LINES, record: dict | None = RECORD) -> None:
    tracker = Tracking((name,), suite="made", run_id="run-1", suite_dir=suite_dir, config=CONFIG)
    for line in lines:
        tracker.epoch(line)
    if record is not None:
        tracker.end(record)


def events(suite_dir: Path) -> dict[tuple[str, int], float]:
    """Read the event files with another reader than the one that wrote them: TFRecords of protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event

    values, purged = {}, []
    for file in sorted((suite_dir / "tensorboard" / "run-1").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField("session_log"):
                purged.append(event.step)
            values |= {(value.tag, event.step): value.simple_value for value in event.summary.value if value.HasField("simple_value")}
    assert purged
    return values


def test_tensorboard_holds_losses_held_out_and_result(tmp_path: Path):
    track("tensorboard", tmp_path)
    found = events(tmp_path)
    assert found["loss", 1] == 2.0
    assert found["loss/normals", 2] == 0.25
    assert found["held_out/semseg/miou", 2] == 12.5
    assert found["held_out/score", 2] == 252.5
    assert found["result/normals/mean_deg", 2] == 20.0
    assert not {tag for tag, _ in found if "None" in tag or "iou/0" in tag}


def test_mlflow_keeps_a_resumed_trial_in_one_run_of_a_local_sqlite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track("mlflow", tmp_path, LINES[:1], record=None)  # killed after the first epoch
    track("mlflow", tmp_path, LINES[1:])
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select name, status from runs").fetchall() == [("run-1", "FINISHED")]
        rows = database.execute("select key, step, value from metrics where key in ('loss', 'result/semseg/miou')").fetchall()
        assert sorted(rows) == [("loss", 1, 2.0), ("loss", 2, 1.0), ("result/semseg/miou", 2, 10.0)]
        assert ("method.rank", "2") in database.execute("select key, value from params").fetchall()
    database.close()


def test_wandb_writes_an_offline_run_and_sends_nothing_about_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    track("wandb", tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    file, deadline = next(run.glob("*.wandb")), time.monotonic() + 60
    while b"result/semseg/miou" not in file.read_bytes():  # a process of wandb's own writes it, also after the run's end
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert b"held_out/score" in file.read_bytes()
    assert not list(run.rglob("wandb-metadata.json"))


def test_a_tracker_that_fails_is_named_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch):
    class Broken:
        def __init__(self, *args) -> None:
            raise OSError("disk full")

    monkeypatch.setitem(tracking.OPEN, "mlflow", Broken)
    close = tracking.TensorBoard.close

    def close_and_fail(self, status: str) -> None:
        close(self, status)  # or what its thread has not written yet would be missing below
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(tracking.TensorBoard, "close", close_and_fail)
    with caplog.at_level(logging.WARNING):
        tracker = Tracking(("mlflow", "tensorboard"), suite="made", run_id="run-1", suite_dir=tmp_path, config=CONFIG)
        for line in LINES:
            tracker.epoch(line)
        tracker.end(RECORD)
    assert caplog.text.count("disk full") == 1
    assert "division by zero" in caplog.text
    assert events(tmp_path)["loss", 2] == 1.0


def test_names_of_trackers_are_checked(monkeypatch: pytest.MonkeyPatch):
    assert parse_trackers("tensorboard,tensorboard") == ("tensorboard",)
    assert parse_trackers("none") == ()
    with pytest.raises(TrackingError, match="tensorboard, mlflow, wandb"):
        parse_trackers("tensorbord")
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", "no_such_module")
    with pytest.raises(TrackingError, match=r"\.\[tracking\]"):
        parse_trackers("mlflow")


def test_a_tracker_that_fails_tells_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def refuse(*_):
        raise ConnectionError("HTTPConnectionPool: http://bob:s3cr3tpw@host:5000/api is unreachable")

    monkeypatch.setitem(tracking.OPEN, "mlflow", refuse)
    track("mlflow", tmp_path)
    assert "http://***@host:5000/api is unreachable" in caplog.text
    assert "s3cr3tpw" not in caplog.text


def test_a_server_that_cannot_be_reached_holds_no_trial_for_minutes_unless_the_user_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking.os, "environ", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"})
    track("tensorboard", tmp_path)
    assert tracking.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"
    assert int(tracking.os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) < 5
