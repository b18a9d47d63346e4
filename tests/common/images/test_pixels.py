"""Bytes of an image file -> pixels: every format and mode of the brief, and files that mean harm."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from common.images.pixels import UnreadableImage, decode

Array = NDArray[np.uint8]
ORIENTATION = 0x0112
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)


def encode(image: Image.Image | Array, format_: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format_, **options)
    return file.getvalue()


def ramp(width: int = 48, height: int = 32) -> Array:
    """A gray image without symmetry, smooth enough for JPEG: brighter to the right and, more so, downwards."""
    x, y = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 180, height))
    return (x + y).round().astype(np.uint8)


def colours() -> Array:
    """An RGB image whose channels differ."""
    return np.dstack([ramp(), ramp()[::-1], ramp()[:, ::-1]])


def difference(first: Array, second: Array) -> int:
    """The largest difference of two arrays of one shape, in gray levels."""
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def reason(data: bytes, max_pixels: int = 10_000_000) -> str:
    """Why `data` is no image: one line."""
    with pytest.raises(UnreadableImage) as caught:
        decode(data, max_pixels=max_pixels)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("format_", "tolerance"), [("JPEG", 3), ("PNG", 0), ("BMP", 0), ("TIFF", 0), ("WEBP", 0)])
def test_gray_comes_back_gray(format_: str, tolerance: int) -> None:
    """Every format of the brief, gray: one channel, uint8, the same levels."""
    options = {"lossless": True} if format_ == "WEBP" else {}
    pixels = decode(encode(ramp(), format_, **options))
    assert pixels.dtype == np.uint8
    assert difference(pixels, ramp()) <= tolerance


@pytest.mark.parametrize(("format_", "tolerance"), [("JPEG", 3), ("PNG", 0), ("BMP", 0), ("TIFF", 0), ("WEBP", 0)])
def test_colour_stays_colour(format_: str, tolerance: int) -> None:
    """Every format of the brief, RGB: three channels in the order red, green, blue."""
    options = (
        {"lossless": True} if format_ == "WEBP" else {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}
    )
    assert difference(decode(encode(colours(), format_, **options)), colours()) <= tolerance


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_equal_channels_are_gray(format_: str) -> None:
    """An X-ray saved as RGB has three equal channels: it is gray."""
    pixels = decode(encode(np.dstack([ramp()] * 3), format_, **({"lossless": True} if format_ == "WEBP" else {})))
    assert pixels.ndim == 2


def test_one_pixel_of_colour_is_colour() -> None:
    """Channels that differ anywhere, in whichever channel, are kept."""
    for channel in range(3):
        image = np.dstack([ramp()] * 3)
        image[-1, -1, channel] ^= 1
        assert difference(decode(encode(image)), image) == 0


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_are_laid_over_black(format_: str) -> None:
    """RGBA: opaque pixels as they are, transparent ones black whatever colour they hide, half of half."""
    alpha = np.full(ramp().shape, 255, np.uint8)
    alpha[:, 16:32], alpha[:, 32:] = 128, 0
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    pixels = decode(encode(np.dstack([colours(), alpha]), format_, **options))
    assert difference(pixels[:, :16], colours()[:, :16]) == 0
    assert difference(pixels[:, 16:32], (colours()[:, 16:32] * (128 / 255)).astype(np.uint8)) <= 1
    assert not pixels[:, 32:].any()


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_gray_with_alpha_is_gray_over_black(format_: str) -> None:
    """LA: one channel comes back, with the transparent half black."""
    image = Image.merge(
        "LA", [Image.fromarray(ramp()), Image.fromarray(np.repeat([[255, 0]], 24, 1).repeat(32, 0).astype(np.uint8))]
    )
    pixels = decode(encode(image, format_))
    assert pixels.ndim == 2
    assert difference(pixels[:, :24], ramp()[:, :24]) == 0
    assert not pixels[:, 24:].any()


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_level_named_transparent_is_black(mode: str) -> None:
    """PNG can name one level or colour as transparent instead of having alpha: those pixels are black too."""
    image = Image.fromarray(np.where(ramp() < 120, 200, 255).astype(np.uint8)).convert(mode, dither=Image.Dither.NONE)
    white = {"L": 255, "RGB": (255, 255, 255), "1": 255}.get(mode, image.getpixel((47, 31)))
    pixels = decode(encode(image, transparency=white))
    assert pixels.ndim == 2
    assert not pixels[ramp() >= 120].any()


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "GIF"])
def test_palettes_are_looked_up(format_: str) -> None:
    """Palette images: the colours that the indices stand for; gray where the palette is."""
    image = Image.fromarray(colours()).quantize(64)
    assert difference(decode(encode(image, format_)), np.asarray(image.convert("RGB"))) == 0
    gray = Image.fromarray(ramp()).quantize(64)
    assert difference(decode(encode(gray, format_)), np.asarray(gray.convert("RGB"))[..., 0]) == 0


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(format_: str) -> None:
    """Bilevel images: 0 and 255."""
    image = Image.fromarray(ramp() > 99)
    assert difference(decode(encode(image, format_)), (ramp() > 99).astype(np.uint8) * 255) == 0


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format_: str) -> None:
    """All 65,536 levels: 0 is 0, 65535 is 255, each one goes to the nearest of 256."""
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(encode(Image.fromarray(levels), format_))
    assert difference(pixels, np.rint(levels / 257).astype(np.uint8)) == 0


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_sixteen_bit_colour_is_scaled_to_eight(ending: str) -> None:
    """RGB with 16 bits a channel, as OpenCV writes it: within one level."""
    wide = cv2.cvtColor(colours().astype(np.uint16) * 257, cv2.COLOR_RGB2BGR)
    assert difference(decode(cv2.imencode(ending, wide)[1].tobytes()), colours()) <= 1


def test_32_bit_samples_are_used_as_far_as_they_are_16_bit() -> None:
    """Whole numbers of 32 bits: as 16-bit ones where they fit, refused where their white is anybody's guess."""
    image = Image.fromarray(ramp().astype(np.int32) * 257)
    assert difference(decode(encode(image, "TIFF")), ramp()) == 0
    for level in (-1, 65_536):
        image.putpixel((3, 3), level)
        assert "32-bit samples outside 0..65535" in reason(encode(image, "TIFF"))


