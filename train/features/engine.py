"""What runs the frozen part: TensorFlow, or OpenVINO where it is installed; `selection` measures which is faster.

Both can compute in bfloat16 where the machine has it: OpenVINO on a processor, TensorFlow there and on a GPU. Activations then
differ from those in float32 by up to 0.7 % of the largest one, and are kept in bfloat16, which loses nothing more. Where it is
asked for, OpenVINO computes in 8 bits (`int8`), and activations are kept in 8, too.
"""

import contextlib
import io
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.errors import UserError
from train.features import int8

Forward = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


class EngineError(UserError):
    """The engine can't be used; the message says how to get it."""


class Engine(NamedTuple):
    """Which program runs the frozen part, and in which precision: float32, bfloat16 or int8."""

    name: str
    precision: str

    @property
    def dtype(self) -> np.dtype:
        """In which activations are trained on."""
        return np.dtype(np.float32 if self.precision == "float32" else ml_dtypes.bfloat16)

    @property
    def kept_dtype(self) -> np.dtype:
        """In which they are kept: float8 has a range like theirs, without a scale for each channel, as integers need."""
        return _FLOAT8 if self.precision == "int8" else self.dtype

    @property
    def packages(self) -> tuple[str, ...]:
        """Those that it needs beside TensorFlow."""
        if self.name == "tensorflow":
            return ()
        return ("openvino", "nncf") if self.precision == "int8" else ("openvino",)


_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile")
_FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
_LARGEST = float(ml_dtypes.finfo(_FLOAT8).max)
PLAIN = Engine("tensorflow", "float32")


def candidates(wanted: str, precision: str = "auto") -> list[Engine]:
    """The engines that a wish leaves to choose from, on this machine; the plainest and most exact first.

    `tensorflow` is in float32, always; `auto` takes it in bfloat16, too, on a GPU, and on a processor without OpenVINO.

    Raises:
        EngineError: OpenVINO is asked for and not installed, or `int8` of another engine.
        Int8Error: its packages aren't installed.
    """
    if precision == "int8":
        if wanted == "tensorflow":
            raise EngineError("--engine tensorflow computes in float32; leave it out, or --precision int8")
        int8.require()
        return [Engine("openvino", "int8")]
    there = find_spec("openvino") is not None
    if wanted == "openvino" and not there:
        raise EngineError(
            "--engine openvino: the package openvino is not installed; "
            "python -m pip install -r requirements-openvino.txt, or take --engine tensorflow"
        )
    if wanted == "tensorflow":
        return [PLAIN]
    # Not beside OpenVINO's bfloat16, which is the faster one on every processor.
    in_bfloat16 = has_gpu() or (has_bfloat16() and not there)
    of_tensorflow = [PLAIN, Engine("tensorflow", "bfloat16")] if in_bfloat16 else [PLAIN]
    if not there:
        return of_tensorflow
    openvino = load_openvino()
    # Also where it has no fast arithmetic for it: on a Xeon with AVX-512 but no AMX it is slower than float32.
    in_bfloat16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = [Engine("openvino", precision) for precision in ("float32", *(("bfloat16",) if in_bfloat16 else ()))]
    return found if wanted == "openvino" else [*of_tensorflow, *found]


def compiled(
    model: keras.Model,
    engine: Engine,
    batch: int | None = None,
    *,
    graph: Any = None,
    calibrated_on: Sequence[NDArray[np.uint8]] = (),
) -> Forward:
    """A function from images, float32 (batch, height, width, 3), to the list of the model's outputs as float32.

    Several threads may call it: where activations aren't kept, tf.data's do.

    Args:
        model: takes such images.
        engine: what runs it.
        batch: OpenVINO takes so many and no other number, which is a tenth faster; None: any number.
        graph: for OpenVINO, what `exported` gives of the model; None: it is exported now.
        calibrated_on: for `int8`, images (1, height, width, 3).
    """
    if engine.name == "openvino":
        return _openvino(exported(model) if graph is None else graph, engine.precision, batch, calibrated_on)
    return _tensorflow(model, engine.precision)


def _tensorflow(model: keras.Model, precision: str) -> Forward:
    if precision == "bfloat16":
        model = _in_bfloat16(model)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def forward(batch: tf.Tensor) -> list[tf.Tensor]:
        outputs = model(batch, training=False)
        listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]  # Keras unpacks a list of one
        return [tf.cast(values, tf.float32) for values in listed]

    return lambda batch: [values.numpy() for values in forward(tf.constant(batch))]


def _in_bfloat16(model: keras.Model) -> keras.Model:
    """A network with these weights whose layers compute in bfloat16, from float32 and to it."""

    def layer_of(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.Model):
            return _in_bfloat16(layer)
        policy = "float32" if isinstance(layer, keras.layers.InputLayer) else "mixed_bfloat16"
        return layer.__class__.from_config({**layer.get_config(), "dtype": policy})

    clone = keras.models.clone_model(model, clone_function=layer_of)
    clone.set_weights(model.get_weights())
    return clone


def load_openvino() -> ModuleType:
    """OpenVINO, but for the package by which it tells its maker of its use: nothing here reports to anybody."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    return import_module("openvino")


def exported(model: keras.Model) -> Any:
    """The model as OpenVINO's, an `openvino.Model`."""
    openvino = load_openvino()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps what is mapped
        path = Path(folder) / "frozen.xml"
        with contextlib.redirect_stdout(io.StringIO()):  # Keras's export prints notes
            model.export(str(path), format="openvino", verbose=False)
        return openvino.Core().read_model(path)


def _openvino(graph: Any, precision: str, batch: int | None, calibrated_on: Sequence[NDArray[np.uint8]]) -> Forward:
    graph = graph.clone()  # which shares the weights
    _, *shape = graph.input().get_partial_shape()
    if precision == "int8":
        graph.reshape([1, *shape])
        graph = int8.quantised(graph, calibrated_on)
    if batch:
        graph.reshape([batch, *shape])
    kind = "bf16" if precision == "bfloat16" else "f32"  # of int8: what is between the convolutions
    network = load_openvino().Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": kind})
    alone = Lock()  # a compiled network has one request, which fails when it is asked again before it has answered

    def forward(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with alone:
            outputs = network(images)
            found = [outputs[output] for output in network.outputs]
        # Beyond the largest, NumPy's conversion to float8 gives NaN.
        return [np.clip(values, -_LARGEST, _LARGEST) for values in found] if precision == "int8" else found

    return forward


def has_gpu() -> bool:
    """Whether TensorFlow has one."""
    return bool(tf.config.list_logical_devices("GPU"))


def has_bfloat16() -> bool:
    """Whether TensorFlow computes in bfloat16 by instructions for that."""
    return has_gpu() or bool(_BFLOAT16 & set(machine()["arithmetic"]))


def machine() -> dict[str, Any]:
    """What the speeds depend on: the processor's name, its arithmetic, how many of its cores we have, and GPUs."""
    lines = _cpuinfo()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name or platform.processor() or platform.machine(),
        "arithmetic": [flag for flag in _FLAGS if flag in flags],
        "cores": cores,
        "gpus": len(tf.config.list_logical_devices("GPU")),
    }


def _cpuinfo() -> Iterable[str]:
    path = Path("/proc/cpuinfo")  # Linux only
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
