"""TIFF bytes -> what the file declares, and its samples where Pillow can't decode them rightly.

Pillow decodes what has up to 8 bits. Deeper samples it takes for 0..65535, garbles where the planes lie apart and
leaves inverted where they are MinIsWhite; tifffile, or OpenCV where a file is compressed with LZW, reads them as they
are.
"""

import contextlib
import ctypes
import io
import logging
import threading
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import PIL
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from simplejpeg import decode_jpeg
from tifffile import COMPRESSION, PHOTOMETRIC, TiffPage

from common.images.formats import UnreadableImage
from common.images.packed import unpack
from common.images.samples import Deep, Range

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it finds is in our reasons
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # as above

_PHOTOMETRIC, _ORIENTATION, _MIN, _MAX, _SMIN, _SMAX, _SUB_IFDS = 262, 274, 280, 281, 340, 341, 330
_PLAIN: set[int] = {
    PHOTOMETRIC.MINISWHITE,
    PHOTOMETRIC.MINISBLACK,
    PHOTOMETRIC.RGB,
    PHOTOMETRIC.PALETTE,
    PHOTOMETRIC.SEPARATED,  # CMYK
    PHOTOMETRIC.YCBCR,
}
_DEEP: dict[int, int] = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
_KNOWN_TO_OPENCV = (COMPRESSION.LZW, COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE)
_BITS_OF_PILLOW = (1, 2, 4, 8)
_UNSIGNED = (1, 4)  # or undefined
_WHOLE_BYTES = (8, 16, 32, 64)
_ADVICE = "save it as PNG"


class Tiff(NamedTuple):
    """What the one page of a TIFF declares. `plain`: Pillow decodes it rightly, if it opens it at all."""

    page: TiffPage
    width: int
    height: int
    bits: int
    plain: bool
    orientation: int

    @property
    def mode(self) -> str:
        """The photometric interpretation, in words."""
        return _name(PHOTOMETRIC, self.page.photometric)


def parse(file: BinaryIO) -> Tiff:
    """Read what a TIFF declares, without its samples.

    Raises:
        UnreadableImage: no TIFF, several pages, or a kind that isn't decoded.
    """
    try:
        with tifffile.TiffFile(file) as tiff:
            pages = len(tiff.pages)
            page = tiff.pages.first
            declared = _declared(page)
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes raise anything
        raise UnreadableImage(f"damaged TIFF: {' '.join(str(error).split()) or type(error).__name__}") from error
    if pages > 1:
        raise UnreadableImage(f"holds {pages} images; save the one to use as a file of its own")
    if page.subfiletype & 1 and _SUB_IFDS in page.tags:
        raise UnreadableImage("its first image is a preview, as in camera raw files; save the image itself as PNG")
    if not page.imagewidth * page.imagelength:
        raise UnreadableImage("damaged TIFF: it declares no image")
    if _PHOTOMETRIC not in page.tags:  # which tifffile and Pillow take for MinIsWhite
        raise UnreadableImage(f"declares no photometric interpretation, so that black may be white; {_ADVICE}")
    if page.imagedepth > 1:
        raise UnreadableImage(f"holds a volume of {page.imagedepth} slices; save the one to use as a file of its own")
    return declared


def deep(tiff: Tiff, data: bytes) -> Deep:
    """The samples of a TIFF as they are stored, (height, width, channels).

    Raises:
        UnreadableImage: damaged, cut, or of a kind that isn't decoded.
    """
    page = tiff.page
    colours = _DEEP.get(page.photometric, 0)
    if not colours or page.samplesperpixel < colours:
        raise UnreadableImage(f"TIFF of {tiff.bits}-bit {tiff.mode} samples, which isn't decoded; {_ADVICE}")
    expect_whole(tiff, len(data))
    values = _samples(tiff, data)
    if values.dtype.kind not in "uif":
        raise UnreadableImage(f"TIFF of {values.dtype} samples, which isn't decoded; {_ADVICE}")
    extra = int(page.extrasamples[0]) if page.extrasamples else 2 * (page.samplesperpixel == 4 and colours == 3)
    # 1: the colours are multiplied by it already. Nothing lies behind inks.
    alpha = page.samplesperpixel > colours and extra == 2 and page.photometric != PHOTOMETRIC.SEPARATED
    kept = values[..., : colours + alpha]
    depth = _declared_depth(page, tiff.bits)
    inverted = page.photometric == PHOTOMETRIC.MINISWHITE
    return Deep(kept, tiff.bits, alpha=alpha, inverted=inverted, declared=_range(page), declared_depth=depth)


