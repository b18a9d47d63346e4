"""Where TensorFlow has a GPU: the same numbers as from the processor, in both precisions and in both phases."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from train import console
from train.features import backbone, engine
from train.features.forward import BATCH, NetworkCache

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="TensorFlow has no GPU here"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_frozen_layers_give_what_they_give_on_the_processor(precision: str, tmp_path: Path) -> None:
    """In float32 to 1e-4 of the largest activation, which TF32's ten bits would miss; in bfloat16 to 2 %."""
    console.import_tensorflow()
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, 96, 96, 3)).astype(np.float32)
    part = backbone.cut(backbone.load_backbone("resnet50v2", "random", (96, 96), 0), 5)
    with tf.device("CPU"):
        cache = NetworkCache(part, "w", tmp_path)
        network = cache.network
        expected = [values.numpy() for values in network(images, training=False)]
    for got, wanted in zip(cache.compiled(engine.Engine("tensorflow", precision))(images), expected, strict=True):
        bound = (2e-2 if precision == "bfloat16" else 1e-4) * np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, atol=bound, rtol=0)


def test_bfloat16_is_a_candidate_and_openvino_is_not_the_only_one() -> None:
    """Which one is taken is measured."""
    found = engine.candidates("auto")
    assert found[:2] == [engine.PLAIN, engine.Engine("tensorflow", "bfloat16")]
    assert engine.candidates("tensorflow") == [engine.PLAIN], "a wish is for float32"
    assert engine.machine()["gpus"] >= 1


def test_a_run_gives_what_it_gives_without_the_gpu(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """In two processes, one of which doesn't see it, all in float32."""
    manifest = image_set(train=24, val=8, test=8)
    found = []
    for name, devices in (("with", os.environ.get("CUDA_VISIBLE_DEVICES", "0")), ("without", "-1")):
        command = [sys.executable, "-m", "train", "fit", str(manifest), "--root", str(tmp_path), "--weights", "random"]
        command += ["--run", str(tmp_path / name), "--cache", str(tmp_path / f"cache-{name}"), "--engine", "tensorflow"]
        command += ["--epochs", "2", "--fine-tune-epochs", "2", "--learning-rate", "1e-2"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": devices}
        subprocess.run(command, check=True, cwd=Path(__file__).parents[3], env=environment, capture_output=True)
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        found.append([phase["test"]["brier"]["value"] for phase in metrics.values()])
    np.testing.assert_allclose(found[0], found[1], atol=0.01)
