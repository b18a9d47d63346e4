"""PNG: depths with sBIT and alpha, chunks that play no part in the pixels, and damage that does."""

import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from common.images.notes import FEW_BITS, NEARLY_BLACK, TRANSPARENT
from common.images.pixels import UnreadableImage, decode, header, picture

GRAY, RGB, PALETTE, LA, RGBA = 0, 2, 3, 4, 6


def ramp(most: float = 255, width: int = 52, height: int = 40) -> NDArray[np.float64]:
    """Samples from 0 to `most`, without symmetry."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.rint((x + 2 * y) / 3 * most)


def chunk(name: bytes, body: bytes, checksum: int = 0) -> bytes:
    """A chunk; `checksum` is added to the right one."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", (zlib.crc32(name + body) + checksum) % 2**32)


def png(
    samples: NDArray[np.generic], colour: int, bits: int, before: Sequence[bytes] = (), after: Sequence[bytes] = ()
) -> bytes:
    """A PNG, with chunks before and after its pixels; `after` is all that comes behind them but for the end chunk."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if bits < 8:
        single = (rows[..., None].astype(np.uint8) >> np.arange(bits)[::-1]) & 1
        packed = np.packbits(single.reshape(height, -1), axis=1)
    else:
        packed = np.ascontiguousarray(rows.astype(">u2" if bits == 16 else "u1")).view(np.uint8).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pieces = [head, *before, chunk(b"IDAT", zlib.compress(raw)), *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def reason(data: bytes) -> str:
    """Why a file is refused: one line."""
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PLAIN = png(ramp(), GRAY, 8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_of_every_depth_is_scaled_by_its_bits(bits: int) -> None:
    """From black to white."""
    most = 2**bits - 1
    data = png(ramp(most), GRAY, bits)
    assert np.array_equal(decode(data), np.rint(ramp(most) * 255 / most))
    assert header(data).bits == bits


@pytest.mark.parametrize("colour", [LA, RGB, RGBA])
def test_deep_colour_is_scaled_as_gray_is(colour: int) -> None:
    """16 bits a channel, each to the nearest of 256 levels; opaque alpha changes nothing, half opacity halves."""
    channels = [ramp(65535)] if colour == LA else [ramp(65535), ramp(65535)[::-1], ramp(65535)[:, ::-1]]
    levels = np.dstack([np.rint(channel / 257) for channel in channels])
    for alpha in (65535, 32896) if colour != RGB else (65535,):
        stored = channels if colour == RGB else [*channels, np.full_like(channels[0], alpha)]
        pixels = decode(png(np.dstack(stored), colour, 16))
        wanted = levels * (alpha / 65535)
        assert np.abs(pixels - (wanted[..., 0] if colour == LA else wanted)).max() <= (alpha < 65535)
    assert header(png(np.dstack(stored), colour, 16)).bits == 16


@pytest.mark.parametrize("colour", [GRAY, RGB])
def test_a_deep_level_named_transparent_is_black(colour: int) -> None:
    """TRNS of 16 bits names one level or colour."""
    samples = np.where(ramp() < 120, 40_000, 65535).astype(np.uint16)
    key = chunk(b"tRNS", struct.pack(">H", 65535) * (1 if colour == GRAY else 3))
    data = png(samples if colour == GRAY else np.dstack([samples] * 3), colour, 16, [key])
    assert np.array_equal(decode(data), np.where(ramp() < 120, 156, 0))


@pytest.mark.parametrize(
    ("colour", "bits", "significant"),
    [
        *((colour, 16, significant) for colour in (GRAY, RGB, RGBA) for significant in (10, 12, 14)),
        *((colour, 8, significant) for colour in (GRAY, RGB) for significant in (4, 6)),
    ],
)
def test_significant_bits_scale_right_justified_samples(colour: int, bits: int, significant: int) -> None:
    """SBIT of 12 in samples of 16 bits that all fit into 12: those are black to white."""
    most = 2**significant - 1
    channels = [ramp(most), ramp(most)[::-1], ramp(most)[:, ::-1]][: 1 if colour == GRAY else 3]
    stored = [*channels, np.full_like(ramp(), 2**bits - 1)] if colour == RGBA else channels
    found = picture(png(np.dstack(stored), colour, bits, [chunk(b"sBIT", bytes([significant] * len(stored)))]))
    levels = np.dstack([np.rint(channel * 255 / most) for channel in channels])
    assert np.array_equal(found.pixels, levels[..., 0] if colour == GRAY else levels)
    assert found.notes == (f"declares {significant} significant bits in samples of {bits}; scaled by those",)


@pytest.mark.parametrize("significant", [12, 16])
def test_significant_bits_leave_left_justified_samples_alone(significant: int) -> None:
    """As the standard has them: scaled to all of 16 bits already."""
    samples = np.rint(ramp(4095)) * 16
    found = picture(png(samples, GRAY, 16, [chunk(b"sBIT", bytes([significant]))]))
    assert np.array_equal(found.pixels, np.rint(samples / 257))
    assert found.notes == ()


def test_a_value_range_goes_before_what_the_file_says() -> None:
    """With and without sBIT; samples outside are clipped."""
    for before in ([], [chunk(b"sBIT", b"\x0c")]):
        data = png(ramp(4095), GRAY, 16, before)
        pixels = decode(data, value_range=(1000, 3000))
        assert np.array_equal(pixels, np.rint(np.clip((ramp(4095) - 1000) * 255 / 2000, 0, 255)))
    assert np.array_equal(decode(PLAIN, value_range=(0, 4095)), ramp())


@pytest.mark.parametrize(("most", "noted"), [(100, True), (4095, True), (16383, True), (16400, False), (65535, False)])
def test_few_bits_of_sixteen_are_noted(most: int, noted: bool) -> None:
    """The largest sample is known, and a file that uses at most 14 of its 16 bits has a note."""
    found = picture(png(ramp(most), GRAY, 16))
    assert found.largest == most
    assert found.notes == ((FEW_BITS,) if noted else ())


def test_transparent_and_black_images_are_noted() -> None:
    """Fully transparent, of a quarter's opacity, in deep samples too; and black for no reason that the file shows."""
    for bits in (8, 16):
        most = 2**bits - 1
        for alpha, noted in ((0, True), (most // 8, True), (most // 2, False), (most, False)):
            data = png(np.dstack([np.full((9, 9), most)] * 3 + [np.full((9, 9), alpha)]), RGBA, bits)
            assert picture(data).notes == ((TRANSPARENT,) if noted else ()), (bits, alpha)
    assert picture(png(np.full((9, 9), 15), GRAY, 8)).notes == (NEARLY_BLACK,)
    assert picture(png(np.full((9, 9), 16), GRAY, 8)).notes == ()


LONG = zlib.compress(bytes(2**21))


@pytest.mark.parametrize(
    ("before", "note"),
    [
        ([chunk(b"iCCP", b"profile\0\0" + LONG)], "its iCCP chunk is over 1 MB and not used"),
        ([chunk(b"zTXt", b"Comment\0\0" + LONG)], "its zTXt chunk is over 1 MB and not used"),
        ([chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG)], "its iTXt chunk is over 1 MB and not used"),
        ([chunk(b"tEXt", b"Comment\0" + b"x" * 2**21)], "its tEXt chunk is over 1 MB and not used"),
        ([chunk(b"tEXt", b"Comment\0short", checksum=1)], "its tEXt chunk is damaged and not used"),
        ([chunk(b"tIME", bytes(7), checksum=1)], "its tIME chunk is damaged and not used"),
        ([chunk(b"zTXt", b"Comment\0\0short")], None),
        ([chunk(b"tEXt", b"Comment\0short")] * 2000, None),
        ([chunk(b"zTXt", b"Comment\0\0not compressed")], None),
        ([chunk(b"iCCP", b"")], None),
    ],
    ids=[
        *("iCCP", "zTXt", "iTXt", "tEXt", "tEXt's checksum", "tIME's checksum"),
        *("short zTXt", "2000 texts", "zTXt without deflate", "empty iCCP"),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("behind", [False, True])
def test_text_and_profiles_cost_no_image(before: list[bytes], note: str | None, bits: int, behind: bool) -> None:
    """Pixels that are whole are used, with a note on what isn't."""
    samples = ramp(2**bits - 1)
    data = png(samples, GRAY, bits, after=before) if behind else png(samples, GRAY, bits, before)
    found = picture(data)
    assert np.array_equal(found.pixels, np.rint(samples * 255 / (2**bits - 1)))
    assert found.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    ("cut", "note"), [(12, "its end chunk (IEND) is missing"), (1, "its IEND chunk is damaged and not used")]
)
def test_only_the_end_chunk_is_missing(cut: int, note: str) -> None:
    """As with a JPEG: whole pixels are used."""
    found = picture(PLAIN[:-cut])
    assert np.array_equal(found.pixels, ramp())
    assert note in found.notes


def test_a_cut_in_a_text_behind_the_pixels_costs_no_image() -> None:
    """The file ends inside a chunk that plays no part in them."""
    data = png(ramp(), GRAY, 8, after=[chunk(b"tEXt", b"Comment\0" + b"x" * 500)])
    found = picture(data[:-200])
    assert np.array_equal(found.pixels, ramp())
    assert "its tEXt chunk is damaged and not used" in found.notes


@pytest.mark.parametrize("bits", [8, 16])
def test_damage_to_the_pixels_is_refused(bits: int) -> None:
    """A wrong checksum, broken or cut deflate data, too few rows, a cut file: never an image with a hole."""
    noise = np.random.default_rng(0).integers(0, 2**bits, (40, 52))
    whole = png(noise, GRAY, bits)
    start = whole.index(b"IDAT") + 4
    flipped = bytearray(whole)
    flipped[start + 500] ^= 1
    assert reason(bytes(flipped)) == "damaged PNG: a wrong checksum in its IDAT chunk"
    for at in (start + 10, start + 900, len(whole) - 14):
        assert reason(whole[:at]) == "truncated: the file ends inside its IDAT chunk"
    head, data = whole[:33], whole[start : len(whole) - 16]
    for broken in (data[:-300], data[:600] + bytes(200) + data[800:], data[:-4] + b"abcd", b""):
        assert reason(head + chunk(b"IDAT", broken) + chunk(b"IEND", b""))
    assert reason(head + chunk(b"IDAT", zlib.compress(zlib.decompress(data)[:-200])) + chunk(b"IEND", b""))


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS"])
def test_damage_to_what_the_pixels_need_is_refused(name: bytes) -> None:
    """Header, palette and transparency are parts of the picture."""
    palette = chunk(b"PLTE", bytes(range(48)))
    whole = png(ramp(15), PALETTE, 4, [palette, chunk(b"tRNS", bytes([255] * 16))])
    assert decode(whole).shape == (40, 52, 3)
    damaged = bytearray(whole)
    damaged[whole.index(name) + 5] ^= 1
    assert reason(bytes(damaged)) == f"damaged PNG: a wrong checksum in its {name.decode()} chunk"


def test_an_unknown_chunk_that_matters_is_refused() -> None:
    """Apple's CgBI, say: its upper case C says that no decoder may pass over it."""
    assert reason(png(ramp(), GRAY, 8, [chunk(b"CgBI", bytes(4))]))


def test_the_orientation_counts_unless_its_chunk_is_damaged() -> None:
    """EXIf turns images of 8 and 16 bits; damaged it is left out, with a note."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    for bits in (8, 16):
        levels = np.rint(ramp(2**bits - 1) * 255 / (2**bits - 1))
        turned = picture(png(ramp(2**bits - 1), GRAY, bits, [chunk(b"eXIf", exif)]))
        assert np.array_equal(turned.pixels, np.rot90(levels, -1))
        damaged = picture(png(ramp(2**bits - 1), GRAY, bits, [chunk(b"eXIf", exif, checksum=1)]))
        assert np.array_equal(damaged.pixels, levels)
        assert damaged.notes == ("its eXIf chunk is damaged and not used",)


def test_opencv_reads_the_same() -> None:
    """A second decoder agrees on deep colour."""
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 65536, (33, 41, 3), np.uint16)
    data = cv2.imencode(".png", wide)[1].tobytes()
    assert np.array_equal(decode(data), np.rint(wide[..., ::-1] / 257))


def short(colour: int, bits: int, rows: int) -> bytes:
    """A PNG of 40 rows whose compressed data is whole in itself, and ends behind `rows` rows."""
    channels = {GRAY: 1, RGB: 3, LA: 2, RGBA: 4}[colour]
    samples = np.full((40, 52, channels), 2**bits - 1)
    data = png(samples, colour, bits)
    at = data.index(b"IDAT") - 4
    raw = zlib.decompress(data[at + 8 : at + 8 + int.from_bytes(data[at : at + 4], "big")])
    raw = raw[: len(raw) * rows // 40]
    return data[:at] + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [GRAY, RGB, LA, RGBA])
def test_missing_rows_are_no_black_ones(colour: int, bits: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The data ends early with right checksums: refused, and no decoder prints anything."""
    assert decode(short(colour, bits, 40)).min() == 255
    for rows in (39, 20, 1):
        assert "its data ends early" in reason(short(colour, bits, rows))
    assert capfd.readouterr() == ("", "")


def test_missing_passes_of_an_interlaced_image_are_found() -> None:
    """Seven passes; the last holds every other row."""
    passes = [(7, 5), (6, 5), (13, 5), (13, 10), (26, 10), (26, 20), (52, 20)]  # (width, height) of each, of 52 x 40
    rows = [(b"\0" + b"\xff" * width) * height for width, height in passes]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 52, 40, 8, GRAY, 0, 0, 1))

    def data(count: int) -> bytes:
        pixels = chunk(b"IDAT", zlib.compress(b"".join(rows[:count])))
        return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")

    assert decode(data(7)).min() == 255
    for count in range(1, 7):
        assert "its data ends early" in reason(data(count))


