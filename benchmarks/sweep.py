"""What the sweep itself costs: many trials of a stub that trains a tenth of a second, on each executor and in a plain shell loop.

    python benchmarks/sweep.py --trials 2000 --out results/reference/sweep

For each executor: slot seconds a trial beyond its training, and what share of trials of five minutes they would be; and block by block, a
tenth of the trials each, whether trials become slower and memory grows with their number: trials a second, and the memory of the driver and
of Ray's own processes at the block's end. The shell loop runs each trial as a new Python process that imports what a trial imports, which
is what a fresh process a trial costs without a sweep; it runs fewer of the same trials, for each costs the same.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))
STUB_SECONDS = 0.1
BLOCKS = 10
LONG_TRIAL_SECONDS = 300.0


def train(job: dict, report) -> None:
    """Train for a tenth of a second on one core, and leave what says when."""
    started = time.time()
    end = time.perf_counter() + STUB_SECONDS
    while time.perf_counter() < end:
        pass
    report({"epoch": 1, "loss": 1.0, "seconds": STUB_SECONDS})
    path = Path(job["record"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"status": "ok", "launch": job["launch"], "begun": job["started"], "started": started, "ended": time.time()})
    )


def jobs_of(suite_dir: Path, trials: int) -> list[dict]:
    """Return the jobs of as many stubs."""
    from bench.suites import load
    from bench.sweep.jobs import Limits, make_job
    from bench.trial import Launch

    base, launch = load("smoke").trials[0], Launch(suite="stub", suite_dir=suite_dir, id="benchmark")
    return [make_job(dataclasses.replace(base, seed=seed), launch, Limits(), entry="benchmarks.sweep:train") for seed in range(trials)]


def resident_mib(pid: int | str) -> float:
    """Return the resident memory of a process, 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0


def ray_processes() -> list[int]:
    """List Ray's own processes below this one: neither the workers nor what runs in them."""
    parents, commands = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid = int(status.parent.name)
            parents[pid] = int(status.read_text().rpartition(")")[2].split()[1])
            commands[pid] = (status.parent / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    below, found = {os.getpid()}, [os.getpid()]
    while found:
        found = [pid for pid, parent in parents.items() if parent in found]
        below |= set(found)
    own = ("/gcs_server", "/raylet", "ray/_private/", "ray/dashboard/", "ray-dashboard")
    return [pid for pid in below - {os.getpid()} if "default_worker" not in commands[pid] and any(part in commands[pid] for part in own)]


@contextlib.contextmanager
def memory_watched() -> Iterator[list[tuple[float, float, float]]]:
    """Note time, this process's memory and that of Ray's own processes, MiB, every second, in the list that is given."""
    samples, stop = [], threading.Event()

    def watch() -> None:
        while True:
            samples.append((time.time(), resident_mib("self"), sum(map(resident_mib, ray_processes()))))
            if stop.wait(1.0):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        stop.set()
        watcher.join()


def run(executor: str, trials: int, suite_dir: Path) -> dict:
    """Run stubs on an executor and return what it cost."""
    from bench.progress import Board
    from bench.sweep.interrupt import Interrupt
    from bench.sweep.on_ray import connected, run_ray
    from bench.sweep.serial import run_serial

    jobs = jobs_of(suite_dir, trials)
    slots = 1 if executor == "serial" else os.cpu_count() or 1
    with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}, quiet=True) as board, Interrupt(print) as interrupt:
        if executor == "serial":
            with memory_watched() as memory:
                begun = time.time()
                run_serial(jobs, board, interrupt)
        else:
            with connected(None) as cluster, memory_watched() as memory:
                begun = time.time()
                run_ray(jobs, cluster, board, interrupt, suite_dir)
    ends = sorted(json.loads(Path(job["record"]).read_text())["ended"] for job in jobs)
    return summary(executor, slots, begun, ends) | {"blocks": blocks(begun, ends, memory)}