def test_cmyk_jpeg_is_colour_as_pillow_has_it() -> None:
    """A print shop's JPEG: the colours that Pillow gives, gray if they are gray."""
    data = encode(Image.fromarray(colours()).convert("CMYK"), "JPEG", quality=100)
    assert difference(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) == 0
    assert np.abs(decode(data).astype(int) - colours()).mean() < 3
    assert decode(encode(Image.fromarray(ramp()).convert("CMYK"), "JPEG")).ndim == 2


def test_a_phones_jpeg_with_a_preview_is_its_main_picture() -> None:
    """MPO, several JPEGs in one: the first is the picture."""
    data = encode(Image.fromarray(ramp()), "MPO", save_all=True, append_images=[Image.fromarray(255 - ramp())])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"
    assert difference(decode(data), ramp()) <= 3


def test_one_pixel_is_an_image() -> None:
    """1 x 1 is small, but an image."""
    assert decode(encode(np.array([[7]], np.uint8)), cover=(224, 224)).tolist() == [[7]]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_honoured(format_: str, orientation: int) -> None:
    """All eight orientations come out upright: as ImageOps turns them, and as the standard says where (0, 0) goes."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(ramp(), format_, exif=exif, **({"lossless": True} if format_ == "WEBP" else {}))
    pixels = decode(data)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    assert difference(pixels, upright) == 0
    stored = ramp()
    by_the_standard = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1]]
    by_the_standard += [stored.T, np.rot90(stored, -1), stored[::-1, ::-1].T, np.rot90(stored)]
    assert difference(pixels, by_the_standard[orientation - 1]) <= 3


@pytest.mark.parametrize("carrier", ["exif", "xmp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_decoding_and_orientation_agree(carrier: str, orientation: int) -> None:
    """A JPEG decoded at a smaller scale is the upright image, smaller, and still covers an upright 50 x 200."""
    stored = ramp(800, 200) if orientation >= 5 else ramp(200, 800)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(
        stored, "JPEG", **({"exif": exif} if carrier == "exif" else {"xmp": XMP.format(orientation).encode()})
    )
    full, scaled = decode(data), decode(data, cover=(50, 200))
    assert full.shape == (800, 200)
    assert scaled.shape == (200, 50)
    assert difference(scaled, cv2.resize(full, (50, 200), interpolation=cv2.INTER_AREA)) <= 3


@pytest.mark.parametrize("value", [0, 9, 65_535, "6"])
def test_an_orientation_that_makes_no_sense_turns_nothing(value: int | str) -> None:
    """Odd metadata do not cost the image: it is taken as it is stored, at every scale."""
    entry = struct.pack("<HHI", ORIENTATION, *((2, 2) if isinstance(value, str) else (3, 1)))
    entry += b"6\0\0\0" if isinstance(value, str) else struct.pack("<HH", value, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
    data = encode(ramp(400, 100), "JPEG", exif=exif)
    assert decode(data).shape == (100, 400)
    assert decode(data, cover=(100, 25)).shape == (25, 100)
    assert decode(encode(ramp(), "JPEG", exif=b"Exif\0\0garbage")).shape == (32, 48)


@given(*[st.integers(1, 600)] * 2, *[st.integers(1, 300)] * 2)
@settings(max_examples=50, deadline=None)
@example(1792, 1792, 224, 224)
@example(1791, 1792, 224, 224)
@example(449, 448, 224, 224)
def test_scaled_decoding_covers_what_is_asked(width: int, height: int, least_width: int, least_height: int) -> None:
    """Never smaller than asked where the image isn't; and of JPEG's scales, eighths, the smallest that does."""
    scaled = decode(encode(ramp(width, height), "JPEG"), cover=(least_width, least_height))
    sizes = [(-(-height * eighths // 8), -(-width * eighths // 8)) for eighths in range(1, 9)]
    covering = [size for size in sizes if size[0] >= least_height and size[1] >= least_width]
    assert scaled.shape == min(covering, default=(height, width))


def test_real_xrays_scale_down_to_what_they_are(xrays_full: Path) -> None:
    """Decoded at a smaller scale and then resized, an X-ray is the full decode, resized."""
    for path in sorted(xrays_full.glob("train/*/*"))[::40]:
        full, scaled = decode(path.read_bytes()), decode(path.read_bytes(), cover=(224, 224))
        assert scaled.size < full.size
        assert min(scaled.shape) >= 224
        from_full, from_scaled = (
            cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA) for image in (full, scaled)
        )
        assert cv2.PSNR(from_full, from_scaled) > 35
        for axis in (0, 1):  # nothing has moved, by half a pixel say
            assert cv2.PSNR(from_full, from_scaled) > cv2.PSNR(from_full, np.roll(from_scaled, 1, axis)) + 3


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file (0 bytes)"),
        (b"these are notes", "not an image of a known format"),
        (b"\0" * 1000, "not an image of a known format"),
        (encode(ramp(), "JPEG")[:300], "runcated"),
        (encode(ramp(), "JPEG")[:-40], "truncated"),
        (encode(ramp(), "PNG")[:-60], "truncated"),
        (encode(ramp(), "BMP")[:-60], "truncated"),
        (encode(ramp(), "TIFF")[:-60], "truncated"),
        (encode(ramp(), "WEBP")[:-60], "could not create decoder object"),
        (encode(ramp(), "PNG").replace(b"IDAT", b"IDAX"), ""),
        (encode(ramp().astype(np.float32), "TIFF"), "float samples have no defined black and white"),
        (encode(ramp(), "GIF", save_all=True, append_images=[Image.fromarray(colours())]), "holds 2 images"),
        (encode(ramp(), "PNG", save_all=True, append_images=[Image.fromarray(255 - ramp())]), "holds 2 images"),
        (encode(ramp(), "TIFF", save_all=True, append_images=[Image.fromarray(ramp())] * 2), "holds 3 images"),
        (encode(ramp(), "WEBP", save_all=True, append_images=[Image.fromarray(255 - ramp())]), "holds 2 images"),
        (encode(np.dstack([ramp()] * 3), "EPS"), "not an image of a known format"),
        (encode(ramp(), "PDF"), "not an image of a known format"),
        (encode(ramp(), "PPM"), "not an image of a known format"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image of a known format"),
    ],
    ids=[
        *("nothing", "text", "zeros", "JPEG header cut", "JPEG cut", "PNG cut", "BMP cut", "TIFF cut", "WebP cut"),
        *("PNG without data", "float TIFF", "animated GIF", "animated PNG", "TIFF of 3 pages", "animated WebP"),
        *("EPS", "PDF", "PPM", "SVG"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, expected: str) -> None:
    """Broken, empty, ambiguous and foreign files: one line with the reason, the same each time, no address in it."""
    assert expected in reason(data)
    assert " at 0x" not in reason(data)
    assert reason(data) == reason(data)


def bomb(width: int, height: int) -> bytes:
    """A PNG of 70 bytes that declares width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pieces = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def test_a_bomb_is_refused_by_what_it_declares() -> None:
    """30,000 x 30,000 pixels in 70 bytes are refused by size; a smaller one fails for what it lacks."""
    with pytest.raises(UnreadableImage, match=r"declares 30000 x 30000 pixels, more than the limit of 178,956,970"):
        decode(bomb(30_000, 30_000))
    assert "truncated" in reason(bomb(30, 30))


def test_the_limit_of_pixels_is_the_callers() -> None:
    """Exactly the limit is decoded, one pixel more is not, whatever scale a JPEG would be decoded at."""
    data = encode(ramp(100, 100), "JPEG")
    assert decode(data, max_pixels=10_000).shape == (100, 100)
    with pytest.raises(UnreadableImage, match="more than the limit of 9,999"):
        decode(data, cover=(10, 10), max_pixels=9_999)


@given(st.binary(max_size=60), st.integers(0, 3000), st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"]))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_an_image_or_unreadable(noise: bytes, at: int, format_: str) -> None:
    """Whatever a file's bytes are overwritten with: pixels of some size come out or UnreadableImage, nothing else."""
    data = bytearray(encode(ramp(), format_))
    at %= len(data)
    data[at : at + len(noise)] = noise
    try:
        pixels = decode(bytes(data), cover=(16, 16), max_pixels=1_000_000)
    except UnreadableImage as error:
        assert str(error)  # noqa: PT017  # either outcome is right
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim in (2, 3)
        assert pixels.size
