"""A run's model in other formats: each is run for real."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

from train import dataset as datasets
from train.cli import main
from train.inference import export, predictor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning"),  # tf2onnx under NumPy 2
]


def spread(head: keras.layers.Dense) -> None:
    """Random weights alone give every image one probability."""
    head.kernel.assign(head.kernel * 30)


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(head=spread)


@pytest.fixture(scope="module")
def run_of_three(make_run: Callable[..., Path]) -> Path:
    return make_run(classes=("a", "b", "c"), size=(96, 64), head=spread)


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def answers(kind: str, path: Path, batch: np.ndarray) -> np.ndarray:
    """What a program that knows nothing of Evenset gets from an exported model."""
    if kind == "saved_model":
        return tf.saved_model.load(str(path)).signatures["serving_default"](tf.constant(batch))["output_0"].numpy()
    if kind == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": batch})[0]
    if kind == "openvino":
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        return openvino.Core().compile_model(openvino.Core().read_model(path / "model.xml"), "CPU", settings)(batch)[0]
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(str(path)).get_signature_runner("serving_default")
    return np.concatenate([signature(image=image[None])["output_0"] for image in batch])  # one at a time


@pytest.mark.parametrize("kind", export.FORMATS)
@pytest.mark.parametrize("classes", [2, 3])
def test_each_format_answers_as_the_original(
    kind: str, classes: int, run: Path, run_of_three: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Raw images in, the original's probabilities out, for any number of images; nothing partial is left."""
    if kind != "saved_model":
        pytest.importorskip({"onnx": "tf2onnx", "openvino": "openvino", "tflite": "ai_edge_litert"}[kind])
    chosen = run if classes == 2 else run_of_three
    out = tmp_path / export.FORMATS[kind]
    # In a process of its own: a converter takes gigabytes that this one would keep.
    command = [sys.executable, "-m", "train", "export", chosen, "--format", kind, "--out", out]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "made-up noise" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    model = predictor.load(chosen)
    width, height = model.size
    batch = np.random.default_rng(1).uniform(0, 255, (5, height, width, 3)).astype(np.float32)
    batch *= np.linspace(0.2, 1, 5, dtype=np.float32)[:, None, None, None]
    expected = model.model(batch).numpy()
    assert np.ptp(expected[:, 0]) > 0.01, "images must differ, else this shows nothing"
    np.testing.assert_allclose(answers(kind, out, batch), expected, atol=1e-4)


def test_the_runs_test_images_are_compared_on_if_they_are_there(
    run: Path, tmp_path: Path, image_set: Callable[..., Path]
) -> None:
    """They are, until one of them or the manifest is no longer what it was; then noise takes their place."""
    manifest = image_set()
    root = manifest.parent.parent
    copy = shutil.copytree(run, tmp_path / "run")
    settings = json.loads((copy / "settings.json").read_text())
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (copy / "settings.json").write_text(json.dumps(settings | {"manifest": str(manifest), "manifest_sha256": sha256}))
    read = predictor.load(copy)
    batch, compared = export._some_images(read, root)
    assert compared == "8 of the run's test images"
    paths = [root / path for path in datasets.contract.read(manifest).query("split == 'test'")["path"]]
    np.testing.assert_array_equal(batch, next(iter(datasets.images(paths, (64, 64), 8))))
    assert "on 8 of the run's test images" in call(copy, "--format", "saved_model", "--root", root).output
    paths[3].write_text("no image")
    assert "made-up noise" in export._some_images(read, root)[1]
    manifest.write_text(manifest.read_text() + "\n")
    assert "made-up noise" in export._some_images(read, root)[1]


def test_what_answers_otherwise_gets_no_name(run: Path, tmp_path: Path) -> None:
    """An exported model whose answers differ is thrown away, with the difference and the limit in the message."""
    read = predictor.load(run)
    other = read._replace(forward=lambda batch: [np.full((len(batch), 1), 0.5, np.float32)])
    with pytest.raises(export.ExportError, match=r"differ by 0\.\d+ .* more than 0\.001"):
        export.export(other, "saved_model", tmp_path / "model", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(run: Path, tmp_path: Path) -> None:
    """What is there stays as it is, and the message says what to do."""
    (tmp_path / "model.tflite").write_text("mine")
    result = call(run, "--format", "tflite", "--out", tmp_path / "model.tflite")
    assert result.exit_code == 2
    assert "is there already" in result.output.splitlines()[-1]
    assert (tmp_path / "model.tflite").read_text() == "mine"
    assert "ends in .tflite" in call(run, "--format", "tflite", "--out", tmp_path / "model").output.splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "package"), [("onnx", "tf2onnx"), ("openvino", "openvino"), ("tflite", "ai_edge_litert")]
)
def test_a_missing_package_is_named_with_how_to_get_it(run: Path, tmp_path: Path, kind: str, package: str) -> None:
    """In a process that has no such package: one line with its name and the command."""
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        f"util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)\n"
        "from train.cli import main; main()"
    )
    words = ["export", run, "--format", kind, "--out", tmp_path / export.FORMATS[kind]]
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"package {package.replace('_', '-')} is not installed" in done.stderr.splitlines()[-1]
    assert f"requirements-{kind}.txt" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
