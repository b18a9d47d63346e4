"""Which engine runs the frozen part, and in which precision the last layers are trained: measured, once for a machine.

What a processor lists says little: with bfloat16 and AMX the pass is five times as fast as TensorFlow's, with bfloat16
but without AMX it is slower. Timings are kept beside the activations, so that the same command chooses alike again.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from common.files import write_atomically
from train.dataset import Dataset
from train.features.backbone import Cut, make_head
from train.features.engine import PLAIN, Engine, candidates, has_bfloat16, machine
from train.features.extract import addresses
from train.features.forward import BATCH, NetworkCache
from train.features.store import versions
from train.features.tail import Tail, training_form

MARGIN = 1.05  # how much faster than a plainer candidate one has to be: as much is noise
HELD = 0.8  # the share of a set's images whose kept activations decide for their engine
_ROUNDS, _SECONDS = 5, 2.0  # at most so many, and no new one after so long; at least two

Clock = Callable[[], float]
Candidate = TypeVar("Candidate")


class Choice(NamedTuple):
    """What computes a run: the engine of the frozen part, the precision of the fine-tuning step, and why."""

    engine: Engine
    fine_tune_precision: str
    reason: str


def choose(
    wanted: str,
    dataset: Dataset,
    cache: NetworkCache,
    *,
    batch_size: int,
    with_tail: bool,
    before: Mapping[str, Any],
    precision: str = "auto",
    clock: Clock = time.perf_counter,
) -> Choice:
    """Choose the engine and the precision for a run.

    Args:
        wanted: one of settings.ENGINES.
        dataset: the set.
        cache: the network, whose weights stay as they are, and the folder that activations, and timings, are kept in.
        batch_size: of the fine-tuning step.
        with_tail: whether there is fine-tuning.
        before: settings of this very run if it was begun before: it goes on as it began.
        precision: one of settings.PRECISIONS.
        clock: seconds, for timing.

    Raises:
        EngineError: OpenVINO is asked for and not installed, or `int8` of another engine.
        Int8Error: its packages aren't installed.
    """
    engines = candidates(wanted, precision)
    began = Engine(str(before.get("engine")), str(before.get("precision")))
    of_step = before.get("fine_tune_precision")
    if began in engines and of_step in ("float32", "bfloat16"):
        return Choice(began, str(of_step), f"{_name(began)}, as this run began")
    engine, reason = _engine(engines, dataset, cache, with_tail=with_tail, clock=clock)
    of_step = "float32"
    if (
        with_tail
        and wanted != "tensorflow"
        and has_bfloat16()
        and tf.distribute.get_strategy().num_replicas_in_sync == 1
    ):
        part = cache.part
        shapes = [list(x.shape[1:]) for x in part.tail.inputs]
        key = {"step": len(part.tail.layers), "shapes": shapes, "batch": batch_size, "dtype": engine.dtype.name}
        seconds = kept(cache.folder, key, lambda: _step_seconds(part, engine, batch_size, clock))
        of_step = fastest({name: seconds[name] for name in ("float32", "bfloat16") if name in seconds})
        reason += f"; fine-tuning in {of_step} ({_times(seconds)} a step)"
    return Choice(engine, of_step, reason)


def _engine(
    engines: list[Engine],
    dataset: Dataset,
    cache: NetworkCache,
    *,
    with_tail: bool,
    clock: Clock,
) -> tuple[Engine, str]:
    """The engine, and why."""
    if len(engines) == 1:
        return engines[0], f"{_name(engines[0])}, nothing else to choose from"
    images = set(dataset.rows.loc[~dataset.is_held_out, "sha256"])  # those held out are measured in float32 anyway
    held = {}
    for engine in engines:
        of_tail, pooled = addresses(dataset, cache, engine)
        held[engine] = len(images & (of_tail if with_tail else pooled).index().keys())
    there = [engine for engine in engines if held[engine] >= HELD * len(images)]
    if len(there) == 1:
        return there[0], f"{_name(there[0])}, which {held[there[0]]:,} of {len(images):,} images are kept of"
    part = cache.part
    layers = [len(part.frozen.layers), len(part.tail.layers)]  # which identify the backbone and the cut
    key = {"pass": layers, "size": list(dataset.size), "engines": [_name(engine) for engine in engines]}
    seconds = kept(cache.folder, key, lambda: pass_seconds(cache, engines, clock))
    chosen = fastest({engine: seconds[_name(engine)] for engine in there or engines if _name(engine) in seconds})
    speeds = ", ".join(f"{name} {BATCH / taken:.1f}" for name, taken in seconds.items())
    return chosen, f"{_name(chosen)}, by images/s on this machine: {speeds}"


def fastest(seconds: Mapping[Candidate, float]) -> Candidate:
    """The first candidate that none is faster than by more than the margin; the plainest stands first."""
    return next(name for name, taken in seconds.items() if taken <= MARGIN * min(seconds.values()))


def timed(runs: Mapping[str, Callable[[], object]], clock: Clock = time.perf_counter) -> dict[str, float]:
    """Seconds that each run takes, at best; what compiles at the first call has been called before.

    They take turns, so that what else the machine does hits all alike, and the least of each counts. One that is
    far behind after two rounds is timed no more.
    """
    least = dict.fromkeys(runs, math.inf)
    racing, began = list(runs), clock()
    for number in range(_ROUNDS):
        for name in racing:
            start = clock()
            runs[name]()
            least[name] = min(least[name], clock() - start)
        if number and clock() - began > _SECONDS:
            break
        racing = [name for name in racing if not number or least[name] <= 1.5 * min(least.values())]
    return least


def kept(cache: Path, key: Mapping[str, Any], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The timings that are kept for this machine, these packages and a key; or measure and keep them."""
    described = {**key, "machine": machine(), "versions": _versions()}
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"timings-{name}.json"
    try:
        seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.is_file() else {}
        if seconds and all(type(taken) is float and 0 < taken < math.inf for taken in seconds.values()):
            return dict(seconds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # damaged: measured again
    seconds = measure()
    write_atomically(path, json.dumps({**described, "seconds": seconds}, indent=2) + "\n")
    return seconds


def _versions() -> dict[str, str]:
    try:
        return versions(["openvino"])
    except ModuleNotFoundError:  # importlib's, of a package that isn't installed
        return versions()


def pass_seconds(cache: NetworkCache, engines: list[Engine], clock: Clock) -> dict[str, float]:
    """Seconds a batch through the frozen part, by engine's name. An engine that fails is left out."""
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, *cache.part.frozen.input.shape[1:])).astype(np.float32)
    runs: dict[str, Callable[[], object]] = {}
    for engine in engines:
        try:
            run = cache.compiled(engine)
            run(images)  # compiles, and fills caches
        except Exception:  # whatever another version of OpenVINO raises: TensorFlow, which is tried first, is there
            if engine == PLAIN:
                raise
            continue
        runs[_name(engine)] = lambda run=run: run(images)  # type: ignore[misc]  # mypy: a lambda's default has no type
    return timed(runs, clock)


