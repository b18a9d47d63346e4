"""TIFF: every depth, sample format, photometric interpretation, byte order, layout and compression is right or refused.

tifffile writes the files and is the second decoder where the values aren't plain.
"""

import io
import struct
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from common.images.notes import FEW_BITS, TRANSPARENT
from common.images.pixels import UnreadableImage, decode, header, picture

LAYOUTS: dict[str, dict[str, Any]] = {"strips": {"rowsperstrip": 7}, "tiles": {"tile": (16, 16)}}


def ramp(most: float = 255, width: int = 52, height: int = 40) -> NDArray[np.float64]:
    """Samples from 0 to `most`, brighter to the right and, more so, downwards; no symmetry, no round size."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.rint((x + 2 * y) / 3 * most)


def tiff(samples: NDArray[np.generic], **options: Any) -> bytes:
    """The bytes of a TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def expect(data: bytes, levels: NDArray[np.generic], tolerance: float = 0) -> None:
    """Check what a file decodes to, in gray levels."""
    pixels = decode(data)
    assert pixels.shape == levels.shape
    assert np.abs(pixels - np.asarray(levels, float)).max() <= tolerance


def reason(data: bytes, **options: Any) -> str:
    """Why a file is refused: one line."""
    with pytest.raises(UnreadableImage) as caught:
        decode(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize(
    ("dtype", "bits", "most"),
    [
        ("u1", 8, 255),
        ("u2", 16, 65535),
        ("u4", 32, 65535),
        ("i1", 8, 127),
        ("i2", 16, 32767),
    ],
)
def test_gray_of_whole_bytes_is_scaled_by_its_bits(dtype: str, bits: int, most: int, photometric: str) -> None:
    """Black, white and all between, whatever the byte order and layout; MinIsWhite is inverted."""
    samples = ramp(most).astype(dtype)
    levels = np.rint(ramp(most) * 255 / most)
    assert (levels.min(), levels.max()) == (0, 255)
    for order, layout in product("<>", LAYOUTS.values()):
        data = tiff(samples, photometric=photometric, byteorder=order, **layout)
        expect(data, levels if photometric == "minisblack" else 255 - levels, tolerance=0.5)
        assert header(data).bits == bits


def packed(samples: NDArray[np.generic], bits: int, photometric: int = 1, order: str = "<", **kind: bool) -> bytes:
    """The bytes of a TIFF with samples of any number of bits: in strips or tiles, compressed or not."""
    height, width = samples.shape
    tiled, deflated, reversed_ = (kind.get(name, False) for name in ("tiled", "deflated", "reversed_"))
    high, wide = (16, 16) if tiled else (7, width)
    places = [(top, left) for top in range(0, height, high) for left in range(0, width, wide)]
    whole = np.pad(samples, ((0, high), (0, wide)))
    parts = []
    for top, left in places:
        part = whole[top : top + (high if tiled else min(high, height - top)), left : left + wide]
        single = (part[..., None].astype(np.uint32) >> np.arange(bits)[::-1]) & 1
        rows = single.reshape(len(part), -1).astype(np.uint8)
        data = np.packbits(rows, axis=1, bitorder="little" if reversed_ else "big").tobytes()
        parts.append(zlib.compress(data) if deflated else data)
    offsets = [int(at) for at in np.cumsum([8, *(len(part) for part in parts)])]
    tags = {256: [width], 257: [height], 258: [bits], 259: [8 if deflated else 1], 262: [photometric]}
    tags |= {266: [2]} if reversed_ else {}
    sizes = [len(part) for part in parts]
    tags |= {277: [1]} | ({322: [16], 323: [16]} if tiled else {278: [high]})
    tags |= {324: offsets[:-1], 325: sizes} if tiled else {273: offsets[:-1], 279: sizes}
    lists, at = b"", offsets[-1] + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, values in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            lists, value = lists + value, struct.pack(f"{order}I", at + len(lists))
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", offsets[-1])
    return b"".join([head, *parts, struct.pack(f"{order}H", len(tags)), entries, bytes(4), lists])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 9, 10, 11, 12, 13, 14, 15])
