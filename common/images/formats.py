"""The first bytes of a file -> the image format they begin, if it is one that is decoded.

Light on purpose: a scan asks this of every file, so no decoder is imported here.
"""

FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "TIFF",
    "WEBP",
    "GIF",
    "DICOM",
)  # MPO (a phone's JPEG with a preview) is a JPEG by its bytes
# Of files' names, which say nothing of what is in them, but may be left out in lists.
ENDINGS = (
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "png",
    "bmp",
    "dib",
    "tif",
    "tiff",
    "webp",
    "gif",
    "dcm",
    "dicom",
    "dic",
    "ima",
)
HEAD = 132  # bytes that `format_of` needs at most

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
)
_BMP_HEADERS = (
    12,
    16,
    40,
    52,
    56,
    64,
    108,
    124,
)  # bytes in the second header, which distinguish a BMP from a text "BM..."


class UnreadableImage(ValueError):  # noqa: N818  # a finding about a file more often than an error
    """The bytes are no image that can be used; the message says why."""


def format_of(head: bytes) -> str | None:
    """Name the image format that a file's first bytes begin.

    Args:
        head: the first `HEAD` bytes, or all of a shorter file.

    Returns:
        One of `FORMATS`, or None. A format that is named may still fail to decode.
    """
    if head[128:132] == b"DICM":  # whose first 128 bytes may be those of any other, a TIFF's mostly
        return "DICOM"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


def require_format(head: bytes) -> str:
    """Name the image format that a file's first bytes begin.

    Raises:
        UnreadableImage: they begin none that is decoded, or the file is empty.
    """
    if not head:
        raise UnreadableImage("empty file (0 bytes)")
    name = format_of(head)
    if name is None:
        raise UnreadableImage(f"not an image of a known format ({', '.join(FORMATS)})")
    return name
