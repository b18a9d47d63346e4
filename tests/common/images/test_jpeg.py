"""JPEG: what libjpeg finds wrong rejects a file, unless the pixels are whole; kinds that can't be decoded say so."""

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.images import jpeg
from common.images.pixels import UnreadableImage, decode, picture

Array = NDArray[np.uint8]


def ramp(width: int = 96, height: int = 80) -> Array:
    """A smooth gray image without symmetry, with some noise so that there is data to damage."""
    x, y = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 180, height))
    noise = np.random.default_rng(0).integers(-6, 7, (height, width))
    return (x + y + 8 + noise).clip(0, 255).astype(np.uint8)


def encode(image: Array | Image.Image, **options: Any) -> bytes:
    """The bytes of a JPEG."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, options.pop("format", "JPEG"), **options)
    return file.getvalue()


def reason(data: bytes) -> str:
    """Why a file is refused: one line."""
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


COLOURS = np.dstack([ramp(), ramp()[::-1], ramp()[:, ::-1]])
KINDS: dict[str, bytes] = {
    "gray": encode(ramp(), quality=95),
    "colour": encode(COLOURS, quality=95),
    "full chroma": encode(COLOURS, quality=95, subsampling=0),
    "progressive": encode(COLOURS, quality=95, progressive=True),
    "progressive gray": encode(ramp(), quality=95, progressive=True),
    "optimized": encode(COLOURS, optimize=True),
    "restarts": encode(COLOURS, quality=95, restart_marker_blocks=4),
    "RGB": encode(COLOURS, quality=95, keep_rgb=True),
    "CMYK": encode(Image.fromarray(COLOURS).convert("CMYK"), quality=95),
    "MPO": encode(COLOURS, format="MPO", quality=95, save_all=True, append_images=[Image.fromarray(COLOURS)]),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def scan(data: bytes) -> int:
    """Where the data of the first scan starts."""
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def alone(data: bytes) -> bytes:
    """The first picture of a file, up to its end marker."""
    return data[: data.index(b"\xff\xd9", scan(data)) + 2]


@EACH_KIND
def test_every_kind_is_what_pillow_has(kind: str) -> None:
    """And without a note."""
    with Image.open(io.BytesIO(KINDS[kind])) as image:
        expected = np.asarray(image.convert("L" if "gray" in kind else "RGB"))
    found = picture(KINDS[kind])
    assert np.array_equal(found.pixels, expected)
    assert found.notes == ()


@EACH_KIND
@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_kind_is_turned_upright(kind: str, orientation: int) -> None:
    """By its EXIF orientation; at full size and at a smaller scale."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    segment = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    data = KINDS[kind][:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + KINDS[kind][2:]
    stored = decode(KINDS[kind])
    flipped = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1]]
    across = np.swapaxes(stored, 0, 1)
    flipped += [across, across[:, ::-1], across[::-1, ::-1], across[::-1]]
    assert np.array_equal(decode(data), flipped[orientation - 1])
    height, width = decode(data, cover=(24, 20)).shape[:2]
    assert 24 <= width < 60
    assert 20 <= height < 60


@EACH_KIND
def test_only_the_end_marker_is_missing(kind: str) -> None:
    """Its pixels are whole and are used, with a note; half an end marker is none."""
    whole = alone(KINDS[kind])
    for cut in (1, 2):
        found = picture(whole[:-cut])
        assert np.array_equal(found.pixels, decode(KINDS[kind]))
        assert found.notes == ("its end marker is missing",)


@EACH_KIND
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "cut and ended"])
def test_missing_data_is_refused(kind: str, end: bytes) -> None:
    """Cut anywhere in the data, with an end marker put behind it or not: no gray, no blur."""
    whole = alone(KINDS[kind])
    for share in (0.02, 0.3, 0.5, 0.7, 0.9, 0.98):
        message = reason(whole[: scan(whole) + int((len(whole) - scan(whole) - 2) * share)] + end)
        assert "runcated" in message or "Corrupt JPEG data" in message or "Premature end" in message


@pytest.mark.parametrize("kind", ["progressive", "progressive gray"])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "cut and ended"])
def test_missing_scans_are_refused(kind: str, end: bytes) -> None:
    """Between two scans libjpeg finds nothing wrong: the picture is only blurred."""
    whole = KINDS[kind]
    starts = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 4
    for start in starts[1:]:
        tables = whole.rfind(b"\xff\xc4", 0, start)  # the scan's Huffman table stands before it
        cut = tables if tables > starts[starts.index(start) - 1] else start
        assert "last scans are missing" in reason(whole[:cut] + end)


