"""Set-up that all tests share: one thread (bit-equal repeats, no fight over cores) and the directory of the golden files."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bit-equal repeats are promised on a CPU

from bench.imports import imports_without

with imports_without("wandb"):  # which timm would import, and which takes longer than timm itself
    import timm  # noqa: F401
import torch
from forked import forked_nursery

torch.set_num_threads(1)


def golden_directory() -> Path:
    """Return the directory of the golden files: tests/golden, or what the environment variable MTLORA_GOLDEN_DIR names.

    Raises:
        FileNotFoundError: The directory does not exist or holds no .npz; correct or unset MTLORA_GOLDEN_DIR.
    """
    directory = Path(os.environ.get("MTLORA_GOLDEN_DIR") or Path(__file__).parent / "golden")
    if not any(directory.glob("*.npz")):
        raise FileNotFoundError(f"no .npz files in {directory}: correct or unset the environment variable MTLORA_GOLDEN_DIR")
    return directory


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `golden("losses*.npz")` once for every such file, as its argument `golden_file`."""
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None:
        files = sorted(golden_directory().glob(marker.args[0]))
        metafunc.parametrize("golden_file", files, ids=[file.stem for file in files])


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of `pytest_generate_tests`."""
    config.addinivalue_line("markers", "golden(pattern): run once for every golden file that matches, as the argument golden_file")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: where workers share the files, none is left alone with a slow one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def forked_nurseries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that fork trials be forks of this one, where their own start is not what is tested."""
    monkeypatch.setattr("bench.sweep.nursery.begin", forked_nursery)


@pytest.fixture(scope="module")
def quick_figures() -> Iterator[None]:
    """Let reports make their figures but not draw them, which takes most of a report's time, where figures are not what is tested."""
    dot = io.BytesIO()
    Image.new("RGB", (1, 1)).save(dot, format="png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.plots.render", lambda figure: {"png": dot.getvalue(), "pdf": b"%PDF-1.4"})
        yield


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Return the directory of the golden files, see `golden_directory`."""
    return golden_directory()
