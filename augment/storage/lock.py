"""One build or repair of a set at a time; the error of a second one names who holds the lock."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import UserError


class LockError(UserError):
    """Another process is at work on the set, and is named, or it can't be locked at all."""


@contextmanager
def held(*places: Path) -> Iterator[None]:
    """Hold the lock of each place (an image folder, a manifest) until the end of the block.

    The operating system lets go of it when the process ends, however it ends. The files stay: taking one away
    would let two processes hold locks of the same name.

    Raises:
        LockError: another process holds one, or one can't be had here.
    """
    with ExitStack() as locks:
        for place in places:
            holder = place.with_name(f".{place.name}.holder")
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(place.with_name(f".{place.name}.lock"), timeout=0))
                since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
                locks.callback(holder.unlink, missing_ok=True)
                holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
            except Timeout:
                raise LockError(f"{place} is being worked on by {_read(holder)}; wait for it, or stop it") from None
            except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
                fault = getattr(error, "strerror", None) or error
                raise LockError(
                    f"{place} can't be locked: {fault}; mend that, then run the same command again"
                ) from None
        yield


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"