def test_a_black_last_row_is_no_missing_one() -> None:
    """Gray, colour and packed bits, odd widths."""
    for bits, colour in ((1, GRAY), (2, GRAY), (8, GRAY), (16, GRAY), (8, RGB), (16, RGBA)):
        for width in (1, 7, 52):
            channels = {GRAY: 1, RGB: 3, RGBA: 4}[colour]
            samples = np.full((9, width, channels), 2**bits - 1)
            samples[-1] = 0
            pixels = decode(png(samples, colour, bits))
            assert (pixels[:-1] == 255).all()
            assert (pixels[-1] == 0).all()


@pytest.mark.parametrize("significant", [4, 6])
def test_significant_bits_count_with_alpha_too(significant: int) -> None:
    """Of 8 bits, gray and colour: dark only where the samples are."""
    most = 2**significant - 1
    for colour, channels in ((LA, 1), (RGBA, 3)):
        stored = np.dstack([*[ramp(most)] * channels, np.full_like(ramp(), 255)])
        found = picture(png(stored, colour, 8, [chunk(b"sBIT", bytes([significant] * channels + [8]))]))
        assert np.array_equal(found.pixels, np.rint(ramp(most) * 255 / most))
        assert "significant bits in samples of 8; scaled by those" in found.notes[-1]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_level_of_few_bits_named_transparent_is_black(bits: int) -> None:
    """The level is one of the samples as stored."""
    samples = np.tile(np.arange(2**bits), (3, 2))
    pixels = decode(png(samples, GRAY, bits, [chunk(b"tRNS", bytes([0, 2**bits - 1]))]))
    expected = np.rint(samples * 255 / (2**bits - 1))
    expected[samples == 2**bits - 1] = 0
    assert np.array_equal(pixels, expected)


def test_metadata_that_is_damaged_or_long_costs_no_image() -> None:
    """An eXIf that is none, and a compressed XMP of over 1 MB."""
    long = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2**21)
    for piece in (chunk(b"eXIf", b"junkjunk"), chunk(b"eXIf", b""), chunk(b"iTXt", long)):
        assert np.array_equal(decode(png(ramp(), GRAY, 8, [piece])), ramp())
