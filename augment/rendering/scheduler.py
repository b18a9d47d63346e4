"""Hands rendering to an executor, one task a source, and takes in the results."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path

import pandas as pd

from augment.rendering import image_file
from augment.rendering.tasks import RenderResult, RenderTask, Style, Variant
from augment.rendering.work import run_all
from augment.sources.layout import Rejected
from common.remote import Location, name_in
from common.workers.cluster import Cluster
from common.workers.dispatch import results
from common.workers.process_pool import WorkerDied

_BATCH = 32  # images a task: small enough that a kill loses little, large enough to hide the hand-over
_CLUSTER_BATCH = 128  # to a cluster, which takes 6 ms of two processes' time
_IN_FLIGHT = 256 * 10**6  # bytes of images that may be on their way back from a cluster
_BYTES_A_PIXEL = 0.5  # of an image in its file; a JPEG of an X-ray takes half of that


def render_all(
    rows: pd.DataFrame, style: Style, source: Location, images: Path, executor: Executor
) -> Iterator[tuple[RenderTask, RenderResult]]:
    """Render rows of a plan, one task a source, and yield each task with its result as they come in.

    Where a cluster's workers don't see the image folder, they hand the images back, which are then written here.

    Args:
        rows: the columns path (relative to `images`), source, source_sha256, variant and seed.
        style: what all images have in common.
        source: the source folder.
        images: the folder that the images go to, with its marker.
        executor: any `concurrent.futures.Executor`, but only a cluster's workers may not see the same files.

    Raises:
        OSError: an image can't be written.
        DispatchError: as `results` has it. A source that crashes its decoder is reported as unreadable instead.
    """
    for folder in sorted({images / path.rpartition("/")[0] for path in rows["path"]}):
        folder.mkdir(parents=True, exist_ok=True)
    target = images if not isinstance(executor, Cluster) or executor.can_write(images, image_file.MARKER) else None
    batches = _batches(rows, style, source, target, _size(executor))
    width, height = style.size
    most = None if target else max(4, int(_IN_FLIGHT / (_CLUSTER_BATCH * width * height * _BYTES_A_PIXEL)))
    for batch in results(run_all, batches, executor, lambda task: task.source, _failed, most=most):
        for task, result in batch:
            for variant, data in zip(task.variants if result.data else (), result.data, strict=True):
                image_file.write(images / variant.path, data)
            yield task, result._replace(data=())


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
    tasks = (RenderTask(source / name, sha256, None, (), style) for name, sha256 in rows)  # no variants: only decoded
    batches = iter(lambda: list(islice(tasks, _size(executor))), [])
    unreadable, done = [], 0
    for batch in results(run_all, batches, executor, lambda task: task.source, _failed):
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


def _size(executor: Executor) -> int:
    return _CLUSTER_BATCH if isinstance(executor, Cluster) else _BATCH


def _failed(task: RenderTask, error: WorkerDied) -> tuple[RenderTask, RenderResult]:
    # What was killed may be fine on another machine, so that the next build tries it again.
    return task, RenderResult([], error.reason, unreadable=error.is_crash)


def _batches(
    rows: pd.DataFrame, style: Style, source: Location, images: Path | None, most: int
) -> Iterator[list[RenderTask]]:
    """Tasks, one a source, in batches of about `most` images."""
    batch: list[RenderTask] = []
    size = 0
    for task in _tasks(rows, style, source, images):
        batch.append(task)
        size += len(task.variants)
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tasks(rows: pd.DataFrame, style: Style, source: Location, images: Path | None) -> Iterator[RenderTask]:
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
