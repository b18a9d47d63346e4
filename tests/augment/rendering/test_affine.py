"""KerasAffine against Keras: the same draws give the same pixels, and the draws come from the same ranges."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from augment.recipe import load
from augment.rendering.affine import KerasAffine, warp
from common.images.pixels import decode, resize

# Keras calls SciPy by a name that SciPy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")

Array = NDArray[np.uint8]
Draw = dict[str, float]
IDENTITY = {"theta": 0.0, "tx": 0.0, "ty": 0.0, "shear": 0.0, "zx": 1.0, "zy": 1.0}


@pytest.fixture(scope="module")
def keras_image() -> ModuleType:
    """Keras's own image preprocessing, the reference."""
    return importlib.import_module("keras.src.legacy.preprocessing.image")


@pytest.fixture(scope="module")
def through_keras(keras_image: ModuleType) -> Callable[[Array, Draw], NDArray[np.float32]]:
    """What Keras makes of an image and a draw: float32, of the image's shape."""

    def transform(image: Array, draw: Draw) -> NDArray[np.float32]:
        x = image.astype(np.float32).reshape(*image.shape[:2], -1)
        moved = keras_image.apply_affine_transform(
            x, **draw, row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest", order=1
        )
        result: NDArray[np.float32] = moved.reshape(image.shape)
        return result

    return transform


def ranges(recipe: str) -> dict[str, float]:
    """The parameters of a recipe's KerasAffine."""
    parameters: dict[str, float] = json.loads(load(recipe).transforms)[0]["KerasAffine"]
    return parameters


def draws(transform: KerasAffine, shape: tuple[int, ...], count: int, seed: int = 0) -> list[Draw]:
    """`count` draws for an image of `shape`, as a pipeline makes them."""
    stream = np.random.default_rng(seed)
    return [transform.draw(stream, *shape[:2]) for _ in range(count)]


def share_within_one(ours: Array, theirs: NDArray[np.float32]) -> float:
    """The share of pixels that differ by one gray level at most."""
    assert ours.dtype == np.uint8
    assert ours.shape == theirs.shape
    return float((np.abs(ours - theirs) <= 1).mean())


def smooth(height: int, width: int) -> Array:
    """A colour image with structure everywhere, about as sharp as an X-ray."""
    noise = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize("recipe", ["augment1", "augment2"])
