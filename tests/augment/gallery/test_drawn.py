"""Histograms of what a set's transforms drew."""

import json

import numpy as np
import pytest

from augment.gallery.drawn import BINS, histograms
from augment.recipe import resolve

AFFINE = {"rotation_range": 10, "width_shift_range": 0.25, "zoom_range": 0.2}
RECIPE = resolve("own", {"transforms": [{"KerasAffine": AFFINE}], "size": [100, 50]}, "own.yaml")


def drawn(theta: float, ty: float = 1.0, **more: object) -> str:
    """A manifest's record of a map."""
    return json.dumps([{"KerasAffine": {"theta": theta, "ty": ty, "shear": 0.0, **more}}])


def test_values_are_counted_within_the_recipes_limits() -> None:
    """From the least that KerasAffine may draw to the largest; what is always the same says nothing."""
    theta, ty = histograms([drawn(-9.9, -25.0), drawn(9.9, 3.0), drawn(9.8, 3.0)], RECIPE)
    assert (theta.name, theta.low, theta.high, theta.declared) == ("KerasAffine theta", -10, 10, True)
    assert (theta.counts[0], theta.counts[-1], sum(theta.counts), theta.drawn) == (1, 2, 3, 3)
    assert (ty.name, ty.low, ty.high) == ("KerasAffine ty", -25, 25)
    assert len(ty.counts) == BINS


def test_without_known_limits_they_are_what_was_drawn() -> None:
    """Of a recipe that isn't known or isn't the set's, and of albumentations' transforms, alone or chosen by OneOf."""
    (theta,) = histograms([drawn(-30), drawn(30)], RECIPE)
    assert (theta.low, theta.high, theta.declared) == (-30, 30, False)
    (theta,) = histograms([drawn(-3), drawn(3)], None)
    assert (theta.low, theta.high, theta.declared) == (-3, 3, False)
    blurred = [json.dumps([{"Blur": {"kernel": 3}}]), json.dumps([{"OneOf": {"Blur": {"kernel": 7}}}])]
    (blur,) = histograms(blurred, RECIPE)
    assert (blur.name, blur.low, blur.high, blur.drawn, blur.declared) == ("Blur kernel", 3, 7, 2, False)


@pytest.mark.parametrize(
    "record",
    ["", "[]", "{}", "3", "[3]", "no JSON", "[" * 100_000, '[{"A": 3}]', '[{"A": {"b": NaN, "c": "x", "d": true}}]'],
)
def test_any_manifest_is_read(record: str) -> None:
    """Whatever stands in the column; what else is there is counted."""
    assert histograms([record, record], RECIPE) == []
    (theta,) = histograms([record, drawn(1), drawn(2)], RECIPE)
    assert theta.drawn == 2


def test_a_page_holds_a_limited_number() -> None:
    """Of a transform with very many parameters."""
    records = [json.dumps([{"A": {f"b{n}": value for n in range(100)}}]) for value in (0.1, 0.2)]
    assert len(histograms(records, None)) == 24
    assert np.sum(histograms(records, None)[0].counts) == 2
