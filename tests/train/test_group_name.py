"""What a recipe calls its groups is what people read of them, from the set to the report."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from manifests import contract
from train.cli import main
from train.evaluation import evaluate, results
from train.fitting import run_folder
from train.reporting import page


@pytest.fixture
def run(drawn_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A run on images of cups."""
    run = drawn_run(tmp_path)
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"group_name": "cup"}))
    return run


def test_tables_and_pages_speak_of_cups(run: Path, tmp_path: Path) -> None:
    """The comparison, the report with its card, the summary: cups, and neither groups nor patients."""
    compared = CliRunner().invoke(main, ["compare", str(run)])
    assert compared.exit_code == 0, compared.output
    assert "exact permutation of the cups" in compared.output
    assert results.summary(results.read(run)).columns[0] == "test of 8 images, 8 cups; positive: class1"
    out = tmp_path / "report.html"
    page.write([run], tmp_path, out, lambda *_: (None, "no model"), lambda *_: None)
    shown = out.read_text().replace("Nothing here may be used on patients.", "")
    for words in (
        "resamplings of the cups",
        "what other cups of the same kind",
        "each image counts as its own cup",
        "8 cups",
    ):
        assert words.lower() in shown.lower(), words
    for word in ("patient", "of the groups", "other groups"):
        assert word not in shown.lower(), word


def test_a_reason_names_them(image_set: Callable[..., Path]) -> None:
    """Why there is no interval."""
    from train import dataset as datasets

    manifest = image_set(classes=2, train=2, val=2, test=1)
    rows = contract.read(manifest)
    rows.loc[rows["split"] == "test", "group"] = "cup 1"
    card = contract.read_card(manifest)
    contract.write(manifest, rows, card | {"recipe": {**card.get("recipe", {}), "group_name": "cup"}})
    dataset = datasets.read(manifest, manifest.parent.parent)
    held_out = dataset.labels(dataset.rows[dataset.is_held_out])
    probabilities = [[0.7, 0.3] if label == 0 else [0.4, 0.6] for label in held_out]
    judged = evaluate.judge(dataset, np.array(probabilities), calibrate=False, sensitivity=None)
    assert judged.metrics.test is not None
    assert judged.metrics.test.auroc.reason.startswith("an interval needs at least 2 cups with an image of")


def test_another_word_is_no_other_run(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """A run that is finished stays so when its groups get a name, or never had one."""
    run = drawn_run(tmp_path)
    kept = json.loads((run / "settings.json").read_text())
    other = {name: value for name, value in kept.items() if name != "group_name"}
    for description in (kept, kept | {"group_name": "patient"}, other):
        assert run_folder.is_finished(run, description)
        assert run_folder.begun(run, description)
    assert not run_folder.is_finished(run, kept | {"seed": 7})
