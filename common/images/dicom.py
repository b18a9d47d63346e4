"""Bytes of a DICOM file -> the picture, by pydicom and the decoders of requirements-dicom.txt.

Stored values go through the modality LUT, then through the VOI LUT or window (the first), then MONOCHROME1 is inverted, as
DICOM PS3.3 C.11 has it. All of that is done to each possible stored value once, and the pixels are looked up.

What a message says is of our own words: a header holds whom the image shows.
"""

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from common.images import memory
from common.images.dicom_file import expect_frame, read
from common.images.formats import UnreadableImage
from common.images.notes import FEW_BITS
from common.images.pictures import Picture, Pixels, gray_if_equal
from common.images.samples import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

_ASPECTS = 8  # the most that a pixel may be longer than wide, or wider than long
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
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    with _faults():
        dataset = read(io.BytesIO(data), max_pixels)
        found = _declared(dataset)
        if found.width * found.height > max_pixels:
            raise UnreadableImage(
                f"declares {found.width} x {found.height} pixels, more than the limit of {max_pixels:,}"
            )
        expect_frame(dataset, found.width, found.height)
        stored = pixel_array(dataset)
        _expect_one_image(stored, found, _samples(dataset))
        if dataset.PhotometricInterpretation in _MONOCHROME:
            gray, note = _gray(stored, dataset, value_range)
            largest = float(stored.max()) if found.bits > 8 else None
            return Picture(_square(gray, dataset, max_pixels), largest, (note,) if note else ())
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            if "AlphaPaletteColorLookupTableDescriptor" in dataset:
                raise UnreadableImage("a palette with alpha, which is not decoded; save the image as RGB")
            stored = apply_color_lut(stored, dataset)
            bits = 8 * stored.dtype.itemsize
        else:
            bits = found.bits
        colour = stored if bits == 8 else np.rint(stored * (255 / (2**bits - 1)))
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


def _gray(stored: NDArray[Any], dataset: "Dataset", value_range: Range | None) -> tuple[Pixels, str]:
    """Gray levels of stored values, and a note where they use little of the range that stands for black to white."""
    low, high = int(stored.min()), int(stored.max())
    bits = int(dataset.BitsStored)
    least, most = _stored_range(dataset) if bits <= 16 else (0, 0)
    first, last = min(low, least), max(high, most)
    if last - first >= 2**17:
        raise UnreadableImage(f"{bits}-bit samples, of which more than 16 bits are used")
    values, span = _displayed(np.arange(first, last + 1), dataset, value_range)
    levels = np.rint(np.clip((values - span.low) * (255 / (span.high - span.low)), 0, 255)).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        levels = 255 - levels
    gray = levels[stored if first == 0 else stored.astype(np.int64) - first]
    is_few = bits > 8 and value_range is None and not _has_window(dataset) and 4 * (high - min(0, low)) <= last - first
    return gray, FEW_BITS if is_few else ""


def _stored_range(dataset: "Dataset") -> tuple[int, int]:
    """The least and the largest value that the stored bits can hold."""
    bits, is_signed = int(dataset.BitsStored), dataset.PixelRepresentation == 1
    return -(2 ** (bits - 1)) if is_signed else 0, 2 ** (bits - is_signed) - 1


def _displayed(
    values: NDArray[Any], dataset: "Dataset", value_range: Range | None
) -> tuple[NDArray[np.float64], Range]:
    """Stored values after modality LUT and VOI LUT or window, and which results are black and white."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    scaled = apply_modality_lut(values, dataset)
    span = Range(float(min(scaled[0], scaled[-1])), float(max(scaled[0], scaled[-1])))
    if "ModalityLUTSequence" in dataset:
        span = Range(0, 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    if value_range is None and _has_window(dataset):
        shown = apply_voi_lut(scaled, dataset)
        if "VOILUTSequence" in dataset:
            return shown.astype(np.float64), Range(0, 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
        # A window's results span what the stored bits can hold, as pydicom's apply_windowing has it.
        if "ModalityLUTSequence" not in dataset:
            low, high = sorted(apply_modality_lut(np.array(_stored_range(dataset)), dataset).tolist())
            span = Range(float(low), float(high))
        return shown.astype(np.float64), span
    span = value_range or span
    if not span.low < span.high:
        raise UnreadableImage("its modality LUT leaves no difference between black and white")
    return scaled.astype(np.float64), span


def _has_window(dataset: "Dataset") -> bool:
    """Whether a file says how it is to be shown; a width that can't be is none."""
    if dataset.get("VOILUTSequence"):
        return True
    width = dataset.get("WindowWidth")
    width = width[0] if isinstance(width, (list, tuple)) or hasattr(width, "append") else width
    return dataset.get("WindowCenter") not in (None, "") and width not in (None, "") and float(width) >= 1


def _square(image: Pixels, dataset: "Dataset", max_pixels: int) -> Pixels:
    """An image whose pixels aren't square as one whose are."""
    ratio = dataset.get("PixelAspectRatio")
    if not ratio or len(ratio) != 2 or ratio[0] == ratio[1] or min(ratio) <= 0:
        return image
    height, width = image.shape[:2]
    factor = float(ratio[0]) / float(ratio[1])  # of a pixel's height to its width
    if not 1 / _ASPECTS <= factor <= _ASPECTS:
        raise UnreadableImage(f"declares pixels of {ratio[0]} : {ratio[1]}, which no image has")
    size = (width, round(height * factor)) if factor > 1 else (round(width / factor), height)
    if size[0] * size[1] > max_pixels:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
