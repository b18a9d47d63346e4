"""Bytes of an image file -> pixels, for both programs.

Pillow does the decoding but for JPEG (simplejpeg, which doesn't hide what libjpeg finds wrong) and for samples deeper
than 8 bits. Only the formats of `common.images.formats` are ever tried: Pillow's other plug-ins include ones that start
programs (EPS starts Ghostscript), and the files come from anywhere.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.images import MAX_PIXELS, jpeg, memory, png
from common.images.formats import HEAD, UnreadableImage, require_format
from common.images.notes import NEARLY_BLACK, WARNINGS
from common.images.pictures import (
    DARK,
    Picture,
    Pixels,
    faults_named,
    gray_if_equal,
    of_deep,
    of_pillow,
    orientation_of,
    upright,
)
from common.images.resizing import resize
from common.images.samples import Range, from_fewer_bits
from common.remote import Location, Remote

__all__ = [
    "Header",
    "Picture",
    "Pixels",
    "UnreadableImage",
    "decode",
    "decode_to",
    "header",
    "picture",
    "read_image",
]

Image.MAX_IMAGE_PIXELS = None  # we check the declared size ourselves, with the limit the caller gives

_SMALL = 2**26  # bytes that are read without looking at the header first
_HEADERS = 2**21  # bytes in which a large file's header is looked for
_ANYWHERE = ("DICOM", "TIFF")  # formats whose headers may be of any size, or anywhere
_PIXEL_BYTES = 32  # more than a pixel needs in any format: four channels of 64 bits
_WEBP_SIDE = 2**14 - 1  # pixels, by the format
_SIGNED = 2  # TIFF's SampleFormat


class Header(NamedTuple):
    """What an image file declares. `mode` is Pillow's (L, RGB, I;16, ...) where it has one; `bits` are of a sample."""

    format: str
    mode: str
    bits: int
    width: int
    height: int


