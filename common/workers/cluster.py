"""A Dask cluster's workers as an executor: each is checked before it works, and what they die of is known.

Scheduling, retries and the network are Dask's (https://distributed.dask.org), which is imported nowhere else.
"""

import json
import logging
import os
import pickle
import threading
import time
import traceback
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from common.console import say
from common.errors import UserError, first_of
from common.remote import Location
from common.workers import checks
from common.workers.process_pool import WorkerDied

P = ParamSpec("P")
T = TypeVar("T")

_CONNECT = 20  # seconds to find the scheduler, and then a worker
_PATIENCE = 60  # seconds without any worker, or any word of the scheduler, before the work stops
_HALF_WRITTEN, _RETRY = 20, 0.1  # times that a scheduler's file is read, and seconds between them
_LOOK = 2  # seconds between two looks at the cluster
# Tasks in flight: of each worker one runs, one waits, one is on its way; some more; and at most.
_A_WORKER, _BESIDE, _MOST = 3, 8, 4096
_MEMORY = 500 * 10**6  # bytes that a worker takes to render at least
# What a task comes to: a result, an error of its own, or a worker that may not run it.
_DONE, _FAILED, _UNFIT = range(3)
_LOGGERS = ("distributed", "distributed.client", "distributed.core", "tornado", "tornado.application", "asyncio")


class ClusterError(UserError):
    """The cluster can't be used, or is gone; the message says of which worker, why, and the fix."""


class _Check(NamedTuple):
    """What each worker must pass once, also one that comes later: `run(*args)` gives its fault, or nothing."""

    name: str
    run: Callable[..., str]
    args: tuple[Any, ...]


