"""A flipped bit of a PNG is refused, or changes nothing."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import nyud, pascal_files
from bench.data.layout import DataError
from bench.data.png_file import PngFileError, require_whole


def png(label: np.ndarray, mode: str | None = None) -> bytes:
    buffer, image = io.BytesIO(), Image.fromarray(label)
    if mode == "P":
        image = image.convert("P")
    image.save(buffer, "PNG")
    return buffer.getvalue()


LABEL = np.random.default_rng(0).integers(0, 21, (5, 7), dtype=np.uint8)
CASES = {
    "semseg": (pascal_files.read_semseg, png(LABEL)),
    "palette": (pascal_files.read_semseg, png(LABEL, "P")),
    "forty classes": (nyud.read_semseg, png(LABEL)),
    "saliency": (pascal_files.read_saliency, png(12 * LABEL)),
    "normals": (pascal_files.read_normals, png(np.stack([12 * LABEL] * 3, axis=2))),
}


@pytest.mark.parametrize(("read", "whole"), CASES.values(), ids=CASES)
def test_every_flipped_bit_is_refused_with_the_file_s_name_or_changes_nothing(
    tmp_path: Path, read: Callable[[str], np.ndarray], whole: bytes
):
    file = tmp_path / "label.png"
    file.write_bytes(whole)
    label, refused = read(str(file)), 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            found = read(str(file))
        except DataError as error:
            refused += "label.png" in str(error)
        else:
            np.testing.assert_array_equal(found, label)
    assert refused == 8 * len(whole)  # every byte is signature, length, or under a checksum


@pytest.mark.parametrize("missing", [1, 4, 5, 12, 13, 40])
def test_a_cut_file_is_refused(missing: int):
    with pytest.raises(PngFileError, match="cut short"):
        require_whole(CASES["semseg"][1][:-missing])


def test_bytes_after_the_last_chunk_and_other_formats_are_left_alone():
    require_whole(CASES["semseg"][1] + b"more")
    require_whole(b"GIF89a")
    require_whole(b"")
