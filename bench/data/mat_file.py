"""Is a MATLAB file of version 5 to 7 whole? Asked before SciPy reads it, whose reader can crash the process at a damaged one.

A compressed variable carries a checksum, which is verified. An uncompressed one carries none: its elements must nest without remainder, and
arrays must hold as many numbers as their shape says. Format: "MAT-File Format", The MathWorks, chapter 1.
"""

import math
import struct
import zlib
from dataclasses import dataclass

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of a number, by the type of an element."""

CELL, STRUCT, CHAR = 1, 2, 4
NUMERIC = range(6, 16)
COMPLEX = 0x0800
MAX_DIMENSIONS, MAX_DEPTH = 32, 32


class MatFileError(ValueError):
    """The file is damaged."""


@dataclass(frozen=True)
class Element:
    """One element: its type, and its content."""

    type: int
    content: memoryview


def require_whole(data: bytes) -> None:
    """Look through a file; one of version 4 or 7.3, which has another structure, is left to the reader.

    Raises:
        MatFileError: A checksum is wrong, an element reaches beyond its end, or a shape does not fit its content.
    """
    if len(data) < HEADER_BYTES or 0 in data[:4] or data[126:128] not in (b"IM", b"MI"):
        return
    order = "<" if data[126:128] == b"IM" else ">"
    if struct.unpack(order + "H", data[124:126])[0] != 0x0100:
        return
    for element in _elements(memoryview(data)[HEADER_BYTES:], order):
        if element.type == COMPRESSED:
            _require_checksum(element.content)
        elif element.type == MATRIX:
            _require_matrix(element.content, order)
        else:
            raise MatFileError(f"a variable of type {element.type}")


def _require_checksum(content: memoryview) -> None:
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error as error:
        raise MatFileError(f"a compressed variable is damaged: {error}") from error
    if not stream.eof:
        raise MatFileError("a compressed variable is cut short")


def _elements(rest: memoryview, order: str) -> list[Element]:
    """Split content into its elements, without remainder; each begins at a multiple of 8 bytes but after a compressed one."""
    found = []
    while rest:
        if len(rest) < 8:
            raise MatFileError("an element is cut short")
        kind, size = struct.unpack(order + "II", rest[:8])
        start = 8
        if kind >> 16:  # a small element: type and size in one word, the content in the next
            kind, size, start = kind & 0xFFFF, kind >> 16, 4
            if size > 4:
                raise MatFileError(f"a small element of {size} bytes")
        if start + size > len(rest):
            raise MatFileError(f"an element of {size} bytes where {len(rest) - start} are left")
        found.append(Element(kind, rest[start : start + size]))
        rest = rest[8 if start == 4 else start + size if kind == COMPRESSED else start + -(-size // 8) * 8 :]
    return found


def _require_matrix(content: memoryview, order: str, depth: int = 0) -> None:
    """Look through an array: flags, shape, name, then what its class asks for. One without content is an empty array."""
    if not content and depth:
        return
    if depth > MAX_DEPTH:
        raise MatFileError("arrays nest too deep")
    parts = _elements(content, order)
    if len(parts) < 3 or [part.type for part in parts[:3]] != [6, 5, 1] or len(parts[0].content) != 8 or len(parts[1].content) % 4:
        raise MatFileError("an array without flags, shape and name")
    flags = struct.unpack(order + "I", parts[0].content[:4])[0]
    shape = struct.unpack(f"{order}{len(parts[1].content) // 4}i", parts[1].content)
    if not 2 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 0:
        raise MatFileError(f"an array of shape {shape}")
    kind, count, body = flags & 0xFF, math.prod(shape), parts[3:]
    if kind == CELL:
        _require_matrices(body, count, order, depth)
    elif kind == STRUCT:
        _require_matrices(body[2:], count * _number_of_fields(body, order), order, depth)
    elif kind in NUMERIC:
        _require_numbers(body, count, 2 if flags & COMPLEX else 1)
    elif kind != CHAR or len(body) != 1 or body[0].type not in SIZES:
        raise MatFileError(f"an array of class {kind}, neither numbers nor text, cell or struct")


def _require_matrices(parts: list[Element], count: int, order: str, depth: int) -> None:
    if len(parts) != count or any(part.type != MATRIX for part in parts):
        raise MatFileError(f"{len(parts)} arrays where the shape says {count}")
    for part in parts:
        _require_matrix(part.content, order, depth + 1)


def _number_of_fields(body: list[Element], order: str) -> int:
    if len(body) < 2 or (body[0].type, len(body[0].content), body[1].type) != (5, 4, 1):
        raise MatFileError("a struct without the names of its fields")
    length, names = struct.unpack(order + "i", body[0].content)[0], len(body[1].content)
    if length <= 0 or names % length:
        raise MatFileError(f"names of fields of {length} bytes in {names}")
    return names // length


def _require_numbers(body: list[Element], count: int, parts: int) -> None:
    if len(body) != parts or any(part.type not in SIZES or len(part.content) != count * SIZES[part.type] for part in body):
        raise MatFileError(f"{' + '.join(str(len(part.content)) for part in body)} bytes of numbers where the shape says {count}")