def expect_whole(tiff: Tiff, size: int) -> None:
    """Refuse a file that lacks some of its strips or tiles, which decoders fill with black.

    Raises:
        UnreadableImage: a strip or tile is empty or lies behind the end of the file.
    """
    compressed = tiff.page.compression != COMPRESSION.NONE
    for offset, count in zip(tiff.page.dataoffsets, tiff.page.databytecounts, strict=False):
        if offset >= size or offset == 0 or (compressed and (count == 0 or offset + count > size)):
            raise UnreadableImage("truncated: strips or tiles of it are missing")


def expect_sound(tiff: Tiff, data: bytes) -> None:
    """Refuse what Pillow and libtiff pass over in silence: missing strips, damaged JPEG or deflated data.

    Raises:
        UnreadableImage: a strip or tile is missing or damaged.
    """
    page = tiff.page
    if page.compression != COMPRESSION.NONE:
        expect_whole(tiff, len(data))
    if page.compression in (COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE):
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            try:
                zlib.decompress(data[offset : offset + count])  # to its checksum, which libtiff doesn't look at
            except zlib.error as error:
                raise UnreadableImage(f"damaged TIFF: {error}") from None
    if page.compression != COMPRESSION.JPEG:
        return
    tables = (page.jpegtables or b"\xff\xd8\xff\xd9")[:-2]
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        try:
            decode_jpeg(tables + data[offset + 2 : offset + count], "GRAY" if page.samplesperpixel == 1 else "RGB")
        except ValueError as error:
            if str(error).startswith(("Corrupt", "Premature")):
                raise UnreadableImage(f"damaged TIFF, in its JPEG data: {error}") from None


def _declared(page: TiffPage) -> Tiff:
    bits = page.bitspersample
    deepest = max(bits) if isinstance(bits, tuple) else int(bits)
    plain = (
        bits in _BITS_OF_PILLOW
        and page.sampleformat in _UNSIGNED
        and page.photometric in _PLAIN
        and not (page.planarconfig == 2 and _has_odd_extra(page))  # in planes of their own Pillow garbles those
    )
    orientation = page.tags.valueof(_ORIENTATION, 1)
    turned = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return Tiff(page, page.imagewidth, page.imagelength, deepest, plain, turned)


def _has_odd_extra(page: TiffPage) -> bool:
    """Whether there is alpha with gray, or anything but plain alpha with colour."""
    return page.samplesperpixel == 2 or tuple(page.extrasamples) not in ((), (2,))


def _samples(tiff: Tiff, data: bytes) -> NDArray[np.generic]:
    """All samples, (height, width, samples)."""
    try:
        if tiff.bits not in _WHOLE_BYTES and tiff.page.predictor == 1:
            return unpack(tiff.page, data, tiff.bits)
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            values = file.pages.first.asarray(squeeze=False, maxworkers=1)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # hostile bytes raise anything
        fault = " ".join(str(error).split())
        if not isinstance(error, (ImportError, NotImplementedError, KeyError)) and "imagecodecs" not in fault:
            raise UnreadableImage(f"damaged TIFF: {fault or type(error).__name__}") from error
        return _by_another(tiff, data)
    planes, _, height, width, _ = values.shape
    values = np.moveaxis(values[:, 0, ..., 0], 0, -1) if planes > 1 else values[0, 0]
    return values.reshape(height, width, -1).astype(values.dtype.newbyteorder("="), copy=False)


