"""JPEG bytes -> pixels, with libjpeg's every complaint taken seriously.

libjpeg goes on over damaged data and fills the rest with gray, and Pillow keeps its warnings to itself. Here a
warning rejects the file, unless it goes away once the stream is written anew without what plays no part in the
pixels: metadata, bytes between segments, a missing end marker, zeros before it.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from simplejpeg import decode_jpeg

from common.images.formats import UnreadableImage

_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)  # restart markers lie inside a scan
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_EOI, _SOS, _JFIF, _ADOBE = 0xD9, 0xDA, 0xE0, 0xEE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_PROGRESSIVE = (0xC2, 0xCA)
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_KEPT = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD}  # frame, Huffman and arithmetic tables, quantisation, restart interval
# What of the application's segments matters: the colour transform, the orientation.
_METADATA: dict[int, tuple[bytes, ...]] = {_ADOBE: (b"Adobe",), 0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/")}
_ADOBE_BYTES = 12  # of a whole Adobe segment
_PLAIN_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
_UNSUPPORTED = ("subsampling", "color conversion")  # simplejpeg's limits, no fault of the file


class Segment(NamedTuple):
    """A marker, what it holds, and behind a start of scan the entropy-coded data."""

    marker: int
    body: bytes
    scan: bytes = b""


def decode(data: bytes, space: str, least: tuple[int, int]) -> tuple[NDArray[np.uint8], list[str]] | None:
    """Decode a JPEG of 8 bits.

    Args:
        data: the file's bytes.
        space: GRAY, RGB or CMYK, the file's own.
        least: (width, height) that the smallest of the scales (eighths) must cover; (0, 0) for full size.

    Returns:
        Pixels of shape (height, width, channels), and notes on harmless faults; None where the file is of a kind
        that simplejpeg can't decode.

    Raises:
        UnreadableImage: damaged, with libjpeg's reason, or scans are missing.
    """
    options: dict[str, Any] = {"colorspace": space, "min_width": least[0], "min_height": least[1]}
    try:
        return decode_jpeg(data, **options), []
    except ValueError as error:
        fault = str(error)
        if any(limit in fault for limit in _UNSUPPORTED):
            return None
    segments = list(_segments(data))
    ended = segments[-1].marker == _EOI if segments else False
    if not ended and _lacks_scans(segments):
        raise UnreadableImage("truncated: its last scans are missing")
    harmless = [f"libjpeg: {fault}" if ended else "its end marker is missing"]
    try:
        return decode_jpeg(_written_anew(segments), **options), harmless
    except ValueError as error:
        reason = str(error) if ended else f"{fault} (truncated)"
    if padding := _padding(segments, reason):
        with suppress(ValueError):
            return decode_jpeg(_written_anew(segments, padding), **options), harmless
    raise UnreadableImage(f"damaged JPEG: {reason}")


def written_anew(data: bytes) -> bytes:
    """A JPEG's stream with nothing but its picture and metadata of where it is up."""
    return _written_anew(list(_segments(data)))


def lacks_scans(data: bytes, components: int, *, progressive: bool) -> bool:
    """Whether a JPEG of several scans ends before all coefficients of all components have come."""
    if not progressive:
        # Headers of scans that don't bring all components; inside a scan no byte FF is followed by DA.
        partial = (b"\xff\xda\0" + bytes([6 + 2 * count, count]) for count in range(1, components))
        if not any(header in data for header in partial):
            return False
    return _lacks_scans(list(_segments(data)))


def unsupported(data: bytes) -> str:
    """Why a JPEG is of a kind that isn't decoded; empty where its frame header shows nothing unusual."""
    for marker, body, _ in _segments(data, to_scan=True):
        if marker == 0xF7:
            return "JPEG-LS, which isn't decoded; save it as PNG"
        if marker in _FRAMES:
            if body and body[0] != 8:
                return f"JPEG with {body[0]} bits a sample, which isn't decoded; save it as 16-bit PNG"
            if marker in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF):
                return "hierarchical JPEG, which isn't decoded; save it as PNG"
    return ""


def _segments(data: bytes, *, to_scan: bool = False) -> Iterator[Segment]:
    """Yield the segments up to the end marker, or up to and without the first scan's data."""
    at = 2
    while match := _NEXT_MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker in _BARE:
            continue
        if marker == _EOI:
            yield Segment(marker, b"")
            return
        length = int.from_bytes(data[at : at + 2], "big")
        body, at = data[at + 2 : at + length], at + max(length, 2)
        if marker != _SOS:
            yield Segment(marker, body)
            continue
        if to_scan:
            yield Segment(marker, body)
            return
        end = _END_OF_SCAN.search(data, at)
        stop = end.start() if end else len(data)
        yield Segment(marker, body, data[at:stop])
        at = stop


def _padding(segments: list[Segment], reason: str) -> int:
    """The bytes that libjpeg found to be left over behind the last scan, if they are zeros."""
    left = _LEFT_OVER.search(reason)
    count = int(left[1]) if left else 0
    last = next((segment.scan for segment in reversed(segments) if segment.marker == _SOS), b"")
    return count if count and last[-count:] == bytes(count) else 0


def _written_anew(segments: list[Segment], padding: int = 0) -> bytes:
    """The stream with nothing but what the pixels need, and without `padding` bytes behind the last scan."""
    frame = next((marker for marker, _, _ in segments if marker in _FRAMES), 0)
    last = max((index for index, segment in enumerate(segments) if segment.marker == _SOS), default=-1)
    pieces = [b"\xff\xd8"]
    for index, (marker, given, scan) in enumerate(segments):
        body = given
        if marker == _JFIF and body.startswith(b"JFIF\0"):
            body = _PLAIN_JFIF
        elif marker == _SOS and frame not in _PROGRESSIVE and len(body) >= 3:
            body = body[:-3] + b"\0\x3f\0"  # of a sequential JPEG always these; some cameras write others
        elif not (marker in _KEPT or marker == _SOS or body.startswith(_METADATA.get(marker, ()))) or (
            marker == _ADOBE and len(body) < _ADOBE_BYTES
        ):
            continue
        pieces += [bytes([0xFF, marker]), (len(body) + 2).to_bytes(2, "big"), body]
        pieces.append(scan[: len(scan) - padding].removesuffix(b"\xff") if index == last else scan)
    return b"".join([*pieces, b"\xff\xd9"])


def _lacks_scans(segments: list[Segment]) -> bool:
    frame = next((segment for segment in segments if segment.marker in _FRAMES), None)
    if frame is None:
        return False
    progressive = frame.marker in _PROGRESSIVE
    # Bits of each coefficient that are still to come; a sequential scan brings all at once.
    missing = {frame.body[6 + 3 * index]: np.full(64, 99) for index in range((len(frame.body) - 6) // 3)}
    for marker, body, _ in segments:
        if marker != _SOS or len(body) < 4:
            continue
        start, stop, bits = (body[-3], body[-2] + 1, body[-1] & 15) if progressive else (0, 64, 0)
        for component in body[1 : 1 + 2 * body[0] : 2]:
            if component in missing:
                missing[component][start:stop] = bits
    return any(bits.any() for bits in missing.values())
