"""Hands work to an executor in batches, and takes in the results; no single file can stop it without being named."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import pandas as pd

from augment.rendering.tasks import RenderResult, RenderTask, Style, Variant
from augment.rendering.work import run_all
from augment.sources.layout import Rejected
from common.errors import UserError
from common.images import memory
from common.process_pool import WorkerDied
from common.remote import Location, name_in

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 32  # images a task: small enough that a kill loses little, large enough to hide the hand-over
_WINDOW = 64  # tasks handed over at a time: the rest of a million need no memory yet
_KILLED = 3  # times that a single item is handed over whose worker is killed, perhaps for nothing that it did
_DEATHS = 40  # of workers with no result between them, before it is the machine rather than the files


class DispatchError(UserError):
    """Workers die, or have too little memory; the message names the file and the fix."""


def render_all(
    rows: pd.DataFrame, style: Style, source: Location, images: Path, executor: Executor
) -> Iterator[tuple[RenderTask, RenderResult]]:
    """Render rows of a plan, one task a source, and yield each task with its result as they come in.

    Args:
        rows: the columns path (relative to `images`), source, source_sha256, variant and seed.
        style: what all images have in common.
        source: the source folder.
        images: the folder that the images go to.
        executor: any `concurrent.futures.Executor` whose workers see the same files.

    Raises:
        OSError: an image can't be written.
        DispatchError: as `results` has it. A source that crashes its decoder is reported as unreadable instead.
    """
    for folder in sorted({images / path.rpartition("/")[0] for path in rows["path"]}):
        folder.mkdir(parents=True, exist_ok=True)
    batches = _batches(rows, style, source, images)
    for batch in results(run_all, batches, executor, lambda task: task.source, _crashed):
        yield from batch


def unreadable_among(
    sources: pd.DataFrame,
    style: Style,
    source: Location,
    executor: Executor,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Rejected]:
    """Decode sources, and list those that can't be used, sorted.

    Args:
        sources: the columns source and source_sha256.
        style: what all images have in common.
        source: the source folder.
        executor: as `render_all` takes it.
        progress: called with (sources done, sources in all).

    Raises:
        DispatchError: as `results` has it.
    """
    rows = zip(sources["source"], sources["source_sha256"], strict=True)
    tasks = (RenderTask(source / name, sha256, Path(), (), style) for name, sha256 in rows)  # no variants: only decoded
    batches = iter(lambda: list(islice(tasks, _BATCH)), [])
    unreadable, done = [], 0
    for batch in results(run_all, batches, executor, lambda task: task.source, _crashed):
        for task, result in batch:
            if result.reason:
                unreadable.append(rejection(task, result, source))
        done += len(batch)
        progress(done, len(sources))
    return sorted(unreadable)


def rejection(task: RenderTask, result: RenderResult, source: Location) -> Rejected:
    """A source that can't be used, with its checksum if its bytes are to blame."""
    name = name_in(source, task.source)
    return Rejected(name, result.reason, task.source_sha256 if result.unreadable else "")


def results(
    run: Callable[[Sequence[Item]], Sequence[Result]],
    batches: Iterator[Sequence[Item]],
    executor: Executor,
    file: Callable[[Item], str | Location],
    crashed: Callable[[Item, str], Result],
) -> Iterator[Sequence[Result]]:
    """Yield what `run` makes of batches of items as it comes in, which need not be in their order.

    A batch whose worker dies, or runs out of memory, is run again item by item.

    Args:
        run: gives a result for each item of a batch; it must bear to be run again.
        batches: the items.
        executor: any `concurrent.futures.Executor`.
        file: which file an item is made of, for messages.
        crashed: makes the result of an item whose code crashes each worker that runs it, of the reason.

    Raises:
        DispatchError: a worker was killed each time at one item, or had too little memory for it, or all workers die.
        BrokenExecutor: the executor can't start workers, or doesn't replace dead ones. What `run` raises is raised too.
    """
    pending: dict[Future[Sequence[Result]], Sequence[Item]] = {}
    finished: SimpleQueue[Future[Sequence[Result]]] = SimpleQueue()
    singly: list[Item] = []
    killed: Counter[str] = Counter()  # single items, by file
    deaths = 0
    try:
        while True:
            while len(pending) < _WINDOW and (batch := [singly.pop()] if singly else next(batches, ())):
                future = executor.submit(memory.checked, run, batch)
                pending[future] = batch
                future.add_done_callback(finished.put)
            if not pending:
                return
            future = finished.get()
            batch, error = pending.pop(future), future.exception()
            if not error:
                deaths = 0
                yield future.result()
                continue
            if not isinstance(error, MemoryError):
                if not _is_death(error):
                    raise error
                deaths += 1
                if deaths == _DEATHS:
                    raise DispatchError(
                        f"{deaths} workers died one after the other, the last at {file(batch[0])}: {error}"
                    )
            if len(batch) > 1:
                singly.extend(batch)
            elif isinstance(error, WorkerDied) and error.is_crash:
                yield [crashed(batch[0], f"crashes its decoder ({error.cause})")]
            elif not isinstance(error, MemoryError) and killed[str(file(batch[0]))] < _KILLED - 1:
                killed[str(file(batch[0]))] += 1
                singly.extend(batch)
            else:
                raise DispatchError(_stopped(file(batch[0]), error))
    finally:
        for future in pending:
            future.cancel()


def _is_death(error: BaseException) -> bool:
    """Whether an executor says that the worker died that ran a task; Dask's own error is known by its name only."""
    return isinstance(error, WorkerDied) or type(error).__name__ == "KilledWorker"


def _stopped(file: str | Location, error: BaseException) -> str:
    cause = "not enough memory to decode or render it"
    if not isinstance(error, MemoryError):
        why = error.cause if isinstance(error, WorkerDied) else "killed"
        cause = f"a worker died at it again and again ({why}; out of memory?)"
    return f"{file}: {cause}; run the same command again to go on, with fewer --workers or on a larger machine"


def _crashed(task: RenderTask, reason: str) -> tuple[RenderTask, RenderResult]:
    return task, RenderResult([], reason, unreadable=True)


def _batches(rows: pd.DataFrame, style: Style, source: Location, images: Path) -> Iterator[list[RenderTask]]:
    """Jobs, one a source, in batches of about `_BATCH` images."""
    batch: list[RenderTask] = []
    size = 0
    for task in _tasks(rows, style, source, images):
        batch.append(task)
        size += len(task.variants)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tasks(rows: pd.DataFrame, style: Style, source: Location, images: Path) -> Iterator[RenderTask]:
    """A task for each run of rows that have the same source, as plans and manifests list them."""
    variants: list[Variant] = []
    previous = ("", "")
    columns = ("source", "source_sha256", "path", "variant", "seed")
    for name, sha256, *variant in zip(*(rows[column].tolist() for column in columns), strict=True):
        if variants and (name, sha256) != previous:
            yield RenderTask(source / previous[0], previous[1], images, tuple(variants), style)
            variants = []
        variants.append(Variant(*variant))
        previous = (name, sha256)
    if variants:
        yield RenderTask(source / previous[0], previous[1], images, tuple(variants), style)