def test_gray_of_any_number_of_bits_is_scaled_by_them(bits: int) -> None:
    """Packed samples of each depth: both byte orders, strips and tiles, MinIsWhite, compressed, bits reversed."""
    samples = ramp(2**bits - 1).astype(np.uint16)
    levels = np.rint(samples * 255.0 / (2**bits - 1))
    assert {0, 255} <= set(levels.ravel())
    for order, photometric in product("<>", (0, 1)):
        for kind in ({}, {"tiled": True}, {"deflated": True}, {"reversed_": True}):
            data = packed(samples, bits, photometric, order, **kind)
            expect(data, levels if photometric else 255 - levels, tolerance=0.5)
            assert header(data).bits == bits


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_gray_is_the_same_in_every_compression(dtype: str, compression: str) -> None:
    """Compressed strips and tiles in both byte orders, with the horizontal predictor where there is one."""
    most = np.iinfo(dtype).max
    for order, layout, predictor in product("<>", LAYOUTS.values(), (False, True)):
        options = {"compression": compression, "predictor": predictor, "byteorder": order, **layout}
        for photometric in ("minisblack", "miniswhite"):
            levels = np.rint(ramp(most) * 255 / most)
            data = tiff(ramp(most).astype(dtype), photometric=photometric, **options)
            expect(data, levels if photometric == "minisblack" else 255 - levels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma", "packbits", "raw"])
def test_sixteen_bits_are_the_same_in_every_compression_of_libtiff(compression: str) -> None:
    """As Pillow writes them through libtiff; LZW and Zstandard among them."""
    file = io.BytesIO()
    Image.fromarray(ramp(65535).astype(np.uint16)).save(file, "TIFF", compression=compression)
    expect(file.getvalue(), np.rint(ramp(65535) / 257))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4"])
def test_colour_keeps_its_channels(dtype: str, planar: str) -> None:
    """RGB, RGB with alpha, and CMYK, with the samples of a pixel together or in planes of their own."""
    most = 65535 if dtype == "u4" else np.iinfo(dtype).max
    channels = [ramp(most), ramp(most)[::-1], ramp(most)[:, ::-1]]
    levels = np.dstack([np.rint(channel * 255 / most) for channel in channels])
    kinds: list[tuple[str, list[NDArray[np.float64]], Any, NDArray[np.float64]]] = [
        ("rgb", channels, None, levels),
        ("rgb", [*channels, np.full_like(channels[0], most)], ["unassalpha"], levels),
        ("separated", [*channels, np.zeros_like(channels[0])], None, 255 - levels),
    ]
    for photometric, given_, extra, wanted in kinds:
        samples = np.stack(given_, axis=0 if planar == "separate" else -1).astype(dtype)
        for order, layout, compression in product("<>", LAYOUTS.values(), (None, "zlib")):
            options = {"planarconfig": planar, "byteorder": order, "compression": compression, **layout}
            options |= {"extrasamples": extra} if extra else {}
            expect(tiff(samples, photometric=photometric, **options), wanted, tolerance=1)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_alpha_is_laid_over_black_by_its_kind(dtype: str, planar: str) -> None:
    """Of half opacity: half as bright, as it is where it is multiplied already, and full where it's no alpha."""
    most = np.iinfo(dtype).max
    half = np.full_like(ramp(), 128 * most // 255)
    for kind, share in (("unassalpha", 128 / 255), ("assocalpha", 1), ("unspecified", 1)):
        for photometric, colours in (("minisblack", [ramp(most)]), ("rgb", [ramp(most), ramp(most)[::-1], ramp(most)])):
            stored = [np.minimum(colour, half) for colour in colours]  # multiplied, none is brighter than its alpha
            samples = np.stack([*stored, half], axis=0 if planar == "separate" else -1).astype(dtype)
            data = tiff(samples, photometric=photometric, planarconfig=planar, extrasamples=[kind])
            wanted = np.dstack(stored) * (255 / most * share)
            expect(data, wanted if len(colours) == 3 else wanted[..., 0], tolerance=2)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_honoured(dtype: str, orientation: int) -> None:
    """All eight, of 8 and of 16 bits, as the standard says where (0, 0) goes."""
    most = np.iinfo(dtype).max
    data = tiff(ramp(most).astype(dtype), extratags=[(274, 3, 1, orientation, True)])
    stored = np.rint(ramp(most) * 255 / most)
    turned = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1]]
    turned += [stored.T, np.rot90(stored, -1), stored[::-1, ::-1].T, np.rot90(stored)]
    expect(data, turned[orientation - 1])