def test_real_xrays_come_out_as_keras_makes_them(recipe: str, xrays_full: Path, through_keras: Any) -> None:
    """Each of 24 X-rays, three draws: within one gray level on 99.9 % of pixels, gray and as RGB."""
    transform = KerasAffine(**ranges(recipe))
    for number, path in enumerate(sorted(xrays_full.glob("train/*/*"))[::10]):
        gray = resize(decode(path.read_bytes(), cover=(224, 224)), (224, 224))
        gray = gray if gray.ndim == 2 else gray[..., 0]
        tinted = np.dstack([gray, 255 - gray, gray // 2])
        for draw in draws(transform, gray.shape, 3, seed=number):
            for image in (gray, tinted):
                assert share_within_one(warp(image, **draw), through_keras(image, draw)) >= 0.999


@pytest.mark.parametrize(("height", "width"), [(224, 224), (120, 260), (261, 120), (64, 63)])
def test_images_that_are_not_square_come_out_as_keras_makes_them(height: int, width: int, through_keras: Any) -> None:
    """The same where the axes differ, with large rotations, shears, shifts and zooms."""
    image = smooth(height, width)
    for draw in draws(KerasAffine(180, 0.3, 0.3, 30, 0.5), image.shape, 15):
        for pixels in (image, image[..., 0]):
            assert share_within_one(warp(pixels, **draw), through_keras(pixels, draw)) >= 0.999


@pytest.mark.parametrize(
    "part",
    [{"theta": 25.0}, {"tx": 30.5}, {"ty": -30.5}, {"shear": 20.0}, {"zx": 0.6}, {"zy": 1.5}],
    ids=lambda part: next(iter(part)),
)
def test_each_parameter_alone_means_what_it_means_to_keras(part: Draw, through_keras: Any) -> None:
    """One parameter at a time, so that none makes up for another; and it does something."""
    image, draw = smooth(100, 160), {**IDENTITY, **part}
    ours = warp(image, **draw)
    assert share_within_one(ours, through_keras(image, draw)) >= 0.999
    assert (ours != image).mean() > 0.5


def test_the_identity_changes_nothing() -> None:
    """No rotation, shift, shear or zoom: the same pixels, to the bit."""
    image = smooth(50, 70)
    assert np.array_equal(warp(image, **IDENTITY), image)
    assert draws(KerasAffine(), image.shape, 1) == [IDENTITY]


def test_a_zoom_below_one_magnifies() -> None:
    """The map leads from output to input: with zx = zy = 0.5 a square of 20 becomes one of 40."""
    image = np.zeros((101, 101), np.uint8)
    image[40:61, 40:61] = 255
    magnified = warp(image, **{**IDENTITY, "zx": 0.5, "zy": 0.5})
    assert (magnified[50] > 127).sum() == pytest.approx(42, abs=1)


def test_edges_are_repeated() -> None:
    """What a shift bares is filled with the edge's pixels: no black border."""
    image = np.arange(1, 41, dtype=np.uint8)[None].repeat(30, 0)
    moved = warp(image, **{**IDENTITY, "tx": -10.0})
    assert (moved[:, :10] == 1).all()
    assert np.array_equal(moved[:, 10:], image[:, :-10])


@pytest.mark.parametrize(
    "given",
    [
        ranges("augment1"),
        ranges("augment2"),
        {"zoom_range": 0.5},
        {"width_shift_range": 0.3},
        {"height_shift_range": 0.3},
        {"width_shift_range": 20.5, "height_shift_range": 12},
        {},
    ],
    ids=["augment1", "augment2", "zoom", "width", "height", "pixels", "nothing"],
)
def test_draws_come_from_the_ranges_that_keras_draws_from(given: dict[str, float], keras_image: ModuleType) -> None:
    """For a 100 x 300 image, 4,000 draws of ours and of ImageDataGenerator's have the same bounds and spread."""
    count, shape = 4000, (100, 300, 1)
    ours = draws(KerasAffine(**given), shape, count)
    generator = keras_image.ImageDataGenerator(**given)
    theirs = [generator.get_random_transform(shape, seed=seed) for seed in range(count)]
    assert list(ours[0]) == list(theirs[0])[:6]
    for name in ours[0]:
        mine, reference = (np.sort([draw[name] for draw in some]) for some in (ours, theirs))
        span = float(np.ptp(reference))
        # Uniform of 4,000: the ends lie within 1 % of each other, quantiles within 5 % (over 3 standard errors).
        assert mine[[0, -1]] == pytest.approx(reference[[0, -1]], abs=0.01 * span + 1e-12)
        assert mine[:: count // 8] == pytest.approx(reference[:: count // 8], abs=0.05 * span + 1e-12)


def test_whole_pixels_are_drawn_as_keras_draws_them(keras_image: ModuleType) -> None:
    """A whole number is drawn from the whole numbers below it, to either side, and 1 moves nothing."""
    given = {"width_shift_range": 4, "height_shift_range": 1}
    ours = draws(KerasAffine(**given), (50, 50), 500)
    generator = keras_image.ImageDataGenerator(**given)
    theirs = [generator.get_random_transform((50, 50, 1), seed=seed) for seed in range(500)]
    for name in ("tx", "ty"):
        assert {draw[name] for draw in ours} == {float(draw[name]) for draw in theirs}


def test_draws_are_independent_of_each_other() -> None:
    """No two of the six parameters go together: zx and zy are drawn each on its own, as in Keras."""
    drawn = np.array([list(draw.values()) for draw in draws(KerasAffine(9, 0.1, 0.1, 5, 0.2), (100, 100), 4000)])
    correlation = np.corrcoef(drawn.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.06


def test_shifts_from_one_on_are_pixels() -> None:
    """A range below 1 is a share of the side, from 1 on it is pixels: up to 3 here, whatever the size."""
    drawn = draws(KerasAffine(width_shift_range=3.0, height_shift_range=0.5), (100, 1000), 500)
    assert 2.9 < max(abs(draw["ty"]) for draw in drawn) <= 3
    assert 45 < max(abs(draw["tx"]) for draw in drawn) <= 50


def test_the_state_decides_every_draw() -> None:
    """The same state, the same draws; another state, others."""
    transform = KerasAffine(**ranges("augment1"))
    first, again, other = (draws(transform, (50, 50), 5, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "wrong",
    [
        *({"rotation_range": -1}, {"zoom_range": 1.0}, {"zoom_range": -0.1}, {"shear_range": "x"}, {"p": 1.1}),
        *({"p": True}, {"width_shift_range": float("nan")}, {"height_shift_range": None}),
    ],
)
def test_ranges_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """Negative ranges, a zoom that could reach zero, and what is no number."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KerasAffine(**wrong)
