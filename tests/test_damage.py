"""Damaged files of a suite: every one is named, counts as missing and does not stop the report of the rest."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_panels import add_panels
from made_records import MadeSuite, demo_like_suite
from typer.testing import CliRunner

from bench import status as status_module
from bench.cli import app
from bench.plan import Reader
from bench.record import NewerSchemaError, RecordError, examine, read_trusted, write_record
from bench.report import make_report
from bench.report.loading import load_results
from bench.status import look_at, remarks, suite_status

pytestmark = pytest.mark.usefixtures("quick_figures")


def _truncated(path: Path) -> str:
    path.write_text(path.read_text()[:-200])
    return "cut short or garbled"


def _changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _of_wrong_type(path: Path) -> str:
    _changed(path, seed="zero")
    return "field 'seed' is 'zero', allowed: int"


def _with_nan(path: Path) -> str:
    path.write_text(path.read_text().replace('"miou": ', '"miou": NaN, "was": ', 1))
    return "NaN is no JSON"


def _of_unknown_schema(path: Path) -> str:
    _changed(path, schema_version=99)
    return "schema_version is 99"


def _of_another_cell(path: Path) -> str:
    _changed(path, cell_id="elsewhere")
    return "cell_id elsewhere"


DAMAGES = (_truncated, _of_wrong_type, _with_nan, _of_unknown_schema, _of_another_cell)


@pytest.fixture(scope="module")
def suite() -> MadeSuite:
    return demo_like_suite(seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def broken(suite: MadeSuite, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A suite of which five records, the arrays of a sixth and the pictures of a seventh are damaged; why, by file."""
    directory = tmp_path_factory.mktemp("broken") / "made"
    add_panels(suite.records, directory / "records")
    suite.write(directory)
    multi = [record["run_id"] for record in suite.records if len(record["tasks"]) > 1]
    expected = {}
    for damage, run_id in zip(DAMAGES, multi[3::3], strict=False):
        expected[f"records/{run_id}.json"] = damage(directory / "records" / f"{run_id}.json")
    sums = next(record for record in suite.records if record["run_id"] == multi[1])
    write_record(directory / "records", sums, {"id": np.arange(2000)})
    for run_id, name in ((multi[1], f"{multi[1]}.npz"), (multi[2], f"{multi[2]}.panels.npz")):
        path = directory / "records" / name
        path.write_bytes(path.read_bytes()[:-30])
        expected[f"records/{name}"] = "cut short or garbled"
        assert run_id
    return directory, expected


@pytest.fixture(scope="module")
def report(broken: tuple[Path, dict[str, str]]) -> str:
    """What the command printed."""
    outcome = CliRunner().invoke(app, ["report", "made", "--results", str(broken[0].parent)])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_every_damaged_file_is_named_with_its_reason(broken: tuple[Path, dict[str, str]], report: str):
    notes = [line for line in (broken[0] / "table.md").read_text().splitlines() if line.startswith("- Damaged")]
    assert len(notes) == len(broken[1])
    for name, why in broken[1].items():
        assert any(name.rpartition("/")[2] in note and why in note for note in notes)
        assert name.rpartition("/")[2] in report


def test_damaged_records_count_as_missing_and_the_title_says_so(suite: MadeSuite, broken: tuple[Path, dict[str, str]], report: str):
    planned = sum(len(row["run_ids"]) for row in suite.rows)
    table = (broken[0] / "table.md").read_text()
    assert table.splitlines()[0].endswith(f"[incomplete: {planned - len(DAMAGES)} of {planned} trials]")
    assert "Trials not run yet" not in table
    assert "Damaged record" in (broken[0] / "report.html").read_text()


def test_records_that_are_whole_give_the_same_numbers(suite: MadeSuite, broken: tuple[Path, dict[str, str]]):
    lost = {Path(name).stem for name in broken[1] if name.endswith(".json")}
    found = {record["run_id"]: record["metrics"] for record in load_results(broken[0]).records}
    assert found == {record["run_id"]: record["metrics"] for record in suite.records if record["run_id"] not in lost}


def test_strict_refuses_and_status_counts_the_damage(broken: tuple[Path, dict[str, str]]):
    with pytest.raises(RecordError, match="damaged: records/"):
        make_report(broken[0], strict=True)
    parts = [part.split(maxsplit=1) for row in suite_status(look_at(broken[0])) for part in row["not_ok"].split(", ") if part]
    counted = {what: sum(int(number) for number, named in parts if named == what) for _, what in parts}
    # one is newer; two have damaged arrays
    assert (counted["damaged"], counted["of a newer schema"]) == (len(DAMAGES) - 1 + 2, 1)
    named = "\n".join(remarks(look_at(broken[0])))
    assert all(name in named for name, why in broken[1].items() if "elsewhere" not in why)


