"""Bytes of a DICOM file -> its header and pixel data, for decoding and for scans, with no more memory than they need.

pydicom inflates a deflated file whole before it looks at anything, and a decoder takes the memory that a frame's own
header asks for; a few kilobytes can ask for gigabytes, so both are checked first.
"""

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from common.images.formats import UnreadableImage

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_INFLATED = 2**26  # bytes that a deflated file may have beside those of its pixels
_CHUNK = 2**20
# What stands before a data set that was inflated: its transfer syntax is now Explicit VR Little Endian.
_PLAIN_SYNTAX = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
_PLAIN = bytes(128) + b"DICM" + _PLAIN_SYNTAX
_SILENT = ("ignore", None, Warning, re.compile(r"pydicom(\.|$)"), 0)  # as warnings.filters has it


def _silence() -> None:
    """Keep pydicom from printing values of a header, which its warnings and its log hold.

    The filter stays: one that is taken back, as catch_warnings does, is taken from the other threads of a scan too.
    """
    if _SILENT not in warnings.filters:
        warnings.filterwarnings("ignore", category=Warning, module=_SILENT[3].pattern)
    logger = logging.getLogger("pydicom")
    if logger.propagate:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


_silence()


def read(
    file: BinaryIO, max_pixels: int, *, stop_before_pixels: bool = False, tags: Sequence[str] | None = None
) -> "Dataset":
    """Parse a DICOM file.

    Args:
        file: at its beginning. Of one that isn't deflated no more is read than is asked for.
        max_pixels: says how large a deflated file's data set may become.
        stop_before_pixels: read the header alone, which is looked for in the first 64 MiB of a deflated data set.
        tags: keywords of the only elements that are wanted; None: all.

    Returns:
        The data set. Of a deflated file it is the inflated one, in Explicit VR Little Endian.

    Raises:
        UnreadableImage: it inflates to more than its pixels can need.
        Exception: pydicom's and zlib's, of what is damaged; what they say may hold values of the header.
    """
    import pydicom

    # Not read_file_meta_info, which takes a path: the same function finds where the meta information ends for pydicom
    # itself, whatever its length field says, so that what isn't inflated here isn't inflated there.
    from pydicom.filereader import _read_file_meta_info, read_preamble

    _silence()
    read_preamble(file, force=False)
    if str(_read_file_meta_info(file).get("TransferSyntaxUID")) == _DEFLATED:
        file = _inflated(file, max_pixels, is_whole=not stop_before_pixels)
    else:
        file.seek(0)
    return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels, specific_tags=list(tags) if tags else None)


def _inflated(file: BinaryIO, max_pixels: int, *, is_whole: bool) -> BinaryIO:
    """A deflated data set as an uncompressed file; its beginning, where the whole isn't asked for."""
    most = _INFLATED + (6 * max_pixels if is_whole else 0)
    found, size = io.BytesIO(), 0
    found.write(_PLAIN)
    for part in _parts(file, is_whole=is_whole):
        size += len(part)
        if size > most:
            if is_whole:
                raise UnreadableImage(f"inflates to more than {most:,} bytes")
            break
        found.write(part)
    found.seek(0)
    return found


def _parts(file: BinaryIO, *, is_whole: bool) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof and (packed := file.read(_CHUNK)):
        while packed and not inflater.eof:
            yield inflater.decompress(packed, _CHUNK)
            packed = inflater.unconsumed_tail
    if is_whole and not inflater.eof:
        yield inflater.flush()
        raise UnreadableImage("damaged DICOM: its deflated data set is truncated")


class _Frame(NamedTuple):
    """What a compressed frame declares of itself."""

    width: int
    height: int
    samples: int


def expect_frame(dataset: "Dataset", width: int, height: int) -> None:
    """Refuse a compressed frame that is larger than the header says: its decoder would take the memory for it.

    Raises:
        UnreadableImage: it has another size, or other samples a pixel; or an RLE frame has more bytes than it can need.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    syntax, samples = dataset.file_meta.TransferSyntaxUID, int(dataset.SamplesPerPixel)
    if not syntax.is_encapsulated:
        return
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        # At worst each byte is a run of its own, of two bytes, in one segment a byte of a pixel, each padded to even.
        segments = samples * -(-int(dataset.BitsAllocated) // 8)
        most = 64 + segments * (2 * width * height + 2)
        if len(frame) > most:
            raise UnreadableImage(
                f"its RLE frame has {len(frame):,} bytes, more than the {most:,} that {width} x {height} pixels can need"
            )
        return
    declared = _declared_by(frame)
    if declared and declared[:2] != (width, height):
        raise UnreadableImage(
            f"its frame is of {declared.width} x {declared.height} pixels, its header says {width} x {height}"
        )
    if declared and declared.samples != samples:
        raise UnreadableImage(f"its frame has {declared.samples} samples a pixel, its header says {samples}")


def _declared_by(frame: bytes) -> _Frame | None:
    """What a JPEG, JPEG-LS or JPEG 2000 code stream declares; nothing of any other."""
    if (at := frame.find(b"\xff\x4f\xff\x51", 0, 2**16)) >= 0:  # JPEG 2000: SIZ follows SOC
        right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
        return _Frame(right - left, bottom - top, struct.unpack_from(">H", frame, at + 40)[0])
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a frame header
            height, width, samples = struct.unpack_from(">2HB", frame, at + 5)
            return _Frame(width, height, samples)
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None
