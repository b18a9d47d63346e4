"""Files in an object store or behind a web server, by fsspec: each read whole, tried again, and never waited for without end.

Credentials come from where the store's own library looks for them (environment, profile, instance), never from an address,
so that none gets into a card, a message or a task.
"""

import errno
import posixpath
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from common.errors import UserError

_TRIES = 5
_WAIT = 0.5  # seconds before the second try, twice as long before each further one
_CONNECT, _READ = 10, 60  # seconds
_S3 = {
    "config_kwargs": {
        "connect_timeout": _CONNECT,
        "read_timeout": _READ,
        "retries": {"total_max_attempts": 1, "mode": "standard"},  # the tries are ours
        # Checksums that boto adds since 1.36 are refused by other makers' stores.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    },
    "use_listings_cache": False,
}
_FAULTS = {  # of botocore and aiohttp, by name: neither has to be installed
    "NoCredentialsError": "no credentials were found",
    "PartialCredentialsError": "credentials are incomplete",
    "EndpointConnectionError": "the server can't be reached",
    "ClientConnectorError": "the server can't be reached",
    "ConnectTimeoutError": "the server doesn't answer",
    "ReadTimeoutError": "the server doesn't answer",
}
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
Result = TypeVar("Result")


class RemoteError(UserError):
    """An address can't be used; the message names it and the fix."""


class Remote(NamedTuple):
    """A file or folder by its address, as s3://bucket/folder/name. Cheap to make and to hand to a worker."""

    address: str

    def __str__(self) -> str:
        """The address, which holds no credentials."""
        return self.address

    def __truediv__(self, name: str) -> "Remote":
        """What lies in this folder."""
        return Remote(f"{self.address.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self.address.rstrip("/"))

    @property
    def parent(self) -> "Remote":
        """The folder."""
        return Remote(posixpath.dirname(self.address.rstrip("/")))

    def read(self) -> bytes:
        """All bytes.

        Raises:
            OSError: it is gone, refused, or can't be read after several tries.
        """
        return _tried(lambda: bytes(_system(self.address).cat_file(self.address)), self.address)

    def size(self) -> int:
        """How many bytes there are.

        Raises:
            OSError: as `read`.
        """
        return _tried(lambda: int(_system(self.address).info(self.address)["size"] or 0), self.address)

    def files(self) -> list[str]:
        """The names of all files below this folder, sorted.

        Raises:
            OSError: as `read`.
        """
        start = self.address.partition("://")[2].rstrip("/") + "/"
        found = _tried(lambda: list(_system(self.address).find(self.address)), self.address)
        return sorted(path.removeprefix(start) for path in found if not path.endswith("/"))

    @property
    def can_list(self) -> bool:
        """Whether what lies below can be listed: a web server doesn't say."""
        return not self.address.startswith(("http://", "https://"))


Location = Path | Remote


def name_in(folder: Location, file: Location) -> str:
    """Where a file lies in a folder, POSIX."""
    if isinstance(folder, Remote) or isinstance(file, Remote):
        return str(file).removeprefix(f"{folder}".rstrip("/") + "/")
    return file.relative_to(folder).as_posix()


def at(place: str | PathLike[str] | Remote, *, absolute: bool = False) -> Location:
    """What a user's words name: an address with a scheme, or a path, which is made absolute if need be.

    Raises:
        RemoteError: an address that holds credentials, or whose store needs a package that isn't installed.
    """
    if isinstance(place, Remote) or "://" not in str(place):
        return place if isinstance(place, Remote) else Path(place).absolute() if absolute else Path(place)
    scheme, _, rest = str(place).partition("://")
    text = f"{scheme.lower()}://{rest}"
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Path(parts.path)
    if "@" in parts.netloc or parts.query:
        raise RemoteError(
            f"{parts.scheme}://...: an address must not hold credentials or a query, which would get into the card; give them "
            "by the environment"
        )
    try:
        _system(text)
    except (ImportError, ValueError) as error:  # fsspec's own words name the package, or say that it knows none
        raise RemoteError(
            f"{text}: needs packages: python -m pip install -r requirements-remote.txt (s3, https); {error}"
        ) from None
    return Remote(text.rstrip("/"))


def _system(address: str) -> Any:
    """Fsspec's file system for an address; fsspec keeps one for each process and scheme."""
    import fsspec

    scheme = address.partition("://")[0]
    if scheme in ("s3", "s3a"):
        system = fsspec.filesystem(scheme, **_S3)
        system.retries = 1  # as above
        return system
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(connect=_CONNECT, sock_read=_READ)
        return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout})
    return fsspec.filesystem(scheme)


def _tried(call: Callable[[], Result], address: str) -> Result:
    """What a call gives, tried again with longer and longer waits; its fault as an OSError in our own words."""
    for number in range(_TRIES):
        if number:
            time.sleep(_WAIT * 2 ** (number - 1))
        try:
            return call()
        except _FINAL as error:
            words = {FileNotFoundError: "No such file", PermissionError: "Permission denied"}
            raise type(error)(error.errno or errno.ENOENT, words.get(type(error), "Not a file"), address) from None
        except MemoryError:
            raise
        except Exception as error:  # of a store's library, a connection, an answer cut off
            fault = (
                error.strerror if isinstance(error, OSError) and error.strerror else _FAULTS.get(type(error).__name__)
            )
            fault = fault or type(error).__name__
    raise OSError(errno.EIO, f"{fault}, in {_TRIES} tries", address)
