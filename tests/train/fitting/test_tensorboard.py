"""What TensorBoard finds in a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

from train.evaluation import results
from train.fitting import tensorboard
from train.reporting import plots


def test_figures_numbers_and_settings_are_in_the_logs(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """Each figure is a picture, each phase's number a step of a scalar, and the settings are hyperparameters."""
    folder = drawn_run(tmp_path)
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(folder / "rescaling.png")
    run = results.read(folder)
    tensorboard.write(run, plots.pictures(run), folder)
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = found.Tags()["tensors"]
    names = {"accuracy", "loss", "roc", "precision-recall", "reliability", "threshold"}
    assert {f"figures/{name}" for name in names} | {"images/rescaling"} <= set(tags)
    for tag in tags:
        if tag.startswith(("figures/", "images/")):
            (event,) = found.Tensors(tag)
            assert tf.io.decode_png(event.tensor_proto.string_val[2]).shape[2] == 3
    logged = [tf.make_ndarray(event.tensor_proto) for event in found.Tensors("test/accuracy (chosen)")]
    decided = [phase.test.decisions["chosen"].accuracy.value for phase in run.metrics.values()]
    assert logged == pytest.approx(decided)
    metadata = found.SummaryMetadata(SESSION_START_INFO_TAG)
    settings = parse_session_start_info_plugin_data(metadata.plugin_data.content).hparams
    assert settings["learning_rate"].number_value == 1e-3
    assert settings["class_weight"].string_value == "none"
