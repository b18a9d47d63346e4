"""Several devices share the batches and come to what one does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SEVERAL = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv.pop(1)))
from train.features import backbone as model
from train.cli import main
print("replicas", model.strategy().num_replicas_in_sync)
main()
"""


@pytest.mark.slow
def test_two_devices_train_as_one(image_set: Callable[..., Path], environment: dict[str, str]) -> None:
    """Two logical CPU devices give one's history and probabilities within float tolerance, in both phases."""
    manifest = image_set(train=12, val=6, test=4)
    root = manifest.parent.parent
    options = ["--weights", "random", "--epochs", "2", "--fine-tune-epochs", "2", "--batch-size", "8"]
    options += ["--learning-rate", "0.01", "--fine-tune-learning-rate", "0.001", "--engine", "tensorflow"]
    for devices in ("1", "2"):
        place = ["--root", str(root), "--run", str(root / "runs" / devices)]
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, devices, "fit", str(manifest), *place, *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"replicas {devices}" in done.stdout
    one, two = (root / "runs" / devices for devices in ("1", "2"))
    histories = [pd.read_csv(run / "history.csv") for run in (one, two)]
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-3)
    tables = [pd.read_csv(run / "predictions.csv") for run in (one, two)]
    np.testing.assert_allclose(tables[1]["p(class1)"], tables[0]["p(class1)"], atol=1e-3)
    assert json.loads((two / "settings.json").read_text()) == json.loads((one / "settings.json").read_text())
