"""The frozen part's outputs, computed once and kept: for both phases, for every run, and for every set.

The images of a set don't change between epochs, so neither does what the frozen layers make of them. What is
kept goes by each image's checksum: the test images and the sources as they are cost one pass for all recipes.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from train.dataset import Dataset, DatasetError, images
from train.engine import Engine, Forward, compiled
from train.model import Cut, preprocess
from train.store import Store, locked, stored

FORMAT = 3  # raise when what is stored changes
_BATCH = 32  # images a pass, always: another number could change the last bits
_SPARE = 10**9  # bytes of the disk that are left free

Progress = Callable[[int, int], None]


class FeaturesError(ValueError):
    """The activations can't be kept; the message names the place and the fix."""


class Kept(NamedTuple):
    """Memory-mapped activations; `at` has the row of each image of the set, in the order of its manifest."""

    arrays: list[NDArray[Any]]
    at: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Those of some images of the set, each of shape (rows, ...)."""
        taken = tuple(array[self.at[rows]] for array in self.arrays)
        for array in self.arrays:
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # Windows has none
                # Else the whole file comes to count as this process's memory. It stays in the system's cache.
                array.base.madvise(mmap.MADV_DONTNEED)
        return taken


class Computed(NamedTuple):
    """Activations that there is no room for: computed anew whenever they are asked for."""

    dataset: Dataset
    forward: Forward

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Those of some images of the set, each of shape (rows, ...)."""
        return tuple(np.concatenate(parts) for parts in zip(*_outputs(self.dataset, rows, self.forward), strict=True))


class Features(NamedTuple):
    """A set's activations, made by `engine`; `computed` of its `different` images were not in the store.

    `pooled` is the backbone's output averaged over its pixels, as long as nothing is fine-tuned; `crossing` the
    tensors that cross the cut, if they are wanted.
    """

    pooled: Kept
    crossing: Kept | Computed | None
    engine: Engine
    computed: int
    different: int  # identical files count once


def features(
    dataset: Dataset,
    part: Cut,
    weights: str,
    cache: Path,
    engine: Engine,
    progress: Progress,
    *,
    with_tail: bool = True,
    limit: int | None = None,
) -> Features:
    """Take up the activations that are kept of a set's images, and compute and keep the others.

    Args:
        dataset: the set.
        part: the backbone, cut.
        weights: the digest of its weights.
        cache: the folder that activations are kept in.
        engine: what runs the frozen part.
        progress: called with (images done, images to do).
        with_tail: whether the tensors that cross the cut are wanted too.
        limit: bytes that `cache` may grow to.

    Raises:
        FeaturesError: the disk has no room even for the pooled outputs.
        StoreError: another run is at it.
        DatasetError: an image is not the one in the manifest.
    """
    crossing, pooled = _stores(dataset, part, weights, cache, engine)
    checksums = dataset.rows["sha256"].tolist()
    with locked(cache):
        in_pooled, in_crossing = pooled.index(), crossing.index()
        lacks_crossing = {checksum for checksum in checksums if checksum not in in_crossing} if with_tail else set()
        keeps = with_tail and len(lacks_crossing) * crossing.row_bytes <= _room(cache, limit)
        wanted = {checksum for checksum in checksums if checksum not in in_pooled} | (
            lacks_crossing if keeps else set()
        )
        first = {checksum: row for row, checksum in reversed(list(enumerate(checksums)))}
        rows = np.array(sorted(first[checksum] for checksum in wanted), np.int64)
        if len(rows) * pooled.row_bytes > shutil.disk_usage(cache).free:
            raise FeaturesError(f"{cache}: no room for the activations; make some, or give --cache on another disk")
        if len(rows):
            stores = (crossing, pooled) if keeps else (pooled,)
            _compute(dataset, rows, stores, forward(part, engine, with_tail=keeps), progress)
    kept: Kept | Computed | None = None
    if keeps:
        kept = _kept(crossing, checksums)
    elif with_tail:
        kept = Computed(dataset, forward(part, engine, with_pool=False))
    return Features(_kept(pooled, checksums), kept, engine, len(rows), len(first))


def _kept(store: Store, checksums: list[str]) -> Kept:
    index = store.index()
    return Kept(store.read(), np.array([index[checksum] for checksum in checksums], np.int64))


