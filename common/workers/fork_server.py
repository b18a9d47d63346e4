"""What runs in the other processes of a pool: the fork server, which imports once, and the workers that it forks.

Neither waits for anything but its socket to the main process, which the end of that process closes.
"""

import errno
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

NUMBER = struct.Struct("=i")  # a request to the fork server and its answer
FORK = 0  # a request, with the worker's end of its pipe; any other is a worker's number, whose exit code is wanted
DONE, FAILED, UNLOADABLE = range(3)  # what a worker answers with: a result, its task's error, or that of its import


def serve(descriptor: int, modules: Sequence[str]) -> None:
    """Import `modules`, then fork workers and report their exit codes until the main process is gone.

    Args:
        descriptor: this end of a stream socket; a request is a NUMBER, and so is the answer: the worker's process
            number, less than 0 for an errno, or its exit code.
        modules: what the tasks need. One that can't be imported is reported by the task that needs it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; only main acts on it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    control = socket.socket(fileno=descriptor)
    with suppress(ConnectionError):
        while True:
            message, descriptors, *_ = socket.recv_fds(control, NUMBER.size, 1)
            if not message:
                return
            (request,) = NUMBER.unpack(message)
            answer = _fork(control, descriptors) if request == FORK else _exit_code(request)
            control.sendall(NUMBER.pack(answer))


def _fork(control: socket.socket, descriptors: Sequence[int]) -> int:
    if not descriptors:  # the system drops one that this process has no room for
        return -errno.EMFILE
    try:
        worker = os.fork()
    except OSError as error:
        worker = -(error.errno or errno.EAGAIN)
    if not worker:
        try:
            control.close()
            _work(Connection(descriptors[0]))
        finally:
            os._exit(1)
    os.close(descriptors[0])
    return worker


def _exit_code(worker: int) -> int:
    """The exit code of a worker that is at its end, as multiprocessing has it: less than 0 for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def _work(pipe: Connection) -> NoReturn:
    threading.Thread(target=_end_with_main, args=[pipe.fileno()], daemon=True).start()
    with suppress(EOFError, OSError):
        pipe.send_bytes(pipe.recv_bytes())  # the first request asks only whether it has started
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))
    os._exit(0)


def _answer(request: bytes) -> bytes:
    try:
        run, args, kwargs = pickle.loads(request)  # noqa: S301  # from our own main process
    except BaseException as error:  # it travels back
        return _packed(FAILED if isinstance(error, MemoryError) else UNLOADABLE, error)
    try:
        return _packed(DONE, run(*args, **kwargs))
    except BaseException as error:  # it travels back
        error.add_note("".join(traceback.format_exception(error)))  # else only the main process's would be shown
        return _packed(FAILED, error)


def _packed(kind: int, value: object) -> bytes:
    try:
        return pickle.dumps((kind, value))
    except Exception as error:  # whatever pickling by hand raises
        return pickle.dumps((FAILED, TypeError(f"a {type(value).__name__} can't be sent from a worker: {error}")))


def _end_with_main(descriptor: int) -> None:
    """End this process with the main one, at whatever task it is: it would go on beside the next build."""
    ends = select.poll()
    ends.register(descriptor, 0)  # only its end; what there is to read is the other thread's
    ends.poll()
    os._exit(1)
