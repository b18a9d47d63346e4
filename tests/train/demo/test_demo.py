"""The demo's small backbone, the shapes that it was pretrained on, and what keeps it to the sample."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from train.cli import main
from train.demo import shapes
from train.demo.__main__ import drawn, pretrain
from train.features import backbone as model
from train.settings import Settings


def test_an_image_follows_its_seed() -> None:
    """The same seed draws the same, another seed another; each kind is in some images and not in others."""
    (first, shown), (again, _), (other, _) = drawn(40, 0), drawn(40, 0), drawn(40, 1)
    assert first.shape == (40, shapes.SIZE, shapes.SIZE, 1)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    assert (shown.any(axis=0) & ~shown.all(axis=0)).all()


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_each_kind_is_seen(kind: Callable[[np.random.Generator], shapes.Film]) -> None:
    """Somewhere in the image, of about brightness 1, and elsewhere every time."""
    films = [kind(np.random.default_rng(seed)) for seed in range(10)]
    for film in films:
        assert (film.shape, film.dtype) == ((shapes.SIZE, shapes.SIZE), np.float32)
        assert np.isfinite(film).all()
        assert 0.2 < np.abs(film).max() < 4
    assert np.std(films, axis=0).max() > 0.1


def test_pretraining_learns() -> None:
    """On a few images, by heart: the loss falls, and what comes out are the backbone's weights."""
    backbone, whole = pretrain(32, epochs=6)
    images, shown = drawn(32, seed=0)
    losses = keras.losses.binary_crossentropy(shown, whole(images, training=True))
    assert float(np.mean(losses)) < 0.6, "0.61 is what the kinds' share alone gives"
    assert [weight.shape for weight in backbone.weights] == [
        weight.shape for weight in model.load_backbone("demo", "demo", (64, 64), 0).weights
    ]


def test_the_weights_that_are_shipped_are_those_of_the_network() -> None:
    """For any size of images; a pre-activation ResNetV2 of a quarter of a million weights, whatever the seed."""
    small, large = (model.load_backbone("demo", "demo", size, seed) for size, seed in (((64, 64), 0), ((160, 128), 1)))
    assert (
        model.digest(small) == model.digest(large) != model.digest(model.load_backbone("demo", "random", (64, 64), 0))
    )
    assert small.count_params() == 234_048
    assert large.output.shape == (None, 8, 10, 256)
    assert [type(layer).__name__ for layer in small.layers[-2:]] == ["BatchNormalization", "Activation"]


def test_it_brings_its_own_weights() -> None:
    """ImageNet's, the default, are not its; others may be asked for."""
    assert Settings(backbone="demo").weights == "demo"
    assert Settings(backbone="demo", weights="random").weights == "random"
    assert Settings().weights == "imagenet"


def test_it_is_for_the_sample_only(image_set: Callable[..., Path]) -> None:
    """On any other set `fit` refuses it in a line that says what to take."""
    manifest = image_set(classes=2, train=2, val=2, test=2)
    result = CliRunner().invoke(main, ["fit", str(manifest), "--backbone", "demo", "--root", str(manifest.parents[1])])
    assert result.exit_code == 2
    assert "--backbone demo is for the built-in sample only" in result.output
    assert "take resnet50v2" in result.output
