"""Reading an image file: its header first, and no more bytes than its pixels can need."""

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from common.images.pixels import UnreadableImage, decode, read_image

GRAY = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)


def encode(format_: str) -> bytes:
    """A small image file."""
    file = io.BytesIO()
    Image.fromarray(GRAY.astype(np.uint8)).save(file, format_)
    return file.getvalue()


def huge(path: Path, head: bytes, size: int = 6 * 10**9) -> Path:
    """A file of 6 GB that takes no room on disk."""
    path.write_bytes(head)
    os.truncate(path, size)
    return path


def refused(path: Path, **options: int) -> str:
    """Why a file isn't read, in a few megabytes."""
    tracemalloc.start()
    with pytest.raises(UnreadableImage) as caught:
        read_image(path, **options)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_an_image_is_read_whole(tmp_path: Path, format_: str) -> None:
    """All its bytes, once its first ones are those of a known format."""
    (tmp_path / "x").write_bytes(encode(format_))
    assert read_image(tmp_path / "x") == encode(format_)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"", b"\0" * 99, b"# notes"])
def test_a_large_file_that_is_no_image_is_not_read(tmp_path: Path, head: bytes) -> None:
    """A backup.zip of 6 GB among the images."""
    assert refused(huge(tmp_path / "backup.zip", head)).startswith("not an image of a known format")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    """As decoding tells it."""
    (tmp_path / "x").touch()
    assert refused(tmp_path / "x") == "empty file (0 bytes)"


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_more_bytes_than_the_pixels_can_need_are_not_read(tmp_path: Path, format_: str) -> None:
    """A small image with 6 GB behind it: the reason names both."""
    message = refused(huge(tmp_path / "x", encode(format_), 10**10))
    side = "16383 x 16383" if format_ == "WEBP" else "64 x 48"  # WebP's header is not read without the rest
    assert message.startswith(f"10,000,000,000 bytes, more than {side} pixels can need")


def test_too_many_pixels_are_seen_in_the_header(tmp_path: Path) -> None:
    """A TIFF of 3 GB is refused by what it declares."""
    file = tmp_path / "x.tiff"
    with tifffile.TiffWriter(file, bigtiff=True) as writer:
        writer.write(None, shape=(40_000, 40_000), dtype=np.uint16, photometric="minisblack")
    if file.stat().st_size < 2**31:
        os.truncate(file, 40_000 * 80_000 + 10_000)
    assert refused(file) == "declares 40000 x 40000 pixels, more than the limit of 178,956,970"


def test_a_header_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    """A large file that only begins as an image does."""
    for head in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\x0f", b"GIF89a"):
        message = refused(huge(tmp_path / "x", head))
        assert "damaged" in message or "not an image" in message or "bytes, more than" in message


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """What is wrong with the file system is not the image's fault."""
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none")


def test_a_deep_image_is_scaled_without_copies() -> None:
    """16 bits of 4 megapixels: NumPy holds the samples and the levels, and no copy of eight bytes a sample."""
    file = io.BytesIO()
    Image.fromarray(np.tile(GRAY, (40, 32)) * 21).save(file, "PNG")
    data = file.getvalue()
    tracemalloc.start()
    pixels = decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (1920, 2048)
    assert peak < 8 * pixels.size