def shell_loop(trials: int, suite_dir: Path) -> dict:
    """Run the same trials as new processes, one after the other."""
    suite_dir.mkdir(parents=True)
    (suite_dir / "jobs.json").write_text(json.dumps(jobs_of(suite_dir, trials)))
    code = "import json, sys, time; jobs = json.load(open(sys.argv[1])); import bench.sweep.entries; from benchmarks.sweep import train; "
    code += "train(jobs[int(sys.argv[2])] | {'started': time.time()}, lambda event: None)"
    command = shlex.join([sys.executable, "-c", code, str(suite_dir / "jobs.json")])
    loop = f"for i in $(seq 0 {trials - 1}); do {command} $i || exit 1; done"
    begun = time.time()
    subprocess.run(["bash", "-c", loop], cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)
    ends = sorted(json.loads(path.read_text())["ended"] for path in (suite_dir / "records").glob("*.json"))
    return summary("shell loop", 1, begun, ends)


def summary(name: str, slots: int, begun: float, ends: list[float]) -> dict:
    """Return a line of the report: all that an executor's slots did from `begun` to the last end, beyond the training."""
    overhead = (ends[-1] - begun) * slots / len(ends) - STUB_SECONDS
    return {
        "executor": name,
        "trials": len(ends),
        "slots": slots,
        "seconds": ends[-1] - begun,
        "overhead_slot_seconds": overhead,
        "overhead_share_at_five_minutes": overhead / (overhead + LONG_TRIAL_SECONDS),
    }


def blocks(begun: float, ends: list[float], memory: list[tuple[float, float, float]]) -> list[dict]:
    """Return trials a second in each of at most ten blocks of one length, the last one perhaps shorter, and the memory at its end."""
    found, length = [], math.ceil(len(ends) / BLOCKS)
    for first in range(0, len(ends), length):
        last = min(first + length, len(ends))
        start = ends[first - 1] if first else begun
        _, driver, ray = min(memory, key=lambda sample: abs(sample[0] - ends[last - 1]))
        rate = (last - first) / (ends[last - 1] - start)
        found.append({"trials": last, "trials_per_second": rate, "driver_mib": driver, "ray_mib": ray})
    return found


def markdown(report: dict) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# What the sweep costs: trials of {STUB_SECONDS} s",
        "",
        f"`{report['command']}` on {report['device']}, {report['cores']} cores, {report['made_at']}.",
        "",
        "| executor | trials | slots | seconds in all | overhead (slot s a trial) | of trials of 5 min |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {line['executor']} | {line['trials']} | {line['slots']} | {line['seconds']:.1f} | {line['overhead_slot_seconds']:.3f} | "
            f"{100 * line['overhead_share_at_five_minutes']:.3f} % |"
            for line in report["lines"]
        ),
        "",
        "Slot seconds: wall-clock seconds of one slot, from the first start to the last end, the start of workers included. What a real "
        "trial loads itself is not in it.",
        "",
        "| trials so far | serial: trials / s | driver (MiB) | Ray: trials / s | driver (MiB) | Ray's own processes (MiB) |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    serial, ray = (next(line["blocks"] for line in report["lines"] if line["executor"] == name) for name in ("serial", "ray"))
    lines += [
        f"| {one['trials']} | {one['trials_per_second']:.2f} | {one['driver_mib']:.0f} | {other['trials_per_second']:.2f} | "
        f"{other['driver_mib']:.0f} | {other['ray_mib']:.0f} |"
        for one, other in zip(serial, ray, strict=True)
    ]
    said = f"Each line is the {serial[0]['trials']} trials before it, or what is left; memory is resident, of Ray's processes summed."
    return "\n".join([*lines, "", said, ""])


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="trials on each executor")
    parser.add_argument("--loop-trials", type=int, default=20, help="trials of the shell loop, seconds each")
    parser.add_argument("--out", type=Path, default=None, help="directory of sweep.md and sweep.json")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    from bench.provenance import cpu_name
    from bench.storage import write_atomically

    lines = []
    for executor in ("serial", "ray"):
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "stub").mkdir()
            lines.append(run(executor, arguments.trials, Path(place) / "stub"))
        print(json.dumps(lines[-1], indent=1), file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        lines.append(shell_loop(arguments.loop_trials, Path(place) / "stub"))
    report = {
        "command": f"python benchmarks/sweep.py --trials {arguments.trials} --loop-trials {arguments.loop_trials}",
        "device": cpu_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "made_at": time.strftime("%Y-%m-%d"),
        "lines": lines,
    }
    print(markdown(report))
    if arguments.out is not None:
        write_atomically(arguments.out / "sweep.json", json.dumps(report, indent=1) + "\n")
        write_atomically(arguments.out / "sweep.md", markdown(report))


if __name__ == "__main__":
    main()
