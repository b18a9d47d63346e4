"""Processes that work beside the main one on this machine: quick to start, replaced if they die, gone when it is.

Each worker has one thread here and one pipe, and shares neither lock nor queue with the others: whenever a process
dies, its pipe ends, and the thread that waits for it knows which task it was at. So every wait has an end.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from multiprocessing import Pipe
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from common.workers.fork_server import DONE, FORK, NUMBER, UNLOADABLE

_TRIES = 2  # of a task: a worker may be killed for nothing that its task did
_STARTS = 5  # of a worker, one after the other, before none is to be had
_PATIENCE = 10  # seconds that killed processes have to end; one that hangs in the kernel is left to itself
_IMPORT_SECONDS = 300  # that the imports may take: without memory, some of them ask for it for ever
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

P = ParamSpec("P")
T = TypeVar("T")


class WorkerDied(BrokenExecutor):  # as BrokenProcessPool
    """The worker died each time that it ran a task.

    `exitcode` is less than 0 for a signal, None if it isn't known; `deaths` says how many workers it were.
    """

    def __init__(self, exitcode: int | None, deaths: int = _TRIES) -> None:
        super().__init__(exitcode, deaths)
        self.exitcode = exitcode
        self.deaths = deaths

    def __str__(self) -> str:
        times = "twice" if self.deaths == 2 else f"{self.deaths} times"
        return f"a worker process died {times} at the same task ({self.cause})"

    @property
    def cause(self) -> str:
        """Why, as far as the exit code says."""
        return _cause(self.exitcode)

    @property
    def is_crash(self) -> bool:
        """Whether the code that ran in the worker is to blame, rather than whoever killed it."""
        return self.exitcode is not None and -self.exitcode in _CRASHES

    @property
    def reason(self) -> str:
        """Why the file is rejected that the task was to read, once it is known that it was this file."""
        if self.is_crash:
            return f"crashes its decoder ({self.cause})"
        return f"each worker that reads it is killed ({self.cause}; out of memory?)"


class WorkerStartError(BrokenExecutor):
    """No worker can be started; the message says why."""


class ProcessPool(Executor):
    """An executor whose workers are forked from a clean process, which has imported the `modules` they work with.

    That one starts at once, and imports while the caller is still reading. What runs must be importable: a function of
    a module, not of `__main__`. A task whose worker dies is run once more by a new one, so it must bear that; after
    the second death its future raises `WorkerDied`. Left by an exception, the pool kills whatever runs: a worker
    may be at a large image, and what it was at is rendered again.
    """

    def __init__(self, workers: int, modules: Sequence[str]) -> None:
        self._modules = modules
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._workers: list[_Worker | None] = [None] * workers
        self._closed = False  # no task is taken any more
        self._over = False  # none is begun any more
        self._replacing = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, args=[at], daemon=True) for at in range(workers)]
        # A signal that came now would leave processes that nobody knows. What is blocked here stays blocked in the
        # threads, and in the processes until they have chosen what to do about it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        try:
            self._fork_server = _ForkServer(modules)
            for thread in self._threads:
                thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `Executor` has it; the arguments are pickled at once. Takes no lock that a signal could leave locked."""
        if self._closed:
            raise RuntimeError("the pool is shut down")
        task = _Task(Future(), pickle.dumps((fn, args, kwargs)))
        self._tasks.put(task)
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002  # Executor's
        """End the workers once what was submitted is done, or with `cancel_futures` what runs already."""
        self._closed = True
        self._over = self._over or cancel_futures
        for _ in self._threads:
            self._tasks.put(None)
        if not wait:
            return
        try:
            for thread in self._threads:
                thread.join()
        finally:
            self._kill()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.shutdown()
        else:
            self._kill()

    def _kill(self) -> None:
        """End all processes, whatever they are at, and wait for the threads, which see to it that none is left."""
        self._closed = self._over = True
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + _PATIENCE
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            for worker in self._workers:
                if worker:
                    worker.kill()
            for thread in self._threads:
                thread.join(0.1)
                if thread.is_alive():  # it waits for one that is still being forked, perhaps after a long import
                    self._fork_server.process.kill()
                    break
        self._fork_server.end()

    def _serve(self, at: int) -> None:
        """Run tasks in worker number `at`, until there is none left."""
        while task := self._tasks.get():
            if self._over:
                task.future.cancel()
            if task.future.set_running_or_notify_cancel():
                try:
                    task.future.set_result(self._run(at, task.request))
                except BaseException as error:  # it is the caller's
                    task.future.set_exception(error)
            del task  # and its result, which may be large
        self._end_worker(at)

    def _run(self, at: int, request: bytes) -> Any:
        exitcode = None
        for _ in range(_TRIES):
            worker = self._worker(at)
            try:
                answer = worker.answer(request)
            except _Gone:
                exitcode = self._end_worker(at)
                continue
            kind, value = pickle.loads(answer)  # noqa: S301  # from our own worker
            if kind == DONE:
                return value
            if kind == UNLOADABLE:
                raise WorkerStartError(f"a worker can't import what it needs: {type(value).__name__}: {value}")
            raise value
        raise WorkerDied(exitcode)

    def _worker(self, at: int) -> "_Worker":
        """Worker number `at`, alive: a new one if there is none, or it died since its last task."""
        worker = self._workers[at]
        if worker and not worker.has_ended():
            return worker
        self._end_worker(at)
        exitcode = None
        for _ in range(_STARTS):
            if self._over:
                raise WorkerDied(None)
            fork_server = self._live_fork_server()
            try:
                worker = self._workers[at] = _Worker(fork_server)
                worker.answer(b"")  # from here on it is the task that it may die of
                return worker
            except _Gone:
                exitcode = self._end_worker(at)
                if fork_server.is_over:
                    exitcode = fork_server.end()
        cause = _cause(exitcode)
        raise WorkerStartError(
            f"the worker processes die as they start ({cause}), importing {', '.join(self._modules)}"
        )

    def _live_fork_server(self) -> "_ForkServer":
        with self._replacing:
            if self._fork_server.is_over and not self._over:
                self._fork_server.end()
                self._fork_server = _ForkServer(self._modules)
            return self._fork_server

    def _end_worker(self, at: int) -> int | None:
        """End worker number `at` if there is one, and give its exit code; None if nobody knows."""
        worker, self._workers[at] = self._workers[at], None
        return worker.end() if worker else None