def test_bigtiff_is_read() -> None:
    """Its offsets have 64 bits."""
    expect(tiff(ramp().astype(np.uint8), bigtiff=True), ramp())
    expect(tiff(ramp(65535).astype(np.uint16), bigtiff=True), np.rint(ramp(65535) / 257))


def test_a_declared_range_is_used() -> None:
    """MaxSampleValue of a power of two less one is a depth, any other a statistic; SMin and SMax are the range."""
    twelve = ramp(4095).astype(np.uint16)
    levels = np.rint(ramp(4095) * 255 / 4095)
    expect(tiff(twelve, extratags=[(281, 3, 1, 4095, True)]), levels)
    found = picture(tiff(twelve, extratags=[(281, 3, 1, 4000, True)]))
    assert found.pixels.max() == 16
    assert found.notes == (FEW_BITS,)
    declared = [(340, 4, 1, 0, True), (341, 4, 1, 4095, True)]
    found = picture(tiff(twelve.astype(np.uint32), extratags=declared))
    assert np.array_equal(found.pixels, levels)
    assert found.notes == ("scaled by its SMinSampleValue and SMaxSampleValue, 0 to 4095",)
    outside = [(340, 4, 1, 0, True), (341, 4, 1, 1000, True)]
    assert picture(tiff(twelve, extratags=outside)).notes == (FEW_BITS,)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (ramp(255).astype(np.uint32), "32-bit samples of which the largest is 255"),
        (ramp(70_000).astype(np.uint32), "32-bit samples outside 0..65535 (0 to 70000)"),
        (ramp(100).astype(np.int32) - 50, "32-bit samples outside 0..65535 (-50 to 50)"),
        (ramp(255).astype(np.uint64), "64-bit samples of which the largest is 255"),
        ((ramp(2000) - 1000).astype(np.int16), "signed samples (-1000 to 1000) have no defined black and white"),
        ((ramp(200) - 100).astype(np.int8), "signed samples (-100 to 100) have no defined black and white"),
        (ramp(1).astype(np.float32), "float samples have no defined black and white (here 0 to 1)"),
        (ramp(255).astype(np.float16), "float samples have no defined black and white (here 0 to 255)"),
        (ramp(255).astype(np.float64), "float samples have no defined black and white (here 0 to 255)"),
    ],
)
def test_samples_without_black_and_white_are_refused(samples: NDArray[np.generic], expected: str) -> None:
    """The reason names the samples and the recipe's setting that helps."""
    message = reason(tiff(samples))
    assert message.startswith(expected)
    assert "value_range: [black, white]" in message


@pytest.mark.parametrize("dtype", ["u2", "u4", "i2", "i4", "f2", "f4", "f8"])
def test_a_value_range_says_what_is_black_and_white(dtype: str) -> None:
    """Half of it is 127.5; what lies outside is clipped; MinIsWhite is inverted; NaN is black."""
    samples = np.array([[0, 100, 150, 200, 300, 100]]).astype(dtype)
    wanted = [0, 0, 128, 255, 255, 0]
    assert decode(tiff(samples), value_range=(100, 200)).tolist() == [wanted]
    white = tiff(samples, photometric="miniswhite")
    assert decode(white, value_range=(100, 200)).tolist() == [[255 - level for level in wanted]]
    if dtype.startswith("f"):
        samples[0, 4:] = np.nan, np.inf
        assert decode(tiff(samples), value_range=(100, 200)).tolist() == [[0, 0, 128, 255, 0, 255]]


def test_a_value_range_leaves_8_bits_alone() -> None:
    """It is for samples of more than 8 bits."""
    assert np.array_equal(decode(tiff(ramp().astype(np.uint8)), value_range=(0, 4095)), ramp())


@pytest.mark.parametrize("most", [1, 255, 1023, 4095, 16383])
def test_few_bits_of_sixteen_are_noted(most: int) -> None:
    """A file that declares 16 bits and uses at most 14 comes out dark, and says so; a half-bright one doesn't."""
    found = picture(tiff(ramp(most).astype(np.uint16)))
    assert (found.largest, found.notes) == (most, (FEW_BITS,))
    assert picture(tiff(ramp(most).astype(np.uint16)), value_range=(0, most)).notes == ()
    assert picture(tiff(ramp(40_000).astype(np.uint16))).notes == ()


