"""Samples of 9 to 15 bits and other odd sizes in a TIFF, which lie packed without regard to bytes."""

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffPage

from common.images.formats import UnreadableImage

_ROWS = 2**18  # samples that are unpacked at a time: each takes as many bytes as it has bits


def unpack(page: TiffPage, data: bytes, bits: int) -> NDArray[np.generic]:
    """The samples of a TIFF of which each has `bits` bits, (height, width, samples).

    Raises:
        UnreadableImage: cut.
        Exception: whatever a decompressor raises.
    """
    apart = page.planarconfig == 2 and page.samplesperpixel > 1
    planes, together = (page.samplesperpixel, 1) if apart else (1, page.samplesperpixel)
    high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    high = min(high, page.imagelength) if not page.is_tiled else high
    down, across = -(-page.imagelength // high), -(-page.imagewidth // wide)
    if len(page.dataoffsets) < planes * down * across:
        raise UnreadableImage("truncated: strips or tiles of it are missing")
    values = np.zeros((page.imagelength, page.imagewidth, planes * together), np.uint16 if bits <= 16 else np.uint32)
    decompress = tifffile.TIFF.DECOMPRESSORS[page.compression] if page.compression != 1 else bytes
    for index in range(planes * down * across):
        plane, place = divmod(index, down * across)
        top, left = place // across * high, place % across * wide
        rows = high if page.is_tiled else min(high, page.imagelength - top)
        start = page.dataoffsets[index]
        raw = decompress(data[start : start + page.databytecounts[index]])
        part = _unpacked(raw, rows, wide * together, bits, reverse=page.fillorder == 2).reshape(rows, wide, together)
        target = values[top : top + rows, left : left + wide, plane * together : (plane + 1) * together]
        target[...] = part[: target.shape[0], : target.shape[1]]
    return values


def _unpacked(raw: bytes, rows: int, per_row: int, bits: int, *, reverse: bool) -> NDArray[np.generic]:
    """Samples of whole rows, each of which starts at a byte."""
    row_bytes = -(-per_row * bits // 8)
    if len(raw) < rows * row_bytes:
        raise UnreadableImage("truncated: a strip or tile of it is cut")
    packed = np.frombuffer(raw, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    values = np.zeros((rows, per_row), np.uint16 if bits <= 16 else np.uint32)
    step = max(1, _ROWS // per_row)
    for top in range(0, rows, step):
        some = packed[top : top + step]
        single = np.unpackbits(some, axis=1, count=per_row * bits, bitorder="little" if reverse else "big")
        for bit in np.moveaxis(single.reshape(len(some), per_row, bits), 2, 0):
            values[top : top + step] = values[top : top + step] << 1 | bit
    return values
