"""A run's model -> other programs' formats, each compared with the original before it gets its name.

The preprocessing is in the model, so each takes what the original takes: float32 images of RGB, 0..255.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.errors import UserError
from manifests import contract
from train.dataset import images
from train.features.engine import load_openvino
from train.inference.predictor import Trained, of_each_class

FORMATS = {"saved_model": "saved_model", "onnx": "model.onnx", "tflite": "model.tflite", "openvino": "openvino"}
TOLERANCE = 1e-3  # in a probability: float32 everywhere, but each sums in its own order
_IMAGES = 16  # that are compared

Floats = NDArray[np.float32]
_Forward = Callable[[Floats], Floats]


class ExportError(UserError):
    """The model can't be exported; the message names the format and the fix."""


class Exported(NamedTuple):
    """What was written, what it was compared on, and the largest difference of a probability."""

    path: Path
    compared: str
    difference: float


def export(trained: Trained, kind: str, out: Path | None, root: Path | None = None) -> Exported:
    """Write the model in a format, compare it with the original, and give it its name.

    Args:
        trained: the run.
        kind: one of FORMATS. `saved_model` and `openvino` are folders, the others files.
        out: where it goes; in the run's folder if None.
        root: what the paths of the run's manifest are relative to; None: as its card has it.

    Raises:
        ExportError: a package is missing, something is there already, or the exported model answers otherwise.
    """
    _check_packages(kind)
    path = out or trained.run / FORMATS[kind]
    ending = Path(FORMATS[kind]).suffix
    if ending and path.suffix != ending:
        raise ExportError(f"--out {path}: for --format {kind} give a name that ends in {ending}")
    if os.path.lexists(path):
        raise ExportError(f"{path} is there already; move it away, or give another name by --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    batch, compared = _some_images(trained, root)
    expected = trained.probabilities(batch)  # before the export: Keras's to ONNX refuses a model that was never called
    with _partial(path) as partial:
        answers = of_each_class(_WRITERS[kind](trained.model, partial)(batch))
        difference = float(np.abs(answers - expected).max())
        if not difference <= TOLERANCE:  # a NaN, too, is refused
            raise ExportError(
                f"--format {kind}: its probabilities differ by {difference:.2g} from the original's on {compared}, more "
                f"than {TOLERANCE:g}, so it was thrown away; take another format, or other versions of the packages"
            )
        os.replace(partial, path)
    return Exported(path, compared, difference)


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Where the model is written before it has its name: the ending stays, since exporters go by it."""
    partial = path.with_name(f".partial.{path.name}")
    _remove(partial)  # what a kill left
    try:
        yield partial
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_packages(kind: str) -> None:
    needed = {"onnx": ("tf2onnx", "onnxruntime"), "openvino": ("openvino",), "tflite": ("ai_edge_litert",)}
    for package in needed.get(kind, ()):
        if find_spec(package) is None:
            raise ExportError(
                f"--format {kind}: the package {package.replace('_', '-')} is not installed; "
                f"python -m pip install -r requirements-{kind}.txt"
            )


def _some_images(trained: Trained, root: Path | None) -> tuple[Floats, str]:
    """Images to compare on, float32 (images, height, width, 3): the run's test images, or noise; and which they are."""
    paths = _test_images(trained, root)
    if paths:
        chosen = sorted({round(at) for at in np.linspace(0, len(paths) - 1, _IMAGES)})
        with contextlib.suppress(tf.errors.OpError):  # an image that is gone or damaged
            batch = next(iter(images([paths[at] for at in chosen], trained.size, _IMAGES))).numpy()
            return batch, f"{len(batch)} of the run's test images"
    width, height = trained.size
    noise = np.random.default_rng(0).uniform(0, 255, (_IMAGES, height, width, 3)).astype(np.float32)
    return noise, f"{_IMAGES} images of made-up noise (the run's test images are not at hand)"


def _test_images(trained: Trained, root: Path | None) -> list[Path]:
    """Those of the run's manifest, as long as it is the one that the run was trained on."""
    manifest = Path(str(trained.settings.get("manifest")))
    try:
        rows = contract.read(manifest)
        if hashlib.sha256(manifest.read_bytes()).hexdigest() != trained.settings.get("manifest_sha256"):
            return []
    except (contract.ContractError, OSError):
        return []
    base = contract.root_of(manifest, root)
    return [base / path for path in rows.loc[rows["split"] == "test", "path"]]


def _saved_model(model: keras.Model, path: Path) -> _Forward:
    model.export(str(path), format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(path))
    return lambda batch: loaded.serve(tf.constant(batch)).numpy()


def _onnx(model: keras.Model, path: Path) -> _Forward:
    # Before each of its twelve passes tf2onnx copies the graph, weights and all, unless this is set, and each pass leaves
    # another copy in protobuf's memory: 8.6 GB for a ResNet50V2. Eleven of the passes ONNX Runtime does by itself as it
    # loads a model, as fast in the end; the one that stays takes out transpositions.
    os.environ["TF2ONNX_CATCH_ERRORS"] = "0"
    import onnxruntime
    from tf2onnx import optimizer

    for name in optimizer._optimizers.keys() - {"optimize_transpose"}:  # noqa: SLF001  # there is no public way
        del optimizer._optimizers[name]  # noqa: SLF001
    model.export(str(path), format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]


def _tflite(model: keras.Model, path: Path) -> _Forward:
    from ai_edge_litert.interpreter import Interpreter

    model.export(str(path), format="litert", verbose=False)
    interpreter = Interpreter(str(path))

    def forward(batch: Floats) -> Floats:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
        interpreter.invoke()
        answer: Floats = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return answer

    return forward


def _openvino(model: keras.Model, path: Path) -> _Forward:
    openvino = load_openvino()
    path.mkdir()
    model.export(str(path / "model.xml"), format="openvino", verbose=False)
    core = openvino.Core()
    # What is written is float32; left to itself, OpenVINO would compute in bfloat16 where the processor has it.
    network = core.compile_model(core.read_model(path / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: network(batch)[0]


_WRITERS: dict[str, Callable[[keras.Model, Path], _Forward]] = {
    "saved_model": _saved_model,
    "onnx": _onnx,
    "tflite": _tflite,
    "openvino": _openvino,
}
