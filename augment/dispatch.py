"""Hands work to an executor, rendering a batch of sources at a time, and takes in what comes of it."""

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import pandas as pd

from augment.job import Job, Outcome, Style, Variant, run_all
from augment.layout import Rejected
from manifests.pool import uninterrupted

Task = TypeVar("Task")
Result = TypeVar("Result")

_BATCH = 32  # images a task: small enough that a kill loses little, large enough to hide the hand-over
_WINDOW = 64  # tasks handed over at a time: the rest of a million need no memory yet


def outcomes(
    rows: pd.DataFrame, style: Style, source: Path, images: Path, executor: Executor
) -> Iterator[tuple[Job, Outcome]]:
    """Render rows of a plan, one job a source, and yield each job with its outcome as they come in.

    Args:
        rows: the columns path (relative to `images`), source, source_sha256, variant and seed.
        style: what all images have in common.
        source: the source folder.
        images: the folder that the images go to.
        executor: any `concurrent.futures.Executor` whose workers see the same files.

    Raises:
        OSError: an image can't be written.
        BrokenProcessPool: a worker died.
    """
    for folder in sorted({images / path.rpartition("/")[0] for path in rows["path"]}):
        folder.mkdir(parents=True, exist_ok=True)
    for batch in results(run_all, _batches(rows, style, source, images), executor):
        yield from batch


def unreadable_among(
    sources: pd.DataFrame,
    style: Style,
    source: Path,
    executor: Executor,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Rejected]:
    """Decode sources, and list those that can't be used, sorted.

    Args:
        sources: the columns source and source_sha256.
        style: what all images have in common.
        source: the source folder.
        executor: as `outcomes` takes it.
        progress: called with (sources done, sources in all).
    """
    rows = zip(sources["source"], sources["source_sha256"], strict=True)
    jobs = (Job(source / name, sha256, source, (), style) for name, sha256 in rows)
    faulty, done = [], 0
    for batch in results(run_all, iter(lambda: list(islice(jobs, _BATCH)), []), executor):
        for job, outcome in batch:
            if outcome.reason:
                name = job.source.relative_to(source).as_posix()
                faulty.append(Rejected(name, outcome.reason, job.source_sha256 if outcome.unreadable else ""))
        done += len(batch)
        progress(done, len(sources))
    return sorted(faulty)


def results(run: Callable[[Task], Result], tasks: Iterator[Task], executor: Executor) -> Iterator[Result]:
    """Yield what `run` makes of each task as it comes in, which need not be in their order.

    Raises:
        BrokenProcessPool: a worker died. What `run` raises is raised as well.
    """
    pending: set[Future[Result]] = set()
    finished: SimpleQueue[Future[Result]] = SimpleQueue()
    try:
        while True:
            for task in islice(tasks, _WINDOW - len(pending)):
                with uninterrupted():
                    pending.add(future := executor.submit(run, task))
                future.add_done_callback(finished.put)
            if not pending:
                return
            future = finished.get()
            pending.remove(future)
            yield future.result()
    except BrokenExecutor:  # it fails them all itself, and would trip over one that is cancelled
        raise
    except BaseException:
        for future in pending:
            future.cancel()
        raise


def _batches(rows: pd.DataFrame, style: Style, source: Path, images: Path) -> Iterator[list[Job]]:
    """Jobs, one a source, in batches of about `_BATCH` images."""
    batch: list[Job] = []
    size = 0
    for job in _jobs(rows, style, source, images):
        batch.append(job)
        size += len(job.variants)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _jobs(rows: pd.DataFrame, style: Style, source: Path, images: Path) -> Iterator[Job]:
    """A job for each run of rows that have the same source, as plans and manifests list them."""
    variants: list[Variant] = []
    previous = ("", "")
    columns = ("source", "source_sha256", "path", "variant", "seed")
    for name, sha256, *variant in zip(*(rows[column].tolist() for column in columns), strict=True):
        if variants and (name, sha256) != previous:
            yield Job(source / previous[0], previous[1], images, tuple(variants), style)
            variants = []
        variants.append(Variant(*variant))
        previous = (name, sha256)
    if variants:
        yield Job(source / previous[0], previous[1], images, tuple(variants), style)