def read_image(path: Location, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read an image file, and of a large one the header first.

    Args:
        path: the file.
        max_pixels: a large file that declares more pixels isn't read.

    Returns:
        The file's bytes. Whether they can be decoded is not known yet.

    Raises:
        OSError: it can't be read.
        UnreadableImage: empty, no image of a known format, or more bytes than its pixels can need.
    """
    if isinstance(path, Remote):
        if (size := path.size()) > _SMALL + _PIXEL_BYTES * max_pixels:
            raise UnreadableImage(f"{size:,} bytes, more than {max_pixels:,} pixels can need")
        data = path.read()
        require_format(data[:HEAD])
        return data
    with path.open("rb") as file:
        name = require_format(file.read(HEAD))
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        if size > _SMALL:
            _expect_plausible(file, name, size, max_pixels)
            file.seek(0)
        return file.read()


def header(data: bytes) -> Header:
    """Read what an image file declares, without decoding it.

    Raises:
        UnreadableImage: the bytes begin as no image of a known format does.
    """
    name = require_format(data[:HEAD])
    with _faults(name, data):
        return _header(io.BytesIO(data), name)


def decode(
    data: bytes,
    cover: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
) -> Pixels:
    """Decode an image file, upright by its EXIF orientation.

    Samples of more than 8 bits are scaled from 0 to the largest that the declared bits can hold; MinIsWhite is
    inverted; transparent pixels are laid over black; an image whose three channels are equal everywhere is gray.

    Args:
        data: the file's bytes.
        cover: (width, height); a JPEG is decoded at the smallest of its scales (eighths) that is no smaller than
            this, which saves most of the inverse transform and most of the resampling.
        max_pixels: an image that declares more is refused before it is decoded.
        value_range: the samples that are black and white, where samples have more than 8 bits; those outside are
            clipped. Without it a file's own declaration counts.

    Returns:
        uint8, shape (height, width) when gray, (height, width, 3) RGB otherwise.

    Raises:
        UnreadableImage: the bytes can't be decoded or are damaged, or have no defined black and white (float samples),
            or hold several images.
        MemoryError: this process has too little memory to decode it.
    """
    return picture(data, cover, max_pixels, value_range).pixels


def decode_to(
    data: bytes,
    size: tuple[int, int],
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    fit: str = "stretch",
) -> Pixels:
    """Decode an image file and bring it to (width, height): the one way from a file to a network's input.

    A set's variant 0 is this, written as a JPEG and read again.

    Raises:
        UnreadableImage: as `decode` has it.
    """
    return resize(decode(data, size, max_pixels, value_range), size, fit)


def picture(
    data: bytes,
    cover: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
) -> Picture:
    """Decode an image file as `decode` does, with notes on what is odd about it.

    Raises:
        UnreadableImage: as `decode` has it.
    """
    name = require_format(data[:HEAD])
    span = Range(*value_range) if value_range else None
    with _faults(name, data):
        if name == "JPEG":
            found = _jpeg(data, cover, max_pixels)
        elif name == "PNG":
            found = _png(data, max_pixels, span)
        elif name == "TIFF":
            found = _tiff(data, max_pixels, span)
        elif name == "DICOM":
            from common.images.dicom import picture as dicom

            found = dicom.picture(data, max_pixels, span)
        else:
            found = _plain(name, data, max_pixels)
    if not set(WARNINGS).intersection(found.notes) and found.pixels.max() < DARK:
        return found._replace(notes=(*found.notes, NEARLY_BLACK))
    return found


@contextmanager
def _faults(name: str, data: bytes) -> Iterator[None]:
    """As `faults_named`, but a lack of memory is none: some decoders call it "broken data", even for a header."""
    try:
        with faults_named(name, data):
            yield
    except UnreadableImage as error:
        if error.__cause__:  # a decoder's own words
            memory.expect_room(_declared_pixels(name, data))
        raise


def _header(file: BinaryIO, name: str) -> Header:
    if name == "DICOM":
        from common.images.dicom import picture as dicom

        with faults_named(name, b""):
            return Header(name, *dicom.declared(file))
    head = file.read(_HEADERS)
    file.seek(0)
    with faults_named(name, head):
        if name == "TIFF":
            from common.images import tiff

            declared = tiff.parse(file)
            file.seek(0)
            mode = declared.mode
            with suppress(UnidentifiedImageError), Image.open(file, formats=[name]) as image:
                mode = image.mode  # deep samples may be none of Pillow's
            return Header(name, mode, declared.bits, declared.width, declared.height)
        bits = {"PNG": file.read(25)[-1]}.get(name, 8)  # a PNG's stands behind its size
        file.seek(0)
        with Image.open(file, formats=[name]) as image:
            bits = 1 if image.mode == "1" else bits
            return Header(str(image.format), image.mode, bits, image.width, image.height)


def _declared_pixels(name: str, data: bytes) -> int:
    """How many pixels a file declares; 0 if that can't be said, or it is so many that memory is not the fault."""
    if name == "WEBP":  # whose decoder takes the memory before Pillow can say
        return _pixels_of_webp(data)
    with suppress(Exception):
        declared = _header(io.BytesIO(data), name)
        pixels = declared.width * declared.height
        return pixels if pixels <= MAX_PIXELS else 0
    return 0


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


def _expect_plausible(file: BinaryIO, name: str, size: int, max_pixels: int) -> None:
    """Refuse a large file by its header."""
    if name == "WEBP":  # Pillow reads no header without all the rest
        width, height = _WEBP_SIDE, _WEBP_SIDE
    else:
        declared = _header(file if name in _ANYWHERE else io.BytesIO(file.read(_HEADERS)), name)
        width, height = declared.width, declared.height
        _expect_size(width, height, max_pixels)
    if size > _SMALL + _PIXEL_BYTES * width * height:
        raise UnreadableImage(
            f"{size:,} bytes, more than {width} x {height} pixels can need; save the image to use as a file of its own"
        )


def _expect_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImage(f"declares {width} x {height} pixels, more than the limit of {max_pixels:,}")


def _jpeg(data: bytes, cover: tuple[int, int] | None, max_pixels: int) -> Picture:
    try:
        return _jpeg_of(data, cover, max_pixels)
    except UnidentifiedImageError:  # Pillow takes no bytes between segments
        found = _jpeg_of(jpeg.written_anew(data), cover, max_pixels)
        return found._replace(notes=(*found.notes, "bytes between its segments are not used"))


def _jpeg_of(data: bytes, cover: tuple[int, int] | None, max_pixels: int) -> Picture:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        _expect_size(image.width, image.height, max_pixels)
        orientation = orientation_of(image)
        width, height = cover or image.size
        width, height = (height, width) if orientation >= 5 else (width, height)
        if jpeg.lacks_scans(data, len(image.getbands()), progressive="progressive" in image.info):
            raise UnreadableImage("truncated JPEG: its last scans are missing")
        space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}.get(image.mode)
        least = (width, height) if image.width >= width and image.height >= height else (0, 0)  # 0: full size
        found = jpeg.decode(data, space, least) if space else None
        if found is None and (kind := jpeg.unsupported(data)):
            raise UnreadableImage(kind)
        if found is None:  # an odd chroma subsampling
            image.draft(None, (width, height))
            unchecked = ("an unusual kind of JPEG, in which damage is not found",)
            return of_pillow(image)._replace(notes=unchecked)
        pixels, notes = found
        if space == "CMYK":
            if "adobe" not in image.info:
                notes.append("CMYK without Adobe's marker, taken to be inverted as Adobe's is")
            inks = Image.frombytes("CMYK", pixels.shape[1::-1], (255 - pixels).tobytes())
            pixels = np.asarray(inks.convert("RGB"))
        return Picture(gray_if_equal(upright(pixels, orientation)), notes=tuple(notes))


