"""The commands that make a suite, a row or a trial again, from the command that a plan keeps."""

import glob
import shlex
from collections.abc import Collection, Mapping, Sequence

_OF_A_PART = ("--only", "--rerun")
"""Options of a launch that make it run less, or more, than what is missing of the whole."""

_FLAG_OF_A_PART = "--no-report"

_OF_A_PLACE = ("--results", "--address")
"""Options that do not belong into the command that runs one row again elsewhere."""


def suite_command(plan: Mapping) -> str:
    """Return the command that runs what is missing of the whole suite."""
    words = shlex.split(plan.get("command") or f"python run_suite.py run {plan['suite']}")
    return shlex.join(_without([word for word in words if word != _FLAG_OF_A_PART], _OF_A_PART))


def results_option(plan: Mapping) -> list[str]:
    """Return where the suite's results lie, as words of a command; empty where the command did not say."""
    words = shlex.split(suite_command(plan))
    given = [word.partition("=")[2] for word in words if word.startswith("--results=")]
    given += [words[place + 1] for place, word in enumerate(words[:-1]) if word == "--results"]
    return ["--results", given[0]] if given else []


def report_command(plan: Mapping) -> str:
    """Return the command that makes the report again."""
    return shlex.join(["python", "run_suite.py", "report", plan["suite"], *results_option(plan)])


def trial_command(plan: Mapping, run_id: str) -> str:
    """Return the command that runs one trial again and compares it with its record, where the suite's results lie."""
    return f"python run_suite.py reproduce {run_id} {shlex.join(['--suite', plan['suite'], *results_option(plan)])}"


def row_command(plan: Mapping, label: str) -> str:
    """Return the command that runs one row again, into a directory of its own so that nothing there counts as done."""
    kept = _without(shlex.split(suite_command(plan)), _OF_A_PLACE)
    return shlex.join([*kept, "--only", glob.escape(label), "--results", "rerun"])


def _without(words: Sequence[str], dropped: Collection[str]) -> list[str]:
    """Return a command's words without these options and their values."""
    kept, remaining = [], iter(words)
    for word in remaining:
        if word in dropped:
            next(remaining, None)
        elif word.partition("=")[0] not in dropped:
            kept.append(word)
    return kept