class Cluster(Executor):
    """Dask's executor, for one thread a worker. What runs must be importable, and must bear to be run twice.

    A task whose workers die raises `WorkerDied`; when the scheduler or all workers are gone, all raise `ClusterError`.

    Args:
        where: the address of the scheduler, or the file that it writes.
        packages: those whose versions have to be this machine's.
        memory: bytes that a worker must be allowed.

    Raises:
        ClusterError: Dask isn't installed, there is no scheduler, no worker, or one that can't work.
    """

    def __init__(self, where: str, packages: Sequence[str] = (), memory: int = _MEMORY) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ClusterError("--cluster needs packages: python -m pip install -r requirements-cluster.txt") from None
        for name in _LOGGERS:  # a lost connection is one line, and ours
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        address = _address(where)
        try:
            with warnings.catch_warnings(action="ignore"):  # of versions, which are checked here
                self._client = Client(address, timeout=_CONNECT, set_as_default=False, name="evenset")
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"--cluster {where}: no scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler`"
            ) from None
        self._executor = self._client.get_executor(pure=False)  # pure: a repeated task would be answered from memory
        self._checks: tuple[_Check, ...] = ()
        self._futures: set[Future[Any]] = set()
        self._shared: dict[str, Any] = {}  # Dask's futures of what all workers have
        self._closed = threading.Event()
        self.size = 0  # workers
        try:
            self._expect_workers(where)
            self.require(checks.software_fault, checks.software(packages), memory)
        except BaseException:
            self._client.close()
            raise
        say(
            f"Cluster: {self.size} worker{'s' if self.size != 1 else ''} at {address}; dashboard: {self._client.dashboard_link}"
        )
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def window(self) -> int:
        """How many tasks to have in flight."""
        return min(_MOST, _A_WORKER * self.size + _BESIDE)

    def require(self, check: Callable[..., str], *args: Any) -> None:
        """Have each worker checked, now and whenever one joins.

        Args:
            check: a function of a module, which gives the fault of the worker that it runs on, or nothing.
            args: its arguments.

        Raises:
            ClusterError: a worker has a fault; the message names it.
        """
        if faults := self.faults(check, *args):
            named = first_of([f"worker {name}: {fault}" for name, fault in sorted(faults.items())], 4)
            raise ClusterError(f"{len(faults)} of {self.size} workers can't take part: {named}")
        self._ask_newcomers(check, *args)

    def expect_file(self, file: Location) -> None:
        """Require that the workers see a file as this machine does.

        Raises:
            ClusterError: one doesn't.
        """
        self.require(checks.file_fault, file, checks.size(file))

    def sees(self, file: Path) -> bool:
        """Whether all workers see this very file, and no other of the same name; then those that come later must, too."""
        if self.faults(checks.identity_fault, file, checks.identity(file)):
            return False
        self._ask_newcomers(checks.identity_fault, file, checks.identity(file))
        return True

    def can_write(self, folder: Path, name: str) -> bool:
        """Whether all workers see a folder and can write to it; what is wrong otherwise is said.

        Args:
            folder: it holds a text file of that name.
            name: of the file; `.NAME.tmp` beside it is written and deleted.
        """
        text = (folder / name).read_text(encoding="utf-8")
        if faults := self.faults(checks.folder_fault, folder, name, text):
            worker, fault = min(faults.items())
            say(f"Images come back to this process to be written, since worker {worker} {fault}")
            return False
        self._ask_newcomers(checks.folder_fault, folder, name, text)
        return True

    def _ask_newcomers(self, check: Callable[..., str], *args: Any) -> None:
        """Have a check that all workers have passed made by those that join, too."""
        self._checks += (_Check(uuid.uuid4().hex, check, args),)

    def faults(self, check: Callable[..., str], *args: Any) -> dict[str, str]:
        """What `check(*args)` gives on the workers, by their names, where it isn't empty."""
        return {name: fault for name, fault in self.answers(check, *args).items() if fault}

    def answers(self, ask: Callable[..., str], *args: Any) -> dict[str, str]:
        """What `ask(*args)` gives on each worker, or the words of its error, by the worker's name.

        One that is gone meanwhile gives nothing: what takes its place is checked before its first task.
        """
        try:
            names = {address: str(about["name"]) for address, about in self._client.scheduler_info()["workers"].items()}
            answers = self._client.run(ask, *args, on_error="return")
        except (OSError, ImportError) as error:
            raise ClusterError(_gone(f"it doesn't answer ({error})")) from None
        self.size = len(names)
        there = {address: answer for address, answer in answers.items() if not isinstance(answer, OSError)}
        return {names.get(address, address): _words(answer) for address, answer in there.items()}

    @contextmanager
    def sharing(self, name: str, data: bytes) -> Iterator[None]:
        """Send data to each worker once; tasks that are submitted meanwhile find it by `shared(name)`."""
        self._shared[name] = self._client.scatter(data, broadcast=True)
        try:
            yield
        finally:
            del self._shared[name]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `Executor` has it."""
        future: Future[T] = Future()
        try:
            inner = self._executor.submit(_run, self._checks, self._shared, fn, args, kwargs)
        except Exception as error:  # whatever a client raises that has lost its scheduler
            raise ClusterError(_gone(f"no task can be handed over ({type(error).__name__})")) from None
        self._futures.add(future)
        # Weakly: else each would keep the other, and its result.
        future.add_done_callback(partial(_pass_on, weakref.ref(inner)))
        inner.add_done_callback(partial(self._finish, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002  # Executor's
        """Leave the cluster as it is, without what was submitted and isn't done."""
        self._closed.set()
        with suppress(Exception):  # it may be gone
            self._client.close(timeout=_LOOK)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _expect_workers(self, where: str) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_CONNECT)
        except TimeoutError:
            raise ClusterError(
                f"--cluster {where}: the scheduler has no workers; start some with `dask worker {_address(where)} --nthreads 1`"
            ) from None

    def _finish(self, future: Future[Any], inner: Future[Any]) -> None:
        """Hand over what a task came to. Runs in Dask's thread."""
        if not self._claim(future):
            return
        if inner.cancelled():
            future.set_exception(ClusterError(_gone("the connection to the scheduler is lost")))
        elif error := inner.exception():
            future.set_exception(_explained(error))
        else:
            worker, kind, value = inner.result()
            if kind == _DONE:
                future.set_result(value)
            elif kind == _FAILED:
                future.set_exception(value)
            else:
                future.set_exception(ClusterError(_gone(f"worker {worker} joined and can't take part: {value}")))

    def _watch(self) -> None:
        """Follow the cluster's size, and give up what waits for a worker or a scheduler that doesn't come back."""
        silent = 0
        while not self._closed.wait(_LOOK):
            fault = "no worker is left"
            try:
                self.size = len(self._client.nthreads(callback_timeout=_LOOK))
            except Exception:  # whatever a lost connection raises
                fault = "the scheduler doesn't answer"
                self.size = 0
            silent = 0 if self.size else silent + _LOOK
            if silent >= _PATIENCE:
                for future in list(self._futures):
                    if self._claim(future):
                        future.set_exception(ClusterError(_gone(fault)))

    def _claim(self, future: Future[Any]) -> bool:
        """Whether a future is still to be set, which two threads may want to do."""
        try:
            self._futures.remove(future)
        except KeyError:
            return False
        return future.set_running_or_notify_cancel()


