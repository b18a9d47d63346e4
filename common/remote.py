"""Files in an object store or behind a web server, by fsspec: each read tried again, and never waited for without end.

Credentials come from where the store's own library looks for them (environment, profile, instance), never from an address,
so that none gets into a card, a message or a task.
"""

import errno
import posixpath
import re
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from common.errors import UserError

_TRIES = 5
_WAIT = 0.5  # seconds before the second try, twice as long before each further one
_CONNECT, _READ = 10, 60  # seconds
_BLOCK = 2**22  # bytes that are asked for at a time of a file that isn't read whole
_WEB, _AMAZON = ("http", "https"), ("s3", "s3a")
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
_STATUS = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}
_WORDS = {FileNotFoundError: (errno.ENOENT, "No such file"), PermissionError: (errno.EACCES, "Permission denied")}
Result = TypeVar("Result")


class RemoteError(UserError):
    """An address can't be used; the message names it and the fix."""


class Remote(NamedTuple):
    """A file or folder by its address, as s3://bucket/folder/name. Cheap to make and to hand to a worker.

    A web server's address is a URL: what `/` adds is quoted, so that `#` or `?` in a name never start anything else.
    """

    address: str

    def __str__(self) -> str:
        """The address, which holds no credentials."""
        return self.address

    def __truediv__(self, name: str) -> "Remote":
        """What lies in this folder."""
        return Remote(f"{self.address.rstrip('/')}/{name if self.can_list else quote(name)}")

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
        return _tried(lambda system, path: bytes(system.cat_file(path)), self.address)

    def use(self, action: Callable[[IO[bytes]], Result]) -> Result:
        """What `action` makes of the opened file, from its first byte again at each try.

        Raises:
            OSError: as `read`.
        """

        def opened(system: Any, path: str) -> Result:
            # A web server is asked once and its answer read as it comes. Without a size, fsspec would ask for that first.
            options = {"block_size": _BLOCK} if self.can_list else {"block_size": 0, "size": 1}
            with system.open(path, "rb", **options) as file:
                return action(file)

        return _tried(opened, self.address)

    def size(self) -> int:
        """How many bytes there are; 0 where a web server doesn't say.

        Raises:
            OSError: as `read`.
        """
        return _tried(lambda system, path: int(system.info(path)["size"] or 0), self.address)

    def files(self) -> list[str]:
        """The names of all files below this folder, sorted.

        Raises:
            OSError: as `read`.
        """
        return _tried(_names_below, self.address)

    @property
    def can_list(self) -> bool:
        """Whether what lies below can be listed: a web server doesn't say."""
        return self.address.partition("://")[0] not in _WEB


Location = Path | Remote


def name_in(folder: Location, file: Location) -> str:
    """Where a file lies in a folder, POSIX."""
    if isinstance(folder, Remote) or isinstance(file, Remote):
        name = str(file).removeprefix(f"{folder}".rstrip("/") + "/")
        return unquote(name) if isinstance(file, Remote) and not file.can_list else name
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
    parts = _expect_public(text)
    if parts.scheme == "file":
        return Path(parts.path)
    if parts.scheme in _WEB:  # as a browser takes it: what is quoted stays so, the rest is quoted
        path = quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", parts.path), safe="/%:@!$&'()*+,;=~")
        text = f"{parts.scheme}://{parts.netloc}{path}"
    try:
        _system(text)
    except (ImportError, ValueError) as error:  # fsspec's own words name the package, or say that it knows none
        raise RemoteError(
            f"{text}: needs packages: python -m pip install -r requirements-remote.txt (s3, https); {error}"
        ) from None
    except Exception as error:  # whatever a store's library raises of an address that isn't one of its own
        raise RemoteError(f"{text}: can't be used: {' '.join(str(error).split())}; check the address") from None
    return Remote(text.rstrip("/"))


def _expect_public(text: str) -> SplitResult:
    """The parts of an address, which must have no place for credentials: if it has one, only its scheme is repeated.

    A user without a password is the container in Azure's addresses, and refused where it could be a token.
    """
    scheme = text.partition("://")[0]
    parts = _split(text)
    with_user = [host for host in re.findall("://([^/]*)", text) if "@" in host]
    has_user = any(":" in host or scheme in (*_AMAZON, *_WEB) for host in with_user)
    is_chain = "::" in re.sub(r"\[[0-9A-Fa-f:.]*\]", "", text)  # but for an IPv6 host
    if parts is None or has_user or is_chain or parts.query or parts.fragment:
        shown = scheme if re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) else "..."
        raise RemoteError(
            f"{shown}://...: an address must not hold credentials or a query, a fragment or another address, which would get "
            "into the card; give credentials by the environment"
        )
    return parts


def _split(text: str) -> SplitResult | None:
    """The parts of an address; None if it has none, or a port that isn't one: half of a password with a slash in it."""
    try:
        parts = urlsplit(text)
        return parts if parts.netloc.startswith("arn:") or parts.port != 0 else None
    except ValueError:
        return None


def _system(address: str) -> tuple[Any, str]:
    """Fsspec's file system for an address, and the path that it goes by there; fsspec keeps one for each process and scheme."""
    import fsspec

    scheme = address.partition("://")[0]
    if scheme in _AMAZON:
        system = fsspec.filesystem(scheme, **_S3)
        system.retries = 1  # as above
        return system, address.partition("://")[2]
    if scheme in _WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(connect=_CONNECT, sock_read=_READ)
        return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout}, encoded=True), address
    kind = fsspec.get_filesystem_class(scheme)
    # As fsspec.core.url_to_fs does it, which would take `::` in a name for a chain of addresses.
    system = fsspec.filesystem(scheme, **kind._get_kwargs_from_urls(address))  # noqa: SLF001  # the host, say
    return system, kind._strip_protocol(address)  # noqa: SLF001


def _names_below(system: Any, path: str) -> list[str]:
    start = f"{path.strip('/')}/".lstrip("/")  # some systems' paths begin with a slash
    found = [name.lstrip("/") for name in system.find(path)]
    return sorted(name.removeprefix(start) for name in found if not name.endswith("/"))


def _tried(call: Callable[[Any, str], Result], address: str) -> Result:
    """What a call with a file system and a path gives, tried again with longer and longer waits; its fault in our words."""
    for number in range(_TRIES):
        if number:
            time.sleep(_WAIT * 2 ** (number - 1))
        try:
            return call(*_system(address))
        except MemoryError:
            raise
        except Exception as error:  # of a store's library, a connection, an answer cut off
            cause = _cause(error, address)
            if kind := _final(cause):
                code, words = _WORDS.get(kind, (errno.EINVAL, "Not a file"))
                raise kind(code, words, address) from None
            fault = _fault(cause)
    raise OSError(errno.EIO, f"{fault}, in {_TRIES} tries", address)


def _cause(error: Exception, address: str) -> BaseException:
    """The real fault: of a web server, fsspec may call any a file that isn't there, with what happened as the cause."""
    is_web = address.partition("://")[0] in _WEB
    return error.__cause__ or error if is_web and isinstance(error, FileNotFoundError) else error


def _final(error: BaseException) -> type[OSError] | None:
    """What is wrong with the file itself, however often it is read; None if it is the server, or the way there."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return _STATUS.get(status)
    return next((kind for kind in _FINAL if isinstance(error, kind)), None)


def _fault(error: BaseException) -> str:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"HTTP {status}"
    said = error.strerror if isinstance(error, OSError) else None
    return _FAULTS.get(type(error).__name__) or said or type(error).__name__
