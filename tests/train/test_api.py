"""The trainer called from Python, as notebooks do."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import train
from common.errors import UserError
from train.evaluation.phase_metrics import to_json

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_runs_are_trained_compared_and_used_from_python(image_set: Callable[..., Path]) -> None:
    """Each function gives what the command prints: a run, differences, a page, predictions."""
    manifest = image_set(classes=2, train=6, val=4, test=4)
    root = manifest.parent.parent
    settings = train.Settings(weights="random", epochs=1, fine_tune_epochs=1, batch_size=8)
    run = train.fit(manifest, settings, root=root, engine="tensorflow")
    assert to_json(run.metrics) == json.loads((root / "runs" / "tiny" / "metrics.json").read_text())
    assert run.settings["weights"] == "random"
    assert len(run.predictions) == 2 * 2 * (4 + 4), "two phases, two classes, val and test"
    assert run.history["phase"].tolist() == ["frozen", "fine-tuned"]

    other = train.fit(str(manifest), settings, run=root / "runs" / "seed1", root=str(root), engine="tensorflow")
    assert other.metrics == run.metrics
    runs = [root / "runs" / "tiny", root / "runs" / "seed1"]
    found = train.compare([*runs, f"{runs[0]}/"])
    assert set(found["figure"]) == {"AUROC", "accuracy at 0.5", "accuracy at the chosen thresholds"}
    assert len(found) == 4 * 3, "each run's phases, and each phase of the two"

    page = train.report(runs, root=root)
    assert page == root / "runs" / "report.html"
    assert page.is_file()
    predicted = train.predict(runs[0], [root / "data" / "tiny" / "test"])
    assert (predicted["error"] == "").all()
    assert set(predicted["predicted"]) <= {"class0", "class1"}


def test_a_mistake_is_an_exception(tmp_path: Path) -> None:
    """And no end of the process."""
    with pytest.raises(UserError, match="no such manifest"):
        train.fit(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="holds no finished run"):
        train.compare([tmp_path])


def test_importing_the_programs_takes_no_tensorflow() -> None:
    """Nor pandas: a notebook's first cell answers in a blink."""
    code = (
        "import sys, train, augment; print([m for m in ('tensorflow', 'keras', 'pandas', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
