"""The command line: what it lists, what it refuses, and with which words and exit code."""

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from pascal_tree import write_tree

from bench.cli import app, main, options
from bench.cli.running import Running
from bench.cli.sweeps import duration
from bench.errors import SuiteError
from bench.launch import new_plan, training_command
from bench.model.backbone import build_backbone
from bench.plan import write_plan
from bench.suites import load
from methods import METHODS

pytestmark = pytest.mark.usefixtures("forked_nurseries")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def cli(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Call the command line in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["run_suite.py", *arguments])
        monkeypatch.setattr(options.console, "_width", 400)
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call


def commands_of(group: typer.Typer, before: str = "") -> list[str]:
    """Every command and group of a command line, as it is typed."""
    found = [before + (command.name or command.callback.__name__.replace("_", "-")) for command in group.registered_commands]
    for inner in group.registered_groups:
        found += [inner.name, *commands_of(inner.typer_instance, f"{inner.name} ")]
    return found


def test_help_is_everywhere(cli):
    commands = commands_of(app)
    assert {"run", "tune", "reproduce", "data", "data synthesize"} <= set(commands)
    for command in ("", *commands):
        code, out, _ = cli(*command.split(), "-h")
        assert code == 0, command
        assert "Usage" in out


def test_what_the_system_refuses_is_one_line(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(paths[0]))

    monkeypatch.setattr("bench.data.synthetic.writer.os.replace", refuse)
    code, _, err = cli("data", "synthesize", str(tmp_path / "tree"), "--train", "1", "--val", "1", "--size", "32")
    assert code == 2
    assert err.strip().startswith("error: Read-only file system: ")
    assert not list(tmp_path.iterdir())


def test_unknown_suite_names_the_near_one(cli):
    code, _, err = cli("plan", "demmo")
    assert code == 2
    assert "did you mean 'demo'" in err


def test_status_of_a_suite_that_never_ran_says_how_to_run_it(cli, tmp_path: Path):
    code, _, err = cli("status", "demo", "--results", str(tmp_path))
    assert code == 2
    assert "run_suite.py run demo" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "smoke", "--only", "nothing*"), "matches no row"),
        (("run", "smoke", "--seeds", "0,x"), "0,1,2"),
        (("run", "smoke", "--seeds", "0,0"), "names a seed twice"),
        (("run", "smoke", "--seeds", "99999999999999999999"), "seed must lie in [0, 2^32)"),
        (("run", "smoke", "--gpus-per-trial=-1"), "--gpus-per-trial takes a share such as 0.25"),
        (("run", "smoke", "--rerun", "all"), "--rerun takes failed, stale, busy"),
        (("run", "smoke", "--data-root", "/nowhere"), "/nowhere"),
        (("run", "smoke", "--weights", "/nowhere.pth"), "/nowhere.pth"),
        (("run", "smoke", "--executor", "slurm"), "serial"),
    ],
)
def test_wrong_arguments_exit_2_and_say_what_is_allowed(cli, tmp_path: Path, arguments: tuple[str, ...], message: str):
    code, out, err = cli(*arguments, "--results", str(tmp_path))
    assert code == 2
    assert message in " ".join((out + err).split())


def test_list_prints_json(cli):
    _, out, _ = cli("list", "methods", "--json")
    assert {row["name"] for row in json.loads(out)} == set(METHODS)


