"""What work is handed to: processes and threads of this machine, or a Dask cluster's workers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from common.workers.process_pool import ProcessPool


class Workers(NamedTuple):
    """Executors: `compute` decodes and renders, `read` reads and hashes. On a cluster they are one."""

    compute: Executor
    read: Executor


@contextmanager
def connect(
    count: int, modules: Sequence[str], cluster: str | None = None, packages: Sequence[str] = ()
) -> Iterator[Workers]:
    """Workers for as long as the context lasts.

    Args:
        count: processes, and threads, on this machine.
        modules: what the processes import while the caller still reads.
        cluster: the address of a Dask scheduler, or the file that it writes; None: this machine.
        packages: those whose versions a cluster's workers have to have as this machine does.

    Raises:
        ClusterError: as `Cluster` has it.
    """
    if cluster is not None:
        from common.workers.cluster import Cluster

        with Cluster(cluster, packages) as executor:
            yield Workers(executor, executor)
    else:
        with ThreadPoolExecutor(count) as threads, ProcessPool(count, modules) as processes:
            yield Workers(processes, threads)