def _stores(dataset: Dataset, part: Cut, weights: str, cache: Path, engine: Engine) -> tuple[Store, Store]:
    """The store of the tensors that cross the cut, and that of the pooled output, whatever the cut."""
    about = {"format": FORMAT, "weights": weights, "size": list(dataset.size), **engine._asdict()}
    about["version"] = keras.version()
    made = []
    for names, shapes, dtype in (
        (part.names, tuple(x.shape[1:] for x in part.tail.inputs), engine.dtype),
        (("pooled",), ((part.tail.outputs[0].shape[-1],),), np.dtype(np.float32)),
    ):
        told = {**about, "layers": list(names)}
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        store = Store(cache / name, shapes, dtype)
        store.create(told)
        made.append(store)
    return made[0], made[1]


def forward(part: Cut, engine: Engine, *, with_tail: bool = True, with_pool: bool = True) -> Forward:
    """From raw images to the tensors that cross the cut, and then the pooled output."""
    pixels = keras.Input(part.frozen.input.shape[1:])
    frozen = part.frozen(preprocess(pixels), training=False)
    crossing = list(frozen) if isinstance(frozen, (list, tuple)) else [frozen]
    pooled = keras.layers.GlobalAveragePooling2D()(part.tail(crossing, training=False))
    return compiled(
        keras.Model(pixels, (crossing if with_tail else []) + ([pooled] if with_pool else [])), engine, _BATCH
    )


def _compute(
    dataset: Dataset, rows: NDArray[np.int64], stores: tuple[Store, ...], forward: Forward, progress: Progress
) -> None:
    """Run the frozen part over some images, and add what comes of each batch to the stores that lack it."""
    checksums = dataset.rows["sha256"].to_numpy()
    lack = [set(checksums[rows]) - store.index().keys() for store in stores]
    done, writing = 0, None
    with ThreadPoolExecutor(1) as writer:  # a batch goes to the disk while the next one is computed
        for outputs in _outputs(dataset, rows, forward):
            batch = checksums[rows[done : done + len(outputs[0])]]
            if writing:
                writing.result()
                progress(done, len(rows))
            writing = writer.submit(_append, stores, lack, batch, outputs)
            done += len(batch)
        if writing:
            writing.result()
            progress(done, len(rows))


def _append(
    stores: tuple[Store, ...], lack: list[set[str]], batch: NDArray[Any], outputs: list[NDArray[np.float32]]
) -> None:
    """Add what came of a batch of images, by checksum, to each store that lacks it."""
    start = 0
    for store, lacking in zip(stores, lack, strict=True):
        chosen = [at for at, checksum in enumerate(batch) if checksum in lacking]
        arrays = outputs[start : start + len(store.shapes)]
        start += len(store.shapes)
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
    """Yield what the frozen part makes of some images, a batch at a time; the last is filled up and cut again."""
    chosen = dataset.rows.iloc[rows]
    paths, expected = dataset.paths(chosen), chosen["sha256"].tolist()
    read = iter(images(paths, dataset.size, _BATCH))
    for start in range(0, len(rows), _BATCH):
        for path, sha256 in zip(paths[start : start + _BATCH], expected[start : start + _BATCH], strict=True):
            _expect(path, sha256)
        batch = next(read)  # after that: what can't be decoded is told by its name, and not by TensorFlow
        count = len(batch)
        pixels = batch.numpy()
        if count < _BATCH:
            pixels = np.concatenate([pixels, np.zeros((_BATCH - count, *pixels.shape[1:]), np.float32)])
        yield [values[:count] for values in forward(pixels)]


def _expect(path: Path, sha256: str) -> None:
    """Raise DatasetError unless a file is there and is the one with this checksum."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; build the set again (it renders only what is gone)") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(f"{path}: not the image in the manifest; `python -m augment verify` says more")


def _room(cache: Path, limit: int | None) -> int:
    """Bytes that `cache` may grow by."""
    free = shutil.disk_usage(cache).free - _SPARE
    taken = sum(len(store.index()) * store.row_bytes for store, _ in stored(cache))
    return free if limit is None else min(free, limit - taken)
