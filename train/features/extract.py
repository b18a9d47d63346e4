"""The frozen part's outputs, computed once and kept: for both phases, for every run, and for every set.

The images of a set don't change between epochs, so neither does what the frozen layers make of them. What is
kept goes by each image's checksum: the test images and the sources as they are cost one pass for all recipes.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.workers.cluster import Cluster
from train.dataset import Dataset
from train.features import cluster_pass, int8
from train.features.engine import Engine, Forward
from train.features.forward import BATCH, NetworkCache, outputs_of
from train.features.store import FORMAT, Store, locked, taken, versions

_SPARE = 10**9  # bytes of the disk that are left free
# The bfloat16 of each byte of float8.
_FLOAT8 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(ml_dtypes.bfloat16)

Progress = Callable[[int, int], None]


class FeaturesError(UserError):
    """The activations can't be kept; the message names the place and the fix."""


class Kept(NamedTuple):
    """Memory-mapped activations; `at` has the row of each image of the set, in the order of its manifest."""

    arrays: list[NDArray[Any]]
    at: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Those of some images of the set, each of shape (rows, ...)."""
        return _widened(self.stored(rows))

    def stored(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """As `take`, in the dtype that they are kept in."""
        rows_of_each = tuple(array[self.at[rows]] for array in self.arrays)
        for array in self.arrays:
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # Windows has none
                # Else the whole file comes to count as this process's memory. It stays in the system's cache.
                array.base.madvise(mmap.MADV_DONTNEED)
        return rows_of_each


class Computed(NamedTuple):
    """Activations that there is no room for all of: where `kept.at` is -1, they are computed whenever asked for."""

    kept: Kept
    dataset: Dataset
    forward: Forward

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Those of some images of the set, each of shape (rows, ...), rounded as the kept ones are."""
        lacking = self.kept.at[rows] < 0
        arrays = [np.empty((len(rows), *array.shape[1:]), array.dtype) for array in self.kept.arrays]
        for array, values in zip(arrays, self.kept.stored(rows[~lacking]), strict=True):
            array[~lacking] = values
        start, places = 0, np.flatnonzero(lacking)
        for outputs in _outputs(self.dataset, rows[lacking], self.forward) if len(places) else ():
            batch = places[start : start + BATCH]
            for array, values in zip(arrays, outputs, strict=False):  # the last output, the pooled one, is left out
                array[batch] = values
            start += BATCH
        return _widened(arrays)

    @property
    def lacking(self) -> int:
        """How many images of the set have to be computed."""
        return int((self.kept.at < 0).sum())


class Features(NamedTuple):
    """A set's activations, made by `engine`; `computed` of its `different` images were not in the store.

    `pooled` is the backbone's output averaged over its pixels, as long as nothing is fine-tuned; `cut_activations` the
    tensors that cross the cut, if they are wanted.
    """

    pooled: Kept
    cut_activations: Kept | Computed | None
    engine: Engine
    computed: int
    different: int  # identical files count once


