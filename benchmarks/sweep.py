"""What the sweep itself costs: many trials of a stub that trains a tenth of a second, on each executor and in a plain shell loop.

    python benchmarks/sweep.py --trials 300 --out results/reference/sweep

For each executor: seconds a trial beyond its training, in the first and in the last third of the trials (no slowdown with their number),
the driver's memory at the start and at the end, and the overhead that the same slot seconds would be at trials of five minutes. The shell
loop runs each trial as a new Python process that imports what a trial imports, which is what a fresh process a trial costs without a sweep.
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))
STUB_SECONDS = 0.1
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


def memory_mib() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def sample(memory: list[float], stop: threading.Event) -> None:
    """Note this process's memory every second."""
    while True:
        memory.append(memory_mib())
        if stop.wait(1.0):
            return


def run(executor: str, trials: int, suite_dir: Path) -> dict:
    """Run stubs on an executor and return what it cost."""
    from bench.progress import Board
    from bench.sweep.interrupt import Interrupt
    from bench.sweep.on_ray import connected, run_ray
    from bench.sweep.serial import run_serial

    jobs = jobs_of(suite_dir, trials)
    memory, stop = [], threading.Event()
    sampler = threading.Thread(target=sample, args=(memory, stop), daemon=True)
    slots = 1 if executor == "serial" else os.cpu_count() or 1
    with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}, quiet=True) as board, Interrupt(print) as interrupt:
        if executor == "serial":
            sampler.start()
            run_serial(jobs, board, interrupt)
        else:
            with connected(None) as cluster:
                sampler.start()
                run_ray(jobs, cluster, board, interrupt, suite_dir)
    stop.set()
    ends = sorted(json.loads(Path(job["record"]).read_text())["ended"] for job in jobs)
    third = trials // 3
    first, last = (ends[third] - ends[0]) / third, (ends[-1] - ends[-third - 1]) / third
    return summary(executor, trials, slots, first, last, memory)


def shell_loop(trials: int, suite_dir: Path) -> dict:
    """Run the same trials as new processes, one after the other."""
    suite_dir.mkdir(parents=True)
    (suite_dir / "jobs.json").write_text(json.dumps(jobs_of(suite_dir, trials)))
    code = "import json, sys, time; jobs = json.load(open(sys.argv[1])); import bench.sweep.entries; from benchmarks.sweep import train; "
    code += "train(jobs[int(sys.argv[2])] | {'started': time.time()}, lambda event: None)"
    command = shlex.join([sys.executable, "-c", code, str(suite_dir / "jobs.json")])
    loop = f"for i in $(seq 0 {trials - 1}); do {command} $i || exit 1; done"
    subprocess.run(["bash", "-c", loop], cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)
    ends = sorted(json.loads(path.read_text())["ended"] for path in (suite_dir / "records").glob("*.json"))
    each = (ends[-1] - ends[0]) / (trials - 1)
    return summary("shell loop", trials, 1, each, each, [])


def summary(name: str, trials: int, slots: int, first: float, last: float, memory: list[float]) -> dict:
    """Return a line of the report; `first` and `last` are seconds between two ends, in the first and the last third."""
    overhead = [each * slots - STUB_SECONDS for each in (first, last)]
    return {
        "executor": name,
        "trials": trials,
        "slots": slots,
        "overhead_slot_seconds_first_third": overhead[0],
        "overhead_slot_seconds_last_third": overhead[1],
        "overhead_share_at_five_minutes": max(overhead) / (max(overhead) + LONG_TRIAL_SECONDS),
        "driver_mib_start": memory[0] if memory else None,
        "driver_mib_end": memory[-1] if memory else None,
    }


def markdown(report: dict) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# What the sweep costs: trials of {STUB_SECONDS} s",
        "",
        f"`{report['command']}` on {report['device']}, {report['cores']} cores, {report['made_at']}.",
        "",
        "| executor | trials | slots | overhead, first third (slot s) | last third | at trials of 5 min | driver MiB, start | end |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for line in report["lines"]:
        memory = ["" if line[key] is None else f"{line[key]:.0f}" for key in ("driver_mib_start", "driver_mib_end")]
        lines.append(
            f"| {line['executor']} | {line['trials']} | {line['slots']} | {line['overhead_slot_seconds_first_third']:.3f} | "
            f"{line['overhead_slot_seconds_last_third']:.3f} | {100 * line['overhead_share_at_five_minutes']:.2f} % | "
            f"{memory[0]} | {memory[1]} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Slot seconds: wall-clock seconds of one slot; on Ray with a new Tuner every 500 trials. "
            "What a real trial loads itself is not in it.",
            "",
        ]
    )


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300, help="trials on each executor")
    parser.add_argument("--loop-trials", type=int, default=10, help="trials of the shell loop, seconds each")
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
        print(lines[-1], file=sys.stderr)
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