def test_a_component_without_a_scan_is_refused() -> None:
    """A sequential JPEG whose colours come in scans of their own, cut behind the first: libjpeg makes it gray."""
    plain = cv2.imencode(".jpg", COLOURS, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    head, body = plain[: plain.index(b"\xff\xda")], plain[plain.index(b"\xff\xda") :]
    gray_scan = b"\xff\xda\0\x08\x01\x01\x00\0\x3f\0" + body[14:]
    assert "last scans are missing" in reason(head + gray_scan)


HARMLESS = {
    "bytes between segments": lambda data: data.replace(b"\xff\xdb", b"\0\0\0\xff\xdb", 1),
    "zeros before the end": lambda data: data[:-2] + bytes(64) + data[-2:],
    "an odd JFIF version": lambda data: data.replace(b"JFIF\0\1\1", b"JFIF\0\x09\x09"),
    "odd parameters of the scan": lambda data: data.replace(b"\0\x3f\0", b"\0\x3e\0"),
}


@pytest.mark.parametrize("harm", HARMLESS)
@pytest.mark.parametrize("kind", ["gray", "colour"])
def test_faults_that_leave_the_pixels_whole_are_noted(kind: str, harm: str) -> None:
    """Libjpeg complains, but what it complains of plays no part in the picture."""
    damaged = HARMLESS[harm](KINDS[kind])
    assert damaged != KINDS[kind]
    found = picture(damaged)
    assert np.array_equal(found.pixels, decode(KINDS[kind]))
    assert len(found.notes) == 1
    assert found.notes[0].startswith(("libjpeg: ", "bytes between its segments"))


@EACH_KIND
def test_what_lies_behind_the_end_is_ignored(kind: str) -> None:
    """A video, a second picture, zeros: without a note."""
    found = picture(alone(KINDS[kind]) + b"\0\xff\xda more" * 9)
    assert np.array_equal(found.pixels, decode(KINDS[kind]))
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["gray", "colour", "progressive", "restarts", "CMYK"])
def test_what_libjpeg_warns_of_is_refused(kind: str) -> None:
    """Zeros, bytes lost and bytes inserted: a picture that libjpeg has a warning on is never taken in silence."""
    whole, rng = KINDS[kind], np.random.default_rng(2)
    start, refused = scan(whole), 0
    for at in rng.integers(start, len(whole) - 80, 30):
        for damaged in (
            whole[:at] + bytes(40) + whole[at + 40 :],
            whole[:at] + whole[at + 9 :],
            whole[:at] + rng.bytes(40) + whole[at:],
        ):
            space = {"gray": "GRAY", "CMYK": "CMYK"}.get(kind, "RGB")
            with suppress(ValueError):
                jpeg.decode_jpeg(damaged, space)
                continue
            refused += 1
            assert reason(damaged)
    assert refused > 20


@pytest.mark.slow
def test_damaged_xrays_are_refused_where_libjpeg_warns(xrays_full: Path) -> None:
    """Of real X-rays with lost bytes most that come out visibly damaged are refused; all whole ones are taken."""
    rng, taken, refused = np.random.default_rng(1), 0, 0
    for path in sorted(xrays_full.glob("train/*/*"))[::12]:
        data = path.read_bytes()
        whole = decode(data, cover=(224, 224))
        for at in rng.integers(scan(data), len(data) - 90, 3):
            try:
                pixels = decode(data[:at] + data[at + 64 :], cover=(224, 224))
            except UnreadableImage:
                refused += 1
            else:
                taken += bool((np.abs(pixels.astype(int) - whole) > 16).sum() > 50)
    assert refused > 3 * taken


def rebuilt(data: bytes, frame: int, precision: int = 8) -> bytes:
    """A JPEG whose frame header says that it is of another process or precision."""
    at = next(at for at in range(len(data)) if data[at : at + 2] == b"\xff\xc0")
    return data[: at + 1] + bytes([frame]) + data[at + 2 : at + 4] + bytes([precision]) + data[at + 5 :]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (rebuilt(KINDS["gray"], 0xC1, 12), "JPEG with 12 bits a sample"),
        (rebuilt(KINDS["gray"], 0xC3, 16), "JPEG with 16 bits a sample"),
        (rebuilt(KINDS["gray"], 0xC5), "hierarchical JPEG"),
        (KINDS["gray"].replace(b"\xff\xc0", b"\xff\xf7"), "JPEG-LS"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "begins as a JPEG but is not an image of a known format"),
    ],
)
def test_kinds_that_are_not_decoded_say_what_they_are(data: bytes, expected: str) -> None:
    """Deep, hierarchical and JPEG-LS, and a head without a body."""
    assert reason(data).startswith(expected)


def test_cmyk_without_adobes_marker_is_noted() -> None:
    """Whether its inks are inverted is anybody's guess; it is taken to be as Adobe's are."""
    data = KINDS["CMYK"]
    at = data.index(b"\xff\xee")
    bare = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    found = picture(bare)
    assert np.array_equal(found.pixels, decode(data))
    assert found.notes == ("CMYK without Adobe's marker, taken to be inverted as Adobe's is",)


def test_a_short_adobe_segment_costs_no_image() -> None:
    """Too short to say anything of the colours: left out, with a note."""
    data = KINDS["L"] if "L" in KINDS else next(iter(KINDS.values()))
    found = picture(data[:2] + b"\xff\xee\x00\x07Adobe" + data[2:])
    assert np.array_equal(found.pixels, decode(data))
