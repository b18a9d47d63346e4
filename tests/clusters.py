"""A Dask cluster started by hand, as docs/cluster.md says: a scheduler and workers, each a process of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.killing import processes_of

Process = subprocess.Popen[bytes]
APART = ("unshare", "--mount", "--propagation", "private")


class DaskCluster:
    """A scheduler, whose address is in `file`, and the workers that were started by `start_worker`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, {**environment, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
        self.file = folder / "scheduler.json"
        self.nannies: list[Process] = []
        self.scheduler = self._started("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        while not is_whole(self.file):
            assert self.scheduler.poll() is None, (folder / "scheduler.log").read_text()
            threading.Event().wait(0.01)

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(json.loads(self.file.read_text())["address"])

    def start_worker(self, *options: str, mount: str = "", **environment: str) -> None:
        """Start one more; its process is replaced when it dies, by the one that is started here.

        `mount` is a shell command that changes what it sees of the file systems, as if it were on another machine.
        """
        name = f"worker-{len(self.nannies)}"
        options = ("--nthreads", "1", "--name", name, "--local-directory", str(self.folder), *options)
        apart = [*APART, "sh", "-c", f'{mount} && exec "$@"', "sh"] if mount else []
        self.nannies.append(
            self._started("worker", "--host", "127.0.0.1", *options, apart=apart, environment=environment)
        )

    def wait(self, count: int) -> None:
        """Wait until there are so many workers."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=180)

    def workers(self) -> list[int]:
        """The processes that tasks run in: those with most memory of each nanny's."""
        return [max(below, key=_memory) for nanny in self.nannies if (below := processes_of(nanny.pid))]

    def kill_workers(self) -> None:
        """Kill all workers, and what replaces them."""
        for process in self.nannies:
            _kill(process)

    def close(self) -> None:
        """Kill all of it."""
        for process in (*self.nannies, self.scheduler):
            _kill(process)

    def _started(self, what: str, *options: str, apart: Sequence[str] = (), **more: dict[str, str]) -> Process:
        command = [
            *apart,
            str(Path(sys.executable).with_name("dask")),
            what,
            "--scheduler-file",
            str(self.file),
            *options,
        ]
        environment = {**self.environment, **more.get("environment", {})}
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment)


def is_whole(file: Path) -> bool:
    """Whether a scheduler has written its file to the end: it doesn't do so at once."""
    try:
        return "address" in json.loads(file.read_text())
    except (OSError, ValueError):
        return False


class Network:
    """What lies between this process and an address (`tcp://HOST:PORT`): nothing gets through while it is not `up`."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("tcp://").split(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.up = threading.Event()
        self.up.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and let go of those that wait."""
        self._server.close()
        self.up.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:
            while data := one.recv(2**16):
                self.up.wait()
                other.sendall(data)


def expect_namespaces() -> None:
    """Skip a test where processes can't have mounts of their own."""
    if not shutil.which("unshare") or subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("file systems that only some processes see take the right to make mount namespaces")


def _kill(process: Process) -> None:
    """Kill a process with all that it has started, before it can start more."""
    process.send_signal(signal.SIGSTOP)
    for number in processes_of(process.pid):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.kill()
    process.wait()


def _memory(number: int) -> int:
    try:
        return int(Path(f"/proc/{number}/statm").read_text().split()[1])
    except OSError:
        return 0


@contextmanager
def dask_cluster(folder: Path, environment: dict[str, str], workers: int) -> Iterator[DaskCluster]:
    """A cluster with so many workers, for as long as the context lasts."""
    folder.mkdir(exist_ok=True)
    cluster = DaskCluster(folder, environment)
    try:
        for _ in range(workers):
            cluster.start_worker()
        if workers:
            cluster.wait(workers)
        yield cluster
    finally:
        cluster.close()
