"""Cross-validation on kept activations, and the ensemble that it gives."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import train
from tests.train.plain_keras import plain_keras
from train import dataset as datasets
from train import tables
from train.features import activations, extract
from train.features import backbone as model
from train.features.engine import PLAIN, Engine
from train.features.forward import NetworkCache
from train.fitting import cross_validation, folds
from train.inference import predictor
from train.settings import Settings

SETTINGS = Settings(
    weights="random",
    epochs=3,
    fine_tune_epochs=2,
    batch_size=8,
    learning_rate=1e-2,
    fine_tune_learning_rate=1e-3,
    folds=2,
    repeats=2,
)


def validated(
    dataset: datasets.Dataset,
    backbone: keras.Model,
    folder: Path,
    settings: Settings = SETTINGS,
    by: Engine = PLAIN,
) -> tuple[cross_validation.CrossValidated, list[folds.Fold], list[tuple[int, int]]]:
    """The cross-validation, its folds, and the progress that was shown."""
    pooled = folds.pooled(dataset)
    part = model.cut(backbone, settings.fine_tune_layers)
    kept = activations.of_shares(
        pooled,
        by,
        lambda share, engine, show: extract.features(
            share,
            NetworkCache(part, "w", folder / "cache"),
            engine,
            show,
            with_tail=settings.fine_tune_epochs > 0,
        ),
        lambda *_: None,
    )
    divided = folds.assign(pooled, settings.folds, settings.repeats, settings.seed)
    shown: list[tuple[int, int]] = []
    found = cross_validation.fit_folds(
        pooled, divided, part, kept, settings, folder, lambda _: None, lambda *values: shown.append(values)
    )
    return found, divided, shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "changed", "in_keras"),
    [
        (2, {"repeats": 2}, {}),
        (
            3,
            {"repeats": 1, "label_smoothing": 0.1, "optimizer": "adamw"},
            {
                "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
                "make_optimizer": lambda rate, _: keras.optimizers.AdamW(rate),
            },
        ),
    ],
)
def test_members_are_plain_keras_and_the_ensemble_is_their_mean(
    image_set: Any, tmp_path: Path, classes: int, changed: dict[str, Any], in_keras: dict[str, Any]
) -> None:
    """Each member predicts what `fit` through the whole network gives for its fold; the saved model is their mean logit."""
    settings = replace(SETTINGS, **changed)
    manifest = image_set(classes=classes, train=10, val=4, test=4, size=64)
    dataset = datasets.read(manifest, tmp_path)
    backbone = model.load_backbone("demo", "random", dataset.size, SETTINGS.seed)
    (fitted, out_of_fold), divided, shown = validated(dataset, backbone, tmp_path, settings)

    assert shown == sorted(shown)
    rows = dataset.rows
    trained = np.flatnonzero(rows["split"] != "test")
    logits = {"frozen": [], "fine-tuned": []}
    for fold in divided:
        split = np.full(len(rows), "test")
        split = np.where(np.isin(np.arange(len(rows)), trained[fold.train]), "train", split)
        split = np.where(np.isin(np.arange(len(rows)), trained[fold.val]), "val", split)
        own = replace(settings, seed=fold.seed, folds=0, repeats=1)
        first = model.load_backbone("demo", "random", dataset.size, SETTINGS.seed)
        _, probabilities = plain_keras(dataset._replace(rows=rows.assign(split=split)), own, first, **in_keras)
        for phase, expected in zip(logits, probabilities, strict=True):
            both = np.hstack([1 - expected, expected]) if classes == 2 else expected
            got = out_of_fold.probabilities[phase][fold.repeat - 1, fold.held_out]
            np.testing.assert_allclose(got, both[trained[fold.held_out]], atol=2e-3)
            logits[phase].append(np.log(both[(rows["split"] == "test").to_numpy()]))
    for phase, of_members in logits.items():
        mean = np.exp(np.mean(of_members, axis=0))
        np.testing.assert_allclose(fitted.probabilities[phase], mean / mean.sum(axis=1, keepdims=True), atol=2e-3)
    assert np.ptp(fitted.probabilities["fine-tuned"] - fitted.probabilities["frozen"]) > 5e-3

    path = tmp_path / "model.keras"
    model.inference_model(model.joined(fitted.part, "ensemble"), fitted.head).save(path)
    (images,) = datasets.images(dataset.paths(dataset.of("test")), dataset.size, 32)
    saved = predictor.of_each_class(keras.saving.load_model(path, safe_mode=True)(images).numpy())
    np.testing.assert_allclose(fitted.probabilities["fine-tuned"], saved, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_set_without_test_images_is_cross_validated(image_set: Any, tmp_path: Path) -> None:
    """And by an engine whose precision is not the saved model's; frozen members are one head on the backbone itself."""
    dataset = datasets.read(image_set(train=8, val=4, test=0), tmp_path)
    backbone = model.load_backbone("demo", "random", dataset.size, 0)
    settings = replace(SETTINGS, epochs=1, fine_tune_epochs=0, repeats=1)
    (fitted, out_of_fold), _, _ = validated(dataset, backbone, tmp_path, settings, Engine("tensorflow", "bfloat16"))
    assert fitted.probabilities["frozen"].shape == (0, 2)
    assert out_of_fold.probabilities["frozen"].shape == (1, 24, 2)
    np.testing.assert_allclose(out_of_fold.probabilities["frozen"].sum(axis=-1), 1)
    assert fitted.head.kernel.shape == (backbone.output.shape[-1], 1)


