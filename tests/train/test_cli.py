"""`python -m train` as a user meets it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from manifests import contract
from train import dataset as datasets
from train.cli import main

ROOT = Path(__file__).parents[2]


def fit(manifest: Path, *options: str) -> Result:
    """Run `fit` on a small set with random weights, one epoch a phase."""
    root = str(manifest.parent.parent)
    short = ["--weights", "random", "--epochs", "1", "--fine-tune-epochs", "1", "--batch-size", "8", "--root", root]
    return CliRunner().invoke(main, ["fit", str(manifest), *short, *options])


@pytest.mark.slow
def test_a_run_leaves_all_that_is_promised(image_set: Callable[..., Path]) -> None:
    """Settings, history, metrics, predictions, model, logs and figures are there and agree with each other."""
    manifest = image_set()
    root = manifest.parent.parent
    result = fit(manifest)
    assert result.exit_code == 0, result.output
    run = root / "runs" / "tiny"
    there = {path.name for path in run.iterdir()}
    assert {"curves.png", "augmentation.png", "tensorboard"} <= there
    assert "trained_on.csv" in there
    assert not there & {"checkpoints", ".lock"}, "what only a run in the making needs"
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    history = pd.read_csv(run / "history.csv")
    assert history["phase"].tolist() == ["frozen", "fine-tuned"]
    assert history["epoch"].tolist() == [1, 2]
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["weights"], settings["seed"], settings["fine_tune_layers"]) == ("random", 0, 5)

    predictions = pd.read_csv(run / "predictions.csv")
    found = json.loads((run / "metrics.json").read_text())
    for phase in ("frozen", "fine-tuned"):
        of_test = predictions[(predictions["phase"] == phase) & (predictions["split"] == "test")]
        for way, decided in found[phase]["test"]["decisions"].items():
            right = of_test["label"] == of_test[f"predicted ({way})"]
            assert decided["accuracy"]["value"] == pytest.approx(right.mean())
        assert found[phase]["threshold"]["chosen_by"] == "the best balanced accuracy on validation"

    model = keras.saving.load_model(run / "model.keras", safe_mode=True)
    tuned = predictions[predictions["phase"] == "fine-tuned"]
    images = np.concatenate([b.numpy() for b in datasets.images([root / p for p in tuned["path"]], (64, 64), 8)])
    np.testing.assert_allclose(model(images)[:, 0], tuned["p(class1)"], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_run_again_is_reused_and_another_moves_it_aside(image_set: Callable[..., Path]) -> None:
    """The same settings say so and change nothing; others keep the old run under NAME.1; same seed, same numbers."""
    manifest = image_set()
    runs = manifest.parent.parent / "runs"
    assert fit(manifest).exit_code == 0
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    again = fit(manifest)
    assert "finished already" in again.output
    found = json.loads(fit(manifest, "--json").stdout)
    assert found["metrics"] == json.loads((runs / "tiny" / "metrics.json").read_text())
    assert fit(manifest, "--quiet").stdout == ""
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before

    other = fit(manifest, "--seed", "1")
    assert other.exit_code == 0, other.output
    assert sorted(path.name for path in runs.glob("[!.]*")) == ["tiny", "tiny.1"]
    assert f"What was at {runs / 'tiny'} is now at {runs / 'tiny.1'}." in other.output
    assert (runs / "tiny.1" / "history.csv").read_bytes() == before[runs / "tiny" / "history.csv"]
    assert (runs / "tiny" / "history.csv").read_bytes() != before[runs / "tiny" / "history.csv"]
    first = fit(manifest, "--run", str(runs / "copy"))
    assert first.exit_code == 0, first.output
    assert (runs / "copy" / "predictions.csv").read_bytes() == before[runs / "tiny" / "predictions.csv"]

    compared = CliRunner().invoke(main, ["compare", str(runs / "tiny"), str(runs / "tiny.1")])
    assert compared.exit_code == 0, compared.output
    decided = json.loads((runs / "tiny.1" / "metrics.json").read_text())["frozen"]["test"]["decisions"]["0.5"]
    assert f"{decided['accuracy']['value']:.3f} [" in compared.output
    assert "no evidence of a difference" in compared.output
    found = json.loads(CliRunner().invoke(main, ["compare", str(runs / "tiny"), str(runs / "tiny.1"), "--json"]).stdout)
    assert {row["figure"] for row in found} == {"AUROC", "accuracy at 0.5", "accuracy at the chosen thresholds"}


@pytest.mark.slow
def test_a_report_shows_a_real_runs_images_with_their_evidence(image_set: Callable[..., Path]) -> None:
    """`report` prints where the page is; it holds each image twice, and what rescaling loses, in words and numbers."""
    manifest = image_set(size=96)
    root = manifest.parent.parent
    for row in contract.read(manifest).itertuples():
        (root / "source" / str(row.source)).parent.mkdir(parents=True, exist_ok=True)
        Image.open(root / str(row.path)).resize((150, 120)).save(root / "source" / str(row.source))
    assert fit(manifest, "--fine-tune-epochs", "0", "--engine", "tensorflow").exit_code == 0
    run = root / "runs" / "tiny"
    result = CliRunner().invoke(main, ["report", str(run), "--root", str(root)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"Report: {run / 'report.html'}"
    page = (run / "report.html").read_text()
    assert len(re.findall(r'alt="Evidence for class\d: (strongest in|nothing in)', page)) == 8
    assert "can't be shown" not in page
    assert re.search(
        r"48 x 48: SSIM 0\.\d+, PSNR \d+\.\d; 96 x 96: SSIM 0\.\d+, PSNR \d+\.\d; 192 x 192: SSIM 1.000", page
    )

    other = root / "runs" / "other"
    (run / "model.keras").rename(run / "gone.keras")
    result = CliRunner().invoke(main, ["report", str(run), "--root", str(root), "--out", str(other / "page.html")])
    assert result.exit_code == 0, result.output
    assert "Where the evidence is can&#39;t be shown" in (other / "page.html").read_text()


@pytest.mark.slow
def test_options_of_training_reach_the_run(image_set: Callable[..., Path]) -> None:
    """Class weights change the training, calibration the probabilities, a sensitivity the threshold; all is recorded."""
    manifest = image_set()
    runs = manifest.parent.parent / "runs"
    found = {}
    for name, options in {
        "plain": (),
        "other": ("--class-weight", "balanced", "--calibrate", "--sensitivity", "0.9"),
    }.items():
        result = fit(manifest, "--run", str(runs / name), "--fine-tune-epochs", "0", "--engine", "tensorflow", *options)
        assert result.exit_code == 0, result.output
        assert "validation holds 8 images" in result.output
        found[name] = json.loads((runs / name / "metrics.json").read_text())["frozen"]
    assert found["other"]["threshold"]["chosen_by"] == "a sensitivity of 0.9 on validation"
    assert found["other"]["val"]["decisions"]["chosen"]["sensitivity"]["value"] >= 0.9
    assert "calibration" not in found["plain"]
    calibration = found["other"]["calibration"]
    before, after = calibration["val_before"]["brier"], found["other"]["val"]["brier"]
    assert (before == after) == ("reason" in calibration), "eight images may determine no temperature"
    assert before == found["plain"]["val"]["brier"], "classes of one size weigh the same in any case"
    tuned = pd.read_csv(runs / "other" / "predictions.csv")
    model = keras.saving.load_model(runs / "other" / "model.keras", safe_mode=True)
    root = manifest.parent.parent
    images = np.concatenate([b.numpy() for b in datasets.images([root / p for p in tuned["path"]], (64, 64), 8)])
    np.testing.assert_allclose(model(images)[:, 0], tuned["p(class1)"], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_positive_class_is_said_and_the_same_everywhere(image_set: Callable[..., Path]) -> None:
    """COVID and not NORMAL, in what is printed, in all files and in the model; --positive turns it."""
    manifest = image_set(classes=("COVID", "NORMAL"))
    root = manifest.parent.parent
    images = [str(path) for path in sorted((root / "data" / "tiny" / "test").rglob("*.jpg"))]
    runs = {"COVID": (), "NORMAL": ("--positive", "NORMAL")}
    for positive, options in runs.items():
        run = root / "runs" / positive
        short = ["--run", str(run), "--fine-tune-epochs", "0", "--engine", "tensorflow", "--sensitivity", "1"]
        result = fit(manifest, *short, *options)
        assert result.exit_code == 0, result.output
        why = "the name 'NORMAL' says negative" if positive == "COVID" else "as --positive says"
        assert f"Positive class: {positive} ({why}; --positive CLASS sets it)" in result.output.splitlines()
        assert f"positive: {positive}" in result.output
        settings = json.loads((run / "settings.json").read_text())
        metrics = json.loads((run / "metrics.json").read_text())["frozen"]
        assert (settings["positive"], settings["classes"][1]) == (positive, positive)
        assert metrics["val"]["positive"] == metrics["test"]["positive"] == positive
        assert metrics["val"]["decisions"]["chosen"]["sensitivity"]["value"] == 1.0
        table = pd.read_csv(run / "predictions.csv", dtype=str)
        val = table[table["split"] == "val"]
        assert (val.loc[val["label"] == positive, "predicted (chosen)"] == positive).all(), "all of it were to be found"
        predicted = CliRunner().invoke(main, ["predict", str(run), *images, "--out", str(run / "out.csv")])
        value = metrics["threshold"]["value"]
        assert f"{positive} from {value:g} on, the positive class" in predicted.output
        of_test = table[table["split"] == "test"].sort_values("path")
        found = pd.read_csv(run / "out.csv").sort_values("file")
        np.testing.assert_allclose(found[f"p({positive})"], of_test[f"p({positive})"].astype(float), atol=1e-4)
        model = keras.saving.load_model(run / "model.keras", safe_mode=True)
        pixels = np.stack([np.asarray(Image.open(image).convert("RGB"), np.float32) for image in found["file"]])
        np.testing.assert_allclose(model(pixels)[:, 0], found[f"p({positive})"], atol=1e-5)
    compared = CliRunner().invoke(main, ["compare", *(str(root / "runs" / name) for name in runs)])
    assert compared.exit_code == 0, compared.output
    for positive in runs:
        assert positive in compared.output


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    image_set: Callable[..., Path], disk: Callable[[int], Path]
) -> None:
    """In the first phase, the second, or when the model is saved: no run under its name, and nothing done twice."""
    manifest = image_set(train=4, val=2, test=2)
    for size in (2**16, 2**22, 2**26):
        run = disk(size) / "run"
        result = fit(manifest, "--run", str(run))
        assert result.exit_code == 2, (size, result.output)
        assert "No space left on device" in result.output.splitlines()[-1], size
        assert "run the same command again" in result.output.splitlines()[-1]
        assert not run.exists()
    run = disk(2**29) / "run"
    result = fit(manifest, "--run", str(run))
    assert result.exit_code == 0, result.output
    assert pd.read_csv(run / "history.csv")["phase"].tolist() == ["frozen", "fine-tuned"]
    assert keras.saving.load_model(run / "model.keras", safe_mode=True)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_the_rate_to_lower(image_set: Callable[..., Path]) -> None:
    """One line that names epoch, phase and learning rate, and no run."""
    manifest = image_set(classes=3)
    result = fit(manifest, "--learning-rate", "1e38")
    assert result.exit_code == 2
    assert re.search(r"the loss became \w+ in epoch 1 \(frozen\); lower the learning rate \(1e\+38\)", result.output)
    assert not (manifest.parent.parent / "runs" / "tiny").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["fit", "nowhere.csv"], "nowhere.csv: no such manifest"),
        (["fit", "{manifest}", "--root", "{root}", "--weights", "nowhere.h5"], "--weights nowhere.h5: no such file"),
        (["fit", "{manifest}", "--root", "{root}", "--weights", "random", "--fine-tune-layers", "999"], "has 189"),
        (
            ["fit", "{manifest}", "--root", "{root}", "--weights", "random", "--positive", "ill"],
            "--positive ill is for one of two classes; the set has 2: class0, class1",
        ),
        (["compare", "{root}"], "holds no finished run"),
        (["report", "{root}"], "holds no finished run"),
        (["labels", "{root}"], "holds no finished run"),
        (["report", "{root}", "--out", "{root}/page.pdf"], "should end in .html"),
        (["predict", "{root}", "{root}"], "holds no finished run"),
        (["export", "{root}", "--format", "onnx"], "holds no finished run"),
    ],
)
def test_a_mistake_is_one_line(image_set: Callable[..., Path], arguments: list[str], found: str) -> None:
    """Exit code 2, a last line that names value and fix, and no run folder."""
    manifest = image_set()
    root = manifest.parent.parent
    result = CliRunner().invoke(main, [word.format(manifest=manifest, root=root) for word in arguments])
    assert result.exit_code == 2
    assert found in result.output.splitlines()[-1]
    assert not (root / "runs").exists()


@pytest.mark.parametrize("command", ["fit", "compare", "report", "labels", "predict", "evaluate", "export", "cache"])
def test_help_has_an_example(command: str) -> None:
    """Every command shows how it is called."""
    result = CliRunner().invoke(main, [command, "--help"])
    assert "Example:\n" in result.output
    assert f"python -m train {command}" in result.output


def test_importing_the_command_line_does_not_load_tensorflow() -> None:
    """`--help` answers in a blink."""
    code = "import sys, train.cli; print([m for m in ('tensorflow', 'keras', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
