"""What a variant's transforms do to the places of pixels, apart from what they do to their values."""

import json
from typing import Any

import cv2
import numpy as np
import pytest

from augment.rendering.affine import output_to_input, warp
from augment.rendering.render import geometry_alone, render
from augment.rendering.tasks import Style, Variant
from common.images import MAX_PIXELS
from common.images.pixels import decode

AFFINE = {"KerasAffine": {"rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "zoom_range": 0.3}}
BRIGHTER = {"RandomBrightnessContrast": {"brightness_limit": [0.3, 0.3], "p": 1}}
HOLES = {"CoarseDropout": {"p": 1}}
FLIP = {"HorizontalFlip": {"p": 1}}


def style(*transforms: dict[str, Any]) -> Style:
    """Of PNGs, so that a file's pixels are the rendered ones."""
    return Style((64, 48), 95, json.dumps(transforms), MAX_PIXELS, format="png")


def image(*channels: int) -> np.ndarray:
    """Smooth noise, without black or white."""
    noise = np.random.default_rng(0).integers(60, 180, (48, 64, *channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def rendered(pixels: np.ndarray, seed: int, how: Style) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The variant with a seed, and what its transforms drew."""
    source = cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[..., ::-1])[1].tobytes()
    ((data, drawn),) = render(source, [Variant("v.png", 1, seed)], how)
    return decode(data), json.loads(drawn)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_geometric_transforms_alone_are_the_variant(channels: tuple[int, ...]) -> None:
    """Maps and flips, in a row and one of several: without others beside them nothing is left out."""
    how = style(AFFINE, FLIP, {"OneOf": {"p": 1, "transforms": [{"VerticalFlip": {}}, {"Transpose": {"p": 0}}]}})
    for seed in range(5):
        moved, _ = geometry_alone(image(*channels), seed, how)
        np.testing.assert_array_equal(moved, rendered(image(*channels), seed, how)[0])


@pytest.mark.parametrize("other", [BRIGHTER, HOLES, {"OneOf": {"p": 1, "transforms": [BRIGHTER, HOLES]}}])
def test_what_changes_values_is_left_out(other: dict[str, Any]) -> None:
    """Before or after the map, which draws what it draws beside them."""
    changed = []
    for seed in range(4):
        for transforms in ((other, AFFINE), (AFFINE, other)):
            moved, _ = geometry_alone(image(), seed, style(*transforms))
            variant, drawn = rendered(image(), seed, style(*transforms))
            (affine,) = (step["KerasAffine"] for step in drawn if "KerasAffine" in step)
            assert np.abs(moved.astype(int) - warp(image(), **affine)).max() <= 1, "the record has six places"
            changed.append((variant != moved).mean())
    assert max(changed) > 0.02
    np.testing.assert_array_equal(geometry_alone(image(), 1, style(other))[0], image())


def test_the_share_beyond_the_edges_is_what_the_map_leaves_open() -> None:
    """Repeated edges, counted against a map with black around."""
    for seed in range(20):
        _, invented = geometry_alone(image(), seed, style(AFFINE))
        _, (step,) = rendered(image(), seed, style(AFFINE))
        matrix = output_to_input(**step["KerasAffine"], height=48, width=64)
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        reached = cv2.warpAffine(np.ones((48, 64), np.uint8), matrix, (64, 48), flags=flags)
        assert invented == pytest.approx((reached == 0).mean(), abs=0.03)


@pytest.mark.parametrize("fill", [0, 128, 255])
def test_filled_corners_are_counted(fill: int) -> None:
    """Whatever they are filled with: of a square, turned by 45 degrees, 2 x (2 - sqrt 2) ^ 2 / 4 of its area."""
    how = Style((64, 64), 95, json.dumps([{"Rotate": {"limit": [45, 45], "fill": fill, "p": 1}}]), MAX_PIXELS)
    square = np.full((64, 64), 100, np.uint8)
    corners = (2 - 2**0.5) ** 2 / 4 * 2
    assert geometry_alone(square, 0, how)[1] == pytest.approx(corners, abs=0.03)


def test_nothing_is_invented_by_a_flip_or_without_geometry() -> None:
    """Nor by a map that magnifies."""
    assert geometry_alone(image(), 0, style(FLIP))[1] == 0
    assert geometry_alone(image(), 0, style(BRIGHTER))[1] == 0
    assert geometry_alone(image(), 0, style())[1] == 0
