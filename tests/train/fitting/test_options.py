"""The options of training against plain Keras through the whole network, and over kills."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

import train
from tests.train.plain_keras import plain_keras
from train import dataset as datasets
from train.features import activations, extract
from train.features import backbone as model
from train.features.engine import PLAIN
from train.features.forward import NetworkCache
from train.fitting import fit, options
from train.settings import Settings

SETTINGS = Settings(
    weights="random", epochs=5, fine_tune_epochs=2, batch_size=8, learning_rate=5e-2, fine_tune_learning_rate=3e-3
)
STEPS = 3  # of an epoch, with 24 images


class KilledError(Exception):
    """Training ended as by a kill."""


class Prepared(NamedTuple):
    """A set, the cut backbone with its first weights, and the activations."""

    dataset: datasets.Dataset
    part: model.Cut
    first: list[np.ndarray]
    kept: activations.Activations


def prepared(manifest: Path, root: Path) -> Prepared:
    """What every training of a test begins with."""
    dataset = datasets.read(manifest, root)
    part = model.cut(model.load_backbone("demo", "random", dataset.size, SETTINGS.seed), SETTINGS.fine_tune_layers)
    kept = activations.of_shares(
        dataset,
        PLAIN,
        lambda share, engine, show: extract.features(share, NetworkCache(part, "w", root / "cache"), engine, show),
        lambda *_: None,
    )
    return Prepared(dataset, part, part.tail.get_weights(), kept)


def trained(
    begin: Prepared, settings: Settings, folder: Path, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[fit.Fitted, list[np.ndarray]]:
    """What `fit` gives from the first weights on, and the tail's weights after it."""
    begin.part.tail.set_weights(begin.first)
    fitted = fit.fit(begin.dataset, begin.part, begin.kept, settings, folder, folder / "logs", lambda _: None, progress)
    return fitted, begin.part.tail.get_weights()


def column(fitted: fit.Fitted, name: str, phase: str = "frozen") -> list[float]:
    """A column of the history."""
    return [row[name] for row in fitted.history if row["phase"] == phase]


