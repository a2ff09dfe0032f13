"""Trials that train nothing, for tests of the sweep: what happens to them stands in the environment, and what they leave is a real record.

`STUB` is JSON: per seed a list of what the starts of its trial do, one after the other; the last one goes on for ever. A trial without one
trains its epochs and ends well, and its result depends on the configuration alone.
"""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

from made_records import made_record

from bench.config import TrialConfig
from bench.record import write_record
from bench.storage import append_line


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
