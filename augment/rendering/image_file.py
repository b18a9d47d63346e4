"""Writes an image's bytes to its file, in a worker or in the main process."""

import os
import secrets
from pathlib import Path

MARKER = ".evenset.json"  # holds what all of a set's images have in common, in the partial and the finished folder


def write(path: Path, data: bytes) -> None:
    """Write a file beside `path`, then rename it: another name of a file that was there keeps its bytes.

    Raises:
        OSError: it can't be written (the disk is full, say).
    """
    # Two machines that share the folder may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{secrets.randbits(62)}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