def test_a_transparent_image_is_noted() -> None:
    """Fully transparent RGBA of 8 and of 16 bits is black, and says why."""
    for dtype in ("u1", "u2"):
        clear = np.dstack([np.full((9, 9, 3), 200), np.zeros((9, 9))]).astype(dtype)
        found = picture(tiff(clear, photometric="rgb", extrasamples=["unassalpha"]))
        assert not found.pixels.any()
        assert TRANSPARENT in found.notes


@pytest.mark.parametrize(
    ("samples", "options", "expected"),
    [
        (np.dstack([ramp()] * 3).astype("u1"), {"photometric": "cielab"}, "TIFF of 8-bit CIELAB samples"),
        (np.dstack([ramp()] * 3).astype("u2"), {"photometric": "icclab"}, "TIFF of 16-bit ICCLAB samples"),
        (ramp().astype("u2"), {"photometric": "cfa"}, "TIFF of 16-bit CFA samples"),
        (
            ramp().astype("u2"),
            {"photometric": "palette", "colormap": np.zeros((3, 65536), "u2")},
            "TIFF of 16-bit PALETTE samples",
        ),
        (ramp().astype("c8"), {}, "TIFF of complex64 samples"),
        (np.stack([ramp()] * 3).astype("u2"), {"photometric": "minisblack"}, "holds 3 images"),
        (
            np.stack([ramp()] * 16).astype("u2"),
            {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)},
            "holds a volume of 16 slices",
        ),
    ],
)
def test_kinds_that_are_not_decoded_are_refused_by_name(
    samples: NDArray[np.generic], options: dict[str, Any], expected: str
) -> None:
    """Colour spaces, mosaics, numbers and volumes that have no one picture."""
    assert reason(tiff(samples, **options)).startswith(expected)


