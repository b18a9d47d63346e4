"""The builder on a cluster of one and two workers beside the local pool, and the ceiling of main process and scheduler.

The first takes a folder of full-size class folders. The second needs no images: worker after worker, in a few processes,
takes tasks as `build` hands them out and returns canned bytes after a fixed time.
"""

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import psutil
from build import RECIPE, repeated
from distributed import Client, Worker

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from augment import building
from augment.recipe import load
from augment.rendering.work import ALL_PACKAGES, MODULES
from augment.sources.scan import scan
from augment.storage.place import Place
from common.workers import connect
from common.workers.cluster import Cluster
from common.workers.dispatch import results

ROUNDS = 5
# As docs/cluster.md starts workers: Dask has malloc hand memory back at once, which costs images a tenth of their time.
WORKER = {
    "MALLOC_TRIM_THRESHOLD_": "134217728",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}
IMAGES, SECONDS = 128, 1.0  # of a simulated task, and how long it takes
KINDS = {"written by the workers": (400, None), "handed back": (10_000, 80)}  # bytes an image, tasks in flight at most


@contextmanager
def cluster(folder: Path, workers: int, simulated: int = 0) -> Iterator[tuple[str, psutil.Process]]:
    """A scheduler, by its address and process, and workers; or processes with so many simulated workers each."""
    file, started = folder / "scheduler.json", []
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}", **WORKER}

    def start(*words: str) -> subprocess.Popen[bytes]:
        log = (folder / f"{len(started)}.log").open("wb")
        started.append(subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=folder))
        return started[-1]

    dask = str(Path(sys.executable).with_name("dask"))
    scheduler = start(
        dask, "scheduler", "--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
    )
    while not (file.exists() and file.read_text().endswith("}")):  # it isn't written at once
        threading.Event().wait(0.05)
    for _ in range(workers):
        if simulated:
            start(sys.executable, "-c", f"from cluster import simulate; simulate({str(file)!r}, {simulated})")
        else:
            start(dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--host", "127.0.0.1")
    try:
        yield str(file), psutil.Process(scheduler.pid)
    finally:
        for process in started[::-1]:
            process.terminate()
        for process in started:
            process.wait()
        file.unlink(missing_ok=True)


def wait(file: str, workers: int) -> None:
    """Wait until there are so many workers."""
    with Client(scheduler_file=file, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=120)


def simulate(file: str, count: int) -> None:
    """So many workers in this process, until it is killed."""

    async def run() -> None:
        workers = [
            await Worker(scheduler_file=file, nthreads=1, memory_limit=0, name=f"{os.getpid()}-{number}")
            for number in range(count)
        ]
        await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(run())


def canned(size: int, batch: Sequence[int]) -> list[tuple[int, bytes]]:
    """In the place of a rendered batch of images: what comes back of each has this size."""
    time.sleep(SECONDS)  # a worker that is busy with images
    return [(number, bytes(size)) for number in batch]


def rate(source: Path, out: Path, workers: int, where: str | None) -> float:
    """Images a second from the first to the last, as `build` renders them."""
    shutil.rmtree(out, ignore_errors=True)
    recipe, times = load(str(source.parent / "bench.yaml")), list[tuple[float, int]]()
    place = Place(out, source, out / "data" / "bench", out / "manifests" / "bench.csv")
    with connect(workers, MODULES, where, ALL_PACKAGES) as hands:
        found = scan(source, recipe.group, hands.read)
        building.build(found, recipe, place, hands, lambda done, _: times.append((time.perf_counter(), done)))
    (begun, first), (ended, last) = times[1], times[-1]
    return (last - first) / (ended - begun)


def efficiency(xrays: Path, scratch: Path) -> None:
    """Print the rates beside each other, in turn."""
    source = scratch / "source"
    repeated(xrays, source)
    (scratch / "bench.yaml").write_text(RECIPE)
    for workers in (1, 2):
        with cluster(scratch, workers) as (file, _):
            wait(file, workers)
            rounds = [
                (rate(source, scratch / "here", workers, None), rate(source, scratch / "there", workers, file))
                for _ in range(ROUNDS + 1)
            ][1:]  # the first one imports
        here, there = median(one for one, _ in rounds), median(other for _, other in rounds)
        ratio = median(other / one for one, other in rounds)
        print(
            f"{workers} workers: local pool {here:.0f} images/s, cluster {there:.0f}, median ratio {ratio:.2f}",
            flush=True,
        )


def ceiling(scratch: Path, workers: int, images: int, kind: str) -> None:
    """Print what main process and scheduler hand out and take in, and what that costs them."""
    size, limit = KINDS[kind]
    processes = 4
    me = psutil.Process()
    with ExitStack() as stack:
        file, scheduler = stack.enter_context(cluster(scratch, processes, workers // processes))
        wait(file, workers)
        dask = stack.enter_context(Cluster(file, memory=0))
        tasks = (list(range(start, start + IMAGES)) for start in range(0, images, IMAGES))
        before, begun, most, done = (
            (sum(me.cpu_times()[:2]), sum(scheduler.cpu_times()[:2])),
            time.perf_counter(),
            [0, 0],
            0,
        )
        for batch in results(partial(canned, size), tasks, dask, str, lambda number, _: (number, b""), most=limit):
            done += len(batch)
            if done % (IMAGES * 50) == 0:
                most = [max(old, each.memory_info().rss) for old, each in zip(most, (me, scheduler), strict=True)]
        seconds = time.perf_counter() - begun
        after = (sum(me.cpu_times()[:2]), sum(scheduler.cpu_times()[:2]))
    cpu = [(end - start) / seconds for start, end in zip(before, after, strict=True)]
    asked = workers * IMAGES / SECONDS
    print(
        f"{workers} workers, images {kind}: {done / seconds:,.0f} images/s of {asked:,.0f} asked for; main process {cpu[0]:.0%} of a core, "
        f"{most[0] / 1e6:.0f} MB; scheduler {cpu[1]:.0%}, {most[1] / 1e6:.0f} MB",
        flush=True,
    )


def main() -> None:
    """Measure, and print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("xrays", type=Path, help="folder of class folders of full-size images")
    parser.add_argument("--images", type=int, default=300_000, help="simulated")
    parser.add_argument("--workers", type=int, nargs="*", default=[8, 64, 256], help="simulated")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}, {datetime.now(UTC):%Y-%m-%d}")
    with tempfile.TemporaryDirectory() as scratch:
        efficiency(given.xrays, Path(scratch))
    for kind in KINDS:
        for workers in given.workers:
            with tempfile.TemporaryDirectory() as scratch:
                ceiling(Path(scratch), workers, min(given.images, int(workers * IMAGES / SECONDS * 40)), kind)


if __name__ == "__main__":
    main()
