"""What a killed program leaves on the terminal."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from manifests.pool import pool
if __name__ == "__main__":
    with pool(1, ["json"]) as executor:
        executor.submit(abs, 1).result()
        os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [9, 15])
def test_a_killed_program_says_nothing_of_semaphores(tmp_path: Path, environment: dict[str, str], number: int) -> None:
    """The tracker, which outlives it and holds its stderr, removes them without a warning."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program, str(number)], env=environment, capture_output=True, text=True, check=False
    )  # returns when the tracker has closed stderr, too
    assert done.returncode == -number
    assert done.stderr == ""