def _widened(arrays: Iterable[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """What is kept in float8 in bfloat16, which holds all of its values, and which TensorFlow computes in."""
    return tuple(_of_float8(values) if values.dtype == ml_dtypes.float8_e4m3fn else values for values in arrays)


def _of_float8(values: NDArray[Any]) -> NDArray[Any]:
    if not values.size:  # which OpenCV makes None of
        return values.astype(ml_dtypes.bfloat16)
    # `astype` takes twenty times as long, a third of a fine-tuning step.
    looked_up = cv2.LUT(values.view(np.uint8).reshape(len(values), -1), _FLOAT8.view(np.uint16))
    return looked_up.view(ml_dtypes.bfloat16).reshape(values.shape)


def features(
    dataset: Dataset,
    cache: NetworkCache,
    engine: Engine,
    progress: Progress,
    *,
    with_tail: bool = True,
    limit: int | None = None,
    checking: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
    cluster: Cluster | None = None,
) -> Features:
    """Take up the activations that are kept of a set's images, and compute and keep the others.

    Those that are kept are checked first; what isn't as it was written is computed again. All come from one network
    with the same outputs, and all are rounded as they are kept: the same numbers whatever was kept before, and
    whether or not there is room.

    Args:
        dataset: the set.
        cache: the network, and where its activations are kept.
        engine: what runs the frozen part.
        progress: called with (images done, images to do).
        with_tail: whether the tensors that cross the cut are wanted too.
        limit: bytes that the folder may grow to.
        checking: called with (kept images checked, kept images to check).
        say: called with a line for people: what it waits for, and what was damaged.
        cluster: whose workers compute what is kept.

    Raises:
        FeaturesError: the disk has no room even for the pooled outputs.
        DatasetError: an image is not the one in the manifest.
    """
    arithmetic = cluster_pass.arithmetic(cluster) if cluster else None
    both = addresses(dataset, cache, engine, arithmetic)
    stores = tuple(both)[0 if with_tail else 1 :]
    checksums = dataset.rows["sha256"].tolist()
    first = {checksum: row for row, checksum in reversed(list(enumerate(checksums)))}
    folder = cache.folder
    with locked(folder, lambda: say(f"Another run is computing activations in {folder}; waiting for its end ...")):
        lacking = []
        for store in stores:
            store.create(both[store])
            damaged = store.damaged(first, checking)
            if damaged:
                say(f"{store.folder}: damaged, so computed again: the activations of {len(damaged):,} images")
            lacking.append((first.keys() - store.index().keys()) | damaged)
        if len(lacking[-1]) * stores[-1].row_bytes > shutil.disk_usage(folder).free:
            raise FeaturesError(f"{folder}: no room for the activations; make some, or give --cache on another disk")
        lack = list(lacking)
        if with_tail and lacking[0]:
            room = _room(folder, limit) - len(lacking[-1]) * stores[-1].row_bytes
            lack[0] = set(sorted(lacking[0], key=first.__getitem__)[: max(0, room // stores[0].row_bytes)])
        rows = np.array(sorted(first[checksum] for checksum in set().union(*lack)), np.int64)
        without = [all_of_it - kept for all_of_it, kept in zip(lacking, lack, strict=True)]
        run = _compiled(cache, engine, dataset, say) if (len(rows) and not cluster) or any(without) else None
        if len(rows) and cluster:
            values = cluster_pass.outputs(cache.network, engine, dataset, rows, cluster)
            _keep(dataset, values, len(rows), stores, lack, progress)
        elif len(rows) and run:
            parts = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
            _keep(dataset, zip(parts, _outputs(dataset, rows, run), strict=True), len(rows), stores, lack, progress)
        # Opened before another process may drop anything.
        *cut_activations, pooled = (_kept(store, checksums, gone) for store, gone in zip(stores, without, strict=True))
    of_tail: Kept | Computed | None = cut_activations[0] if cut_activations else None
    if cut_activations and run and without[0]:
        of_tail = Computed(cut_activations[0], dataset, run)
    return Features(pooled, of_tail, engine, len(rows), len(first))


def _compiled(cache: NetworkCache, engine: Engine, dataset: Dataset, say: Callable[[str], None]) -> Forward:
    if engine.precision != "int8":
        return cache.compiled(engine)
    calibrated_on = list(int8.samples(dataset))
    say(f"Calibrating the 8-bit network on {len(calibrated_on)} train images (about half a minute) ...")
    return cache.compiled(engine, calibrated_on)


def _kept(store: Store, checksums: list[str], without: set[str]) -> Kept:
    """The activations of a set's images; `without` those that are not there, or damaged."""
    index = store.index()
    rows = [-1 if checksum in without else index[checksum] for checksum in checksums]
    return Kept(store.read(), np.array(rows, np.int64))


def addresses(
    dataset: Dataset, cache: NetworkCache, engine: Engine, arithmetic: list[str] | None = None
) -> dict[Store, dict[str, Any]]:
    """The store of the tensors that cross the cut, and that of the pooled output, each with its description.

    `arithmetic` is what other processors have that compute them, where it isn't what this one has. The cut is in both addresses. In bfloat16 the pooled output depends on the network's other outputs, too: they
    decide which layers an engine computes in one, and what is rounded in between.
    """
    about = {
        "format": FORMAT,
        "versions": versions(engine.packages),
        "weights": cache.weights,
        "size": list(dataset.size),
    }
    part = cache.part
    about |= {**engine._asdict(), "cut": list(part.names)}
    about |= {} if arithmetic is None else {"arithmetic": arithmetic}
    about |= {"calibration": int8.digest(dataset)} if engine.precision == "int8" else {}
    found = {}
    for names, shapes, dtype in (
        (part.names, tuple(tuple(x.shape[1:]) for x in part.tail.inputs), engine.kept_dtype),
        (("pooled",), ((part.tail.outputs[0].shape[-1],),), np.dtype(np.float32)),
    ):
        described = {**about, "layers": list(names)}
        name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
        found[Store(cache.folder / name, shapes, dtype)] = described
    return found


def _keep(
    dataset: Dataset,
    values: Iterable[tuple[NDArray[np.int64], list[NDArray[Any]]]],
    count: int,
    stores: tuple[Store, ...],
    lack: list[set[str]],
    progress: Progress,
) -> None:
    """Add each batch's activations, with the images' rows, to the stores that lack them; `count` images in all."""
    checksums = dataset.rows["sha256"].to_numpy()
    done, writing = 0, None
    with ThreadPoolExecutor(1) as writer:  # a batch goes to the disk while the next one is computed
        for rows, outputs in values:
            if writing:
                writing.result()
                progress(done, count)
            writing = writer.submit(_append, stores, lack, checksums[rows], outputs)
            done += len(rows)
        if writing:
            writing.result()
            progress(done, count)


def _append(
    stores: tuple[Store, ...], lack: list[set[str]], batch: NDArray[Any], outputs: list[NDArray[np.float32]]
) -> None:
    """Add a batch's activations, by checksum, to each store that lacks them; the last store has the last output."""
    arrays_of_each = (outputs[:-1], outputs[-1:])[-len(stores) :]
    for store, lacking, arrays in zip(stores, lack, arrays_of_each, strict=True):
        chosen = [at for at, checksum in enumerate(batch) if checksum in lacking]
        if not chosen:
            continue
        try:
            store.append(
                batch[chosen].tolist(), [array if len(chosen) == len(batch) else array[chosen] for array in arrays]
            )
        except OSError as error:
            raise FeaturesError(
                f"{store.folder}: {error.strerror}; make room and run it again (it goes on from here), or give "
                "--cache on another disk"
            ) from None


def _outputs(dataset: Dataset, rows: NDArray[np.int64], forward: Forward) -> Iterator[list[NDArray[np.float32]]]:
    """Yield what the frozen part makes of some images, a batch at a time."""
    chosen = dataset.rows.iloc[rows]
    return outputs_of(dataset.paths(chosen), chosen["sha256"].tolist(), dataset.size, forward)


def _room(cache: Path, limit: int | None) -> int:
    """Bytes that `cache` may grow by."""
    free = shutil.disk_usage(cache).free - _SPARE
    return free if limit is None else min(free, limit - taken(cache))
