"""Bytes of an image file -> pixels, for both programs.

Pillow does the decoding. Only the formats below are ever tried: its other plug-ins include ones that
start programs (EPS starts Ghostscript), and the files come from anywhere.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from simplejpeg import decode_jpeg

from manifests import MAX_PIXELS, memory
from manifests.formats import FORMATS

Image.MAX_IMAGE_PIXELS = None  # we check the declared size ourselves, with the limit the caller gives

Pixels = NDArray[np.uint8]


class UnreadableImage(ValueError):  # noqa: N818  # a finding about a file more often than an error
    """The bytes are no image that can be used; the message says why."""


class Header(NamedTuple):
    """What an image file declares. `mode` is Pillow's (L, RGB, I;16, ...), `bits` those of a sample."""

    format: str
    mode: str
    bits: int
    width: int
    height: int


def header(data: bytes) -> Header:
    """Read what an image file declares, without decoding it.

    Raises:
        UnreadableImage: the bytes begin as no image of a known format does.
    """
    with _opened(data) as image:
        bits = {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}.get(image.mode, 8)
        return Header(str(image.format), image.mode, bits, image.width, image.height)


def decode(data: bytes, cover: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file, upright by its EXIF orientation.

    Sixteen-bit samples are scaled from 0..65535 to 0..255; transparent pixels are laid over black; an
    image whose three channels are equal everywhere is gray.

    Args:
        data: the file's bytes.
        cover: (width, height); a JPEG is decoded at the smallest of its scales (eighths) that is no smaller than
            this, which saves most of the inverse transform and most of the resampling.
        max_pixels: an image that declares more is refused before it is decoded.

    Returns:
        uint8, shape (height, width) when gray, (height, width, 3) RGB otherwise.

    Raises:
        UnreadableImage: the bytes can't be decoded, or have no defined black and white (float samples),
            or hold several images.
        MemoryError: this process has too little memory to decode it.
    """
    with _opened(data) as image:
        return _pixels(image, data, cover, max_pixels)


def decode_to(data: bytes, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file and stretch it to (width, height): the one way from a file to a network's input.

    A set's variant 0 is this, written as a JPEG and read again.

    Raises:
        UnreadableImage: as `decode` has it.
    """
    return resize(decode(data, size, max_pixels), size)


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Stretch an image to (width, height): area-averaged when it shrinks, bilinear when it grows."""
    if image.shape[1::-1] == size:
        return image
    shrinks = image.shape[1] >= size[0] and image.shape[0] >= size[1]
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open an image file and make whatever goes wrong with it an UnreadableImage."""
    if not data:
        raise UnreadableImage("empty file (0 bytes)")
    declared = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels decide
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                declared = image.width * image.height
                yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # a decoder fed hostile bytes raises anything: struct.error, SyntaxError, ...
        if memory.is_lack(error):
            raise MemoryError(str(error)) from None  # of this process, and no finding about the file
        memory.expect_room(declared or _pixels_of_webp(data))
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error


def _pixels_of_webp(data: bytes) -> int:
    """How many pixels a WebP declares, whose decoder takes their memory before Pillow can say; 0 for other files."""
    if data[8:12] != b"WEBP":
        return 0
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width * height if width * height <= MAX_PIXELS else 0  # of more, memory is not the fault


def _pixels(image: Image.Image, data: bytes, cover: tuple[int, int] | None, max_pixels: int) -> Pixels:
    if image.width * image.height > max_pixels:
        raise UnreadableImage(f"declares {image.width} x {image.height} pixels, more than the limit of {max_pixels:,}")
    frames = getattr(image, "n_frames", 1)  # set by the formats that can hold several
    if image.format != "MPO" and frames > 1:
        raise UnreadableImage(f"holds {frames} images; save the one to use as a file of its own")
    # XMP may hold the orientation in EXIF's place; 1 is upright, from 5 on height and width are swapped.
    orientation = image.getexif().get(0x0112) if {"exif", "xmp"} & image.info.keys() else None
    if image.format in ("JPEG", "MPO"):
        width, height = cover or image.size
        width, height = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
        if orientation in (None, 1) and image.mode in ("L", "RGB"):
            # Pillow decodes the same, but a tenth slower; and what this finds fault with, Pillow may still read.
            with suppress(ValueError):
                space = "GRAY" if image.mode == "L" else "RGB"
                least = (width, height) if image.width >= width and image.height >= height else (0, 0)  # 0: full size
                return _gray_if_equal(decode_jpeg(data, space, min_width=least[0], min_height=least[1]))
        image.draft(None, (width, height))
    ImageOps.exif_transpose(image, in_place=True)
    return _gray_or_rgb(image)


def _gray_or_rgb(image: Image.Image) -> Pixels:
    if image.mode == "F":
        raise UnreadableImage("float samples have no defined black and white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise UnreadableImage("32-bit samples outside 0..65535; save it with 8 or 16 bits")
        return ((wide * 255 + 32767) // 65535).astype(np.uint8)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return _gray_if_equal(np.asarray(image.convert("RGB")))


def _gray_if_equal(pixels: Pixels) -> Pixels:
    """Drop the channels that add nothing to the first, shape (height, width, 1 or 3)."""
    first = pixels[..., 0]
    if all(np.array_equal(first, pixels[..., channel]) for channel in range(1, pixels.shape[2])):
        return np.ascontiguousarray(first)
    return pixels
