"""Is a PNG file whole? Asked before Pillow decodes it, which does not look at the checksums of the pixels: a flipped bit would be a label.

Format: "Portable Network Graphics (PNG) Specification", W3C, chapter 5: a signature, then chunks of length, type, content and a CRC of
type and content; the last one is IEND.
"""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


class PngFileError(ValueError):
    """The file is damaged."""


def require_whole(data: bytes) -> None:
    """Verify the checksum of every chunk; a file of another format, without PNG's signature, is left to the reader.

    Raises:
        PngFileError: A checksum is wrong, or the file ends before its last chunk does.
    """
    if not data.startswith(SIGNATURE):
        return
    view, place, kind = memoryview(data), len(SIGNATURE), b""
    while kind != b"IEND":
        if len(view) < place + 8:
            raise PngFileError("it is cut short: no IEND chunk")
        length = struct.unpack_from(">I", view, place)[0]
        kind, end = bytes(view[place + 4 : place + 8]), place + 8 + length
        if len(view) < end + 4:
            raise PngFileError(f"chunk {kind!r} is cut short, or its length is wrong")
        if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", view, end)[0]:
            raise PngFileError(f"the checksum of chunk {kind!r} is wrong")
        place = end + 4
