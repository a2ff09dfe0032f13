"""Whatever is written, and wherever the user says: never into a data set."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pascal_tree import write_tree
from typer.testing import CliRunner

from bench.cli import app
from bench.data.layout import DataError
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
from bench.data.untouched import refuse_inside


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT")


def state(tree: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (tree, *tree.rglob("*"))}


COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "doctor": lambda root, inside: ["doctor", "--data-root", root, "--problems", f"{inside}/all.txt"],
    "describe": lambda root, inside: ["data", "describe", root, "--out", inside],
    "held-out": lambda root, inside: ["data", "held-out", root, "--results", inside],
    "cache": lambda root, inside: ["data", "cache", root, "--cache-dir", inside],
    "run": lambda root, inside: ["run", "smoke", "--results", inside],
    "run of the data set": lambda root, inside: ["run", "pascal", "--data-root", root, "--results", inside],
    "run with caches": lambda root, inside: ["run", "pascal", "--data-root", root, "--cache-dir", inside],
    "tune": lambda root, inside: ["tune", "demo", "--results", inside],
    "report": lambda root, inside: ["report", "demo", "--results", inside],
    "export": lambda root, inside: ["export", "demo", "--out", f"{inside}/demo.zip"],
    "pretrain": lambda root, inside: ["pretrain", "--out", inside],
    "synthesize": lambda root, inside: ["data", "synthesize", inside, "--train", "1", "--val", "1"],
    "synthesize over it": lambda root, inside: ["data", "synthesize", root, "--train", "1", "--val", "1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_into_a_data_set(tree: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to(tree / "JPEGImages")  # the path does not say where it leads
    monkeypatch.chdir(tmp_path / "work")
    before = state(tree)
    run = CliRunner().invoke(app, COMMANDS[command](str(tree), str(tmp_path / "work/link/new/place")))
    assert isinstance(run.exception, DataError), run.output
    assert "inside of the data set" in str(run.exception)
    assert state(tree) == before
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["link"]


def test_a_folder_that_is_a_link_belongs_to_its_data_set(tree: Path, tmp_path: Path) -> None:
    (tree / "sal_distill").rename(tmp_path / "elsewhere")
    (tree / "sal_distill").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"--out .* lies inside of the data set"):
        refuse_inside(tmp_path / "elsewhere/out", tree, option="--out")
    assert refuse_inside(tmp_path / "elsewhere2", tree, option="--out") == tmp_path / "elsewhere2"
    assert refuse_inside(tree.parent, tree, option="--out") == tree.parent


def test_a_rendered_tree_is_never_written_over_and_a_linked_place_is_kept(tmp_path: Path) -> None:
    config = SyntheticConfig(n_train=1, n_val=1, size=32)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_pascal_mt(tmp_path / "link", config)
    assert (tmp_path / "link").is_symlink()
    before = state(tmp_path / "real")
    with pytest.raises(FileExistsError, match="remove it first"):
        write_pascal_mt(tmp_path / "link", config)
    with pytest.raises(DataError, match="inside of the data set"):
        write_pascal_mt(tmp_path / "real/JPEGImages/new", config)
    assert state(tmp_path / "real") == before