def test_plan_counts_what_is_missing_and_what_trains(cli, tmp_path: Path):
    code, out, _ = cli("plan", "smoke", "--results", str(tmp_path), "--json", "--seeds", "0,1")
    rows = {row["row"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["Single-task full fine-tuning"]["trials"] == 8
    assert rows["MTLoRA (r=2)"]["missing"] == 2
    assert rows["Decoders only"]["trainable_parameters"] < rows["MTLoRA (r=2)"]["trainable_parameters"]
    assert all(row["seconds_per_trial"] > 0 for row in rows.values())


def test_plan_without_estimate_measures_nothing_and_leaves_times_open(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("bench.estimate.estimate_trial_seconds")
    code, out, err = cli("plan", "smoke", "--results", str(tmp_path), "--json", "--no-estimate")
    rows = json.loads(out)
    assert code == 0
    assert {row["seconds_per_trial"] for row in rows} == {None}
    assert [line.split()[0] for line in err.splitlines()] == [f"{i}/{len(rows)}" for i in range(1, len(rows) + 1)]
    _, out, err = cli("plan", "smoke", "--results", str(tmp_path), "--quiet", "--no-estimate")
    assert (out, err) == ("7 of 7 trials to run, time unknown. Before them 21 sessions of profiles, some seconds each.\n", "")


def test_plan_takes_times_from_profiles_before_it_measures(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("bench.estimate.estimate_trial_seconds")
    monkeypatch.setattr("bench.estimate.profiled_seconds", lambda trials, suite_dir: {trial.run_id: 7_200.0 - 8.0 for trial in trials})
    _, out, _ = cli("plan", "smoke", "--results", str(tmp_path), "--json")
    assert {(row["seconds_per_trial"], row["estimate_from"]) for row in json.loads(out)} == {(7_200.0, "profiles")}
    _, out, _ = cli("plan", "smoke", "--results", str(tmp_path), "--quiet")
    assert out == "7 of 7 trials to run, about 14.0 hours of one slot in all. Before them 21 sessions of profiles, some seconds each.\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "59 seconds"), (150, "2.5 minutes"), (9_000, "2.5 hours"), (808_134.1, "9.4 days"), (217_000_000, "2,512 days")],
)
def test_durations_are_told_in_the_unit_that_suits_them(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_file_gets_the_width_of_columns():
    for columns in ("60", "120"):
        command = [sys.executable, "run_suite.py", "list", "methods"]
        run = subprocess.run(command, env=os.environ | {"COLUMNS": columns}, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        assert max(map(len, run.stdout.splitlines())) == int(columns)


def test_params_prints_the_published_counts_of_swin_t(cli):
    _, out, _ = cli("params", "smoke", "--backbone", "swin_tiny_patch4_window7_224", "--img-size", "448", "--json")
    rows = {row["row"]: row for row in json.loads(out)}
    assert rows["Multi-task full fine-tuning"]["trainable_without_decoders"] == 27_517_818
    assert rows["Single-task full fine-tuning"]["trainable_without_decoders"] == 4 * 27_517_818


def test_synthesized_tree_passes_the_doctor_and_a_run_reads_a_tree_of_another_making(cli, tmp_path: Path):
    code, out, _ = cli("data", "synthesize", str(tmp_path / "tree"), "--train", "4", "--val", "3", "--size", "48", "--quiet")
    assert code == 0
    assert len(out.split()[0]) == 64
    code, out, _ = cli("doctor", "--data-root", str(tmp_path / "tree"), "--json")
    findings = json.loads(out)
    assert not [f for f in findings if f["status"] == "fail" and "data" in f["subject"]]
    write_tree(tmp_path / "other")
    arguments = ("--data-root", str(tmp_path / "other"), "--executor", "serial", "--only", "Decoders only", "--quiet")
    code, _, err = cli("run", "smoke", "--results", str(tmp_path / "results"), *arguments)
    assert code == 0, err
    (record,) = (tmp_path / "results" / "smoke" / "records").glob("*.json")
    assert json.loads(record.read_text())["config"]["data"]["source"] == "pascal_context"


def test_weights_that_do_not_fit_stop_the_launch_and_are_listed(cli, tmp_path: Path):
    torch.save({"model": {"patch_embed.proj.bias": torch.zeros(24)}}, tmp_path / "poor.pth")
    arguments = ("--weights", str(tmp_path / "poor.pth"), "--executor", "serial", "--only", "Decoders only")
    code, _, err = cli("run", "smoke", "--results", str(tmp_path / "results"), *arguments)
    assert code == 2
    assert "layers.0.blocks.0.attn.qkv.weight" in err
    assert not (tmp_path / "results" / "smoke" / "records").exists()


def test_weights_file_enters_the_run_id_by_its_content(cli, tmp_path: Path):
    swin = build_backbone(
        "swin_micro_patch4_window4_64", image_size=32, tasks=("semseg",), drop_path=0, weights="scratch", weights_file=None
    )
    torch.save(swin.swin.state_dict(), tmp_path / "swin.pth")
    arguments = ("--weights", str(tmp_path / "swin.pth"), "--executor", "serial", "--only", "Decoders only", "--quiet")
    code, _, err = cli("run", "smoke", "--results", str(tmp_path / "results"), *arguments)
    assert code == 0, err
    (record,) = (tmp_path / "results" / "smoke" / "records").glob("*.json")
    digest = hashlib.sha256((tmp_path / "swin.pth").read_bytes()).hexdigest()
    assert json.loads(record.read_text())["config"]["backbone"]["weights"] == f"sha256:{digest}"


def test_pascal_suite_asks_for_its_data(cli, tmp_path: Path):
    code, _, err = cli("run", "pascal", "--results", str(tmp_path))
    assert code == 2
    assert "--data-root" in err


def test_a_refused_launch_keeps_the_plan_that_the_records_belong_to(tmp_path: Path):
    plan = tmp_path / "smoke" / "plan.json"
    plan.parent.mkdir()
    plan.write_text("former")
    suite = load("smoke")

    def refuse() -> None:
        with new_plan(suite, plan.parent, "run", suite.trials):
            assert plan.read_text() != "former"
            raise SuiteError("no room")

    with pytest.raises(SuiteError, match="no room"):
        refuse()
    assert plan.read_text() == "former"
    with new_plan(suite, plan.parent, "run", suite.trials):
        pass
    assert plan.read_text() != "former"


@pytest.mark.parametrize("seeds", ["-1", "0,x", "", "1.5"])
def test_seeds_are_whole_numbers_from_zero_on(cli, seeds: str):
    code, _, err = cli("plan", "smoke", f"--seeds={seeds}")
    assert code == 2
    assert "--seeds takes whole numbers from 0 on" in err


def options_of(*command: str) -> dict[str, tuple]:
    """Return names, default and help of a command's options, by its parameter."""
    found = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    return {option.name: (option.opts, option.secondary_opts, option.default, getattr(option, "help", None)) for option in found.params}


QUIET = (["--quiet", "-q"], [], False, "Print errors, and data that was asked for, only.")
VERBOSE = (["--verbose", "-v"], [], False, "Say more: whole reasons of failures, every setting of a tune.")


@pytest.mark.parametrize(
    ("command", "verbose"),
    [(name, True) for name in ("run", "tune", "profile")]
    + [(name, False) for name in ("plan", "status", "report", "reproduce", "compare", "export", "pretrain", "doctor")]
    + [(f"data {name}", False) for name in ("synthesize", "describe", "cache")],
)
def test_quiet_and_verbose_mean_the_same_everywhere(command: str, verbose: bool):
    found = options_of(*command.split())
    assert found["quiet"] == QUIET
    assert found.get("verbose") == (VERBOSE if verbose else None)


def test_run_and_tune_share_the_options_of_how_trials_run():
    run, tune = options_of("run"), options_of("tune")
    shared = {field.name for field in dataclasses.fields(Running)}
    assert {name: run[name] for name in shared} == {name: tune[name] for name in shared}
    assert run["executor"][0] == ["--executor"]
    assert run["hang_limit"][0] == ["--hang-limit"]
    assert run["attempts"][2] == 3
    assert set(run) & set(tune) - shared == {"suite", "seeds", "held_out", "only"}  # these differ in meaning


def test_a_profile_is_measured_alone_and_quietly(cli, tmp_path: Path):
    arguments = ("--executor", "serial", "--only", "Decoders only", "-q")
    code, out, err = cli("profile", "smoke", "--results", str(tmp_path), *arguments)
    assert (code, out) == (0, ""), err
    profiles = [json.loads(path.read_text()) for path in (tmp_path / "smoke" / "profiles").glob("*.json")]
    assert sorted((profile["session"], profile["status"]) for profile in profiles) == [(1, "ok"), (2, "ok"), (3, "ok")]
    counts = [[profile["params"], *(profile["cost"][name] for name in ("flops_per_image", "step_memory_bytes"))] for profile in profiles]
    assert counts[0] == counts[1] == counts[2]
    assert not list((tmp_path / "smoke").glob("records/*.json"))


def test_measuring_profiles_leaves_the_plan_with_the_command_that_trains(tmp_path: Path):
    suite, plan = load("smoke"), tmp_path / "plan.json"
    command = "python run_suite.py profile smoke --results profile --rerun busy"
    assert training_command(tmp_path, command) == "python run_suite.py run smoke --results profile --rerun busy"
    plan.write_text("torn")
    assert training_command(tmp_path, command) == "python run_suite.py run smoke --results profile --rerun busy"
    write_plan(suite, tmp_path, "python run_suite.py run smoke --seeds 0")
    assert training_command(tmp_path, command) == "python run_suite.py run smoke --seeds 0"