def test_the_mean_over_repeats_is_that_of_logits() -> None:
    """So that it stays a number where a member is certain."""
    found = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.9, 0.1], [1.0, 0.0]]])
    mean = cross_validation.OutOfFold(np.ones((2, 2), np.int64), {"frozen": found}).mean("frozen")
    np.testing.assert_allclose(mean, [[0.75, 0.25], [1.0, 0.0]], atol=1e-12)


def command(manifest: Path, run: str, *options: str) -> list[str]:
    """Two folds on a small set."""
    root = manifest.parent.parent
    given = ["--weights", "random", "--epochs", "2", "--fine-tune-epochs", "1", "--batch-size", "8", "--folds", "2"]
    given += ["--engine", "tensorflow", "--run", str(root / run), "--root", str(root), *options]
    return [sys.executable, "-m", "train", "fit", str(manifest), *given]


@pytest.mark.slow
def test_a_cross_validated_run_is_used_like_any_other(
    image_set: Callable[..., Path], environment: dict[str, str]
) -> None:
    """Killed in the second fold it goes on there; it is reported, compared, exported and predicts as it was measured."""
    manifest = image_set(classes=("0", "TRUE"), train=10, val=4, test=4)
    root = manifest.parent.parent
    process = subprocess.Popen(command(manifest, "runs/folds"), env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if line.split()[:6] == ["repeat", "1", "fold", "2", "frozen", "epoch"]:
            break
    else:
        pytest.fail("no second fold")
    process.kill()
    process.wait()
    before = {path.parent.name for path in (root / "runs" / ".folds.partial" / "checkpoints").glob("*/*.npz")}
    assert "repeat 1 fold 1" in before
    done = subprocess.run(command(manifest, "runs/folds"), env=environment, capture_output=True, text=True, check=True)
    assert "out-of-fold of 28 images, 28 groups; positive: TRUE" in done.stdout
    assert "mean of 2 folds, standard deviation" in done.stdout
    whole = subprocess.run(command(manifest, "runs/whole"), env=environment, capture_output=True, text=True, check=True)
    assert "0 images computed" in whole.stdout
    run, other = root / "runs" / "folds", root / "runs" / "whole"
    for name in ("history.csv", "metrics.json", "predictions.csv", "out_of_fold.csv", "label_errors.csv"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name

    text = dict.fromkeys(("label", "group"), str)
    out_of_fold, predictions = (pd.read_csv(run / name, dtype=text) for name in ("out_of_fold.csv", "predictions.csv"))
    assert out_of_fold.groupby("phase").size().to_dict() == {"frozen": 28, "fine-tuned": 28}
    assert out_of_fold["fold"].value_counts().to_dict() == {1: 28, 2: 28}
    tuned, held = (
        each[each["phase"] == "fine-tuned"] for each in (out_of_fold, predictions[predictions["split"] == "val"])
    )
    np.testing.assert_allclose(tuned["p(TRUE)"], held["p(TRUE)"], atol=1e-12)
    assert tuned["path"].tolist() == held["path"].tolist()
    metrics = json.loads((run / "metrics.json").read_text())["fine-tuned"]
    assert metrics["val"]["images"] == 28
    assert metrics["threshold"]["chosen_by"] == "the best balanced accuracy on out-of-fold predictions"
    assert {"auroc", "accuracy 0.5", "f1 chosen"} <= metrics["cross_validation"]["figures"].keys()

    test = predictions[(predictions["split"] == "test") & (predictions["phase"] == "fine-tuned")]
    got = train.predict(run, [root / path for path in test["path"]])
    np.testing.assert_allclose(got["p(TRUE)"], test["p(TRUE)"], atol=1e-5)
    assert len(train.compare([run, other])) == 4 * 3
    assert re.search(rf"of 28 labels may be wrong, .* not verdicts\): {run}/label_errors\.csv\n", done.stdout)
    listed = tables.read(
        run / "label_errors.csv", {"p(given)": float, "p(suggested)": float, "score": float, "rank": int}
    )
    pd.testing.assert_frame_equal(train.label_errors(run), listed, check_exact=True, check_dtype=False)
    assert {"label_errors.csv", "out_of_fold.csv"} <= json.loads((run / "checksums.json").read_text()).keys()
    page = train.report([run], root=root).read_text()
    assert "Labels that may be wrong" in page
    assert "Cross-validated by group (2 folds)" in page
    assert "2 x" not in page.split("Cross-validation by group: ")[1][:2], "one repeat"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--folds", "1"], "--folds 1 --repeats 1: folds start at 2"),
        (["--folds", "0", "--repeats", "2"], "--repeats 2 is of a cross-validation; give --folds 5"),
        (["--folds", "9"], "of class class0 of 8 groups"),
    ],
)
def test_what_can_not_be_divided_is_said_at_once(
    image_set: Callable[..., Path], environment: dict[str, str], options: list[str], words: str
) -> None:
    """In one line, before any activation is computed."""
    manifest = image_set(train=6, val=2)
    done = subprocess.run(
        command(manifest, "runs/x", *options), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert not (manifest.parent.parent / "data" / "activations").exists()