def planned(rate: float, epochs: int) -> keras.optimizers.schedules.CosineDecay:
    """A rate that comes down to 0."""
    return keras.optimizers.schedules.CosineDecay(rate, STEPS * epochs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "chosen", "in_keras"),
    [
        (
            2,
            {"optimizer": "adamw", "schedule": "cosine"},
            {"make_optimizer": lambda rate, epochs: keras.optimizers.AdamW(planned(rate, epochs))},
        ),
        (
            2,
            {"optimizer": "sgd", "learning_rate": 10.0, "schedule": "plateau", "label_smoothing": 0.2},
            {
                "make_optimizer": lambda rate, _: keras.optimizers.SGD(rate, momentum=0.9),
                "make_callbacks": lambda: [keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=0)],
                "loss": keras.losses.BinaryCrossentropy(label_smoothing=0.2),
            },
        ),
        (
            3,
            {"learning_rate": 0.5, "patience": 1, "label_smoothing": 0.2},
            {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.2)},
        ),
    ],
    ids=["adamw, cosine", "sgd, plateau, smoothing", "patience, smoothing of three classes"],
)
def test_options_are_keras_own(
    image_set: Any, tmp_path: Path, classes: int, chosen: dict[str, Any], in_keras: dict[str, Any]
) -> None:
    """Losses, validation's too, epochs and predictions of both phases are those of `fit` through the whole network."""
    begin = prepared(image_set(classes=classes, train=24 // classes, val=6, test=4, size=64), tmp_path)
    dataset = begin.dataset
    settings = replace(SETTINGS, **chosen)
    fitted, _ = trained(begin, settings, tmp_path / "run")
    histories, probabilities = plain_keras(
        dataset, settings, model.load_backbone("demo", "random", dataset.size, SETTINGS.seed), **in_keras
    )
    for phase, history, expected in zip(("frozen", "fine-tuned"), histories, probabilities, strict=True):
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(column(fitted, name, phase), history[name], atol=1e-3)
        got = fitted.probabilities[phase]
        np.testing.assert_allclose(got[:, 1:] if classes == 2 else got, expected[dataset.is_held_out], atol=2e-3)

    ours, reference = column(fitted, "loss"), histories[0]["loss"]
    off = np.abs(np.subtract(ours, reference)).max()
    frozen = (share._replace(features=share.features._replace(cut_activations=None)) for share in begin.kept)
    begin = begin._replace(kept=activations.Activations(*frozen))
    for name in chosen:  # each must matter by far more than what ours is off, else this shows nothing
        usual = replace(settings, **{name: getattr(SETTINGS, name)}, fine_tune_epochs=0)
        other = column(trained(begin, usual, tmp_path / name)[0], "loss")
        assert len(other) != len(ours) or np.abs(np.subtract(ours, other)).max() > 5 * off, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        {"optimizer": "sgd", "schedule": "cosine", "dropout": 0.5, "label_smoothing": 0.1},
        {"optimizer": "adamw", "learning_rate": 0.5, "schedule": "plateau", "dropout": 0.3},
    ],
    ids=["cosine", "plateau"],
)
def test_training_that_is_killed_after_each_epoch_ends_as_if_it_was_not(
    image_set: Any, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    """Masks, learning rate and all that the schedule has seen are as they would have been: every bit is the same."""
    begin = prepared(image_set(train=12, val=6, test=4, size=64), tmp_path)
    settings = replace(SETTINGS, **chosen)
    whole, tail = trained(begin, settings, tmp_path / "whole")
    begun = 0

    def kill(done: int, _: int) -> None:
        """In the first batches of the second epoch from where it went on."""
        nonlocal begun
        begun = begun or done
        if done > begun + STEPS - 1:
            raise KilledError

    for attempt in range(len(whole.history) + 1):
        begun, kills = 0, attempt
        try:
            killed, other = trained(begin, settings, tmp_path / "killed", kill)
            break
        except KilledError:
            continue
    assert kills >= len(whole.history) - 2, "killed in each epoch but the first of each phase"
    assert killed.history == whole.history
    for phase, found in whole.probabilities.items():
        assert np.array_equal(killed.probabilities[phase], found)
        assert all(map(np.array_equal, killed.heads[phase], whole.heads[phase]))
    assert all(map(np.array_equal, tail, other))


@pytest.mark.slow
def test_dropout_is_in_training_only_and_leaves_batch_norm_alone(image_set: Any, tmp_path: Path) -> None:
    """With a rate of next to nothing the weights stay: then the validation loss is the usual one, the training loss isn't."""
    begin = prepared(image_set(train=12, val=6, test=4, size=64), tmp_path)
    still = replace(SETTINGS, epochs=2, fine_tune_epochs=2, learning_rate=1e-30, fine_tune_learning_rate=1e-30)
    plain, before = trained(begin, still, tmp_path / "plain")
    dropped, after = trained(begin, replace(still, dropout=0.5), tmp_path / "dropped")
    other, _ = trained(begin, replace(still, dropout=0.5, seed=1), tmp_path / "other")
    for phase in ("frozen", "fine-tuned"):
        assert column(dropped, "val_loss", phase) == column(plain, "val_loss", phase)
        assert np.array_equal(dropped.probabilities[phase], plain.probabilities[phase])
        losses = column(dropped, "loss", phase)
        assert (np.abs(np.subtract(losses, column(plain, "loss", phase))) > 1e-4).all()
        assert abs(losses[0] - losses[1]) > 1e-4, "each epoch has masks of its own"
    for weights in (before, after):
        for weight, first in zip(weights, begin.first, strict=True):  # the moving statistics, too
            np.testing.assert_allclose(weight, first, rtol=0, atol=1e-20)  # a bias of 0 moves by the rate
    assert column(dropped, "loss") != column(other, "loss")


@pytest.mark.slow
def test_options_are_recorded_and_said_and_the_model_stays_as_it_is(image_set: Any, tmp_path: Path) -> None:
    """settings.json has them, the model card names them, and the saved model predicts what was measured."""
    chosen = {"optimizer": "sgd", "schedule": "cosine", "patience": 5, "label_smoothing": 0.1, "dropout": 0.4}
    settings = Settings(weights="random", epochs=2, fine_tune_epochs=1, batch_size=8, **chosen)
    run = train.fit(image_set(), settings, root=tmp_path, engine="tensorflow")
    assert asdict(settings).items() <= run.settings.items()
    saved = keras.saving.load_model(tmp_path / "runs" / "tiny" / "model.keras", safe_mode=True)
    assert [layer.name for layer in saved.layers] == ["image", "preprocess", "resnet50v2", "pool", "head"]
    held = run.predictions[run.predictions["phase"] == "fine-tuned"]
    again = train.predict(tmp_path / "runs" / "tiny", [tmp_path / path for path in held["path"]])
    np.testing.assert_allclose(again["p(class1)"], held["p(class1)"], atol=1e-5)
    page = train.report([tmp_path / "runs" / "tiny"], root=tmp_path).read_text()
    for words in (
        "SGD with a momentum of 0.9, batches of 8",
        "the learning rate falls along a cosine",
        "Labels smoothed by 0.1",
        "Dropout of 0.4",
        "when 5 epochs in a row give no better validation loss",
    ):
        assert words in page


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"optimizer": "rmsprop"}, "--optimizer rmsprop: there is no such optimizer; give one of adam, adamw, sgd"),
        ({"schedule": "steps"}, "--schedule steps: there is no such schedule; give one of none, cosine, plateau"),
        ({"dropout": 1.0}, "--dropout 1.0: give a number from 0 to less than 1"),
        ({"label_smoothing": -0.1}, "--label-smoothing -0.1: give a number from 0 to less than 1"),
        ({"patience": 0}, "--patience 0: give a number of epochs, 1 or more"),
        ({"patience": 1, "schedule": "plateau"}, "give --patience 2 or more, or another schedule"),
    ],
)
def test_a_value_that_can_not_be_is_named_with_the_fix(chosen: dict[str, Any], words: str) -> None:
    """From Python, where no command line looks at it first; and a schedule that would do nothing."""
    with pytest.raises(options.OptionError) as raised:
        options.check(replace(SETTINGS, **chosen))
    assert words in str(raised.value)
