"""What a process keeps of the runs that it has trained."""

import gc
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner

from train.cli import main


@pytest.mark.slow
def test_a_process_that_trains_again_and_again_keeps_no_model(image_set: Callable[..., Path]) -> None:
    """After each of several fits and uses in one process, no model is left but those that were there before."""
    manifest = image_set()
    root = manifest.parent.parent
    fit = ["fit", str(manifest), "--root", str(root), "--weights", "random", "--epochs", "1", "--fine-tune-epochs", "1"]
    run = str(root / "runs" / "tiny")
    gc.collect()
    before = {id(model) for model in _models()}
    for words in ([*fit, "--seed", "1"], ["predict", run, str(root / "data")], [*fit, "--seed", "2"], ["report", run]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        del result
        gc.collect()
        assert [model.name for model in _models() if id(model) not in before] == []


def _models() -> list[keras.Model]:
    return [known for known in gc.get_objects() if isinstance(known, keras.Model)]
