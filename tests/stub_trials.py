"""Trials that train nothing, for tests of the sweep: what happens to them stands in the environment, and what they leave is a real record.

`STUB` is JSON: per seed a list of what the starts of its trial do, one after the other; the last one goes on for ever. A trial without one
trains its epochs and ends well, and its result depends on the configuration alone.
"""

import contextlib
import hashlib
import json
import os
import signal
import time
from pathlib import Path

from made_records import made_record

from bench.config import TrialConfig
from bench.provenance import code_id
from bench.record import write_record
from bench.storage import append_line
from bench.tuning.point import PROVISIONAL


def train(job: dict, report) -> None:
    """Go through the epochs, from the checkpoint where there is one, and write a record."""
    seed, run_id, suite_dir = job["config"]["seed"], job["run_id"], Path(job["suite_dir"])
    script = json.loads(os.environ.get("STUB", "{}")).get(str(seed), ["end"])
    deed = script[min(job["attempt"], len(script)) - 1]
    checkpoint = suite_dir / "checkpoints" / f"{run_id}.pt"
    print(f"seed {seed} attempt {job['attempt']} {deed}", flush=True)
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for epoch in range(first + 1, job["epochs"] + 1):
        time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
        checkpoint.write_text(str(epoch))
        report({"epoch": epoch, "loss": 1.0 / epoch, "seconds": 0.01})
        if epoch == 2:
            act(deed, suite_dir)
    act(deed.removeprefix("late "), suite_dir)
    value = int(hashlib.sha256(run_id.encode()).hexdigest()[:6], 16) / 2**24 * 100
    record = made_record(run_id=run_id, values={"semseg": value}, seed=seed, cell_id="0" * 12)
    record |= {"attempt": job["attempt"], "launch": job["launch"], "history": [{"epoch": first, "losses": {}}]}
    write_record(suite_dir / "records", record)
    checkpoint.unlink()


def read_caches(job: dict, report) -> None:
    """Open weights and data as a trial on a cluster does; every file that is copied to the node is written down, with the node."""
    import shutil

    from bench.data import node_copy
    from bench.data.cache import open_cache
    from bench.data.feed_modes import request_of
    from bench.model.node_cache import copied, default_cache_dir

    suite_dir, node = Path(job["suite_dir"]), default_cache_dir().parent.name
    places, copyfile, copy = json.loads((suite_dir / "places.json").read_text()), shutil.copyfile, node_copy.copy

    def note(call):
        def noted(source, target):
            append_line(suite_dir / "copies", f"{node} {Path(source).name}")
            return call(source, target)

        return noted

    shutil.copyfile, node_copy.copy = note(copyfile), note(copy)
    copied(Path(places["weights"]), places["digest"], default_cache_dir())
    request = request_of(TrialConfig.from_dict(job["config"]).data, Path(places["data"]), "train")
    store = open_cache(request, ("semseg",), node_copy.nearest(request, Path(places["cache"]), own := default_cache_dir() / "data", print))
    assert (store.directory.parent, store.built) == (own.resolve(), False)
    append_line(suite_dir / "opened", node)
    train(job, report)


def diverge(job: dict, report) -> None:
    """Leave the record of a trial that diverged."""
    write_record(Path(job["suite_dir"]) / "records", made_record(run_id=job["run_id"], values={"semseg": 1.0}, status="diverged"))


def tune(job: dict, report) -> None:
    """Do what `deeds` says of the trial, before its first epoch; else go to the rung, or to a record, with a score of 5 at each epoch.

    What stands there under "*" is for the trial that comes first, at each of its starts.
    """
    suite_dir, run_id, until = Path(job["suite_dir"]), job["run_id"], job["until"]
    deeds, first = json.loads((suite_dir / "deeds").read_text()), suite_dir / "first"
    with contextlib.suppress(FileExistsError), first.open("x") as file:
        file.write(run_id)
    deed = deeds.get(run_id, deeds.get("*") if first.read_text() == run_id else None)
    if deed is not None:
        act(deed, suite_dir)
    history = [{"epoch": i, "loss": 1.0, "losses": {}, "held_out": {"score": 5.0}} for i in range(1, until + 1)]
    record = made_record(run_id=run_id, values={"semseg": 1.0}) | {"history": history, "code_id": code_id(), "launch": job["launch"]}
    if until == job["epochs"]:
        write_record(suite_dir / "records", record)
        return
    write_record(suite_dir / PROVISIONAL, record | {"status": "stopped", "reason": "planted"})
    (suite_dir / "checkpoints" / f"{run_id}.pt").touch()
    report({"epoch": until, "loss": 1.0})
    report({"paused": until})


def act(deed: str, suite_dir: Path) -> None:
    """Do what the script says."""
    if deed.startswith("wait on ") and Path(os.environ["TMPDIR"]).name == deed.removeprefix("wait on "):
        append_line(suite_dir / "waiting", deed)
        time.sleep(10_000)
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "abort for memory":  # as a C++ library ends a process that cannot allocate
        print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
        os.abort()
    if deed == "raise":
        raise RuntimeError("planted")
    if deed == "hang":
        time.sleep(10_000)
