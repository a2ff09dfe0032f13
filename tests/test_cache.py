"""The prepared cache: what it holds, and that nothing but the whole, present and unchanged is ever used."""

import errno
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from forked import Forked
from pascal_tree import SPLITS, write_tree
from PIL import Image
from test_cli import cli  # noqa: F401

from bench.data import cache as cache_module
from bench.data import cache_build, cache_index, cache_layout, contents
from bench.data.cache import Request, open_cache
from bench.data.cache_index import read_index
from bench.data.cache_layout import CacheError, size_text
from bench.data.layout import DataError
from bench.data.pascal_context import PascalContext
from bench.data.store import NATIVE, CachedStore, FileStore, WorkingSize, encode
from bench.storage import append_line

TASKS = ("semseg", "human_parts", "saliency", "normals")
ALL = (*TASKS, "edges")


class Opener:
    """Opens a split of a tree; picklable."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, tasks: tuple[str, ...]) -> PascalContext:
        return PascalContext(self.root, "train", tasks)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT äöü 数")


@pytest.fixture
def said() -> list[str]:
    return []


def request_of(tree: Path, size: WorkingSize = NATIVE) -> Request:
    return Request(tree, "train", Opener(tree), size)


def opened(tree: Path, said: list[str] | None = None, tasks: tuple[str, ...] = TASKS, **changes: object) -> CachedStore:
    return open_cache(request_of(tree), tasks, tree.parent / "cache", say=[].append if said is None else said.append, **changes)


def directory_of(tree: Path) -> Path:
    index = read_index(request_of(tree).place(tree.parent / "cache"))
    return tree.parent / "cache" / ("none" if index is None else index.directory)


def partial_of(tree: Path) -> Path:
    place = request_of(tree).place(tree.parent / "cache")
    return place.with_name(f"{place.name}.partial")


def assert_holds_the_tree(store: CachedStore, tree: Path) -> None:
    dataset = PascalContext(tree, "train", store.tasks)
    assert list(store.ids) == SPLITS["train"]
    for index in range(len(dataset)):
        expected, (height, width) = encode(dataset[index], ("image", *store.tasks)), store.stored[index]
        for name, array in expected.items():
            channels = array.shape[2]
            first = store.first[index] * channels
            found = store.flat[name][first : first + height * width * channels].numpy().reshape(height, width, channels)
            np.testing.assert_array_equal(found, array)


def test_one_cache_serves_every_set_of_tasks_and_is_built_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_holds_the_tree(opened(tree, tasks=("semseg",)), tree)
    monkeypatch.setattr(cache_module, "build", None)
    assert_holds_the_tree(opened(tree), tree)
    assert opened(tree, tasks=("normals", "saliency")).tasks == ("normals", "saliency")


def test_the_data_set_is_not_written_to_and_its_size_is_told_beforehand(tree: Path, said: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    opened(tree, said)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before
    assert "3 samples, image, semseg, human_parts, saliency, normals" in said[0]
    with pytest.raises(DataError, match="inside of the data set"):
        open_cache(request_of(tree), TASKS, tree / "cache")
    assert not (tree / "cache").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def garble(path: Path) -> None:
    content, state = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("harm", [cut, garble, Path.unlink])
@pytest.mark.parametrize("name", ["image.bin", "normals.bin", "manifest.json"])
def test_a_cache_that_is_cut_short_or_garbled_is_named_and_built_again(tree: Path, name: str, harm, said: list[str]) -> None:
    opened(tree)
    harm(directory_of(tree) / name)
    assert_holds_the_tree(opened(tree, said), tree)
    assert name in said[0]
    assert str(directory_of(tree)) in said[0]
    assert "built again" in said[0]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the stamp of files that have just been written as that of old ones."""
    monkeypatch.setattr(contents, "RACY_NS", -(10**18))


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def tamper(path: Path) -> None:
    """Invert a picture, in a file whose size does not depend on what it shows."""
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path, compress_level=0)


SALIENCY = "sal_distill/2008_000001.png"


