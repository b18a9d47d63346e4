"""What is asked of each worker of a cluster before it works: its software, and which files it sees. Runs on the workers."""

import hashlib
import platform
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common import __version__
from common.remote import Location, Remote

_PACKAGES = ("augment", "common", "manifests", "train")  # whose code has to be the same on all workers
_ABSENT = "absent"


def software(packages: Sequence[str]) -> dict[str, str]:
    """Versions, by name, that must be the same on all workers."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "Evenset": f"{__version__}, code {_code()}"}
    return found | {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT


@cache
def _code() -> str:
    """A digest of Evenset's own code, wherever it is installed."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


def software_fault(expected: dict[str, str], memory: int, dask_worker: Any = None) -> str:
    """What a worker has that differs from the main process, its threads, or too little memory.

    Dask fills in `dask_worker` where this is run beside the tasks; within a task it is to be asked for.
    """
    from distributed import get_worker

    worker = dask_worker or get_worker()
    here = software([name for name in expected if name not in ("Python", "Evenset")])
    faults = [f"{name} {here[name]} instead of {wanted}" for name, wanted in expected.items() if here[name] != wanted]
    if worker.state.nthreads != 1:
        faults.append(f"{worker.state.nthreads} threads; start it with --nthreads 1")
    limit = worker.memory_manager.memory_limit
    if limit and limit < memory:
        faults.append(f"{limit / 1e9:.1f} GB of memory; start it with --memory-limit {memory / 1e9:.1f}GB or more")
    return ", ".join(faults)


def file_fault(file: Location, expected: int | str) -> str:
    """Why a file isn't seen as the main process sees it, by its `size`."""
    found = size(file)
    if found == expected:
        return ""
    remedy = (
        "give it access"
        if isinstance(file, Remote)
        else "put it on a file system that all workers see, or into an object store"
    )
    return f"{file}: {found if isinstance(found, str) else 'another file there'}; {remedy}"


def folder_fault(folder: Path, name: str, text: str) -> str:
    """Why a folder, in which a file holds this text, isn't there or can't be written to."""
    try:
        if (folder / name).read_text(encoding="utf-8") != text:
            return f"has another folder at {folder}"
        probe = folder / f".{name}.tmp"
        probe.write_text(text, encoding="utf-8")
        probe.unlink(missing_ok=True)  # another worker may have done it
    except (OSError, ValueError) as error:
        return f"can't write to {folder}: {error}"
    return ""


def identity_fault(file: Path, expected: tuple[int, ...]) -> str:
    """That a file isn't the very one, by its `identity`."""
    return "" if expected and identity(file) == expected else f"{file}: another file there"


def identity(file: Path) -> tuple[int, ...]:
    """What a file has alike on all machines that share its file system, and no copy of it has."""
    with suppress(OSError):
        about = file.stat(follow_symlinks=False)
        return about.st_ino, about.st_size, about.st_mtime_ns
    return ()


def size(file: Location) -> int | str:
    """Bytes of a file, or why it can't be read."""
    try:
        return file.size() if isinstance(file, Remote) else file.stat().st_size
    except OSError as error:
        return f"can't be read: {error.strerror}"
