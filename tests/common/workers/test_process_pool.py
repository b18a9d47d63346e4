"""The process pool: workers, and the process that they are forked from, that end by force at any moment."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from common.workers.process_pool import ProcessPool, WorkerDied, WorkerStartError

# What the workers of these tests run. `deaths` is a file that records them, so that a task may survive the second time.
TASKS = '''
import os, signal, sys, time
from pathlib import Path

def die(number, deaths=None, survive=10**9):
    """Die by a signal; once so many deaths are on record, give the number of this process."""
    if deaths is not None:
        with open(deaths, "a") as file:
            file.write("x")
        if os.path.getsize(deaths) > survive:
            return os.getpid()
    os.kill(os.getpid(), number)

def die_in_the_midst_of_the_answer():
    """Send half an answer and die."""
    frame = sys._getframe()
    while "pipe" not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals["pipe"].fileno(), (1000).to_bytes(4, "big") + b"half")
    os.kill(os.getpid(), signal.SIGKILL)

class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(first)

def fail(kind):
    raise {"unpicklable": Unpicklable(1, 2), "interrupt": KeyboardInterrupt(), "exit": SystemExit(3)}[kind]

def stay(started):
    Path(started).write_text(str(os.getpid()))
    time.sleep(600)
'''


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The module above, importable here and in workers."""
    (tmp_path / "tasks_of_pool.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import tasks_of_pool  # type: ignore[import-not-found]

    yield tasks_of_pool
    del sys.modules["tasks_of_pool"]


def is_running(number: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_results_and_errors_come_back(tasks) -> None:
    """In the order of `map`, and an exception with the traceback of its worker as a note."""
    with ProcessPool(2, ["tasks_of_pool"]) as pool:
        assert list(pool.map(divmod, range(100), [7] * 100)) == [divmod(number, 7) for number in range(100)]
        error = pool.submit(int, "002 ").exception() or pool.submit(int, "x").exception()
        assert isinstance(error, ValueError)
        assert "Traceback" in error.__notes__[0]
        assert isinstance(pool.submit(tasks.fail, "interrupt").exception(), KeyboardInterrupt)
        assert isinstance(pool.submit(tasks.fail, "exit").exception(), SystemExit)


@pytest.mark.parametrize("task", ["result", "exception", "argument"])
def test_what_cannot_be_pickled_is_an_error_and_no_wait(tasks, task: str) -> None:
    """A result or an exception on its way back, an argument on its way there."""
    with ProcessPool(1, []) as pool:
        if task == "argument":
            with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
                pool.submit(abs, lambda: 0)
        else:
            future = pool.submit(open, os.devnull) if task == "result" else pool.submit(tasks.fail, "unpicklable")
            assert isinstance(future.exception(timeout=60), TypeError)
        assert pool.submit(abs, -1).result(timeout=60) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_task_outlives_one_worker(tasks, tmp_path: Path, number: signal.Signals) -> None:
    """A worker that dies once is replaced, and its task is run again."""
    with ProcessPool(1, ["tasks_of_pool"]) as pool:
        first = pool.submit(os.getpid).result(timeout=60)
        assert pool.submit(tasks.die, number, tmp_path / "deaths", 1).result(timeout=60) != first


@pytest.mark.parametrize(
    ("number", "cause", "is_crash"),
    [
        (signal.SIGKILL, "SIGKILL", False),
        (signal.SIGTERM, "SIGTERM", False),
        (signal.SIGSEGV, "SIGSEGV", True),
        (signal.SIGABRT, "SIGABRT", True),
        (signal.SIGBUS, "SIGBUS", True),
        (signal.SIGILL, "SIGILL", True),
        (signal.SIGFPE, "SIGFPE", True),
    ],
)
def test_a_task_that_kills_two_workers_says_by_which_signal(tasks, number, cause: str, *, is_crash: bool) -> None:
    """Its own future fails, and no other."""
    with ProcessPool(2, ["tasks_of_pool"]) as pool:
        others = [pool.submit(abs, -1) for _ in range(20)]
        died = pool.submit(tasks.die, number).exception(timeout=60)
        assert isinstance(died, WorkerDied)
        assert (died.exitcode, died.cause, died.is_crash) == (-number, cause, is_crash)
        assert [future.result(timeout=60) for future in others] == [1] * 20


def test_a_worker_that_exits_has_died() -> None:
    """With its exit code."""
    with ProcessPool(1, []) as pool:
        assert str(pool.submit(os._exit, 9).exception(timeout=60)).endswith("(exit code 9)")


def test_a_worker_killed_in_the_midst_of_its_answer_has_died(tasks) -> None:
    """Nothing waits for the rest of the answer."""
    with ProcessPool(2, ["tasks_of_pool"]) as pool:
        died = pool.submit(tasks.die_in_the_midst_of_the_answer).exception(timeout=60)
        assert isinstance(died, WorkerDied)
        assert died.cause == "SIGKILL"


def test_idle_workers_that_die_cost_no_task_anything() -> None:
    """Killed between two tasks, they are replaced, however often."""
    with ProcessPool(2, []) as pool:
        for _ in range(10):
            numbers = set(pool.map(os.getpid, *[[]])) | {pool.submit(os.getpid).result(timeout=60) for _ in range(4)}
            for number in numbers:
                os.kill(number, signal.SIGKILL)
            wait_until(lambda numbers=numbers: not any(map(is_running, numbers)))


@pytest.mark.parametrize("moment", ["importing", "idle", "busy"])
def test_the_process_that_workers_are_forked_from_is_replaced(tasks, tmp_path: Path, moment: str) -> None:
    """Killed at any moment, it takes no task with it."""
    with ProcessPool(2, ["numpy", "tasks_of_pool"]) as pool:
        if moment != "importing":
            assert list(pool.map(abs, range(10))) == list(range(10))
        if moment == "busy":
            staying = pool.submit(tasks.die, signal.SIGKILL, tmp_path / "deaths", 1)
        pool._fork_server.process.kill()
        assert list(pool.map(abs, range(100))) == list(range(100))
        if moment == "busy":
            assert staying.result(timeout=60)


def test_workers_that_all_die_as_they_start_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose import crashes the process: an error that names the signal and the module, soon."""
    (tmp_path / "crashing_at_import.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with ProcessPool(2, ["crashing_at_import"]) as pool:
        futures = [pool.submit(abs, -1) for _ in range(2)]
        for future in futures:
            with pytest.raises(WorkerStartError, match=r"die as they start \(SIGABRT\), importing crashing_at_import"):
                future.result(timeout=60)


def test_a_task_whose_module_cannot_be_imported_is_an_error(tasks, tmp_path: Path) -> None:
    """It names what is missing."""
    (tmp_path / "tasks_of_pool.py").write_text("import not_installed_anywhere\n")
    with ProcessPool(1, ["tasks_of_pool"]) as pool, pytest.raises(WorkerStartError, match="not_installed_anywhere"):
        pool.submit(tasks.stay, tmp_path / "started").result(timeout=60)


def test_imports_that_never_end_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SciPy's OpenBLAS does it with too little memory: the wait has an end, and the error names the modules."""
    monkeypatch.setattr("common.workers.process_pool._IMPORT_SECONDS", 1)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "endless_import.py").write_text("while True:\n    pass\n")
    with (
        ProcessPool(2, ["endless_import"]) as pool,
        pytest.raises(WorkerStartError, match="not started within 1 s, importing endless_import"),
    ):
        pool.submit(abs, -1).result(timeout=60)


def test_no_more_processes_than_the_system_allows_is_an_error() -> None:
    """It says why."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ProcessPool(1, []) as pool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            error = pool.submit(abs, -1).exception(timeout=60)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert isinstance(error, OSError)
        assert error.strerror == "Too many open files"
        assert pool.submit(abs, -1).result(timeout=60) == 1


@pytest.mark.usefixtures("tasks")
def test_shut_down_it_takes_no_more_tasks() -> None:
    """What was submitted before is done first, or cancelled if that is asked for."""
    pool = ProcessPool(1, ["tasks_of_pool"])
    futures = [pool.submit(abs, -number) for number in range(50)]
    pool.shutdown()
    assert [future.result(timeout=0) for future in futures] == list(range(50))
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(abs, -1)
    pool = ProcessPool(1, ["tasks_of_pool"])
    futures = [pool.submit(abs, -number) for number in range(50)]
    pool.shutdown(cancel_futures=True)
    assert futures[-1].cancelled()


def test_left_by_an_exception_it_kills_what_runs(tasks, tmp_path: Path) -> None:
    """No worker is left, and what waited is cancelled."""
    started = tmp_path / "started"
    with pytest.raises(ZeroDivisionError), ProcessPool(1, ["tasks_of_pool"]) as pool:  # noqa: PT012  # the block is it
        running, waiting = pool.submit(tasks.stay, started), pool.submit(abs, -1)
        wait_until(lambda: started.exists() and started.read_text() != "")
        raise ZeroDivisionError
    assert not is_running(int(started.read_text()))
    assert pool._fork_server.process.returncode is not None
    assert isinstance(running.exception(timeout=0), WorkerDied)
    with pytest.raises(CancelledError):
        waiting.result(timeout=0)


MAIN = """
import sys
import tasks_of_pool
from common.workers.process_pool import ProcessPool

with ProcessPool(2, ["numpy", "tasks_of_pool"]) as pool:
    print("made", flush=True)
    if sys.argv[1] == "busy":
        pool.submit(tasks_of_pool.stay, "started").result()
    elif sys.argv[1] == "importing":
        pool.submit(abs, -1).result()
        input()
    else:
        input()
"""


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize("moment", ["importing", "busy", "idle"])
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL", "Ctrl-C in a terminal"])
def test_the_end_of_the_main_process_is_the_end_of_all(tmp_path: Path, environment, how: str, moment: str) -> None:
    """Interrupted or killed outright, it leaves no process, and nobody complains but for KeyboardInterrupt."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, moment],
        cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "made\n"
    started = tmp_path / "started"
    if moment == "busy":
        wait_until(lambda: started.exists() and started.read_text() != "")
    if how == "Ctrl-C in a terminal":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.Signals[how])
    _, complaint = process.communicate(timeout=60)  # returns once the last process that holds its output has ended
    if how == "SIGKILL":
        assert complaint == ""
    else:
        assert complaint.splitlines()[-1] == "KeyboardInterrupt"
        assert complaint.count("Traceback") == 1
    if moment == "busy":
        assert not is_running(int(started.read_text()))


DIES = """
import os, click
from common.workers.process_pool import ProcessPool
from common.console import one_line_errors

@click.command()
def main():
    with one_line_errors("Run it again."), ProcessPool(1, ["json"]) as executor:
        executor.submit(os._exit, 9).result()

if __name__ == "__main__":
    main()
"""


def test_a_worker_that_dies_is_one_line(tmp_path: Path, environment) -> None:
    """Whatever the command was at: exit code 2, one line, and how to go on."""
    (tmp_path / "dies.py").write_text(DIES)
    command = [sys.executable, "dies.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: a worker process died twice at the same task (exit code 9). Run it again.\n"