def test_an_unchanged_tree_is_not_read_again(tree: Path, settled, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    monkeypatch.setattr(contents, "digest_of", None)
    assert_holds_the_tree(opened(tree), tree)


def test_files_that_were_just_written_are_read_again_because_clocks_are_coarse(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    read = []
    monkeypatch.setattr(contents, "digest_of", lambda path, digest=contents.digest_of: read.append(path) or digest(path))
    opened(tree)
    assert len(read) == 3 * 6


def test_touched_files_of_the_same_bytes_keep_their_cache(tree: Path, said: list[str], settled, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    before = directory_of(tree).stat()
    monkeypatch.setattr(cache_module, "build", None)
    touch(tree / SALIENCY)
    assert_holds_the_tree(opened(tree, said), tree)
    assert ["the same bytes; it is used" in line for line in said] == [True]
    monkeypatch.setattr(contents, "digest_of", None)  # the index is fresh again
    opened(tree)
    assert directory_of(tree).stat() == before


def test_a_copy_elsewhere_has_the_same_cache(tree: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    mirror = shutil.copytree(tree, tree.parent / "mirror")
    monkeypatch.setattr(cache_module, "build", None)
    assert_holds_the_tree(opened(mirror, said), mirror)
    assert ["made from the same bytes" in line for line in said] == [True]
    assert directory_of(mirror) == directory_of(tree)


def test_other_bytes_are_named_and_another_cache_is_built(tree: Path, said: list[str]) -> None:
    tamper(tree / SALIENCY)
    opened(tree)
    old, state = directory_of(tree), (tree / SALIENCY).stat()
    tamper(tree / SALIENCY)
    assert (tree / SALIENCY).stat().st_size == state.st_size
    os.utime(tree / SALIENCY, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert_holds_the_tree(opened(tree, said), tree)
    assert f"{old}: it is stale, made from 1 files of other bytes (saliency 2008_000001)" in said[0]
    assert directory_of(tree) != old
    assert not old.exists()


def test_a_cache_that_another_tree_uses_stays_when_one_tree_changes(tree: Path) -> None:
    mirror = shutil.copytree(tree, tree.parent / "mirror")
    opened(tree)
    opened(mirror)
    old = directory_of(tree)
    tamper(tree / SALIENCY)
    opened(tree)
    assert directory_of(mirror) == old
    assert_holds_the_tree(opened(mirror), mirror)


def test_files_of_other_names_have_a_cache_of_their_own(tree: Path) -> None:
    opened(tree)
    mirror, old = shutil.copytree(tree, tree.parent / "mirror"), SPLITS["train"][0]
    for path in list(mirror.rglob(f"{old}.*")):
        path.rename(path.with_stem("2010_000099"))
    split = mirror / "ImageSets/Context/train.txt"
    split.write_text(split.read_text().replace(old, "2010_000099"))
    assert list(opened(mirror).ids) == ["2010_000099", *SPLITS["train"][1:]]
    assert directory_of(mirror) != directory_of(tree)


def test_a_part_of_a_split_and_the_whole_keep_their_caches_beside_each_other(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = request_of(tree)._replace(opener=lambda tasks: PascalContext(tree, "train", tasks, ids=SPLITS["train"][1:]), subset="0.25 0")
    opened(tree)
    first = open_cache(part, TASKS, tree.parent / "cache")
    assert list(first.ids) == SPLITS["train"][1:]
    monkeypatch.setattr(cache_module, "build", None)
    assert_holds_the_tree(opened(tree), tree)
    assert open_cache(part, TASKS, tree.parent / "cache").directory == first.directory


def test_a_change_that_no_time_shows_is_found_by_the_full_check(tree: Path, said: list[str], settled, monkeypatch) -> None:
    opened(tree)
    stamp = contents.stamp_of(PascalContext(tree, "train", ALL))
    for module in (contents, cache_build):
        monkeypatch.setattr(module, "stamp_of", lambda dataset: stamp)
    tamper(tree / SALIENCY)
    opened(tree, said)
    assert not said
    opened(tree, said, verify=True)
    assert "saliency 2008_000001" in said[0]
    assert "is stale" in said[0]


def test_the_full_check_reads_every_file_and_every_array(tree: Path, said: list[str]) -> None:
    opened(tree)
    opened(tree, said, tasks=("semseg",), verify=True)
    assert "18 files" in said[-1]
    garble(directory_of(tree) / "edges.bin")
    opened(tree, said, tasks=("semseg",), verify=True)
    assert "edges.bin is garbled" in said[-2]


def test_a_file_that_changes_while_the_cache_is_built_leaves_none(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = cache_build.write_chunk
    monkeypatch.setattr(cache_build, "write_chunk", lambda *arguments: (touch(tree / SALIENCY), write(*arguments))[1])
    with pytest.raises(CacheError, match="changed while they were read"):
        opened(tree)
    assert not partial_of(tree).exists()
    monkeypatch.undo()
    assert_holds_the_tree(opened(tree), tree)


def test_a_cache_directory_that_cannot_be_written_is_used_and_says_so(tree: Path, said: list[str], monkeypatch) -> None:
    opened(tree)

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(cache_index, "write_atomically", refuse)
    touch(tree / SALIENCY)
    assert_holds_the_tree(opened(tree, said), tree)
    assert "read again next time" in said[-1]


def test_a_cache_of_other_readers_is_built_again(tree: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    monkeypatch.setattr(cache_module.provenance, "hash_sources", lambda sources: "other")
    opened(tree, said)
    assert "other code" in said[0]


def test_tasks_whose_files_are_missing_are_left_out_unless_asked_for(tree: Path, said: list[str]) -> None:
    (tree / "normals_distill/2008_000003.png").unlink()
    assert_holds_the_tree(opened(tree, said, tasks=("semseg",)), tree)
    assert "normals" not in said[0]
    with pytest.raises(DataError, match="normals: 1 of 3 files missing"):
        opened(tree)


@pytest.mark.parametrize("name", ["human_parts/2008_000003.mat", "JPEGImages/2008_000003.jpg"])
def test_a_broken_file_is_named_and_leaves_no_cache(tree: Path, name: str) -> None:
    file = tree / name
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=name):
        opened(tree)
    assert not list((tree.parent / "cache").iterdir())
    file.write_bytes(whole)
    assert_holds_the_tree(opened(tree), tree)


def test_a_link_to_nothing_is_named(tree: Path) -> None:
    (tree / SALIENCY).unlink()
    (tree / SALIENCY).symlink_to(tree / "gone.png")
    with pytest.raises(DataError, match=r"2008_000001\.png cannot be read \(No such file"):
        opened(tree)


def test_chunks_are_kept_until_a_broken_file_is_mended(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], cache_build.write_chunk
    for module in (cache_build, cache_layout, cache_module):
        monkeypatch.setattr(module, "CHUNK", 1)
    monkeypatch.setattr(cache_build, "write_chunk", lambda *arguments: (written.append(arguments[3]), write(*arguments))[1])
    file = tree / "JPEGImages/2008_000005.jpg"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"2008_000005\.jpg"):
        opened(tree)
    assert not directory_of(tree).exists()
    file.write_bytes(whole)
    tamper(tree / SALIENCY)
    assert_holds_the_tree(opened(tree), tree)
    assert written == [0, 1, 2, 0, 2]  # the first was decoded from other bytes than there are now


@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate"])
def test_a_full_disk_is_a_clear_error_and_leaves_no_half_cache(tree: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CacheError, match=r"No space left on device.*bytes are free there: make room"):
        opened(tree)
    assert not list((tree.parent / "cache").iterdir())
    monkeypatch.undo()
    assert_holds_the_tree(opened(tree), tree)


def test_a_disk_that_is_too_small_is_known_before_any_work(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build, "write_chunk", None)
    usage = cache_build.shutil.disk_usage(tree)._replace(free=1000)
    monkeypatch.setattr(cache_build.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CacheError, match=r"too small by [\d,]+ bytes"):
        opened(tree)


def test_a_limit_on_the_size_of_files_is_a_clear_error(tree: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with pytest.raises(CacheError) as refused:
            opened(tree)
        sys.exit(f"refused: {refused.value}")

    process = Forked(limited, dict(os.environ))
    assert process.wait() == 1
    assert "refused: the cache" in process.errors()
    assert not directory_of(tree).exists()


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_a_build_that_was_killed_goes_on_where_it_was(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], cache_build.write_chunk
    for module in (cache_build, cache_layout, cache_module):
        monkeypatch.setattr(module, "CHUNK", 1)

    def write_one(*arguments: object) -> dict:
        if len(written) == 2:
            raise KilledError
        written.append(arguments[3])
        return write(*arguments)

    monkeypatch.setattr(cache_build, "write_chunk", write_one)
    with pytest.raises(KilledError):
        opened(tree)
    partial = partial_of(tree)
    with (partial / "done.jsonl").open("a") as journal:
        journal.write('{"chunk": 2, "crc')  # cut short by the kill
    written.clear()
    assert_holds_the_tree(opened(tree), tree)
    assert written == [2]
    assert not partial.exists()


def test_two_processes_at_once_build_once_and_both_may_use_it(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, journal = cache_build.write_chunk, tmp_path / "journal"

    def slow(*arguments: object) -> dict:
        time.sleep(2)
        append_line(journal, "wrote")
        return write(*arguments)

    def read() -> None:
        append_line(journal, "ready")
        while journal.read_text().count("ready") < 2:
            time.sleep(0.01)
        assert_holds_the_tree(opened(tree), tree)
        append_line(journal, "read")

    monkeypatch.setattr(cache_build, "write_chunk", slow)
    pair = [Forked(read, dict(os.environ)) for _ in range(2)]
    assert [process.wait() for process in pair] == [0, 0], [process.errors() for process in pair]
    lines = journal.read_text().split()
    assert (lines.count("wrote"), lines.count("read")) == (1, 2)


@pytest.mark.slow
def test_several_processes_write_what_one_writes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build, "SMALL_BYTES", 0)
    for module in (cache_build, cache_layout, cache_module):
        monkeypatch.setattr(module, "CHUNK", 3)
    told = []
    assert_holds_the_tree(opened(tree, processes=2, progress=lambda done, total: told.append((done, total))), tree)
    assert told[-1] == (3, 3)


@pytest.mark.parametrize(("size", "expected"), [((30, False), [(22, 30), (30, 18), (27, 30)]), ((16, True), [(16, 16)] * 3)])
def test_a_working_size_reduces_and_keeps_labels_labels(tree: Path, size: tuple[int, bool], expected: list) -> None:
    small = open_cache(request_of(tree, WorkingSize(*size)), TASKS, tree.parent / "cache")
    native = opened(tree)
    assert [tuple(each) for each in small.stored.tolist()] == expected
    np.testing.assert_array_equal(small.native, native.stored)
    for task in ("semseg", "human_parts", "saliency"):
        assert set(small.flat[task].unique().tolist()) <= set(native.flat[task].unique().tolist()) | {0}
    vectors = small.flat["normals"][: 3 * small.stored.prod(axis=1).sum()].float().view(-1, 3).norm(dim=1)
    assert (((vectors - 127).abs() < 1) | (vectors == 0)).all()
    assert json.loads((small.directory / "manifest.json").read_text())["ids"] == SPLITS["train"]
    decoded = FileStore(PascalContext(tree, "train", TASKS), WorkingSize(*size)).samples(range(3))
    for name, array in decoded.flat.items():
        np.testing.assert_array_equal(array, small.flat[name])
    np.testing.assert_array_equal(decoded.native, small.native)


def test_the_command_line_prepares_both_splits(cli, tree: Path) -> None:  # noqa: F811
    arguments = ("data", "cache", "--data-root", str(tree), "--cache-dir", str(tree.parent / "cache"), "--longest-side", "20", "--json")
    code, out, _ = cli(*arguments)
    rows = json.loads(out)
    assert code == 0
    assert [(row["split"], row["images"]) for row in rows] == [("train", 3), ("val", 2)]
    for row in rows:
        layout = json.loads((Path(row["directory"]) / "manifest.json").read_text())["layout"]
        assert max(max(size) for size in layout["stored"]) == 20
        assert layout["names"][:5] == ["image", *TASKS]
    code, out, told = cli("data", "cache", *arguments[3:], "--verify")
    assert (code, [row["built"] for row in json.loads(out)]) == (0, [False, False])
    assert told.count("are what they were") == 2
    garble(Path(rows[0]["directory"]) / "normals.bin")
    code, out, told = cli(*arguments)
    assert (code, [row["built"] for row in json.loads(out)]) == (0, [True, False])
    assert "normals.bin" in told.replace("\n", "")
    tamper(tree / SALIENCY)
    code, out, told = cli("data", "cache", *arguments[3:], "--verify")
    assert (code, [row["built"] for row in json.loads(out)]) == (1, [True, False])
    assert "saliency 2008_000001" in told.replace("\n", "")


@pytest.mark.parametrize("command", ["cache", "describe", "held-out"])
@pytest.mark.parametrize("given", [(), ("a", "--data-root", "b")])
def test_commands_of_data_take_the_directory_once(cli, command: str, given: tuple[str, ...]) -> None:  # noqa: F811
    code, _, told = cli("data", command, *given)
    assert code == 2
    assert "--data-root DIR" in told


def test_a_waiter_that_opened_a_removed_lock_file_does_not_take_it_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, inside = tmp_path / "train-0", []
    is_named, answers = cache_module._is_named, []

    def removed_before_the_first_look(lock: filelock.BaseFileLock) -> bool:
        if not answers:  # between opening and locking, the former holder removed the file, and a third process made another
            Path(lock.lock_file).unlink()
            Path(lock.lock_file).touch()
        answers.append(is_named(lock))
        return answers[-1]

    monkeypatch.setattr(cache_module, "_is_named", removed_before_the_first_look)
    with cache_module.locked(name, inside.append):
        assert answers == [False, True]
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(f"{name}.lock", is_singleton=False).acquire(timeout=0)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_build_leaves_no_lock_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_build, "write_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(tree)
    assert [path.suffix for path in (tree.parent / "cache").iterdir()] == [".partial"]  # the next build goes on there


def test_a_split_with_an_image_missing_is_named_whatever_the_tasks(tree: Path) -> None:
    (tree / "JPEGImages/2008_000003.jpg").unlink()
    with pytest.raises(DataError, match=r"image: 1 of 3 files missing.*ids 2008_000003"):
        open_cache(request_of(tree), None, tree.parent / "cache")


@pytest.mark.parametrize(
    ("size", "said"),
    [(1536, "1.50 KiB"), (2**20 - 1, "1024.00 KiB"), (2**20, "1.00 MiB"), (5 * 2**29 // 4, "640.00 MiB"), (5 * 2**29, "2.50 GiB")],
)
def test_a_size_is_said_with_digits_to_read(size: int, said: str):
    assert size_text(size) == said
