"""What the commands of both programs have in common: one-line errors, progress, `--quiet` and `--json`."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from common.errors import UserError

# `say`, `print_json` and `progress` read these from the command's context, so a command need not hand them on.
quiet = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value in place of text, for scripts.")

at_root = click.option(
    "--root",
    default=".",
    type=click.Path(path_type=Path),
    help="The folder that a set is built in: what the paths in manifests are relative to.",
    show_default=True,
)
of_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="The folder that the set was built in, which its paths are relative to.  [default: as its card has it]",
)
on_cluster = click.option(
    "--cluster",
    metavar="ADDRESS_OR_FILE",
    help="Have a Dask cluster's workers do it: the scheduler's address (tcp://host:8786), or the file that it writes.",
)


class Refused(click.ClickException):
    """What the user can mend. One line: click's own UsageError would print the usage above it."""

    exit_code = 2


def say(text: str) -> None:
    """Print a line for people: not with --quiet or --json."""
    if _silent():
        return
    tqdm = sys.modules.get("tqdm")
    try:
        with tqdm.tqdm.external_write_mode() if tqdm else nullcontext():  # a bar that is shown goes on below the line
            click.echo(text)
    except BrokenPipeError:  # nobody reads on, as of `| head`: what is being done is done all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(found: Any) -> None:
    """Print what a command came to as JSON, if --json asks for it."""
    if click.get_current_context().params.get("as_json"):
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@contextmanager
def one_line_errors(resume: str = "") -> Iterator[None]:
    """What the user can mend is printed in one line, with exit code 2; SIGTERM ends a command as Ctrl-C does."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if interrupted:  # whatever became of it on its way: pydantic, being imported, makes a SchemaError of it
            click.echo(f"Interrupted. {resume}", err=True)
            sys.exit(130)
        if isinstance(error, OSError) and error.strerror is not None and type(error).__module__ == "builtins":
            place = f"{error.filename2 or error.filename}: " if error.filename is not None else ""
            raise Refused(f"{place}{error.strerror}; mend that, then run the same command again") from None
        if isinstance(error, MemoryError):
            raise Refused(f"not enough memory{f': {error}' if str(error) else ''}. {resume}") from None
        from concurrent.futures import BrokenExecutor  # here: importing it would slow `--help` down

        if isinstance(error, BrokenExecutor):
            raise Refused(f"{error}. {resume}") from None
        if not isinstance(error, UserError):
            raise  # nobody's message to a user: a bug
        raise Refused(str(error)) from None


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal for what takes over a second, nothing elsewhere."""
    from tqdm import tqdm

    off = True if _silent() else None  # None: where it is no terminal
    with tqdm(desc=what, unit=f" {unit}", disable=off, leave=False, dynamic_ncols=True, delay=1) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _silent() -> bool:
    context = click.get_current_context(silent=True)  # None: called from Python, which shows what it does
    asked = context.params if context else {}
    return bool(asked.get("quiet") or asked.get("as_json"))