def _step_seconds(part: Cut, engine: Engine, batch_size: int, clock: Clock) -> dict[str, float]:
    """Seconds a fine-tuning step, by precision. The rate is 0, so that no weight changes."""
    rng = np.random.default_rng(0)
    cut_activations = [
        np.abs(rng.normal(size=(batch_size, *x.shape[1:]))).astype(engine.dtype) for x in part.tail.inputs
    ]
    given, labels = cut_activations if len(cut_activations) > 1 else cut_activations[0], rng.integers(0, 2, batch_size)
    weights = part.tail.get_weights()
    part.tail.trainable = True
    runs: dict[str, Callable[[], object]] = {}
    for precision in ("float32", "bfloat16"):
        with training_form(part, precision):
            tail = Tail(part, make_head(2, 0))
            tail.compile(keras.optimizers.Adam(0.0), loss="binary_crossentropy", jit_compile=False)
            tail.train_on_batch(given, labels)  # traces it in this form
        runs[precision] = lambda tail=tail: tail.train_on_batch(given, labels)  # type: ignore[misc]  # as above
    seconds = timed(runs, clock)
    part.tail.set_weights(weights)
    return seconds


def _name(engine: Engine) -> str:
    return f"{engine.name} {engine.precision}"


def _times(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {taken * 1000:.0f} ms" for name, taken in seconds.items())
