"""Bytes of a DICOM file -> the picture, by pydicom and the decoders of requirements-dicom.txt.

Stored values go through the modality LUT, then through the VOI LUT or window (the first), as `lut` has it, then
MONOCHROME1 is inverted. All of that is done to each possible stored value once, and the pixels are looked up.

What a message says is of our own words: a header holds whom the image shows.
"""

import io
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from common.images import memory
from common.images.dicom.file import expect_frame, read
from common.images.dicom.lut import displayed, has_window, palette_colours, spacing_of, stored_range
from common.images.formats import UnreadableImage
from common.images.notes import FEW_BITS
from common.images.pictures import Picture, Pixels, gray_if_equal
from common.images.samples import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

_ASPECTS = 8  # the most that a pixel may be longer than wide, or wider than long
_SHAPES = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")  # height and width of a pixel
_UNEVEN = 0.01  # the least by which sides that were measured differ
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
# Those that DICOM has and pydicom gives as they are stored. Any other value isn't named: it may be anything.
_OTHER = ("ARGB", "CMYK", "HSV", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "XYB")
_SEVERAL = "holds {} images; save the one to use as a file of its own"


class Declared(NamedTuple):
    """What a DICOM file's header says of its image. `bits` are those stored of a sample, `mode` is L or RGB."""

    mode: str
    bits: int
    width: int
    height: int


def declared(file: BinaryIO) -> Declared:
    """Read what a DICOM file declares. It may end with the header, and no more than that is read.

    Raises:
        UnreadableImage: it holds no image, or several.
    """
    with _faults():
        return _declared(read(file, 0, stop_before_pixels=True), has_pixels=False)


def picture(data: bytes, max_pixels: int, value_range: Range | None) -> Picture:
    """Decode a DICOM file of one frame.

    Args:
        data: the file's bytes.
        max_pixels: a file that declares more is refused before it is decoded.
        value_range: which values, after the modality LUT, are black and white; it takes the place of the window.

    Raises:
        UnreadableImage: no image, several frames, damaged, or of a kind that the installed packages don't decode.
    """
    from pydicom.pixels.utils import pixel_array

    with _faults():
        dataset = read(io.BytesIO(data), max_pixels)
        found = _declared(dataset)
        if found.width * found.height > max_pixels:
            raise UnreadableImage(
                f"declares {found.width} x {found.height} pixels, more than the limit of {max_pixels:,}"
            )
        _expect_low_bits(dataset)
        expect_frame(dataset, found.width, found.height)
        stored = pixel_array(dataset)
        _expect_one_image(stored, found, _samples(dataset))
        if dataset.PhotometricInterpretation in _MONOCHROME:
            gray, note = _gray(stored, dataset, value_range)
            largest = float(stored.max()) if found.bits > 8 else None
            return Picture(_square(gray, dataset, max_pixels), largest, (note,) if note else ())
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            values = _values(stored, dataset)
            colour = _looked_up(palette_colours(values, dataset), stored, int(values[0]))
        else:
            colour = stored if found.bits == 8 else np.rint(stored * (255 / (2**found.bits - 1)))
        return Picture(_square(gray_if_equal(colour.astype(np.uint8)), dataset, max_pixels))


@contextmanager
def _faults() -> "Iterator[None]":
    """Faults of a header or a decoder in words that hold nothing of the header."""
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise
    except ImportError:
        raise UnreadableImage("DICOM needs packages: python -m pip install -r requirements-dicom.txt") from None
    except Exception as error:  # decoders' and parsers' of all sorts
        if memory.is_lack(error):
            raise MemoryError from None
        kind = type(error).__name__
        # Some decoders call a lack of memory "broken data", which the caller looks into where there is a cause. It isn't
        # the error itself: that may hold values of the header, and a traceback would print it.
        raise UnreadableImage(f"damaged DICOM, or of a kind that is not decoded ({kind})") from RuntimeError(kind)


def _declared(dataset: "Dataset", *, has_pixels: bool = True) -> Declared:
    """What a header says of its image, if it is one image that can be decoded."""
    if "Rows" not in dataset or (has_pixels and "PixelData" not in dataset):
        kind = getattr(dataset.get("SOPClassUID"), "name", "")
        raise UnreadableImage(f"DICOM without pixels{f' ({kind})' if kind and kind[0].isalpha() else ''}")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableImage(_SEVERAL.format(frames))
    _samples(dataset)
    is_gray = dataset.PhotometricInterpretation in _MONOCHROME
    return Declared("L" if is_gray else "RGB", int(dataset.BitsStored), int(dataset.Columns), int(dataset.Rows))


