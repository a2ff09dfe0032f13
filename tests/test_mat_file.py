"""A damaged MATLAB file is an error that names it, before SciPy's reader, which may crash at it, sees it."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from bench.data.layout import DataError
from bench.data.mat_file import HEADER_BYTES, MatFileError, require_whole
from bench.data.pascal_files import load_mat


def contents() -> dict[str, object]:
    parts = np.zeros((1, 3), dtype=[("part_name", object), ("mask", object)])
    for i in range(3):
        parts[0, i] = (f"part {i}", np.arange(600, dtype=np.uint8).reshape(20, 30) % 2)
    objects = np.zeros((1, 2), dtype=[("class", object), ("class_ind", object), ("parts", object)])
    objects[0, 0] = ("person", 15.0, parts)
    objects[0, 1] = ("bus", 6.0, np.zeros((0, 0)))
    return {"anno": {"imname": "2008_000001", "objects": objects}, "map": np.arange(600, dtype=np.uint16).reshape(20, 30), "z": 1 + 2j}


def saved(compressed: bool) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, contents(), do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_file_passes(compressed: bool, tmp_path: Path):
    require_whole(saved(compressed))
    (tmp_path / "x.mat").write_bytes(saved(compressed))
    assert load_mat(str(tmp_path / "x.mat"), "anno")["objects"][0, 0][0, 0]["parts"].shape == (1, 3)


def test_a_changed_byte_of_a_compressed_variable_breaks_it_unless_it_changes_nothing():
    whole, stream, broken = saved(True), random.Random(0), 0
    (size,) = struct.unpack("<I", whole[HEADER_BYTES + 4 : HEADER_BYTES + 8])
    start, end = HEADER_BYTES + 8, HEADER_BYTES + 8 + size
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[start + stream.randrange(size)] ^= stream.randrange(1, 256)
        try:
            require_whole(bytes(damaged))
        except MatFileError as error:
            assert "compressed variable" in str(error)  # noqa: PT017
            broken += 1
        else:  # bits that fill up a byte, for instance
            assert zlib.decompress(damaged[start:end]) == zlib.decompress(whole[start:end])
    assert broken > 150


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def array(kind: int, shape: tuple[int, ...], *body: bytes) -> bytes:
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, b"x")
    return element(14, head + b"".join(body))


HEADER = b" " * 124 + b"\x00\x01IM"
DOUBLE = array(6, (1, 1), element(9, struct.pack("<d", 3.0)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (DOUBLE[:-8], "bytes where"),
        (DOUBLE + b"abc", "cut short"),
        (element(9, b"12345678"), "type 9"),
        (array(6, (1, 2), element(9, struct.pack("<d", 3.0))), "8 bytes of numbers where the shape says 2"),
        (array(6, (1, 1)), "bytes of numbers"),
        (array(6, (-1, -1), element(9, struct.pack("<d", 3.0))), r"shape \(-1, -1\)"),
        (array(1, (1, 2), DOUBLE), "1 arrays where the shape says 2"),
        (array(2, (1, 1), element(5, struct.pack("<i", 0)), element(1, b"a\0"), DOUBLE), "names of fields of 0 bytes"),
        (array(2, (1, 1), element(5, struct.pack("<i", 2)), element(1, b"a\0b\0"), DOUBLE), "1 arrays where the shape says 2"),
        (array(17, (1, 1)), "class 17"),
        (array(4, (1, 1)), "class 4"),
        (element(14, element(6, b"12345678")), "without flags"),
        (struct.pack("<I", 9 << 16 | 1) + b"1234", "small element of 9 bytes"),
    ],
)
def test_elements_that_do_not_nest_or_shapes_that_do_not_fit_are_refused(body: bytes, said: str):
    require_whole(HEADER + DOUBLE)
    with pytest.raises(MatFileError, match=said):
        require_whole(HEADER + body)


def test_arrays_that_nest_without_end_are_refused():
    body = DOUBLE
    for _ in range(40):
        body = array(1, (1, 1), body)
    with pytest.raises(MatFileError, match="too deep"):
        require_whole(HEADER + body)


def test_the_reader_names_the_damaged_file(tmp_path: Path):
    file = tmp_path / "damaged.mat"
    file.write_bytes(HEADER + array(1, (1, 2), DOUBLE))
    with pytest.raises(DataError, match=r"damaged.mat cannot be read .*1 arrays where the shape says 2"):
        load_mat(str(file), "x")