def test_a_camera_raws_preview_is_not_its_picture() -> None:
    """DNG and kin begin with a small preview and keep the image itself in a sub-IFD."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(ramp().astype(np.uint8), subfiletype=1, subifds=1)
        writer.write(ramp(65535, 104, 80).astype(np.uint16), photometric="minisblack")
    assert "its first image is a preview" in reason(file.getvalue())


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_missing_strips_are_no_black_ones(dtype: str, compression: str | None) -> None:
    """A file cut in its data, or one whose strips were never written, is refused."""
    whole = tiff(ramp(200).astype(dtype), compression=compression, rowsperstrip=7)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        start = min(file.pages.first.dataoffsets)
    assert reason(whole[: start + 60])
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        counts = file.pages.first.tags[279]
    if compression:
        sparse = bytearray(whole)
        sparse[counts.valueoffset : counts.valueoffset + 2] = b"\0\0"
        assert "missing" in reason(bytes(sparse))


def test_damaged_jpeg_in_a_tiff_is_refused() -> None:
    """Libtiff takes it in silence."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression="jpeg")
    whole = file.getvalue()
    assert decode(whole).shape == (64, 64)
    with tifffile.TiffFile(io.BytesIO(whole)) as tiff_:
        start, count = tiff_.pages.first.dataoffsets[0], tiff_.pages.first.databytecounts[0]
    damaged = bytearray(whole)
    damaged[start + count // 2 : start + count - 2] = bytes(count - count // 2 - 2)
    assert "damaged TIFF, in its JPEG data" in reason(bytes(damaged))


def test_libtiff_prints_nothing(tmp_path: Path) -> None:
    """Damaged and cut files of every compression leave stderr empty: the reasons are in the exceptions."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma", "packbits", "group4"):
        for samples in (noise, noise.astype(np.uint16) * 257):
            file = io.BytesIO()
            image = Image.fromarray(noise > 99) if compression == "group4" else Image.fromarray(samples)
            image.save(file, "TIFF", compression=compression)
            data = bytearray(file.getvalue())
            data[300:400] = b"\x55" * 100
            (tmp_path / f"{compression}{samples.itemsize}.tiff").write_bytes(data)
            (tmp_path / f"{compression}{samples.itemsize}.cut.tiff").write_bytes(file.getvalue()[:-200])
    code = (
        "import sys, pathlib\nfrom common.images.pixels import UnreadableImage, decode\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        decode(path.read_bytes())\n    except UnreadableImage:\n        pass\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@given(st.binary(max_size=60), st.integers(0, 5000), st.sampled_from(["u1", "u2", "f4"]), st.sampled_from([8, 12]))
@settings(max_examples=100, deadline=None)
def test_damaged_deep_files_are_an_image_or_unreadable(noise: bytes, at: int, dtype: str, bits: int) -> None:
    """Whatever a file's bytes are overwritten with: pixels come out or UnreadableImage, nothing else."""
    samples = ramp(200).astype(dtype)
    data = bytearray(packed(samples, 12) if bits == 12 and dtype == "u2" else tiff(samples, rowsperstrip=9))
    at %= len(data)
    data[at : at + len(noise)] = noise
    try:
        pixels = decode(bytes(data), max_pixels=1_000_000, value_range=(0, 200))
    except UnreadableImage as error:
        assert str(error)  # noqa: PT017  # either outcome is right
    else:
        assert pixels.dtype == np.uint8
        assert pixels.size


def without(data: bytes, tag: int) -> bytes:
    """A little-endian TIFF whose one directory lacks a tag."""
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    entries = [data[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    kept = [entry for entry in entries if int.from_bytes(entry[:2], "little") != tag]
    assert len(kept) == count - 1
    behind = data[at + 2 + 12 * count : at + 6 + 12 * count]
    directory = len(kept).to_bytes(2, "little") + b"".join(kept) + behind
    return data[:4] + len(data).to_bytes(4, "little") + data[8:] + directory


@pytest.mark.parametrize("samples", [ramp(), ramp(65535), np.dstack([ramp()] * 3)], ids=["gray", "deep", "RGB"])
def test_without_a_photometric_interpretation_nobody_knows_what_is_black(samples: NDArray[np.float64]) -> None:
    """Decoders take the absent tag for MinIsWhite: refused, rather than inverted."""
    data = tiff(samples.astype("u2" if samples.max() > 255 else "u1"), photometric="rgb" if samples.ndim == 3 else 1)
    assert "no photometric interpretation" in reason(without(data, 262))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_an_orientation_that_is_none_turns_nothing(dtype: str) -> None:
    """Only 1 to 8 are."""
    data = tiff(ramp(255).astype(dtype) * (257 if dtype == "u2" else 1), extratags=[(274, 3, 1, 9, True)])
    expect(data, ramp())


def test_signed_8_bits_take_a_value_range() -> None:
    """As deeper signed samples do: the file alone doesn't say what is black."""
    data = tiff((ramp() - 128).astype("i1"))
    assert "value_range" in reason(data)
    assert np.array_equal(decode(data, value_range=(-128, 127)), ramp())


def test_float_samples_take_the_range_that_the_file_declares() -> None:
    """SMinSampleValue and SMaxSampleValue say what is black and white."""
    samples = (ramp() / 255).astype("f4")
    data = tiff(samples, extratags=[(340, 11, 1, 0.0, True), (341, 11, 1, 1.0, True)])
    expect(data, ramp())


@pytest.mark.parametrize(
    ("compression", "most"), [("group4", 0.1), ("tiff_ccitt", 0.4), ("tiff_adobe_deflate", 0), ("lzma", 0.05)]
)
def test_what_libtiff_finds_damaged_is_refused(compression: str, most: float) -> None:
    """A flipped bit, in sixty copies: hardly any that looks other than the original is taken for whole."""
    wave = np.add.outer(np.sin(np.arange(200) / 9), np.cos(np.arange(240) / 7))
    file = io.BytesIO()
    image = (wave > 0.1) if compression in ("group4", "tiff_ccitt") else (wave * 60 + 125).astype(np.uint8)
    Image.fromarray(image).save(file, "TIFF", compression=compression)
    whole = file.getvalue()
    expected, drawn, taken = decode(whole), np.random.default_rng(5), 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[drawn.integers(8, len(whole) - 220)] ^= 1 << int(drawn.integers(8))
        try:
            found = decode(bytes(damaged))
        except UnreadableImage:
            continue
        taken += found.shape != expected.shape or np.abs(found.astype(int) - expected).mean() > 1
    assert taken <= most * 60