def here() -> str:
    """The name of the worker that this runs on; empty outside of a cluster."""
    return _worker_name


def shared(name: str) -> bytes:
    """What `Cluster.sharing` sent to this worker by that name."""
    return _data[name]


_worker_name = ""
_data: dict[str, bytes] = {}
_passed: set[str] = set()  # checks, by name, that this process has passed


def _run(
    required: Sequence[_Check], data: dict[str, bytes], fn: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[str, int, Any]:
    """Run a task on a worker that passes the checks, with the data that all have."""
    global _worker_name, _data  # a process is one worker
    from distributed import get_worker

    _worker_name, _data = str(get_worker().name), data
    for check in required:
        if check.name not in _passed:
            if fault := check.run(*check.args):
                return _worker_name, _UNFIT, fault
            _passed.add(check.name)
    try:
        return _worker_name, _DONE, fn(*args, **kwargs)
    except BaseException as error:  # it travels back
        error.add_note(f"on worker {_worker_name}:\n" + "".join(traceback.format_exception(error)))
        try:
            pickle.dumps(error)
        except Exception as unsent:  # whatever pickling by hand raises
            return _worker_name, _FAILED, TypeError(f"a {type(error).__name__} can't be sent from a worker: {unsent}")
        return _worker_name, _FAILED, error


def _pass_on(inner: "weakref.ref[Future[Any]]", future: Future[Any]) -> None:
    """Cancel what Dask has of a future that is cancelled."""
    if future.cancelled() and (task := inner()):
        task.cancel()


def _explained(error: BaseException) -> BaseException:
    """An error that Dask has of a task, which is none of the task's own."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerDied(None, int(error.allowed_failures) + 1)
    return ClusterError(_gone(f"a task can't be run ({type(error).__name__}: {error})"))


def _gone(fault: str) -> str:
    return f"the cluster: {fault}; what is finished is kept: run the same command again to go on"


def _address(where: str) -> str:
    """The scheduler's address, as given or out of the file that it writes."""
    if "://" in where or not os.path.lexists(where):
        if ":" not in where:
            raise ClusterError(
                f"--cluster {where}: neither an address, such as tcp://host:8786, nor a scheduler's file"
            )
        return where
    for _ in range(_HALF_WRITTEN):
        try:
            return str(json.loads(Path(where).read_text(encoding="utf-8"))["address"])
        except json.JSONDecodeError:  # the scheduler is just starting: it doesn't write the file at once
            time.sleep(_RETRY)
        except (OSError, ValueError, KeyError, TypeError):
            break
    raise ClusterError(f"--cluster {where}: not a file of `dask scheduler --scheduler-file`")


def _words(answer: object) -> str:
    """A worker's fault; an error instead of one is most often that it can't import this very module."""
    if "ModuleNotFoundError" in repr(answer):
        return f"{answer}; install Evenset there, or start the worker with Evenset's folder in PYTHONPATH"
    return answer if isinstance(answer, str) else repr(answer)
