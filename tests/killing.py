"""Kills processes of a command at random moments."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

Process = subprocess.Popen[str]


def processes_of(number: int) -> list[int]:
    """The processes that a process has started, and theirs: the one that workers are forked from, and the workers."""
    found = []
    for children in Path(f"/proc/{number}/task").glob("*/children"):
        try:
            listed = [int(child) for child in children.read_text().split()]
        except OSError:  # that thread has ended
            continue
        found += [below for child in listed for below in (child, *processes_of(child))]
    return found


def kill_one(process: Process, dice: random.Random, latest: float, *, main: bool = False) -> str:
    """Kill one process of a command at a moment up to `latest` seconds from now, and say which; with `main`, itself."""
    sort = "a time" if main else dice.choice(["a time", "a process that appears", "a process that appears", "a time"])
    due = time.monotonic() + dice.uniform(0, latest)
    if sort == "a process that appears":
        wanted = dice.randrange(1, 4)  # the first is the one that workers are forked from
        while process.poll() is None and len(processes_of(process.pid)) < wanted:
            time.sleep(0.0005)
        due = time.monotonic() + dice.choice([0, 0.002, 0.03]) * dice.random()
    while time.monotonic() < due and process.poll() is None:
        time.sleep(0.0005)
    running = [process.pid] if main and process.poll() is None else [] if main else processes_of(process.pid)
    if not running:
        return ""
    victim = dice.choice(running)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return f"number {running.index(victim)} of {len(running)} after {sort}" + " (the command itself)" * main
