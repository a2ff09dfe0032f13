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

from bench.record import write_record


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
            act(deed)
    act(deed.removeprefix("late "))
    value = int(hashlib.sha256(run_id.encode()).hexdigest()[:6], 16) / 1e5
    record = made_record(run_id=run_id, values={"semseg": value}, seed=seed, cell_id="0" * 12)
    record |= {"attempt": job["attempt"], "launch": job["launch"], "history": [{"epoch": first, "losses": {}}]}
    write_record(suite_dir / "records", record)
    checkpoint.unlink()


def act(deed: str) -> None:
    """Do what the script says."""
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "raise":
        raise RuntimeError("planted")
    if deed == "hang":
        time.sleep(10_000)
