"""PNG bytes -> the chunks that the pixels need, and samples of 16 bits.

Pillow gives up on a PNG for text that is too long or has a wrong checksum, and reads 16-bit colour by its high
bytes only.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.images.formats import UnreadableImage
from common.images.samples import Deep

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_PIXELS = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}  # ancillary chunks, by the letter, that change the picture
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT")
_XMP = b"XML:com.adobe.xmp\0"  # like eXIf, it may hold the orientation
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Where each pass of an interlaced PNG begins, and its steps: left, top, right, down.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_LARGE = 2**20  # bytes of a text or profile worth a note: at this length Pillow refuses to inflate it


class Png(NamedTuple):
    """A PNG whose every chunk that matters is whole.

    `data` holds those only. `significant` are the bits that sBIT declares for a colour sample, 0 without it;
    `transparent` is tRNS as stored.
    """

    data: bytes
    bits: int
    colour: int
    significant: int
    transparent: bytes
    notes: list[str]
    interlaced: bool = False

    @property
    def alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.colour in (4, 6)


def parse(data: bytes) -> Png:
    """Check the chunks of a PNG and leave out those that play no part in the pixels.

    Raises:
        UnreadableImage: a chunk of the picture is damaged or cut.
    """
    kept, notes = [SIGNATURE], []
    head = significant = transparent = b""
    ended = False
    for name, body, whole, chunk in _chunks(data):
        if name == b"IEND" and whole:
            ended = True
            break
        needed = _is_needed(name)
        if not whole:
            if needed:
                raise UnreadableImage(f"damaged PNG: a wrong checksum in its {_shown(name)} chunk")
            notes.append(f"its {_shown(name)} chunk is damaged and not used")
            continue
        if name[:1].isupper() and name not in _CRITICAL:
            raise UnreadableImage(f"its {_shown(name)} chunk is none of the standard's, but changes the picture")
        head = body if name == b"IHDR" and not head else head
        significant = body if name == b"sBIT" else significant
        transparent = body if name == b"tRNS" else transparent
        is_xmp = name == b"iTXt" and body.startswith(_XMP)
        if needed or name == b"eXIf" or (is_xmp and not (body[len(_XMP) :][:1] == b"\1" and _inflates_far(body))):
            kept.append(chunk)
        elif len(body) > _LARGE or (name in (b"zTXt", b"iCCP", b"iTXt") and _inflates_far(body)):
            notes.append(f"its {_shown(name)} chunk is over 1 MB and not used")
    if len(head) < 13:
        raise UnreadableImage("damaged PNG: no header (IHDR chunk)")
    if not ended:
        notes.append("its end chunk (IEND) is missing")
    colour = head[9]
    sbit = max(significant[: _CHANNELS.get(colour, 1) - (colour in (4, 6))], default=0) if colour != 3 else 0
    return Png(b"".join([*kept, _END]), head[8], colour, sbit, transparent, notes, head[12] == 1)


def expect_rows(png: Png, image: Image.Image) -> None:
    """Refuse a PNG whose compressed data ends before its last row, which Pillow leaves black.

    Inflated once more, to be counted, only if the last row is black, or rows don't come in their order.

    Raises:
        UnreadableImage: rows are missing.
    """
    image.load()
    last = image.crop((0, image.height - 1, image.width, image.height)).tobytes()
    if any(last) and not png.interlaced:
        return
    inflated, stream = 0, zlib.decompressobj()
    for name, body, _, _ in _chunks(png.data):
        left = body if name == b"IDAT" else b""
        while left and not stream.eof:
            inflated += len(stream.decompress(left, _LARGE))
            left = stream.unconsumed_tail
    needed = sum(_bytes_of(png, *size) for size in _passes(png, *image.size))
    if inflated < needed:
        raise UnreadableImage(f"damaged PNG: its data ends early, after {inflated:,} of {needed:,} bytes")


def _passes(png: Png, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Width and height of each pass: the image, or of an interlaced one what each of seven holds."""
    for left, top, right, down in _ADAM7 if png.interlaced else ((0, 0, 1, 1),):
        yield -(-(width - left) // right), -(-(height - top) // down)


def _bytes_of(png: Png, width: int, height: int) -> int:
    """Bytes of a pass before compression: a row has a byte for its filter."""
    bits = width * png.bits * _CHANNELS.get(png.colour, 1)
    return height * (1 + -(-bits // 8)) if width > 0 and height > 0 else 0


def deep(png: Png) -> Deep:
    """The samples of a PNG of 16 bits, (height, width, 1 to 4).

    Raises:
        UnreadableImage: the compressed data is damaged.
    """
    values: NDArray[Any]
    if png.colour == 0:
        with Image.open(io.BytesIO(png.data), formats=["PNG"]) as image:
            expect_rows(png, image)
            values = _in_strips(image)
    else:
        with Image.open(io.BytesIO(png.data), formats=["PNG"]) as image:
            expect_rows(png, image)  # finds the same faults as libpng, which OpenCV lets print them
        only = [chunk for name, _, _, chunk in _chunks(png.data) if name in (b"IHDR", b"IDAT", b"IEND")]
        read = cv2.imdecode(np.frombuffer(b"".join([SIGNATURE, *only]), np.uint8), cv2.IMREAD_UNCHANGED)
        if read is None or read.dtype != np.uint16 or read.ndim != 3:
            raise UnreadableImage("16-bit PNG that can't be decoded")
        if png.colour == 4:
            values = read[..., 2:]  # gray three times, then alpha
        else:
            values = read
            for row in read:  # OpenCV has blue first; swapped row by row, no copy of the whole is made
                row[:, [0, 2]] = row[:, [2, 0]]
    if png.transparent and not png.alpha:
        key = np.frombuffer(png.transparent[: 2 * values.shape[2]], ">u2")
        opaque = (values != key).any(axis=2, keepdims=True)
        values = np.concatenate([values, opaque * np.uint16(65535)], axis=2)
    alpha = png.alpha or bool(png.transparent)
    return Deep(values, 16, alpha=alpha, declared_depth=png.significant, notes=tuple(png.notes))


def _in_strips(image: Image.Image) -> NDArray[np.uint16]:
    """The samples of a gray image, (height, width, 1); all of it at once would be copied twice."""
    values = np.empty((image.height, image.width, 1), np.uint16)
    step = max(1, _LARGE // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        values[top:bottom, :, 0] = np.asarray(image.crop((0, top, image.width, bottom)))
    return values


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool, bytes]]:
    """Yield (name, body, whether its checksum is right, the chunk as it is)."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        stop = at + 12 + length
        if stop > len(data):
            if _is_needed(name):
                raise UnreadableImage(f"truncated: the file ends inside its {_shown(name)} chunk")
            yield name, b"", False, b""
            return
        checked = memoryview(data)[at + 4 : stop - 4]
        whole = zlib.crc32(checked) == int.from_bytes(data[stop - 4 : stop], "big")
        yield name, data[at + 8 : stop - 4], whole, data[at:stop]
        at = stop


def _is_needed(name: bytes) -> bool:
    """Whether a chunk changes the picture. The end chunk brings nothing."""
    return (name[:1].isupper() and name != b"IEND") or name in _PIXELS


def _inflates_far(body: bytes) -> bool:
    """Whether a compressed text or profile is longer than `_LARGE`; no more than that is inflated."""
    start = body.find(b"x", body.find(b"\0"))  # zlib's first byte
    try:
        return start >= 0 and len(zlib.decompressobj().decompress(body[start:], _LARGE + 1)) > _LARGE
    except zlib.error:
        return False


def _shown(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
