"""The checksums of a finished run's files: what was cut or changed since isn't taken for what `fit` wrote."""

import hashlib
import json
from pathlib import Path

from common.files import write_atomically

NAME = "checksums.json"


def write(folder: Path) -> None:
    """Write the SHA-256 of each file of a run folder; pictures, and what lies in folders inside, are left out."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".png"]
    found = {path.name: _sha256(path) for path in files if path.name != NAME}
    write_atomically(folder / NAME, json.dumps(found, indent=2) + "\n")


def altered(folder: Path, *names: str) -> list[str]:
    """Those files, of `names` or of all that were there, that are gone or not as they were.

    None of a run without checksums, as older versions made them; all, where the checksums themselves are damaged.
    """
    try:
        kept = json.loads((folder / NAME).read_text(encoding="utf-8"))
        wanted = {str(name): str(sha256) for name, sha256 in kept.items()}
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError, RecursionError):
        return list(names or [NAME])
    return [name for name, sha256 in wanted.items() if name in (names or wanted) and _sha256(folder / name) != sha256]


def _sha256(path: Path) -> str:
    """Of a file; of none, empty."""
    if not path.is_file():  # a pipe would be waited for
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
