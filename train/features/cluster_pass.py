"""The pass through the frozen layers on a cluster: each worker gets the network once, and then batches of images by name."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from common.console import say
from common.errors import UserError
from common.workers.cluster import Cluster, here, shared
from common.workers.dispatch import DispatchError, results
from common.workers.process_pool import WorkerDied
from train.dataset import Dataset
from train.features.engine import Engine, Forward, compiled, machine
from train.features.forward import BATCH, outputs_of
from train.features.store import versions

_MEMORY = 2 * 10**9  # bytes that a worker with TensorFlow, a ResNet152V2 and a batch takes at least
_IN_FLIGHT = 2 * 10**9  # bytes of activations that this machine may have to hold before they are on its disk


class ClusterPassError(UserError):
    """The workers can't compute activations; the message names them and the fix."""


class _Batch(NamedTuple):
    """Some images of a set: their rows in it, files and checksums."""

    rows: NDArray[np.int64]
    paths: list[Path]
    sha256: list[str]


@contextmanager
def connect(where: str | None, engine: Engine) -> Iterator[Cluster | None]:
    """The cluster that is asked for, of workers that can run an engine; None: none is asked for.

    Raises:
        ClusterError: as `Cluster` has it.
        ClusterPassError: the engine is for one machine.
    """
    if where is None:
        yield None
    elif engine.precision == "int8":  # each worker would calibrate a network of its own
        raise ClusterPassError("--precision int8 is computed on one machine; leave it out, or --cluster")
    else:
        with Cluster(where, list(versions(engine.packages)), _MEMORY) as cluster:
            yield cluster


def arithmetic(cluster: Cluster) -> list[str] | None:
    """What the workers' processors have for arithmetic, which the last bits depend on; None if it is what this one has.

    Raises:
        ClusterPassError: they differ from each other.
        ClusterError: a worker that comes later would differ from them.
    """
    of_workers = cluster.answers(_arithmetic)
    kinds = {found: name for name, found in sorted(of_workers.items())}
    if len(kinds) > 1:
        (one, first), (other, second), *_ = sorted(kinds.items())
        raise ClusterPassError(
            f"the workers' processors differ, and so would the last bits of their activations: {second} has {other or 'none'} of "
            f"these, {first} {one or 'none'}; take workers of one kind"
        )
    (found,) = kinds
    cluster.require(_arithmetic_fault, found)
    return None if found == _arithmetic() else found.split()


def outputs(
    network: keras.Model, engine: Engine, dataset: Dataset, rows: NDArray[np.int64], cluster: Cluster
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[Any]]]]:
    """Yield what a network makes of some images, a batch at a time, as it comes in: the images' rows, and its outputs.

    Args:
        network: from raw images; its last output is kept in float32, the others as the engine's activations are.
        engine: what runs it on the workers.
        dataset: the set.
        rows: of the images.
        cluster: its workers see the images.

    Raises:
        DispatchError: a batch takes more memory than a worker has, or kills each worker that runs it.
        DatasetError: an image is not the one in the manifest.
    """
    chosen = dataset.rows.iloc[rows]
    paths, checksums = [path.absolute() for path in dataset.paths(chosen)], chosen["sha256"].tolist()
    cluster.expect_file(paths[0])
    data = _saved(network)
    digest = hashlib.sha256(data).hexdigest()
    run = partial(_run, digest, engine, dataset.size)
    parts = (slice(start, start + BATCH) for start in range(0, len(rows), BATCH))
    batches = ([_Batch(rows[part], paths[part], checksums[part])] for part in parts)
    row_bytes = sum(np.prod(output.shape[1:]) for output in network.outputs) * engine.dtype.itemsize
    by_worker: Counter[str] = Counter()
    with cluster.sharing(digest, data):
        most = max(2, int(_IN_FLIGHT / (BATCH * row_bytes)))
        for ((worker, of_batch, values),) in results(
            run, batches, cluster, lambda each: each.paths[0], _failed, most=most
        ):
            by_worker[worker] += len(of_batch)
            yield of_batch, values
    say("Activations by worker: " + ", ".join(f"{name} {count:,}" for name, count in sorted(by_worker.items())))


def _run(
    digest: str, engine: Engine, size: tuple[int, int], batches: list[_Batch]
) -> list[tuple[str, NDArray[np.int64], list[NDArray[Any]]]]:
    """On a worker: the activations of each batch."""
    forward, found = _network(digest, engine), []
    for rows, paths, checksums in batches:
        (values,) = outputs_of(paths, checksums, size, forward)
        kept = [each.astype(engine.dtype) for each in values[:-1]]
        found.append((here(), rows, [*kept, values[-1]]))
    return found


@lru_cache(maxsize=1)
def _network(digest: str, engine: Engine) -> Forward:
    """The network that this worker was sent, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.keras"
        path.write_bytes(shared(digest))
        return compiled(keras.saving.load_model(path, compile=False, safe_mode=True), engine, BATCH)


def _saved(network: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.keras"
        network.save(path)
        return path.read_bytes()


def _failed(batch: _Batch, error: WorkerDied) -> Any:
    raise DispatchError(
        f"{batch.paths[0]} and {len(batch.paths) - 1} more images: {error.reason}; run the same command again to go on, with "
        "more memory for a worker"
    )


def _arithmetic() -> str:
    return " ".join(machine()["arithmetic"])


def _arithmetic_fault(expected: str) -> str:
    found = _arithmetic()
    return (
        "" if found == expected else f"its processor has {found or 'none'} where the others have {expected or 'none'}"
    )
