"""What a set's transforms drew, parameter by parameter, beside what the recipe lets them draw."""

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from augment.recipe import KERAS_AFFINE, Recipe

BINS = 24
_MOST = 24  # histograms on a page

Values = dict[tuple[str, str], list[float]]


class Histogram(NamedTuple):
    """How often a parameter was drawn, in bins of equal width from `low` to `high`.

    These are the recipe's limits where they are known (`declared`), and else the least and largest drawn.
    """

    name: str
    low: float
    high: float
    declared: bool
    drawn: int
    counts: list[int]


def histograms(transforms: Iterable[str], recipe: Recipe | None) -> list[Histogram]:
    """Of the numbers among the drawn parameters, in the order of the recipe; what is always the same is left out.

    Args:
        transforms: the manifest's column, of augmented images.
        recipe: the set's, if it is known.
    """
    limits = _limits(recipe) if recipe else {}
    found = list[Histogram]()
    for (transform, parameter), values in _drawn(transforms).items():
        least, largest = min(values), max(values)
        if least < largest and len(found) < _MOST:
            low, high = limits.get((transform, parameter), (least, largest))
            is_within = low <= least and largest <= high  # else the manifest is of another recipe
            low, high = (low, high) if is_within else (least, largest)
            counts, _ = np.histogram(values, BINS, (low, high))
            declared = is_within and (transform, parameter) in limits
            found.append(Histogram(f"{transform} {parameter}", low, high, declared, len(values), counts.tolist()))
    return found


def _drawn(transforms: Iterable[str]) -> Values:
    """The finite numbers that were drawn, by transform and parameter. A manifest may come from anyone."""
    values: Values = {}
    for text in transforms:
        try:
            steps = [step for each in json.loads(text or "[]") for step in _inside(each)]
        except (AttributeError, TypeError, ValueError, RecursionError):  # not as the builder writes it
            continue
        for name, parameters in steps:
            for parameter, value in parameters.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    values.setdefault((name, parameter), []).append(float(value))
    return values


def _inside(step: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """A transform with its parameters; of OneOf, the one that it chose."""
    for name, parameters in step.items():
        if isinstance(parameters, dict) and parameters and all(isinstance(each, dict) for each in parameters.values()):
            yield from parameters.items()
        elif isinstance(parameters, dict):
            yield name, parameters


def _limits(recipe: Recipe) -> dict[tuple[str, str], tuple[float, float]]:
    """Least and largest that KerasAffine may draw; what albumentations may draw only it knows."""
    given = next((step[KERAS_AFFINE] for step in json.loads(recipe.transforms) if KERAS_AFFINE in step), None)
    if given is None:
        return {}
    width, height = recipe.size

    def shift(spread: float, side: int) -> float:
        return spread * side if spread < 1 else spread

    spreads = {
        "theta": (0.0, given.get("rotation_range", 0)),
        "tx": (0.0, shift(given.get("height_shift_range", 0), height)),  # which of the two is as Keras has it
        "ty": (0.0, shift(given.get("width_shift_range", 0), width)),
        "shear": (0.0, given.get("shear_range", 0)),
        "zx": (1.0, given.get("zoom_range", 0)),
        "zy": (1.0, given.get("zoom_range", 0)),
    }
    return {(KERAS_AFFINE, name): (middle - spread, middle + spread) for name, (middle, spread) in spreads.items()}