def _samples(dataset: "Dataset") -> int:
    """How many samples a pixel has by its photometric interpretation, if that is one that is decoded."""
    kind = str(dataset.PhotometricInterpretation)
    if kind in (*_MONOCHROME, "PALETTE COLOR"):
        return 1
    if kind in _COLOUR:
        return 3
    raise UnreadableImage(f"{kind if kind in _OTHER else 'unknown'} photometric interpretation; save the image as RGB")


def _expect_one_image(stored: NDArray[Any], found: Declared, samples: int) -> None:
    """Refuse what was decoded to anything but the image that the header declares."""
    shape = (found.height, found.width) if samples == 1 else (found.height, found.width, samples)
    if stored.shape == shape:
        return
    if stored.shape[1:] == shape:
        raise UnreadableImage(_SEVERAL.format(len(stored)))
    raise UnreadableImage(
        f"decodes to an array of {' x '.join(map(str, stored.shape))}, its header says {' x '.join(map(str, shape))}"
    )


def _expect_low_bits(dataset: "Dataset") -> None:
    """Refuse samples that stand elsewhere than in the low bits, as retired ones did, with an overlay in the others."""
    from pydicom.uid import RLELossless

    syntax, bits = dataset.file_meta.TransferSyntaxUID, int(dataset.BitsStored)
    high = int(dataset.get("HighBit") or bits - 1)
    if high != bits - 1 and (syntax == RLELossless or not syntax.is_encapsulated):  # other decoders place them
        raise UnreadableImage(f"HighBit {high}, expected {bits - 1} for {bits} stored bits; save it with these")


def _values(stored: NDArray[Any], dataset: "Dataset") -> NDArray[np.int64]:
    """All values that the stored ones can have, and those that they have: what is done to a pixel is done to these once."""
    low, high, bits = int(stored.min()), int(stored.max()), int(dataset.BitsStored)
    least, most = stored_range(dataset) if bits <= 16 else (0, 0)
    first, last = min(low, least), max(high, most)
    if last - first >= 2**17:
        raise UnreadableImage(f"{bits}-bit samples, of which more than 16 bits are used")
    return np.arange(first, last + 1)


def _looked_up(levels: Pixels, stored: NDArray[Any], first: int) -> Pixels:
    """The level of each pixel, of which the first is that of the stored value `first`."""
    return levels[stored if first == 0 else stored.astype(np.int64) - first]


def _gray(stored: NDArray[Any], dataset: "Dataset", value_range: Range | None) -> tuple[Pixels, str]:
    """Gray levels of stored values, and a note where they use little of the range that stands for black to white."""
    bits, is_windowed = int(dataset.BitsStored), value_range is not None or has_window(dataset)
    if bits > 16 and not is_windowed:  # of most such images the full range would be black
        raise UnreadableImage(f"{bits}-bit samples without a window; give value_range in the recipe")
    values = _values(stored, dataset)
    shown, span = displayed(values, dataset, value_range)
    levels = np.rint(np.clip((shown - span.low) * (255 / (span.high - span.low)), 0, 255)).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        levels = 255 - levels
    used = int(stored.max()) - min(0, int(stored.min()))
    is_few = bits > 8 and not is_windowed and 4 * used <= values[-1] - values[0]
    return _looked_up(levels, stored, int(values[0])), FEW_BITS if is_few else ""


def _square(image: Pixels, dataset: "Dataset", max_pixels: int) -> Pixels:
    """An image whose pixels aren't square as one whose are."""
    factor = _height_to_width(dataset)
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = (width, round(height * factor)) if factor > 1 else (round(width / factor), height)
    if size[0] * size[1] > max_pixels:
        raise UnreadableImage(
            f"with square pixels it has {size[0]} x {size[1]}, more than the limit of {max_pixels:,} pixels"
        )
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _height_to_width(dataset: "Dataset") -> float:
    """How high a pixel is to its width, by the first element that says so."""
    for keyword in _SHAPES:
        ratio = spacing_of(dataset, keyword)
        if not isinstance(ratio, Sequence) or len(ratio) != 2 or min(ratio) <= 0:
            continue
        factor = float(ratio[0]) / float(ratio[1])
        if not 1 / _ASPECTS <= factor <= _ASPECTS:
            raise UnreadableImage(f"declares pixels of {ratio[0]} : {ratio[1]}, which no image has")
        # Spacings are measured: of square pixels too they may differ in the last digits.
        return factor if keyword == "PixelAspectRatio" or abs(factor - 1) >= _UNEVEN else 1.0
    return 1.0
