"""The first bytes of a file: each format by its signature, and the junk that lies beside images."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.images.formats import FORMATS, HEAD, format_of


def encode(format_: str, **options: object) -> bytes:
    """A small image file."""
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, format_, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        *((encode(name), name) for name in FORMATS if name != "DICOM"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"II*\0" + bytes(124) + b"DICM", "DICOM"),  # a TIFF's beginning before it
        (encode("TIFF", big_tiff=True), "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
        (encode("WEBP", lossless=True), "WEBP"),
        (encode("MPO", save_all=True, append_images=[Image.new("L", (8, 8))]), "JPEG"),
    ],
)
def test_an_image_is_named_by_its_first_bytes(data: bytes, expected: str) -> None:
    """Every format that is decoded, with its variants; HEAD bytes are enough."""
    assert format_of(data[:HEAD]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * HEAD,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(24),  # Thumbs.db, an OLE file
        b"[.ShellClassInfo]\r\nIconResource=x",  # desktop.ini
        b"# The images of ward 3\n",
        b"BMI and age of the patients\n" * 2,
        b"BM",
        b"GIF files are in the folder below",
        b"II. Methods",
        b"MM/DD/YYYY",
        b"RIFF\x24\x08\0\0WAVEfmt ",
        b"PK\x03\x04" + bytes(28),
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"P5 8 8 255\n" + bytes(21),
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        bytes(127) + b"DICM",
        b"\x89PNG\n\x1a\n",  # a PNG whose line ends were converted in transit
        b"\xff\xd8",
    ],
)
def test_what_lies_beside_images_is_no_image(data: bytes) -> None:
    """Junk, text that begins as a format's name does, archives, and formats that are never decoded."""
    assert format_of(data[:HEAD]) is None


@given(st.binary(max_size=HEAD))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    """No first bytes raise, however few."""
    assert format_of(head) in (*FORMATS, None)


def test_no_decoder_is_imported() -> None:
    """A scan of a million files needs neither Pillow nor OpenCV."""
    code = "import sys, common.images.formats; sys.exit('PIL' in sys.modules or 'cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