class _Task(NamedTuple):
    future: Future[Any]
    request: bytes


class _Gone(Exception):  # noqa: N818  # a finding
    """The process at the other end of a socket is gone."""


class _ForkServer:
    """The process that workers are forked from. None but the pool's threads ask it for something, one at a time."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_IMPORT_SECONDS)
        program = f"import sys; sys.path[:] = {sys.path!r}\nfrom common.workers.fork_server import serve\n"
        program += f"serve({theirs.fileno()}, {list(modules)!r})"
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-c", program], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self.is_over = False
        self._asking = threading.Lock()

    def ask(self, request: int, *descriptors: int) -> int:
        """Send a request, perhaps with descriptors, and wait for its answer, or for the end of the process: _Gone."""
        with self._asking:
            try:
                socket.send_fds(self._control, [NUMBER.pack(request)], descriptors)
                answer = self._control.recv(NUMBER.size, socket.MSG_WAITALL)
            except TimeoutError:
                self.is_over = True
                self.process.kill()
                raise WorkerStartError(
                    f"the worker processes have not started within {_IMPORT_SECONDS} s, importing "
                    f"{', '.join(self._modules)}: the machine may be short of memory"
                ) from None
            except OSError:
                answer = b""
            if len(answer) < NUMBER.size:
                self.is_over = True
                raise _Gone
            return int(*NUMBER.unpack(answer))

    def end(self) -> int | None:
        """End the process, which may be at its imports, and give its exit code if that came in time."""
        self.is_over = True
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE)
        self._control.close()
        return self.process.returncode


class _Worker:
    """A worker, just forked, and the pipe to it. Only the thread that made it may do more than to kill it."""

    def __init__(self, fork_server: _ForkServer) -> None:
        self._fork_server = fork_server
        self._pipe, theirs = Pipe()
        with theirs:
            self._number = fork_server.ask(FORK, theirs.fileno())
        if self._number < 0:
            raise WorkerStartError(f"a worker can't be started: {os.strerror(-self._number)}")

    def answer(self, request: bytes) -> bytes:
        """Have a request answered, or wait for the end of the process: _Gone."""
        try:
            self._pipe.send_bytes(request)
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise _Gone from None

    def has_ended(self) -> bool:
        """Whether it died between two requests."""
        return self._pipe.poll()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._number, signal.SIGKILL)

    def end(self) -> int | None:
        """End the worker unless it is dead, and give its exit code; None if the fork server, which knew, is gone."""
        self._pipe.close()  # that alone ends it; without the fork server, its number may be another process's by now
        if not self._fork_server.is_over:
            self.kill()  # the exit code of one that is dying already stays
        with suppress(_Gone, WorkerStartError):
            return self._fork_server.ask(self._number)
        return None


def _cause(exitcode: int | None) -> str:
    if exitcode is None:
        return "killed"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    with suppress(ValueError):
        return signal.Signals(-exitcode).name
    return f"signal {-exitcode}"