def _png(data: bytes, max_pixels: int, span: Range | None) -> Picture:
    whole = png.parse(data)
    with Image.open(io.BytesIO(whole.data), formats=["PNG"]) as image:
        _expect_size(image.width, image.height, max_pixels)
        _expect_one(image)
        if whole.bits == 16:
            return of_deep(png.deep(whole), span, orientation_of(image))
        png.expect_rows(whole, image)
        key = int.from_bytes(whole.transparent[:2])
        if whole.colour == 0 and whole.transparent and key < 2**whole.bits < 256:
            # Pillow scales the samples, and not the one that is transparent.
            image.info["transparency"] = key * 255 // (2**whole.bits - 1)
        is_right_justified = False
        if 0 < whole.significant < whole.bits == 8 and not whole.transparent and whole.colour != 3:
            colours = np.asarray(image)[..., :-1] if whole.alpha else np.asarray(image)
            is_right_justified = bool(colours.max() < 2**whole.significant)
        found = of_pillow(image)
        if is_right_justified:
            pixels, note = from_fewer_bits(found.pixels, whole.significant)
            found = found._replace(pixels=pixels, notes=(*found.notes, note))
        return found._replace(notes=(*whole.notes, *found.notes))


def _tiff(data: bytes, max_pixels: int, span: Range | None) -> Picture:
    from common.images import tiff  # brings tifffile, which most sets don't need

    declared = tiff.parse(io.BytesIO(data))
    _expect_size(declared.width, declared.height, max_pixels)
    if declared.plain:
        tiff.expect_sound(declared, data)
        with (
            suppress(UnidentifiedImageError),
            tiff.libtiff_faults_raised(),
            Image.open(io.BytesIO(data), formats=["TIFF"]) as image,
        ):
            _expect_one(image)
            return of_pillow(image)
    ranged = declared.bits > 8 or declared.page.sampleformat == _SIGNED
    return of_deep(tiff.deep(declared, data), span if ranged else None, declared.orientation)


def _plain(name: str, data: bytes, max_pixels: int) -> Picture:
    with Image.open(io.BytesIO(data), formats=[name]) as image:
        _expect_size(image.width, image.height, max_pixels)
        _expect_one(image)
        return of_pillow(image)


def _expect_one(image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)  # set by the formats that can hold several
    if frames > 1:
        raise UnreadableImage(f"holds {frames} images; save the one to use as a file of its own")
