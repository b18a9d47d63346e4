"""Processes that work beside the main one on this machine: quick to start, and gone when it is."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import InvalidStateError, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, forkserver, parent_process, resource_tracker

_NO_WARNING = "ignore:resource_tracker"  # as after -W, which the tracker is started with
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def pool(workers: int, modules: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    """An executor whose processes are forked from a clean one, which has imported the `modules` they work with.

    That one starts at once, and imports while the caller is still reading. Interrupted, the pool kills whatever
    runs: a worker may be at a large image, and what it was at is rendered again.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(list(modules))
        # Ctrl-C reaches every process of the terminal, but only the main one is to act on it. What is blocked here
        # stays blocked in that process and in the workers; the tracker's start, which would lift it, comes before.
        # After a kill it removes the semaphores that are left; its warning of them would be taken for a fault.
        sys.warnoptions.append(_NO_WARNING)
        resource_tracker.ensure_running()
        sys.warnoptions.remove(_NO_WARNING)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        atexit.register(_kill_server)  # with nothing to render it is still at its imports, and holds our output open
    threading.excepthook = _tell_thread_error
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as executor:
        processes = _Workers(executor)
        try:
            yield executor
        except KeyboardInterrupt:
            manager = executor._executor_manager_thread  # noqa: SLF001
            executor.shutdown(wait=False, cancel_futures=True)
            processes.kill()
            _kill_server()
            if manager:  # it and the interpreter's end may trip over each other
                manager.join()  # type: ignore[attr-defined]  # typeshed takes it for another attribute
            raise
        finally:
            processes.over.set()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put a signal off while an executor holds locks, which an exception in their midst could leave locked for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for first in came[:1]:
        signal.raise_signal(first)


class _Workers:
    """The processes of an executor, watched until it is `over`.

    The executor itself holds the writing end of the pipe that results come through: after half a result of a worker
    that was killed it would read for good, and never come to see that its writer is dead. It reads to an end once
    nobody holds that end any more. There is no public way to it, nor to the processes.
    """

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._processes = executor._processes  # noqa: SLF001
        self._results = executor._result_queue  # noqa: SLF001
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def kill(self) -> None:
        """End them all, whatever they are at."""
        for worker in tuple(self._processes.values()):
            worker.kill()
        self._results._writer.close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _watch(self) -> None:
        """None ends by itself before the pool is over: if one has, the others wait for a pipe that it may still lock."""
        while not self.over.wait(1):
            if connection.wait([worker.sentinel for worker in tuple(self._processes.values())], timeout=0):
                self.kill()
                break


def _tell_thread_error(error: threading.ExceptHookArgs) -> None:
    """If workers are killed, the executor's own thread may trip over a task that was cancelled: nobody's concern."""
    if not isinstance(error.exc_value, InvalidStateError):
        threading.__excepthook__(error)


def _kill_server() -> None:
    """End the process that workers are forked from, which may be at its imports. There is no public way to it."""
    if pid := forkserver._forkserver._forkserver_pid:  # type: ignore[attr-defined]  # noqa: SLF001
        os.kill(pid, signal.SIGKILL)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    """Killed outright, the main process can't stop its workers, and they would go on beside the next build."""
    if main_process := parent_process():
        main_process.join()
        os._exit(1)
