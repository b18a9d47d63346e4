"""One build or repair of a set at a time; the second is told who holds the lock."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout


class LockError(ValueError):
    """Another process is at work on the set; the message names it."""


@contextmanager
def held(*places: Path) -> Iterator[None]:
    """Hold the lock of each place (an image folder, a manifest) until the end of the block.

    The operating system lets go of it when the process ends, however it ends. The files stay: taking one away
    would let two processes hold locks of the same name.

    Raises:
        LockError: another process holds one.
    """
    with ExitStack() as locks:
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            holder = place.with_name(f".{place.name}.holder")
            try:
                locks.enter_context(FileLock(place.with_name(f".{place.name}.lock"), timeout=0))
            except Timeout:
                raise LockError(f"{place} is being worked on by {_read(holder)}; wait for it, or stop it") from None
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
            locks.callback(holder.unlink, missing_ok=True)
        yield


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
