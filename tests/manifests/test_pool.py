"""Workers that end by force in the midst of handing a result over, which Python's executor by itself waits for."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, struct, sys, time

from manifests.pool import pool

def half_a_result(then):
    '''Write what a worker has written that is stopped in its write, as far as the reader can tell.'''
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    frame.f_locals["result_queue"]._wlock.acquire()
    os.write(frame.f_locals["result_queue"]._writer.fileno(), struct.pack("!i", 1000) + b"half")
    print("written", flush=True)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)

if __name__ == "__main__":
    with pool(2, ["halves"]) as executor:
        task, other = executor.submit(half_a_result, sys.argv[1]), executor.submit(abs, -1)
        print(type(task.exception()).__name__)
"""

DIES = """
import os, click
from manifests.pool import pool
from manifests.terminal import one_line_errors

@click.command()
def main():
    with one_line_errors("Run it again."), pool(1, ["json"]) as executor:
        executor.submit(os._exit, 9).result()

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def start(tmp_path: Path, environment):
    """A function (what the worker does after its half result) -> a process of the program above."""
    (tmp_path / "halves.py").write_text(PROGRAM)
    pipe = subprocess.PIPE

    def call(then: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "halves.py", then], cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    return call


def test_a_worker_killed_in_the_midst_of_its_result_breaks_the_pool(start) -> None:
    """The task fails as it does if a worker dies at any other moment; nothing waits for the rest of the result."""
    told, complaint = start("die").communicate(timeout=60)
    assert told.split() == ["written", "BrokenProcessPool"], complaint


def test_ctrl_c_in_the_midst_of_a_result_ends_the_pool(start) -> None:
    """Interrupted while a worker has handed over half a result, the program ends with KeyboardInterrupt."""
    process = start("stay")
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert complaint.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


def test_a_worker_that_dies_is_told_in_one_line(tmp_path: Path, environment) -> None:
    """Whatever the command was at: exit code 2, one line, and how to go on."""
    (tmp_path / "dies.py").write_text(DIES)
    command = [sys.executable, "dies.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: a worker process died (out of memory?). Run it again.\n"