def test_arrays_that_a_record_names_and_that_are_gone_are_named(tmp_path: Path):
    suite = demo_like_suite(seeds=(0,))
    directory = suite.write(tmp_path / "made")
    record = write_record(directory / "records", suite.records[0], {"id": np.arange(9)})
    record.with_suffix(".npz").unlink()
    assert load_results(directory).damaged == {f"records/{record.stem}.npz": "missing, though its record names it"}
    assert "missing, though its record names it" in "\n".join(remarks(look_at(directory)))
    assert "missing, though its record names it" in read_trusted(record)[1]


def test_a_record_of_an_older_schema_is_named_and_one_that_only_claims_to_be_is_not_trusted(tmp_path: Path):
    suite = demo_like_suite(seeds=(0,))
    directory = suite.write(tmp_path / "made")
    older, edited = (directory / "records" / f"{record['run_id']}.json" for record in suite.records[:2])
    whole = {key: value for key, value in json.loads(older.read_text()).items() if key not in ("kind", "log_tail", "launch")}
    older.write_text(json.dumps(whole | {"schema_version": 1}))
    _changed(edited, schema_version=1, kind="accuracy")
    told = []
    with Reader(told.append, move=True) as reader:
        lacking = [reader.read(path) is None for path in (older, edited)]
    named = f"Written in schema 1, read as schema 2; the files stay as they are (1 record): {older.stem}."
    assert (lacking, told[1]) == ([False, True], named)
    assert "schema_version is 1, but it holds kind" in told[0]
    assert edited.name in {path.name for path in (directory / "records" / "set_aside").iterdir()}
    assert remarks(look_at(directory)) == [named]
    made = make_report(directory)
    aside = f"Set aside by a launch, for they could not be trusted, and not used here (1): records/set_aside/{edited.name}."
    assert made.schemas == [named, aside]
    assert {f"- {named}", f"- {aside}"} <= set((directory / "table.md").read_text().splitlines())
    assert all(note in (directory / "report.html").read_text() for note in made.schemas)


def test_claims_name_the_damage_and_go_on(broken: tuple[Path, dict[str, str]]):
    outcome = CliRunner().invoke(app, ["claims", "made", "--results", str(broken[0].parent), "--json"])
    assert set(json.loads(outcome.output)["damaged"]) == set(broken[1])


def test_a_damaged_outcome_of_a_tune_is_named(suite: MadeSuite, tmp_path: Path):
    directory = suite.write(tmp_path / "made")
    for content, why in (("[", "cut short or garbled"), ("{}", "`rows` or `budget` is missing")):
        (directory / "tuning.json").write_text(content)
        results = load_results(directory)
        assert results.tuning is None
        assert why in results.damaged["tuning.json"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"timing": {"total_seconds": "long"}}, "timing.total_seconds"),
        ({"timing": {"total_seconds": 5.0}}, "there is no timing.trial_start"),
        ({"timing": {"earlier_attempts": 3}}, "timing.earlier_attempts"),
        ({"timing": {"earlier_attempts": [{"start": "2026-01-01"}]}}, "'seconds' is missing"),
        ({"timing": {"earlier_attempts": [{"start": "noon", "seconds": 1, "launch": None, "slot": None}]}}, "is 'noon', no time"),
        ({"launch": {"slot": ["a"]}}, "launch.slot"),
    ],
)
def test_status_goes_on_beside_a_record_whose_times_make_no_sense(changes: dict, why: str, tmp_path: Path):
    directory = demo_like_suite(seeds=(0,)).write(tmp_path / "made")
    path = next((directory / "records").glob("*.json"))
    _changed(path, status="failed", reason="planted", **changes)
    outcome = CliRunner().invoke(app, ["status", "made", "--results", str(tmp_path), "--json"])
    assert outcome.exit_code == 1, outcome.exception
    (remark,) = json.loads(outcome.output)["remarks"]
    assert why in remark
    assert remark.endswith("The next `run` or `tune` sets it aside and runs it.")


def test_status_reads_each_record_once_and_says_what_comes_of_those_that_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    suite = demo_like_suite(seeds=(0,))
    directory, read = suite.write(tmp_path / "made"), []
    newer, orphan = (directory / "records" / f"{name}.json" for name in (suite.records[0]["run_id"], "of-no-row"))
    _changed(newer, schema_version=99)
    orphan.write_text("{")
    monkeypatch.setattr(status_module, "examine", lambda path: read.append(path) or examine(path))
    outcome = CliRunner().invoke(app, ["status", "made", "--results", str(tmp_path), "--json"])
    assert outcome.exit_code == 1, outcome.exception
    assert sorted(read) == sorted((directory / "records").glob("*.json"))
    remarked = {line.partition(": ")[0]: line for line in json.loads(outcome.output)["remarks"]}
    assert remarked["of a newer schema"].endswith("A launch that needs it refuses to start, and leaves it as it is.")
    assert remarked["damaged"].endswith("No row of the last plan holds it: nothing is done to it.")
    with pytest.raises(NewerSchemaError):
        read_trusted(newer)  # as a launch reads it
    assert newer.exists()
