"""Decoded samples -> the picture: upright, over black where it is transparent, and gray where it has no colour."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.images import jpeg, memory
from common.images.formats import UnreadableImage
from common.images.notes import FEW_BITS, TRANSPARENT
from common.images.samples import Deep, Range, levels

DARK = 16  # levels below this are nearly black
_OPAQUE = 64  # a mean alpha below this is mostly transparent
_STRIP = 2**20  # pixels that are laid over black at a time
_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = {  # what brings an image of an orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = NDArray[np.uint8]


class Picture(NamedTuple):
    """A decoded image and what there is to say about it.

    `largest` is the largest sample as stored, for samples of more than 8 bits; `notes` are harmless faults of the
    file and, word for word, those of `notes.WARNINGS` that apply.
    """

    pixels: Pixels
    largest: float | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def faults_named(name: str, head: bytes) -> Iterator[None]:
    """Make an UnreadableImage of whatever goes wrong with a file of the format `name` that begins with `head`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels decide
            yield
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(
            (jpeg.unsupported(head) if name == "JPEG" else "")
            or f"begins as a {name} but is not an image of a known format: damaged, or of a kind that is not decoded"
        ) from None
    except Exception as error:  # a decoder fed hostile bytes raises anything: struct.error, SyntaxError, ...
        if memory.is_lack(error):
            raise MemoryError(str(error)) from None  # of this process, and no finding about the file
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's, of a file that is read piece by piece
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none that makes sense. XMP may hold it in EXIF's place."""
    try:
        found = image.getexif().get(_EXIF_ORIENTATION) if {"exif", "xmp"} & image.info.keys() else 1
    except (SyntaxError, ValueError, struct.error, OSError, TypeError, AttributeError):  # damaged, as Pillow has it
        found = 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn an image as its EXIF orientation says: from 5 on height and width are swapped."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def of_pillow(image: Image.Image) -> Picture:
    """The picture of an opened image of up to 8 bits."""
    orientation = orientation_of(image)
    if orientation > 1:
        image = image.transpose(_TRANSPOSED[orientation])
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no shorter path
    if image.has_transparency_data:
        return _over_black(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return Picture(np.asarray(image.convert("L")))
    return Picture(gray_if_equal(np.asarray(image.convert("RGB"))))


def of_deep(deep: Deep, span: Range | None, orientation: int) -> Picture:
    """The picture of deep samples."""
    scaled = levels(deep, span)
    pixels = upright(scaled.levels, orientation)
    notes = (*scaled.notes, FEW_BITS) if scaled.few_bits else scaled.notes
    if deep.alpha:
        gray = pixels.shape[2] == 2
        found = _over_black(Image.fromarray(pixels[..., [0, 0, 0, 1]] if gray else pixels))
        pixels, notes = found.pixels, (*notes, *found.notes)
    elif pixels.shape[2] == 4:
        pixels = np.asarray(Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes()).convert("RGB"))
    return Picture(pixels if pixels.ndim == 2 else gray_if_equal(pixels), scaled.largest, notes)


def _over_black(rgba: Image.Image) -> Picture:
    """An image laid over black, in strips, so that no more copies of it are made."""
    pixels = np.empty((rgba.height, rgba.width, 3), np.uint8)
    opacity = 0
    step = max(1, _STRIP // rgba.width)
    for top in range(0, rgba.height, step):
        strip = rgba.crop((0, top, rgba.width, min(top + step, rgba.height)))
        opacity += int(np.asarray(strip)[..., 3].sum(dtype=np.int64))
        laid = Image.alpha_composite(Image.new("RGBA", strip.size, (0, 0, 0, 255)), strip)
        pixels[top : top + step] = np.asarray(laid)[..., :3]
    opaque = opacity >= _OPAQUE * rgba.width * rgba.height
    return Picture(gray_if_equal(pixels), notes=() if opaque else (TRANSPARENT,))


def gray_if_equal(pixels: Pixels) -> Pixels:
    """Drop the channels that add nothing to the first, shape (height, width, 1 or 3)."""
    first = pixels[..., 0]
    if all(np.array_equal(first, pixels[..., channel]) for channel in range(1, pixels.shape[2])):
        return np.ascontiguousarray(first)
    return pixels