def _by_another(tiff: Tiff, data: bytes) -> NDArray[np.generic]:
    """All samples of a TIFF for which tifffile needs another 80 MB of libraries: compressed with LZW, say."""
    page = tiff.page
    gray = page.samplesperpixel == 1
    if gray and tiff.bits == 16 and page.sampleformat == 1:
        with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            if image.mode in ("I;16", "I;16B"):
                return np.asarray(image)[..., None].astype(np.uint16)
    if tiff.bits in (16, 32, 64) and (gray or (page.planarconfig == 1 and page.photometric == PHOTOMETRIC.RGB)):
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        expected = (tiff.height, tiff.width, page.samplesperpixel)
        if values is not None and values.itemsize * 8 == tiff.bits and values.size == np.prod(expected):
            return values.reshape(expected)[..., [0] if gray else [2, 1, 0, 3][: page.samplesperpixel]]
        if page.compression in _KNOWN_TO_OPENCV:
            raise UnreadableImage("damaged TIFF: its compressed data can't be decoded")
    compression = _name(COMPRESSION, page.compression)
    raise UnreadableImage(
        f"TIFF of {tiff.bits}-bit samples with compression {compression}, predictor {int(page.predictor)} and "
        f"{page.samplesperpixel} samples a pixel, which isn't decoded; {_ADVICE}"
    )


def _range(page: TiffPage) -> Range | None:
    """What SMinSampleValue and SMaxSampleValue declare: the range of the samples, by TIFF 6.0."""
    low, high = (page.tags.valueof(tag) for tag in (_SMIN, _SMAX))
    low, high = (value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value for value in (low, high))
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low < high:
        return Range(low, high)
    return None


def _declared_depth(page: TiffPage, bits: int) -> int:
    """The depth that MaxSampleValue declares if it is one less than a power of two.

    Any other value is a statistic of the image, which TIFF 6.0 wants to have no effect on how it looks.
    """
    most = page.tags.valueof(_MAX)
    most = max(most) if isinstance(most, tuple) and most else most
    if isinstance(most, int) and most >= 255 and (most + 1) & most == 0 and most.bit_length() < bits:
        return most.bit_length()
    return bits


def _name(kind: type[IntEnum], value: int) -> str:
    try:
        return kind(value).name
    except ValueError:  # not one of the standard's
        return str(value)


@contextlib.contextmanager
def libtiff_faults_raised() -> Iterator[None]:
    """Around what Pillow decodes: the faults that libtiff finds, and Pillow passes over, reject the file.

    Raises:
        UnreadableImage: libtiff found the compressed data damaged.
    """
    faults: list[str] = []
    _of_thread.faults = faults
    try:
        yield
    finally:
        _of_thread.faults = []
    if faults:
        raise UnreadableImage(f"damaged TIFF: {faults[0]}")


_of_thread = threading.local()
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)  # module, format, va_list


def _error(module: bytes | None, text: bytes | None, values: int | None) -> None:
    """Libtiff's error handler, which else prints."""
    line = ctypes.create_string_buffer(200)
    ctypes.CDLL(None).vsnprintf(line, ctypes.c_size_t(len(line)), text, ctypes.c_void_p(values))
    name = (module or b"").decode("ascii", "replace")
    _of_thread.__dict__.setdefault("faults", []).append(f"{name}: {line.value.decode('ascii', 'replace')}")


def _warning(module: bytes | None, text: bytes | None, values: int | None) -> None:
    """Libtiff's warning handler: fax data that doesn't fill its lines is damaged, what else it warns of is harmless."""
    if (module or b"").startswith(b"Fax"):
        _error(module, text, values)


_HANDLERS = (_Handler(_error), _Handler(_warning))  # kept: libtiff has their addresses


def _listen_to_libtiff() -> None:
    """Hear of each fault from the libtiff that Pillow brings, and keep it from printing them.

    Where the library isn't found (Windows links it in), the lines on stderr stay.
    """
    folder = Path(PIL.__file__).parent
    for library in [*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")]:
        with contextlib.suppress(OSError, AttributeError):
            loaded = ctypes.CDLL(str(library))
            loaded.TIFFSetErrorHandler(_HANDLERS[0])
            loaded.TIFFSetWarningHandler(_HANDLERS[1])


_listen_to_libtiff()
