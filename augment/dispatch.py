"""Hands rendering to an executor, a batch of sources at a time, and takes in what comes of it."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from pathlib import Path

import pandas as pd

from augment.render import Job, Outcome, Style, Variant, run

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
    pending: set[Future[list[tuple[Job, Outcome]]]] = set()
    try:
        for batch in _batches(rows, style, source, images):
            pending.add(executor.submit(_run_all, batch))
            if len(pending) >= _WINDOW:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    except BrokenExecutor:  # it fails them all itself, and would trip over one that is cancelled
        raise
    except BaseException:
        for future in pending:
            future.cancel()
        raise


def _run_all(jobs: list[Job]) -> list[tuple[Job, Outcome]]:
    return [(job, run(job)) for job in jobs]


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
